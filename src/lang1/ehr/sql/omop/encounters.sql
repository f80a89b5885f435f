-- One row a visit. 262 (emergency and inpatient) is an inpatient stay.
SELECT
    v.visit_occurrence_id AS encounter_id,
    v.person_id AS patient_id,
    CASE
        WHEN v.visit_concept_id IN (9201, 262) THEN 'inpatient'
        WHEN v.visit_concept_id = 9203 THEN 'emergency'
        ELSE 'outpatient'
    END AS encounter_class,
    coalesce(v.visit_start_datetime, CAST(v.visit_start_date AS TIMESTAMP)) AS admit_time,
    -- a day alone ends with its last second, so that it never lies before an admission of the same day
    coalesce(v.visit_end_datetime, CAST(v.visit_end_date AS TIMESTAMP) + INTERVAL '86399' SECOND) AS discharge_time,
    -- 4216643 is "patient died"; 20, 40, 41 and 42 are the UB-04 discharge codes for it.
    -- Death in the stay stands here and not in the death table, which holds deaths anywhere.
    CASE
        WHEN v.discharged_to_concept_id = 4216643 THEN 'Expired'
        WHEN lower(v.discharged_to_source_value) IN ('expired', 'deceased', 'died', '20', '40', '41', '42') THEN 'Expired'
        ELSE v.discharged_to_source_value
    END AS discharge_disposition,
    lower(s.place_of_service_source_value) AS service,
    s.care_site_name AS department,
    s.care_site_source_value AS facility,
    CASE
        WHEN lower(v.visit_source_value) IN ('emergency', 'urgent', 'elective', 'newborn') THEN lower(v.visit_source_value)
    END AS admission_type,
    d.code AS primary_diagnosis,
    NULL AS sequence,
    NULL AS length_of_stay_days,
    NULL AS readmitted_30d,
    NULL AS age_at_admission
FROM visit_occurrence AS v
LEFT JOIN care_site AS s ON s.care_site_id = v.care_site_id
LEFT JOIN (
    -- 32902 primary diagnosis, 32903 primary discharge diagnosis
    SELECT DISTINCT ON (c.visit_occurrence_id) c.visit_occurrence_id, c.condition_source_value AS code
    FROM condition_occurrence AS c
    WHERE c.condition_status_concept_id IN (32902, 32903)
    ORDER BY c.visit_occurrence_id, c.condition_occurrence_id
) AS d ON d.visit_occurrence_id = v.visit_occurrence_id
