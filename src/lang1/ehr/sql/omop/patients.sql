-- One row a person. Standard concepts first, the source's own word where there is none.
SELECT
    p.person_id AS patient_id,
    coalesce(
        CAST(p.birth_datetime AS DATE),
        -- a year alone counts from its first day: never later than the true birth
        make_date(p.year_of_birth, coalesce(p.month_of_birth, 1), coalesce(p.day_of_birth, 1))
    ) AS birth_date,
    CASE p.gender_concept_id
        WHEN 8507 THEN 'male'
        WHEN 8532 THEN 'female'
        ELSE lower(p.gender_source_value)
    END AS sex,
    CASE p.race_concept_id
        WHEN 8527 THEN 'White'
        WHEN 8516 THEN 'Black'
        WHEN 8515 THEN 'Asian'
        WHEN 8657 THEN 'American Indian or Alaska Native'
        WHEN 8557 THEN 'Native Hawaiian or Other Pacific Islander'
        ELSE p.race_source_value
    END AS race,
    CASE p.ethnicity_concept_id
        WHEN 38003563 THEN 'Hispanic'
        WHEN 38003564 THEN 'Not Hispanic'
        ELSE p.ethnicity_source_value
    END AS ethnicity,
    l.county AS borough,
    d.death_date AS death_date
FROM person AS p
LEFT JOIN location AS l ON l.location_id = p.location_id
LEFT JOIN (
    SELECT e.person_id, min(e.death_date) AS death_date FROM death AS e GROUP BY e.person_id
) AS d ON d.person_id = p.person_id
