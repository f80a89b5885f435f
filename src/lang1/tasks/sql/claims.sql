-- Claims of each stay. A claim with several statuses counts by its last; a stay with several claims is denied when
-- any of them finally was, not denied when all are final without denial, and unknown otherwise: a pending claim is
-- never a negative.
CREATE TABLE claim_facts AS
WITH latest AS (
    SELECT members.stay_id, claim_id, regexp_replace(lower(trim(status)), '\s+', ' ', 'g') AS status
    FROM claims JOIN members USING (encounter_id)
    QUALIFY row_number() OVER (PARTITION BY members.stay_id, claim_id
                               ORDER BY status_time DESC NULLS LAST, status DESC NULLS LAST) = 1
), judged AS (
    SELECT stay_id, CASE
        WHEN status IN ('final, adverse determination', 'final, favorable determination') THEN 1
        WHEN status = 'no denial' THEN 0
    END AS denied
    FROM latest
)
SELECT stay_id, CASE WHEN max(denied) = 1 THEN 1 WHEN bool_and(denied IS NOT NULL) THEN 0 END AS denied
FROM judged
GROUP BY stay_id;
