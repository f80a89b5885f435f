-- Inpatient encounters of stays that had not ended at $until: stays as the tasks join them (tasks/sql/stays.sql),
-- encounters of a patient that touch, overlap, or have a gap shorter than $gap_us between them.
WITH inpatient AS (
    SELECT encounter_id, patient_id, admit_time, discharge_time, coalesce(discharge_time, admit_time) AS end_time
    FROM encounters
    WHERE encounter_class = 'inpatient' AND admit_time IS NOT NULL
        AND (discharge_time IS NULL OR discharge_time >= admit_time)
), ordered AS (
    SELECT *, max(end_time) OVER (
        PARTITION BY patient_id ORDER BY admit_time, end_time, encounter_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS latest_end
    FROM inpatient
), numbered AS (
    SELECT *, count(*) FILTER (latest_end IS NULL OR (
        admit_time > latest_end AND epoch_us(admit_time) - epoch_us(latest_end) >= $gap_us
    )) OVER (
        PARTITION BY patient_id ORDER BY admit_time, end_time, encounter_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS stay_number
    FROM ordered
), judged AS (
    -- an encounter without an end lasts still
    SELECT encounter_id, bool_or(discharge_time IS NULL OR end_time >= $until)
        OVER (PARTITION BY patient_id, stay_number) AS is_open
    FROM numbered
)
SELECT encounter_id FROM judged WHERE is_open
