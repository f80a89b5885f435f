-- What is known when the patient is admitted (docs/decisions/0008-diabetes130-columns.md), for columns+xgboost.
SELECT
    d.encounter_id AS encounter_id,
    CAST(regexp_extract(d.age, '[0-9]+') AS INTEGER) AS age,
    nullif(d.gender, 'Unknown/Invalid') AS gender,
    nullif(d.weight, '?') AS weight,
    d.admission_type_id AS admission_type,
    d.admission_source_id AS admission_source,
    nullif(d.payer_code, '?') AS payer_code,
    nullif(d.medical_specialty, '?') AS medical_specialty,
    CAST(d.number_outpatient AS INTEGER) AS number_outpatient,
    CAST(d.number_emergency AS INTEGER) AS number_emergency,
    CAST(d.number_inpatient AS INTEGER) AS number_inpatient
FROM diabetic_data AS d
