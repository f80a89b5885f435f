-- The ICD codes of each stay, of all its encounters, without dots and spaces. A code without a code system is read by
-- date: ICD-10-CM from 1 October 2015 (by discharge, as US hospitals bill), ICD-9-CM before; without a date it is
-- left out, since the two systems share spellings (V and E codes).
CREATE TABLE stay_codes AS
SELECT DISTINCT stay_id, code_system, code
FROM (
    SELECT
        members.stay_id,
        CASE
            WHEN regexp_replace(upper(code_system), '[^A-Z0-9]', '', 'g') LIKE 'ICD10%' THEN 'ICD10CM'
            WHEN regexp_replace(upper(code_system), '[^A-Z0-9]', '', 'g') LIKE 'ICD9%' THEN 'ICD9CM'
            WHEN code_system IS NOT NULL THEN NULL
            WHEN coalesce(checked.end_time, coded_time) >= DATE '2015-10-01' THEN 'ICD10CM'
            WHEN coalesce(checked.end_time, coded_time) < DATE '2015-10-01' THEN 'ICD9CM'
        END AS code_system,
        regexp_replace(upper(code), '[^A-Z0-9]', '', 'g') AS code
    FROM diagnoses
    JOIN members USING (encounter_id)
    JOIN checked USING (encounter_id)
)
WHERE code_system IS NOT NULL AND code != '';
