-- One row a coded condition. The vocabulary of the source concept says which code system; where there is no
-- source concept (0), the shape of the code and, for shapes that both have, the date of the change (2015-10-01).
SELECT
    c.person_id AS patient_id,
    c.visit_occurrence_id AS encounter_id,
    c.condition_source_value AS code,
    CASE
        WHEN k.vocabulary_id IS NOT NULL AND k.vocabulary_id <> 'None' THEN k.vocabulary_id
        -- no code of ICD-9-CM begins with these letters: most rows need no other test
        WHEN c.condition_source_value ~ '^[A-DF-UW-Z][0-9][0-9AB](\.?[0-9A-Z]{1,4})?$' THEN 'ICD10CM'
        WHEN c.condition_source_value ~ '^[0-9]{3}(\.?[0-9]{1,2})?$' THEN 'ICD9CM'
        WHEN c.condition_source_value ~ '^E[0-9]{3}(\.[0-9])?$' THEN 'ICD9CM'
        WHEN c.condition_source_value ~ '^V[0-9]{2}(\.?[0-9]{1,2})?$' AND c.condition_start_date < DATE '2015-10-01' THEN 'ICD9CM'
        WHEN c.condition_source_value ~ '^[A-Z][0-9][0-9AB](\.?[0-9A-Z]{1,4})?$' THEN 'ICD10CM'
    END AS code_system,
    coalesce(c.condition_start_datetime, CAST(c.condition_start_date AS TIMESTAMP)) AS coded_time,
    CASE
        WHEN c.condition_status_source_value ~ '^[0-9]{1,4}$' THEN CAST(c.condition_status_source_value AS INTEGER)
        WHEN c.condition_status_concept_id IN (32902, 32903) THEN 1
    END AS position
FROM condition_occurrence AS c
LEFT JOIN concept AS k ON k.concept_id = c.condition_source_concept_id AND c.condition_source_concept_id <> 0
