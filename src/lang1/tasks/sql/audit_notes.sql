-- audit_rows(split, row_id, patient_id, encounter_id, note_id, note_type, prediction_time) and the records ->
-- audit_notes: what each row's index note is. A column is null where that cannot be known, never false.
CREATE OR REPLACE TEMP TABLE audit_notes AS
WITH linked AS (
    SELECT
        audit_rows.split, audit_rows.row_id, audit_rows.patient_id, audit_rows.prediction_time,
        audit_rows.note_type AS said_type,
        notes.note_id IS NOT NULL AS has_note,
        notes.patient_id AS note_patient, notes.encounter_id AS note_encounter, notes.note_type, notes.written_time,
        notes.signed_time,
        encounters.encounter_id,
        coalesce(members.stay_id, encounters.encounter_id) AS stay_id,
        coalesce(stays.admit_time, encounters.admit_time) AS admit_time,
        stays.next_admit_time,
        encounters.sequence,
        coalesce(note_members.stay_id, notes.encounter_id) AS note_stay_id,
        note_encounters.admit_time AS note_admit_time,
        note_encounters.sequence AS note_sequence,
        first_signed.signed_time AS first_signed_time
    FROM audit_rows
    LEFT JOIN audit_used AS notes USING (note_id)
    LEFT JOIN encounters ON encounters.encounter_id = audit_rows.encounter_id
    LEFT JOIN members ON members.encounter_id = audit_rows.encounter_id
    LEFT JOIN stays ON stays.stay_id = members.stay_id
    LEFT JOIN encounters AS note_encounters ON note_encounters.encounter_id = notes.encounter_id
    LEFT JOIN members AS note_members ON note_members.encounter_id = notes.encounter_id
    LEFT JOIN audit_first_signed AS first_signed ON first_signed.patient_id = notes.patient_id
        AND first_signed.encounter_id = notes.encounter_id AND first_signed.note_type = notes.note_type
        AND first_signed.author_role IS NOT DISTINCT FROM notes.author_role
        AND first_signed.written_time = notes.written_time
), placed AS (
    SELECT
        *,
        stay_id != note_stay_id AS is_elsewhere,
        coalesce(note_patient != patient_id, false)
            OR coalesce(signed_time >= next_admit_time, false)
            OR coalesce(stay_id != note_stay_id AND note_admit_time > admit_time, false)
            OR coalesce(stay_id != note_stay_id AND note_admit_time IS NULL AND note_sequence > sequence, false) AS is_later
    FROM linked
)
SELECT
    split, row_id,
    -- signed when nobody says so, or predicted at no known time: not known
    CASE WHEN has_note THEN signed_time > prediction_time END AS is_after,
    CASE
        WHEN NOT has_note THEN NULL
        WHEN regexp_matches(lower(concat_ws(' ', note_type, said_type)), getvariable('audit_addendum')) THEN true
        WHEN first_signed_time < signed_time OR written_time > signed_time THEN true
        WHEN note_encounter IS NOT NULL AND written_time IS NOT NULL AND signed_time IS NOT NULL THEN false
    END AS is_addendum,
    CASE
        WHEN NOT has_note THEN NULL
        WHEN is_later THEN true
        WHEN encounter_id IS NULL OR note_encounter IS NULL OR note_patient IS NULL OR patient_id IS NULL THEN NULL
        WHEN NOT is_elsewhere THEN false
        WHEN note_admit_time IS NOT NULL AND admit_time IS NOT NULL THEN false
        WHEN note_sequence IS NOT NULL AND sequence IS NOT NULL THEN false
    END AS is_later
FROM placed;
