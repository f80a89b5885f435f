-- Until when a return counts, and the first that each of the two readings of "readmission" sees: an inpatient stay
-- (`adt`), or an H&P of a later encounter (`admission_note`, NYUTron), emergency visits included. An encounter without
-- an admission time cannot be told to be later, an outpatient's H&P admits nobody.
CREATE TABLE windows_of_return AS
SELECT
    stay_id, patient_id, discharge_time,
    CASE getvariable('readmission_boundary')
        WHEN 'calendar' THEN (discharge_time::DATE + getvariable('readmission_days')::INTEGER + 1)::TIMESTAMP
        ELSE discharge_time + to_microseconds(getvariable('readmission_us'))
    END AS window_end,
    CASE getvariable('readmission_boundary')
        WHEN 'calendar' THEN discharge_time::DATE + getvariable('readmission_days')::INTEGER
        ELSE window_end::DATE
    END AS last_day
FROM stays
WHERE NOT is_untimed;

CREATE TABLE admission_notes AS
SELECT
    checked.patient_id, members.stay_id, checked.admit_time,
    CASE getvariable('prediction_clock') WHEN 'written' THEN written_time ELSE signed_time END AS seen_time,
    coalesce(lower(trim(checked.admission_type)) = 'elective', false) AS is_planned
FROM notes
JOIN checked ON checked.encounter_id = notes.encounter_id AND checked.patient_id = notes.patient_id
LEFT JOIN members ON members.encounter_id = notes.encounter_id
WHERE list_contains(getvariable('admission_note_types'), lower(trim(note_type)))
    AND checked.encounter_class != 'outpatient' AND checked.is_before_death
    AND admit_time IS NOT NULL AND seen_time IS NOT NULL;

CREATE TABLE returns AS
WITH by_note AS (
    SELECT
        windows_of_return.stay_id,
        min(seen_time) FILTER (is_planned) AS planned_time,
        min(seen_time) FILTER (NOT is_planned) AS unplanned_time
    FROM windows_of_return JOIN admission_notes ON admission_notes.patient_id = windows_of_return.patient_id
        AND admission_notes.admit_time > discharge_time AND seen_time > discharge_time AND seen_time <= window_end
        AND admission_notes.stay_id IS DISTINCT FROM windows_of_return.stay_id
    GROUP BY windows_of_return.stay_id
), both_readings AS (
    SELECT 'adt' AS reading, stay_id, next_planned_time AS planned_time, next_unplanned_time AS unplanned_time
    FROM stays WHERE NOT is_untimed
    UNION ALL
    SELECT 'admission_note', * FROM by_note
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
