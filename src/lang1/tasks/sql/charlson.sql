-- stay_codes(stay_id, code_system, code) -> charlson_scores(stay_id, score). A code belongs to a category when it
-- begins with one of its prefixes (never a range of strings: C7A would sort between C79 and C80); a category counts
-- once; a severe form silences its mild one; no age points.
CREATE TABLE charlson_scores AS
WITH hierarchy(mild, severe) AS (
    VALUES ('diabetes without complication', 'diabetes with complication'),
           ('mild liver disease', 'moderate or severe liver disease'),
           ('malignancy', 'metastatic solid tumor')
), coded AS (
    SELECT DISTINCT codes.code_system, codes.code, charlson.category, charlson.weight
    FROM (SELECT DISTINCT code_system, code FROM stay_codes) AS codes
    JOIN charlson ON charlson.code_system = codes.code_system AND starts_with(codes.code, charlson.prefix)
), found AS (
    SELECT DISTINCT stay_id, category, weight FROM stay_codes JOIN coded USING (code_system, code)
), silenced AS (
    SELECT stay_id, mild AS category FROM found JOIN hierarchy ON found.category = hierarchy.severe
), counted AS (
    SELECT stay_id, sum(weight)::INTEGER AS score FROM found ANTI JOIN silenced USING (stay_id, category) GROUP BY stay_id
)
SELECT stay_id, coalesce(score, 0) AS score
FROM (SELECT DISTINCT stay_id FROM stay_codes) LEFT JOIN counted USING (stay_id);
