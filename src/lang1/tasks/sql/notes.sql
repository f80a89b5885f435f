-- Index notes: the one note that a row is made of. `prediction_time` is its time on the chosen clock (`clock_time`);
-- each condition holds for both outcomes alike. Columns accumulate: a note that fails one condition fails those after it.
-- A stay without times has notes without times: for it only the cleaning counts.

-- The priorities of 5.2.3, read from author_role as source mimic3 writes it: 'Physician: Physician Resident Admission
-- Note'. "The heuristic first prioritizes Physician Note > General Note > Nurse Note, then prioritizes
-- "resident/attending" > "resident" > "attending" > "fellow" > "h&p"."
CREATE MACRO category_rank(role) AS CASE
    WHEN role ILIKE 'physician%' THEN 1 WHEN role ILIKE 'general%' THEN 2 WHEN role ILIKE 'nurs%' THEN 3 ELSE 4 END;
CREATE MACRO description_rank(role) AS CASE
    WHEN role ILIKE '%resident%' AND role ILIKE '%attending%' THEN 1 WHEN role ILIKE '%resident%' THEN 2
    WHEN role ILIKE '%attending%' THEN 3 WHEN role ILIKE '%fellow%' THEN 4 WHEN role ILIKE '%h&p%' THEN 5 ELSE 6 END;

-- An addendum says so where it begins.
CREATE MACRO begins_as_addendum(body) AS regexp_matches(lower(left(body, 80)),
    '^[^a-z0-9]*(discharge summary|history and physical|h&p|late entry)?[^a-z0-9]*addend(um|a)');

CREATE TABLE judged_notes AS
WITH kinds AS (
    SELECT
        note_id, patient_id, encounter_id,
        CASE
            WHEN list_contains(getvariable('admission_note_types'), lower(trim(note_type))) THEN 'H&P'
            WHEN list_contains(getvariable('discharge_note_types'), lower(trim(note_type))) THEN 'discharge summary'
        END AS note_type,
        -- a later edit: its type says so, or the same author's note of the same beginning was signed before it
        regexp_matches(lower(note_type), 'addend|amend|late entry|correct(ed|ion)|revis(ed|ion)')
            OR coalesce(written_time IS NOT NULL AND signed_time > min(signed_time) OVER (
                PARTITION BY patient_id, encounter_id, notes.note_type, author_role, written_time), false) AS is_version
    FROM notes
    WHERE list_contains(getvariable('index_note_types'), lower(trim(note_type)))
), clean AS (
    SELECT
        note_id, words, author_role, signed_time, written_time,
        CASE getvariable('prediction_clock') WHEN 'written' THEN written_time ELSE signed_time END AS clock_time,
        CASE getvariable('prediction_clock') WHEN 'written' THEN signed_time ELSE written_time END AS other_time,
        coalesce(regexp_matches(lower(department), getvariable('excluded_departments')), false) AS is_excluded,
        -- a note begun after it was signed was edited later
        begins_as_addendum(text) OR coalesce(written_time > signed_time, false) AS is_later_edit
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

-- Which of several, `place` 1: `first`, `last`, `longest` (of equal length the first H&P, the last summary) or `mimic3`.
-- Ties go by the other clock in the same direction, then to the smallest note_id. Of the usable notes, or (choose_note:
-- before) of all cleaned ones.
CREATE TABLE candidate_notes AS
WITH asked AS (
    SELECT
        *,
        CASE note_type WHEN 'H&P' THEN getvariable('hp_choice') ELSE getvariable('summary_choice') END AS choice,
        CASE WHEN choice = 'last' OR (choice = 'longest' AND note_type != 'H&P') THEN -1 ELSE 1 END AS direction
    FROM judged_notes
)
SELECT
    * EXCLUDE (choice, direction),
    row_number() OVER (
        PARTITION BY stay_id, note_type
        ORDER BY
            CASE WHEN CASE getvariable('choose_note') WHEN 'before' THEN is_clean ELSE is_usable END THEN 0 ELSE 1 END,
            CASE choice WHEN 'mimic3' THEN category_rank(author_role) ELSE 0 END,
            CASE choice WHEN 'mimic3' THEN description_rank(author_role) ELSE 0 END,
            CASE WHEN choice IN ('longest', 'mimic3') THEN -words ELSE 0 END,
            direction * epoch_us(clock_time) NULLS LAST,
            direction * epoch_us(other_time) NULLS LAST,
            note_id
    ) AS place
FROM asked;
DROP TABLE judged_notes;

CREATE TABLE index_notes AS
SELECT stay_id, note_type, note_id, clock_time FROM candidate_notes WHERE place = 1 AND is_usable;

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
WHERE getvariable('choose_note') = 'after' OR place = 1
GROUP BY stay_id, note_type;

-- How many notes each condition leaves, and of how many stays: 5.2.3 counts its notes so, 19K, 6K, 5,658.
CREATE TABLE note_attrition AS
WITH counted AS (
    SELECT *, getvariable('choose_note') = 'after' AS after FROM candidate_notes
), steps AS (
    SELECT note_type, unnest([
        {'step': 1, 'rule': 'is a note of a stay', 'holds': true},
        {'step': 2, 'rule': 'passed cleaning', 'holds': is_clean},
        {'step': 3, 'rule': 'is the one chosen of its stay', 'holds': NOT after AND is_clean AND place = 1},
        {'step': 4, 'rule': 'is no addendum and no later edit', 'holds': is_original AND (after OR place = 1)},
        {'step': 5, 'rule': 'is of no excluded department', 'holds': is_acute AND (after OR place = 1)},
        {'step': 6, 'rule': 'has a time', 'holds': is_signed AND (after OR place = 1)},
        {'step': 7, 'rule': 'was there after admission', 'holds': is_after_admission AND (after OR place = 1)},
        {'step': 8, 'rule': 'was there in time', 'holds': is_in_time AND (after OR place = 1)},
        {'step': 9, 'rule': 'was there before the end', 'holds': is_usable AND (after OR place = 1)},
        {'step': 10, 'rule': 'is the one chosen of its stay', 'holds': after AND is_usable AND place = 1}
    ], recursive := true), stay_id
    FROM counted
)
SELECT note_type, step, rule, count(*) FILTER (holds) AS notes, count(DISTINCT stay_id) FILTER (holds) AS stays
FROM steps
WHERE step <> CASE getvariable('choose_note') WHEN 'after' THEN 3 ELSE 10 END
GROUP BY note_type, step, rule
ORDER BY note_type, step;
