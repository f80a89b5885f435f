-- The ICD codes of each stay, without dots and spaces: those of its own encounters, or (`cci_codes: prior`) those of the
-- patient's earlier encounters of any class, known when the H&P was signed. A code without a code system is read by
-- date: ICD-10-CM from 1 October 2015 (by discharge, as US hospitals bill), ICD-9-CM before; without a date it is
-- left out, since the two systems share spellings (V and E codes).
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

CREATE TABLE stay_codes AS
SELECT DISTINCT stay_id, code_system, code
FROM spelled_codes JOIN members USING (encounter_id)
WHERE getvariable('cci_codes') = 'encounter'
UNION ALL
SELECT DISTINCT stays.stay_id, code_system, code
FROM spelled_codes
JOIN stays ON stays.patient_id = spelled_codes.patient_id
    AND CASE WHEN stays.is_untimed THEN spelled_codes.sequence < stays.sequence
             ELSE spelled_codes.end_time <= stays.admit_time END
LEFT JOIN members USING (encounter_id)
LEFT JOIN index_notes ON index_notes.stay_id = stays.stay_id AND index_notes.note_type = 'H&P'
WHERE getvariable('cci_codes') = 'prior'
    AND members.stay_id IS DISTINCT FROM stays.stay_id
    AND coalesce(coded_time <= coalesce(index_notes.clock_time, stays.admit_time), true);
