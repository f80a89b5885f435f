-- One row a code of a Condition in a stay. A stay's conditions are those that its Encounter.diagnosis lists, with
-- rank, and those that name the Encounter themselves. An item of the problem list names the encounter that it was
-- written in, not one that it was coded for: it belongs to a stay only when the stay lists it. No stay: the row has no
-- encounter.
WITH conditions AS (
    SELECT res.id, from_json(res.resource, '{
        "subject": {"reference": "VARCHAR"}, "encounter": {"reference": "VARCHAR"}, "recordedDate": "VARCHAR",
        "onsetDateTime": "VARCHAR", "category": [{"coding": [{"code": "VARCHAR"}]}],
        "verificationStatus": {"coding": [{"code": "VARCHAR"}]},
        "code": {"coding": [{"system": "VARCHAR", "code": "VARCHAR"}]}
    }') AS r
    FROM Condition AS res
), known AS (
    SELECT
        k.id, k.r,
        reference_id(k.r.subject.reference, 'Patient') AS patient_id,
        list_transform(flatten(list_transform(k.r.category, lambda g: g.coding)), lambda g: g.code) AS categories,
        CASE WHEN coalesce(list_has_any(categories, ['problem-list-item', 'health-concern'])
                           AND NOT list_contains(categories, 'encounter-diagnosis'), false) THEN NULL
             ELSE reference_id(k.r.encounter.reference, 'Encounter') END AS encounter_id
    FROM conditions AS k
), stays AS (
    SELECT res.id, from_json(res.resource, '{
        "subject": {"reference": "VARCHAR"}, "period": {"start": "VARCHAR", "end": "VARCHAR"},
        "diagnosis": [{"condition": {"reference": "VARCHAR"}, "rank": "INTEGER",
                       "use": {"text": "VARCHAR", "coding": [{"code": "VARCHAR"}]}}]
    }') AS r
    FROM Encounter AS res
), dated AS (
    SELECT s.id, coalesce(s.r.period."end", s.r.period."start")[:10] AS day FROM stays AS s
), listed AS (
    SELECT l.encounter_id, l.patient_id, reference_id(l.item.condition.reference, 'Condition') AS condition_id,
        min(CASE WHEN l.item."use".coding[1].code = 'principal' OR lower(l.item."use".text) = 'principal' THEN 1
                 ELSE l.item.rank END) AS position
    FROM (
        SELECT s.id AS encounter_id, reference_id(s.r.subject.reference, 'Patient') AS patient_id,
            unnest(s.r.diagnosis) AS item
        FROM stays AS s
    ) AS l
    GROUP BY ALL
), placed AS (
    SELECT l.encounter_id, coalesce(k.patient_id, l.patient_id) AS patient_id, l.position, k.r, l.condition_id
    FROM listed AS l LEFT JOIN known AS k ON k.id = l.condition_id
    UNION ALL
    SELECT k.encounter_id, k.patient_id, NULL, k.r, k.id
    FROM known AS k
    ANTI JOIN listed AS l ON l.condition_id = k.id AND (k.encounter_id IS NULL OR l.encounter_id = k.encounter_id)
), coded AS (
    SELECT
        p.*,
        chosen_system(p.r.code.coding, coalesce(d.day, p.r.recordedDate[:10], p.r.onsetDateTime[:10])) AS system,
        CASE WHEN len(codes_in(p.r.code.coding, system)) > 0
             THEN list_distinct(list_transform(codes_in(p.r.code.coding, system), lambda c: c.code)) ELSE [NULL] END
                 AS codes
    FROM placed AS p LEFT JOIN dated AS d ON d.id = p.encounter_id
)
SELECT
    c.patient_id,
    c.encounter_id,
    unnest(c.codes) AS code,
    -- 'SNOMED' and others stay in the records; only ICD codes make a task
    c.system AS code_system,
    as_time(c.r.recordedDate) AS coded_time,
    c.position,
    CASE
        WHEN c.r.verificationStatus.coding[1].code = 'entered-in-error' THEN 'entered in error'
        WHEN c.r.verificationStatus.coding[1].code = 'refuted' THEN 'refuted'
        WHEN c.r IS NULL THEN 'no such Condition in the export'
    END AS reject,
    CASE WHEN c.system NOT LIKE 'ICD%' THEN 'not ICD: no task reads it' END AS flag
FROM coded AS c
