-- Until when a return counts, and the first that `readmission_by: admission_note` (NYUTron) sees: an H&P of a later
-- encounter, emergency visits included. An encounter without an admission time cannot be told to be later, an
-- outpatient's H&P admits nobody.
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

CREATE TABLE return_notes AS
SELECT
    windows_of_return.stay_id,
    min(seen_time) FILTER (is_planned) AS planned_time,
    min(seen_time) FILTER (NOT is_planned) AS unplanned_time
FROM windows_of_return JOIN admission_notes ON admission_notes.patient_id = windows_of_return.patient_id
    AND admission_notes.admit_time > discharge_time AND seen_time > discharge_time AND seen_time <= window_end
    AND admission_notes.stay_id IS DISTINCT FROM windows_of_return.stay_id
GROUP BY windows_of_return.stay_id;
