-- One row a hospital admission; all of MIMIC-III's are inpatient.
SELECT
    a.hadm_id AS encounter_id,
    a.subject_id AS patient_id,
    'inpatient' AS encounter_class,
    a.admittime AS admit_time,
    a.dischtime AS discharge_time,
    -- Death in the stay is HOSPITAL_EXPIRE_FLAG or DEATHTIME; DOD, which holds deaths anywhere, is patients.death_date.
    CASE
        WHEN trim(a.hospital_expire_flag) = '1' OR a.deathtime IS NOT NULL THEN 'Expired'
        ELSE trim(a.discharge_location)
    END AS discharge_disposition,
    -- The first service and the first unit: both are known at admission, the last ones would tell how the stay went.
    CASE s.code
        WHEN 'MED' THEN 'medicine' WHEN 'CMED' THEN 'cardiology' WHEN 'NMED' THEN 'neurology'
        WHEN 'OMED' THEN 'orthopaedic medicine' WHEN 'SURG' THEN 'surgery' WHEN 'CSURG' THEN 'cardiac surgery'
        WHEN 'NSURG' THEN 'neurosurgery' WHEN 'PSURG' THEN 'plastic surgery' WHEN 'TSURG' THEN 'thoracic surgery'
        WHEN 'VSURG' THEN 'vascular surgery' WHEN 'TRAUM' THEN 'trauma' WHEN 'ORTHO' THEN 'orthopaedics'
        WHEN 'OBS' THEN 'obstetrics' WHEN 'GYN' THEN 'gynaecology' WHEN 'NB' THEN 'newborn' WHEN 'NBB' THEN 'newborn'
        WHEN 'PSYCH' THEN 'psychiatry' WHEN 'GU' THEN 'urology' WHEN 'ENT' THEN 'ear, nose and throat'
        WHEN 'EYE' THEN 'ophthalmology' WHEN 'DENT' THEN 'dentistry'
        ELSE lower(s.code)
    END AS service,
    u.unit AS department,
    NULL AS facility,
    lower(trim(a.admission_type)) AS admission_type,
    d.code AS primary_diagnosis,
    NULL AS sequence,
    NULL AS length_of_stay_days,
    NULL AS readmitted_30d,
    NULL AS age_at_admission,
    -- organ donors are admitted again after their death; one that also ends before it begins has a rule already
    CASE
        WHEN TRY_CAST(a.deathtime AS TIMESTAMP) < TRY_CAST(a.admittime AS TIMESTAMP)
            AND TRY_CAST(a.dischtime AS TIMESTAMP) >= TRY_CAST(a.admittime AS TIMESTAMP) THEN 'death before admission'
    END AS reject
FROM admissions AS a
LEFT JOIN (
    SELECT DISTINCT ON (v.hadm_id) v.hadm_id, upper(trim(v.curr_service)) AS code
    FROM services AS v
    WHERE v.hadm_id IS NOT NULL
    ORDER BY v.hadm_id, v.transfertime, TRY_CAST(v.row_id AS BIGINT)
) AS s ON s.hadm_id = a.hadm_id
LEFT JOIN (
    -- an ordinary ward has a number and no name
    SELECT DISTINCT ON (t.hadm_id) t.hadm_id, coalesce(t.curr_careunit, 'ward ' || t.curr_wardid) AS unit
    FROM transfers AS t
    WHERE t.hadm_id IS NOT NULL AND (t.curr_careunit IS NOT NULL OR t.curr_wardid IS NOT NULL)
    ORDER BY t.hadm_id, t.intime, TRY_CAST(t.row_id AS BIGINT)
) AS u ON u.hadm_id = a.hadm_id
LEFT JOIN (
    SELECT DISTINCT ON (c.hadm_id) c.hadm_id, c.icd9_code AS code
    FROM diagnoses_icd AS c
    WHERE TRY_CAST(c.seq_num AS INTEGER) = 1
    ORDER BY c.hadm_id, TRY_CAST(c.row_id AS BIGINT)
) AS d ON d.hadm_id = a.hadm_id
