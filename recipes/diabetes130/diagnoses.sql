-- Up to three codes a stay, ICD-9-CM, most cut to three digits; leading zeros were lost (42 is 042, HIV).
SELECT
    u.patient_nbr AS patient_id,
    u.encounter_id AS encounter_id,
    regexp_replace(regexp_replace(u.code, '^([0-9])$', '00\1'), '^([0-9]{2})$', '0\1') AS code,
    'ICD9CM' AS code_system,
    NULL AS coded_time,
    u.position AS position
FROM (
    SELECT d.patient_nbr, d.encounter_id, d.diag_1 AS code, 1 AS position FROM diabetic_data AS d
    UNION ALL
    SELECT d.patient_nbr, d.encounter_id, d.diag_2 AS code, 2 AS position FROM diabetic_data AS d
    UNION ALL
    SELECT d.patient_nbr, d.encounter_id, d.diag_3 AS code, 3 AS position FROM diabetic_data AS d
) AS u
WHERE u.code <> '?'
