-- Mortality: disposition and death in the stay change hands among the stays that ended with a disposition.
CREATE TABLE stays AS
WITH deck AS (
    SELECT stay_id, md5(getvariable('audit_seed') || stay_id) AS key
    FROM main.stays
    WHERE has_ended AND (is_expired OR disposition IS NOT NULL)
), swapped AS (
    SELECT stay_id, lead(stay_id, 1, first_stay) OVER (ORDER BY key) AS giver
    FROM (SELECT *, first_value(stay_id) OVER (ORDER BY key) AS first_stay FROM deck)
)
SELECT
    mine.* EXCLUDE (is_expired, disposition),
    CASE WHEN swapped.stay_id IS NULL THEN mine.is_expired ELSE giver.is_expired END AS is_expired,
    CASE WHEN swapped.stay_id IS NULL THEN mine.disposition ELSE giver.disposition END AS disposition
FROM main.stays AS mine
LEFT JOIN swapped USING (stay_id)
LEFT JOIN main.stays AS giver ON giver.stay_id = swapped.giver;
