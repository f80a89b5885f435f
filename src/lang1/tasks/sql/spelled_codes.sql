-- Every ICD code of an encounter, without dots and spaces, in capitals. A code without a code system is read by date:
-- ICD-10-CM from 1 October 2015 (by discharge, as US hospitals bill), ICD-9-CM before; without a date it is left out,
-- since the two systems share spellings (V and E codes).
CREATE TABLE spelled_codes AS
SELECT *
FROM (
    SELECT
        checked.encounter_id,
        checked.patient_id,
        checked.end_time,
        checked.sequence,
        coded_time,
        CASE
            WHEN regexp_replace(upper(code_system), '[^A-Z0-9]', '', 'g') LIKE 'ICD10%' THEN 'ICD10CM'
            WHEN regexp_replace(upper(code_system), '[^A-Z0-9]', '', 'g') LIKE 'ICD9%' THEN 'ICD9CM'
            WHEN code_system IS NOT NULL THEN NULL
            WHEN coalesce(checked.end_time, coded_time) >= DATE '2015-10-01' THEN 'ICD10CM'
            WHEN coalesce(checked.end_time, coded_time) < DATE '2015-10-01' THEN 'ICD9CM'
        END AS code_system,
        regexp_replace(upper(code), '[^A-Z0-9]', '', 'g') AS code
    FROM diagnoses
    JOIN checked USING (encounter_id)
)
WHERE code_system IS NOT NULL AND code != '';
