-- One row a patient. anchor_age is the age in anchor_year, both shifted alike; a year alone counts from its first day.
-- Whoever is over 89 has anchor_age 91, and the manifest says how many. anchor_year_group is not read: no stage may
-- split shifted dates by calendar.
SELECT
    p.subject_id AS patient_id,
    -- a year that does not fit stays as it came and goes to rejects
    coalesce(
        CAST(TRY_CAST(p.anchor_year AS INTEGER) - TRY_CAST(p.anchor_age AS INTEGER) AS VARCHAR) || '-01-01',
        p.anchor_year || ' - ' || p.anchor_age
    ) AS birth_date,
    CASE upper(trim(p.gender)) WHEN 'M' THEN 'male' WHEN 'F' THEN 'female' ELSE lower(trim(p.gender)) END AS sex,
    w.race AS race,
    w.ethnicity AS ethnicity,
    NULL AS borough,
    p.dod AS death_date,
    CASE WHEN TRY_CAST(p.anchor_age AS INTEGER) >= 91 THEN 'over 89: born 91 years before anchor_year' END AS flag
FROM patients AS p
LEFT JOIN (
    SELECT
        r.subject_id,
        first(r.race ORDER BY r.admittime, r.hadm_id) FILTER (WHERE r.race IS NOT NULL) AS race,
        first(r.ethnicity ORDER BY r.admittime, r.hadm_id) FILTER (WHERE r.ethnicity IS NOT NULL) AS ethnicity
    FROM (
        SELECT
            a.subject_id, a.admittime, a.hadm_id,
            CASE
                WHEN upper(a.race) LIKE 'WHITE%' THEN 'White'
                WHEN upper(a.race) LIKE 'BLACK%' THEN 'Black'
                WHEN upper(a.race) LIKE 'ASIAN%' THEN 'Asian'
                WHEN upper(a.race) LIKE 'AMERICAN INDIAN%' THEN 'American Indian or Alaska Native'
                WHEN upper(a.race) LIKE 'NATIVE HAWAIIAN%' THEN 'Native Hawaiian or Other Pacific Islander'
                WHEN upper(a.race) LIKE 'HISPANIC%' OR upper(a.race) LIKE 'UNKNOWN%'
                    OR upper(a.race) LIKE 'UNABLE TO OBTAIN%' OR upper(a.race) LIKE 'PATIENT DECLINED%' THEN NULL
                WHEN trim(a.race) <> '' THEN 'Other'
            END AS race,
            -- "not Hispanic" is said nowhere
            CASE WHEN upper(a.race) LIKE 'HISPANIC%' THEN 'Hispanic' END AS ethnicity
        FROM admissions AS a
    ) AS r
    GROUP BY r.subject_id
) AS w ON w.subject_id = p.subject_id
