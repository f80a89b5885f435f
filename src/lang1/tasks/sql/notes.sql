-- Index notes: the one note that a row is made of. `prediction_time` is its signing time; each condition holds for
-- both outcomes alike. Columns accumulate: a note that fails one condition fails those after it.
-- A stay without times has notes without times: for it only the cleaning counts.

CREATE TABLE candidate_notes AS
WITH linked AS (
    SELECT
        members.stay_id, notes.note_type, notes.note_id, clean.signed_time, clean.written_time,
        stays.is_untimed, stays.admit_time, stays.discharge_time, stays.death_date, stays.next_admit_time,
        clean.note_id IS NOT NULL AS is_clean
    FROM notes
    JOIN members USING (encounter_id)
    -- a note about another patient is not a note of this stay, whatever its encounter_id says
    JOIN stays ON stays.stay_id = members.stay_id AND stays.patient_id = notes.patient_id
    LEFT JOIN clean_notes AS clean ON clean.note_id = notes.note_id
    WHERE notes.note_type IN ('H&P', 'discharge summary')
)
SELECT
    *,
    is_clean AND (is_untimed OR signed_time IS NOT NULL) AS is_signed,
    is_signed AND (is_untimed OR signed_time >= admit_time) AS is_after_admission,
    is_after_admission AND (is_untimed OR CASE note_type
        WHEN 'H&P' THEN getvariable('note_delay_us') IS NULL
            OR epoch_us(signed_time) - epoch_us(admit_time) <= getvariable('note_delay_us')
        ELSE getvariable('summary_delay_us') IS NULL
            OR epoch_us(signed_time) - epoch_us(discharge_time) <= getvariable('summary_delay_us')
    END) AS is_in_time,
    is_in_time AND (is_untimed OR (
        (death_date IS NULL OR signed_time::DATE <= death_date)
        AND CASE note_type
            WHEN 'H&P' THEN signed_time < discharge_time
            ELSE next_admit_time IS NULL OR signed_time < next_admit_time
        END
    )) AS is_usable
FROM linked;

-- Ties: an H&P is the first signed, a discharge summary the last signed; then the same by written_time; then the
-- smallest note_id.
CREATE TABLE index_notes AS
SELECT stay_id, note_type, note_id
FROM candidate_notes
WHERE is_usable
QUALIFY row_number() OVER (
    PARTITION BY stay_id, note_type
    ORDER BY
        CASE note_type WHEN 'H&P' THEN epoch_us(signed_time) ELSE -epoch_us(signed_time) END NULLS LAST,
        CASE note_type WHEN 'H&P' THEN epoch_us(written_time) ELSE -epoch_us(written_time) END NULLS LAST,
        note_id
) = 1;

CREATE TABLE note_facts AS
SELECT
    stay_id, note_type,
    bool_or(is_clean) AS is_clean,
    bool_or(is_signed) AS is_signed,
    bool_or(is_after_admission) AS is_after_admission,
    bool_or(is_in_time) AS is_in_time,
    bool_or(is_usable) AS is_usable
FROM candidate_notes
GROUP BY stay_id, note_type;
