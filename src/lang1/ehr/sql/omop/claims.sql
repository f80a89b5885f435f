-- OMOP has no table of claim denials: `claim` is our extension. A warehouse without it has no denial task.
SELECT
    c.claim_id AS claim_id,
    c.visit_occurrence_id AS encounter_id,
    c.payer AS payer,
    c.claim_status AS status,
    c.status_datetime AS status_time
FROM claim AS c
