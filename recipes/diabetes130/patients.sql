-- Diabetes 130-US Hospitals, UCI 296: one row an encounter, so a patient is taken from the first of theirs.
-- No day of birth, no residence, no deaths outside the hospital. `race` is the set's one column for race and ethnicity.
SELECT
    d.patient_nbr AS patient_id,
    NULL AS birth_date,
    min_by(CASE d.gender WHEN 'Female' THEN 'female' WHEN 'Male' THEN 'male' END, CAST(d.encounter_id AS BIGINT)) AS sex,
    min_by(
        CASE d.race WHEN 'Caucasian' THEN 'White' WHEN 'AfricanAmerican' THEN 'Black' ELSE nullif(d.race, '?') END,
        CAST(d.encounter_id AS BIGINT)
    ) AS race,
    NULL AS ethnicity,
    NULL AS borough,
    NULL AS death_date
FROM diabetic_data AS d
GROUP BY d.patient_nbr
