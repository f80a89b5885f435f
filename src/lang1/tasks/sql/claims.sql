-- Claims of each stay. A claim with several statuses counts by its last; a stay with several claims is denied when
-- any of them finally was, not denied when all are final without denial, and unknown otherwise: a pending claim is
-- never a negative, but where `denial_rule` is `otherwise`, as the paper's sentence reads.
CREATE TABLE claim_facts AS
WITH latest AS (
    SELECT members.stay_id, claim_id, status_time,
        replace(regexp_replace(lower(trim(status)), '\s+', ' ', 'g'), 'favourable', 'favorable') AS status
    FROM claims JOIN members USING (encounter_id)
    QUALIFY row_number() OVER (PARTITION BY members.stay_id, claim_id
                               ORDER BY status_time DESC NULLS LAST, status DESC NULLS LAST) = 1
), judged AS (
    SELECT stay_id, status_time, CASE
        WHEN status = 'final, adverse determination' THEN 1
        WHEN status = 'final, favorable determination' THEN CASE getvariable('denial_rule') WHEN 'adverse' THEN 0 ELSE 1 END
        WHEN status = 'no denial' OR getvariable('denial_rule') = 'otherwise' THEN 0
    END AS denied
    FROM latest
)
SELECT
    stay_id,
    CASE WHEN max(denied) = 1 THEN 1 WHEN bool_and(denied IS NOT NULL) THEN 0 END AS denied,
    max(status_time) FILTER (denied IS NOT NULL) AS settled_time
FROM judged
GROUP BY stay_id;
