-- One row a claim: a Claim with the answers that name it (ClaimResponse, ExplanationOfBenefit), or an answer whose
-- Claim is not in the export. No answer, or one that is queued, partial or failed, is pending. A complete answer is
-- adverse when it denies the claim as a whole or every line of it; paid after an adverse one it is favorable; adverse
-- for some lines alone it is a `partial denial`, of which no task makes a label. Answers of one day, or tied by
-- claimResponse, are one answer.
WITH answers AS (
    SELECT 'ClaimResponse' AS kind, res.id, res.resource,
        reference_id(res.resource ->> '$.request.reference', 'Claim') AS claim_id,
        'ClaimResponse/' || res.id AS event FROM ClaimResponse AS res
    UNION ALL
    SELECT 'ExplanationOfBenefit', b.id, b.resource, reference_id(b.resource ->> '$.claim.reference', 'Claim'),
        coalesce('ClaimResponse/' || reference_id(b.resource ->> '$.claimResponse.reference', 'ClaimResponse'),
                 'ExplanationOfBenefit/' || b.id) FROM ExplanationOfBenefit AS b
), parsed AS (
    SELECT a.kind, a.event, coalesce('Claim/' || a.claim_id, a.kind || '/' || a.id) AS claim, from_json(a.resource, '{
        "status": "VARCHAR", "use": "VARCHAR", "created": "VARCHAR", "outcome": "VARCHAR", "disposition": "VARCHAR",
        "insurer": {"reference": "VARCHAR", "display": "VARCHAR"},
        "item": [{"encounter": [{"reference": "VARCHAR"}], "adjudication": [{
            "category": {"coding": [{"code": "VARCHAR"}]}, "reason": {"coding": [{"code": "VARCHAR"}]},
            "amount": {"value": "DOUBLE"}}]}],
        "adjudication": [{
            "category": {"coding": [{"code": "VARCHAR"}]}, "reason": {"coding": [{"code": "VARCHAR"}]},
            "amount": {"value": "DOUBLE"}}],
        "total": [{"category": {"coding": [{"code": "VARCHAR"}]}, "amount": {"value": "DOUBLE"}}]
    }') AS r
    FROM answers AS a
), judged AS (
    SELECT
        p.*,
        -- a reason to deny, and nothing paid
        list_transform(list_prepend(p.r.adjudication, list_transform(p.r.item, lambda i: i.adjudication)), lambda lines:
            len(list_filter(lines, lambda l: denies(l.category.coding, l.reason.coding))) > 0
            AND coalesce(list_sum(list_transform(list_filter(lines, lambda l: is_paid(l.category.coding)),
                lambda l: l.amount.value)), 0) <= 0
        ) AS denied,
        list_sum(list_transform(list_filter(p.r.total, lambda t: t.category.coding[1].code = 'noncovered'),
            lambda t: t.amount.value)) AS noncovered,
        list_sum(list_transform(list_filter(p.r.total, lambda t: t.category.coding[1].code = 'submitted'),
            lambda t: t.amount.value)) AS submitted
    FROM parsed AS p
    WHERE coalesce(p.r.status, 'active') = 'active' AND coalesce(p.r."use", 'claim') = 'claim'
), events AS (
    -- 1 denied, 0.5 in part, 0 not; null: not decided
    SELECT
        j.claim, coalesce(max(j.r.created)[:10], '') AS day, max(j.r.created) AS created,
        CASE WHEN bool_or(j.r.outcome = 'complete') THEN max(CASE
            WHEN j.r.outcome <> 'complete' THEN NULL
            WHEN j.denied[1] OR (j.submitted > 0 AND j.noncovered >= j.submitted)
                OR (len(j.denied) > 1 AND list_bool_and(j.denied[2:]))
                OR (regexp_matches(lower(j.r.disposition), '\bden(ied|ial)\b') AND NOT regexp_matches(
                    lower(j.r.disposition),
                    '\b(no|not|without|never)( a| been)? den(ied|ial)\b|overturned|reversed')) THEN 1
            WHEN list_bool_or(j.denied[2:]) THEN 0.5
            ELSE 0
        END) END AS denial
    FROM judged AS j GROUP BY j.claim, j.event
), days AS (
    SELECT e.claim, e.day, max(e.created) AS created, max(e.denial) AS denial FROM events AS e GROUP BY e.claim, e.day
), decided AS (
    SELECT d.claim, max(d.created) AS created, arg_max_null(d.denial, d.day) AS last_denial, max(d.denial) AS worst
    FROM days AS d GROUP BY d.claim
), claimed AS (
    SELECT 'Claim/' || res.id AS claim, 0 AS place, from_json(res.resource, '{
        "status": "VARCHAR", "use": "VARCHAR", "created": "VARCHAR",
        "insurer": {"reference": "VARCHAR", "display": "VARCHAR"},
        "item": [{"encounter": [{"reference": "VARCHAR"}]}]
    }') AS r
    FROM Claim AS res
    UNION ALL BY NAME
    SELECT p.claim, 1 AS place, struct_pack("status" := p.r.status, "use" := p.r."use", created := p.r.created,
        insurer := p.r.insurer, item := list_transform(p.r.item, lambda i: struct_pack(encounter := i.encounter))) AS r
    FROM parsed AS p
), claims AS (
    -- the Claim's own words first, an answer's where it has none
    SELECT
        c.claim,
        arg_min(list_filter(list_transform(flatten(list_transform(c.r.item, lambda i: i.encounter)),
            lambda e: reference_id(e.reference, 'Encounter')), lambda e: e IS NOT NULL)[1], (c.place, c.r.created)
        ) AS encounter_id,
        arg_min(c.r.insurer, (c.place, c.r.created)) AS insurer,
        arg_min(c.r.status, (c.place, c.r.created)) AS status,
        arg_min(c.r."use", (c.place, c.r.created)) AS use,
        arg_min(c.r.created, (c.place, c.r.created)) AS created
    FROM claimed AS c GROUP BY c.claim
)
SELECT
    c.claim AS claim_id,
    c.encounter_id,
    coalesce(o.resource ->> '$.name', c.insurer.display) AS payer,
    CASE
        WHEN d.last_denial = 1 THEN 'final, adverse determination'
        WHEN d.last_denial = 0.5 THEN 'partial denial'
        WHEN d.last_denial = 0 AND d.worst = 1 THEN 'final, favorable determination'
        WHEN d.last_denial = 0 THEN 'no denial'
        ELSE 'pending'
    END AS status,
    as_time(coalesce(d.created, c.created)) AS status_time,
    CASE
        WHEN c.status = 'entered-in-error' THEN 'entered in error'
        WHEN c.status IN ('cancelled', 'draft') THEN 'claim ' || c.status
        WHEN c.use IN ('preauthorization', 'predetermination') THEN 'a ' || c.use || ' is no claim'
    END AS reject
FROM claims AS c
LEFT JOIN decided AS d ON d.claim = c.claim
LEFT JOIN Organization AS o ON o.id = reference_id(c.insurer.reference, 'Organization')
