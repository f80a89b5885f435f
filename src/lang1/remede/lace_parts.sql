-- After the comorbidity is scored (charlson_scores).
CREATE TABLE lace_parts AS
SELECT
    stays.stay_id,
    CASE WHEN is_untimed THEN floor(given_days) ELSE date_diff('day', admit_time::DATE, discharge_time::DATE) END AS days,
    CASE
        WHEN admission_type IN ('emergency', 'urgent') OR coalesce(led_to_it, 0) > 0 THEN true
        WHEN admission_type IS NOT NULL THEN false
    END AS is_acute,
    charlson_scores.score AS comorbidity,
    CASE WHEN NOT is_untimed AND getvariable('has_emergency') THEN coalesce(earlier, 0) END AS visits
FROM stays
LEFT JOIN acuity USING (stay_id)
LEFT JOIN emergency_visits USING (stay_id)
LEFT JOIN charlson_scores USING (stay_id);
