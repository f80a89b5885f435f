-- No times: the given facts stand in for them (docs/diabetes130.md). encounter_id rises with time by all signs, though
-- the set does not say so; what rests on `sequence` is exploratory.
SELECT
    d.encounter_id AS encounter_id,
    d.patient_nbr AS patient_id,
    'inpatient' AS encounter_class,
    NULL AS admit_time,
    NULL AS discharge_time,
    CASE CAST(d.discharge_disposition_id AS INTEGER)
        WHEN 1 THEN 'Home'
        WHEN 2 THEN 'Short-term hospital'
        WHEN 3 THEN 'Skilled nursing facility'
        WHEN 4 THEN 'Intermediate care facility'
        WHEN 5 THEN 'Other inpatient care institution'
        WHEN 6 THEN 'Home health'
        WHEN 7 THEN 'Against medical advice'
        WHEN 8 THEN 'Home with IV provider'
        WHEN 9 THEN 'Admitted as an inpatient to this hospital'
        WHEN 10 THEN 'Neonatal aftercare'
        WHEN 11 THEN 'Expired'
        WHEN 12 THEN 'Still patient'
        WHEN 13 THEN 'Hospice / home'
        WHEN 14 THEN 'Hospice / medical facility'
        WHEN 15 THEN 'Swing bed'
        WHEN 16 THEN 'Outpatient services elsewhere'
        WHEN 17 THEN 'Outpatient services here'
        -- 19 to 21: death under Medicaid hospice, ten rows
        WHEN 19 THEN 'Expired'
        WHEN 20 THEN 'Expired'
        WHEN 21 THEN 'Expired'
        WHEN 22 THEN 'Rehabilitation facility'
        WHEN 23 THEN 'Long-term care hospital'
        WHEN 24 THEN 'Medicaid nursing facility'
        WHEN 27 THEN 'Federal facility'
        WHEN 28 THEN 'Psychiatric hospital'
        WHEN 29 THEN 'Critical access hospital'
        WHEN 30 THEN 'Other health care institution'
    END AS discharge_disposition,
    CASE
        WHEN d.medical_specialty = 'PhysicalMedicineandRehabilitation' THEN 'rehabilitation'
        ELSE lower(nullif(d.medical_specialty, '?'))
    END AS service,
    nullif(d.medical_specialty, '?') AS department,
    NULL AS facility,
    CASE CAST(d.admission_type_id AS INTEGER)
        WHEN 1 THEN 'emergency'
        WHEN 2 THEN 'urgent'
        WHEN 3 THEN 'elective'
        WHEN 4 THEN 'newborn'
        WHEN 7 THEN 'emergency'
    END AS admission_type,
    -- leading zeros were lost on the way into the set: 38 is 038, septicemia
    regexp_replace(regexp_replace(nullif(d.diag_1, '?'), '^([0-9])$', '00\1'), '^([0-9]{2})$', '0\1') AS primary_diagnosis,
    CAST(d.encounter_id AS BIGINT) AS sequence,
    CAST(d.time_in_hospital AS DOUBLE) AS length_of_stay_days,
    d.readmitted = '<30' AS readmitted_30d,
    -- ages come as decades, [70-80): the middle
    CAST(regexp_extract(d.age, '[0-9]+') AS DOUBLE) + 5 AS age_at_admission
FROM diabetic_data AS d
