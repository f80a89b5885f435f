-- own_given(encounter_id, prediction_time, label) -> reasons_own_task, rows_own_task: the first rule that an encounter
-- fails, and the rows without their texts. The index note is the last of its type that was signed in the encounter at
-- or before prediction_time; ties go to the larger written_time, then to the smallest note_id. What is a later edit is as
-- in notes.sql, but for the type's name: who asks about addenda by their type means them.
CREATE OR REPLACE TEMP TABLE own_candidates AS
SELECT
    given.encounter_id, notes.note_id, clean.note_id IS NOT NULL AS is_clean, clean.signed_time, clean.written_time,
    -- of all notes that the records have, cleaned or not: the join has every one of the encounter
    coalesce(notes.written_time IS NOT NULL AND notes.signed_time > min(notes.signed_time) OVER (
        PARTITION BY given.encounter_id, notes.author_role, notes.written_time), false) AS is_version,
    coalesce(begins_as_addendum(clean.text) OR clean.written_time > clean.signed_time, false) AS is_later_edit,
    is_clean AND (getvariable('later_edits') = 'keep' OR NOT (is_version OR is_later_edit)) AS is_original,
    is_original AND clean.signed_time IS NOT NULL AS is_signed,
    is_signed AND clean.signed_time <= given.prediction_time AS is_usable
FROM own_given AS given
JOIN encounters USING (encounter_id)
JOIN notes ON notes.encounter_id = given.encounter_id AND notes.patient_id = encounters.patient_id
    AND notes.note_type = getvariable('own_note_type')
LEFT JOIN clean_notes AS clean ON clean.note_id = notes.note_id;

CREATE OR REPLACE TEMP TABLE own_index AS
SELECT encounter_id, note_id
FROM own_candidates
WHERE is_usable
QUALIFY row_number() OVER (
    PARTITION BY encounter_id ORDER BY signed_time DESC, written_time DESC NULLS LAST, note_id) = 1;

CREATE OR REPLACE TEMP TABLE own_facts AS
WITH noted AS (
    SELECT encounter_id, bool_or(is_clean) AS is_clean, bool_or(is_original) AS is_original,
        bool_or(is_signed) AS is_signed
    FROM own_candidates
    GROUP BY encounter_id
)
SELECT
    encounters.encounter_id,
    given.encounter_id IS NOT NULL AS is_given,
    noted.encounter_id IS NOT NULL AS has_note,
    noted.is_clean,
    noted.is_original,
    noted.is_signed,
    own_index.note_id IS NOT NULL AS is_in_time,
    own_index.note_id,
    given.prediction_time,
    given.label,
    -- the same unit, and so the same side, as in every other task
    CASE WHEN places.place = 'train' THEN fold_of(CASE getvariable('split_unit')
        WHEN 'note' THEN 'note:' || own_index.note_id ELSE encounters.patient_id END) ELSE places.place END AS split
FROM encounters
LEFT JOIN own_given AS given USING (encounter_id)
LEFT JOIN noted USING (encounter_id)
LEFT JOIN own_index USING (encounter_id)
LEFT JOIN own_places AS places USING (encounter_id);
