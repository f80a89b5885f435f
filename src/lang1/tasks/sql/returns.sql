-- Whether the patient came back in time by each of the two readings of "readmission": an inpatient stay (`adt`), or an H&P
-- of a later encounter (`admission_note`). Apart from return_notes.sql, whose notes the audit permutes.
CREATE TABLE returns AS
WITH both_readings AS (
    SELECT 'adt' AS reading, stay_id, next_planned_time AS planned_time, next_unplanned_time AS unplanned_time
    FROM stays WHERE NOT is_untimed
    UNION ALL
    SELECT 'admission_note', stay_id, planned_time, unplanned_time FROM return_notes
), counted AS (
    SELECT reading, stay_id, CASE
        WHEN NOT getvariable('exclude_planned') THEN least(planned_time, unplanned_time)
        WHEN getvariable('planned_ends_search') AND planned_time < unplanned_time THEN NULL
        ELSE unplanned_time
    END AS return_time
    FROM both_readings
)
SELECT
    stay_id,
    window_end,
    last_day,
    coalesce(bool_or(reading = 'adt' AND in_window), false) AS by_adt,
    coalesce(bool_or(reading = 'admission_note' AND in_window), false) AS by_note
FROM (
    SELECT
        windows_of_return.*, reading,
        return_time > discharge_time AND CASE getvariable('readmission_boundary')
            WHEN 'within' THEN return_time <= window_end
            ELSE return_time < window_end
        END AS in_window
    FROM windows_of_return LEFT JOIN counted USING (stay_id)
)
GROUP BY stay_id, window_end, last_day;
