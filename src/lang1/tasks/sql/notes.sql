-- Index notes: the one note that a row is made of. `prediction_time` is its time on the chosen clock (`clock_time`);
-- each condition holds for both outcomes alike. Columns accumulate: a note that fails one condition fails those after it.
-- A stay without times has notes without times: for it only the cleaning counts.

CREATE TABLE candidate_notes AS
WITH kinds AS (
    SELECT
        note_id, patient_id, encounter_id,
        CASE
            WHEN list_contains(getvariable('admission_note_types'), lower(trim(note_type))) THEN 'H&P'
            WHEN list_contains(getvariable('discharge_note_types'), lower(trim(note_type))) THEN 'discharge summary'
        END AS note_type,
        -- a later edit: its type says so, or a note of the same beginning was signed before it
        regexp_matches(lower(note_type), 'addend|amend|late entry|correct(ed|ion)|revis(ed|ion)')
            OR coalesce(written_time IS NOT NULL AND signed_time > min(signed_time) OVER (
                PARTITION BY patient_id, encounter_id, notes.note_type, written_time), false) AS is_version
    FROM notes
    WHERE list_contains(getvariable('index_note_types'), lower(trim(note_type)))
), clean AS (
    SELECT
        note_id, words, signed_time, written_time,
        CASE getvariable('prediction_clock') WHEN 'written' THEN written_time ELSE signed_time END AS clock_time,
        CASE getvariable('prediction_clock') WHEN 'written' THEN signed_time ELSE written_time END AS other_time,
        coalesce(regexp_matches(lower(department), getvariable('excluded_departments')), false) AS is_excluded,
        -- an addendum says so where it begins; a note begun after it was signed was edited later
        regexp_matches(lower(left(text, 80)),
            '^[^a-z0-9]*(discharge summary|history and physical|h&p|late entry)?[^a-z0-9]*addend(um|a)')
            OR coalesce(written_time > signed_time, false) AS is_later_edit
    FROM clean_notes
    WHERE list_contains(getvariable('index_note_types'), lower(trim(note_type)))
), linked AS (
    SELECT
        members.stay_id, kinds.note_type, kinds.note_id, kinds.is_version, clean.* EXCLUDE (note_id),
        stays.is_untimed, stays.admit_time, stays.discharge_time, stays.death_date, stays.next_admit_time,
        clean.note_id IS NOT NULL AS is_clean
    FROM kinds
    JOIN members USING (encounter_id)
    -- a note about another patient is not a note of this stay, whatever its encounter_id says
    JOIN stays ON stays.stay_id = members.stay_id AND stays.patient_id = kinds.patient_id
    LEFT JOIN clean ON clean.note_id = kinds.note_id
)
SELECT
    *,
    is_clean AND (getvariable('later_edits') = 'keep' OR NOT (is_version OR is_later_edit)) AS is_original,
    is_original AND (note_type = 'H&P' OR NOT is_excluded) AS is_acute,
    is_acute AND (is_untimed OR clock_time IS NOT NULL) AS is_signed,
    is_signed AND (is_untimed OR NOT getvariable('notes_within_stay') OR clock_time >= admit_time) AS is_after_admission,
    is_after_admission AND (is_untimed OR CASE note_type
        WHEN 'H&P' THEN getvariable('note_delay_us') IS NULL
            OR epoch_us(clock_time) - epoch_us(admit_time) <= getvariable('note_delay_us')
        ELSE getvariable('summary_delay_us') IS NULL
            OR epoch_us(clock_time) - epoch_us(discharge_time) <= getvariable('summary_delay_us')
    END) AS is_in_time,
    is_in_time AND (is_untimed OR NOT getvariable('notes_within_stay') OR (
        (death_date IS NULL OR clock_time::DATE <= death_date)
        AND CASE note_type
            WHEN 'H&P' THEN clock_time < discharge_time
            ELSE next_admit_time IS NULL OR clock_time < next_admit_time
        END
    )) AS is_usable
FROM linked;

-- Which of several: `first`, `last` or `longest` (of equal length the first H&P, the last summary). Ties go by the other
-- clock in the same direction, then to the smallest note_id.
CREATE TABLE index_notes AS
WITH asked AS (
    SELECT
        *,
        CASE note_type WHEN 'H&P' THEN getvariable('hp_choice') ELSE getvariable('summary_choice') END AS choice,
        CASE WHEN choice = 'last' OR (choice = 'longest' AND note_type != 'H&P') THEN -1 ELSE 1 END AS direction
    FROM candidate_notes
    WHERE is_usable
)
SELECT stay_id, note_type, note_id, clock_time
FROM asked
QUALIFY row_number() OVER (
    PARTITION BY stay_id, note_type
    ORDER BY
        CASE choice WHEN 'longest' THEN -words ELSE 0 END,
        direction * epoch_us(clock_time) NULLS LAST,
        direction * epoch_us(other_time) NULLS LAST,
        note_id
) = 1;

CREATE TABLE note_facts AS
SELECT
    stay_id, note_type,
    bool_or(is_clean) AS is_clean,
    bool_or(is_original) AS is_original,
    bool_or(is_acute) AS is_acute,
    bool_or(is_signed) AS is_signed,
    bool_or(is_after_admission) AS is_after_admission,
    bool_or(is_in_time) AS is_in_time,
    bool_or(is_usable) AS is_usable
FROM candidate_notes
GROUP BY stay_id, note_type;
