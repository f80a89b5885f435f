-- One row a patient. MIMIC-III moves the birth of whoever is over 89 to 300 years before the first admission, so the
-- true age is lost; they count as 91 then, the median that PhysioNet states, and the manifest says how many.
-- ETHNICITY stands on admissions and mixes race and ethnicity: each is the first that a patient's admissions state.
SELECT
    p.subject_id AS patient_id,
    CASE WHEN b.is_moved THEN CAST(CAST(p.dob AS TIMESTAMP) + INTERVAL 209 YEAR AS VARCHAR) ELSE p.dob END AS birth_date,
    CASE upper(trim(p.gender)) WHEN 'M' THEN 'male' WHEN 'F' THEN 'female' ELSE lower(trim(p.gender)) END AS sex,
    w.race AS race,
    w.ethnicity AS ethnicity,
    NULL AS borough,
    p.dod AS death_date,
    CASE WHEN b.is_moved THEN 'over 89: born 91 years before the first admission' END AS flag
FROM patients AS p
LEFT JOIN (
    SELECT d.subject_id, date_diff('year', TRY_CAST(d.dob AS TIMESTAMP), f.first_time) > 150 AS is_moved
    FROM patients AS d
    JOIN (
        SELECT m.subject_id, min(TRY_CAST(m.admittime AS TIMESTAMP)) AS first_time FROM admissions AS m GROUP BY m.subject_id
    ) AS f ON f.subject_id = d.subject_id
) AS b ON b.subject_id = p.subject_id
LEFT JOIN (
    SELECT
        r.subject_id,
        first(r.race ORDER BY r.admittime, r.hadm_id) FILTER (WHERE r.race IS NOT NULL) AS race,
        first(r.ethnicity ORDER BY r.admittime, r.hadm_id) FILTER (WHERE r.ethnicity IS NOT NULL) AS ethnicity
    FROM (
        SELECT
            a.subject_id, a.admittime, a.hadm_id,
            CASE
                WHEN upper(a.ethnicity) LIKE 'WHITE%' THEN 'White'
                WHEN upper(a.ethnicity) LIKE 'BLACK%' THEN 'Black'
                WHEN upper(a.ethnicity) LIKE 'ASIAN%' THEN 'Asian'
                WHEN upper(a.ethnicity) LIKE 'AMERICAN INDIAN%' THEN 'American Indian or Alaska Native'
                WHEN upper(a.ethnicity) LIKE 'NATIVE HAWAIIAN%' THEN 'Native Hawaiian or Other Pacific Islander'
                WHEN upper(a.ethnicity) LIKE 'HISPANIC%' OR upper(a.ethnicity) LIKE 'UNKNOWN%'
                    OR upper(a.ethnicity) LIKE 'UNABLE TO OBTAIN%' OR upper(a.ethnicity) LIKE 'PATIENT DECLINED%' THEN NULL
                WHEN trim(a.ethnicity) <> '' THEN 'Other'
            END AS race,
            -- "not Hispanic" is said nowhere
            CASE WHEN upper(a.ethnicity) LIKE 'HISPANIC%' THEN 'Hispanic' END AS ethnicity
        FROM admissions AS a
    ) AS r
    GROUP BY r.subject_id
) AS w ON w.subject_id = p.subject_id
