-- One row a code, for billing: given after discharge, so DISCHTIME is the earliest time it can have had. All are ICD-9-CM,
-- without dots. MIMIC-III has no claims (INSURANCE names a payer, not what became of a claim), so there is no claims.sql.
SELECT
    c.subject_id AS patient_id,
    c.hadm_id AS encounter_id,
    trim(c.icd9_code) AS code,
    'ICD9CM' AS code_system,
    a.dischtime AS coded_time,
    c.seq_num AS position
FROM diagnoses_icd AS c
LEFT JOIN (
    SELECT m.hadm_id, max(m.dischtime) AS dischtime FROM admissions AS m GROUP BY m.hadm_id
) AS a ON a.hadm_id = c.hadm_id
