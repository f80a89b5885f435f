-- One row a code, for billing: given after discharge, so dischtime is the earliest time it can have had. icd_version says
-- which system; codes have no dots, some have trailing spaces. MIMIC-IV has no claims (insurance names a payer, not what
-- became of a claim), so there is no claims.sql.
SELECT
    c.subject_id AS patient_id,
    c.hadm_id AS encounter_id,
    trim(c.icd_code) AS code,
    CASE trim(c.icd_version) WHEN '9' THEN 'ICD9CM' WHEN '10' THEN 'ICD10CM' END AS code_system,
    a.dischtime AS coded_time,
    c.seq_num AS position,
    -- a code without a version would be read by its date, which is shifted
    CASE WHEN c.icd_version IS NULL OR trim(c.icd_version) NOT IN ('9', '10') THEN 'unknown icd_version' END AS reject
FROM diagnoses_icd AS c
LEFT JOIN (
    SELECT m.hadm_id, max(m.dischtime) AS dischtime FROM admissions AS m GROUP BY m.hadm_id
) AS a ON a.hadm_id = c.hadm_id
