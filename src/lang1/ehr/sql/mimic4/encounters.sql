-- One row a hospital stay. An observation stay is billed as outpatient and not as inpatient: those in the emergency
-- unit (EU) are emergency, the others outpatient; OBSERVATION ADMIT was admitted in the end and is inpatient.
SELECT
    a.hadm_id AS encounter_id,
    a.subject_id AS patient_id,
    CASE
        WHEN upper(trim(a.admission_type)) IN ('EW EMER.', 'DIRECT EMER.', 'URGENT', 'ELECTIVE',
            'SURGICAL SAME DAY ADMISSION', 'OBSERVATION ADMIT') THEN 'inpatient'
        WHEN upper(trim(a.admission_type)) = 'EU OBSERVATION' THEN 'emergency'
        WHEN upper(trim(a.admission_type)) IN ('DIRECT OBSERVATION', 'AMBULATORY OBSERVATION') THEN 'outpatient'
    END AS encounter_class,
    a.admittime AS admit_time,
    a.dischtime AS discharge_time,
    -- Death in the stay is hospital_expire_flag or deathtime; dod, which holds deaths anywhere, is patients.death_date.
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
    -- what the observation types are is not said
    CASE upper(trim(a.admission_type))
        WHEN 'EW EMER.' THEN 'emergency' WHEN 'DIRECT EMER.' THEN 'emergency' WHEN 'URGENT' THEN 'urgent'
        WHEN 'ELECTIVE' THEN 'elective' WHEN 'SURGICAL SAME DAY ADMISSION' THEN 'elective'
    END AS admission_type,
    d.code AS primary_diagnosis,
    NULL AS sequence,
    NULL AS length_of_stay_days,
    NULL AS readmitted_30d,
    NULL AS age_at_admission,
    -- organ donors are admitted again after their death; one that also ends before it begins has a rule already
    CASE
        WHEN upper(trim(a.admission_type)) NOT IN ('EW EMER.', 'DIRECT EMER.', 'URGENT', 'ELECTIVE',
            'SURGICAL SAME DAY ADMISSION', 'OBSERVATION ADMIT', 'EU OBSERVATION', 'DIRECT OBSERVATION',
            'AMBULATORY OBSERVATION') THEN 'unknown admission_type'
        WHEN TRY_CAST(a.deathtime AS TIMESTAMP) < TRY_CAST(a.admittime AS TIMESTAMP)
            AND TRY_CAST(a.dischtime AS TIMESTAMP) >= TRY_CAST(a.admittime AS TIMESTAMP) THEN 'death before admission'
    END AS reject
FROM admissions AS a
LEFT JOIN (
    SELECT DISTINCT ON (v.hadm_id) v.hadm_id, upper(trim(v.curr_service)) AS code
    FROM services AS v
    WHERE v.hadm_id IS NOT NULL
    ORDER BY v.hadm_id, v.transfertime, v.curr_service
) AS s ON s.hadm_id = a.hadm_id
LEFT JOIN (
    -- the emergency department comes before the admission
    SELECT DISTINCT ON (t.hadm_id) t.hadm_id, trim(t.careunit) AS unit
    FROM transfers AS t
    WHERE t.hadm_id IS NOT NULL AND t.careunit IS NOT NULL AND t.eventtype IN ('admit', 'transfer')
    ORDER BY t.hadm_id, t.intime, t.transfer_id
) AS u ON u.hadm_id = a.hadm_id
LEFT JOIN (
    SELECT DISTINCT ON (c.hadm_id) c.hadm_id, trim(c.icd_code) AS code
    FROM diagnoses_icd AS c
    WHERE TRY_CAST(c.seq_num AS INTEGER) = 1
    ORDER BY c.hadm_id, c.icd_code
) AS d ON d.hadm_id = a.hadm_id
