-- Points for age at admission (Charlson 1994): 1 a decade from 50 on, 4 from 80 on; an unknown age has none.
CREATE OR REPLACE TABLE charlson_scores AS
SELECT stay_id, score + CASE WHEN age >= 80 THEN 4 WHEN age >= 70 THEN 3 WHEN age >= 60 THEN 2 WHEN age >= 50 THEN 1 ELSE 0 END
    AS score
FROM charlson_scores
LEFT JOIN (
    SELECT
        stay_id,
        CASE WHEN is_untimed THEN floor(given_age) ELSE date_sub('year', birth_date::TIMESTAMP, admit_time) END AS age
    FROM stays
) USING (stay_id);
