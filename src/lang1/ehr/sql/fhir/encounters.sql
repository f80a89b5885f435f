-- One row an Encounter. What never took place, or was entered in error, is set aside.
WITH RECURSIVE parsed AS (
    SELECT res.id, from_json(res.resource, '{
        "status": "VARCHAR", "class": {"code": "VARCHAR", "display": "VARCHAR"},
        "subject": {"reference": "VARCHAR"}, "period": {"start": "VARCHAR", "end": "VARCHAR"},
        "serviceType": {"text": "VARCHAR", "coding": [{"code": "VARCHAR", "display": "VARCHAR"}]},
        "priority": {"text": "VARCHAR", "coding": [{"code": "VARCHAR", "display": "VARCHAR"}]},
        "serviceProvider": {"reference": "VARCHAR", "display": "VARCHAR"},
        "location": [{"location": {"reference": "VARCHAR", "display": "VARCHAR"}, "period": {"start": "VARCHAR"}}],
        "hospitalization": {
            "admitSource": {"coding": [{"code": "VARCHAR"}]},
            "dischargeDisposition": {"text": "VARCHAR",
                                     "coding": [{"system": "VARCHAR", "code": "VARCHAR", "display": "VARCHAR"}]}},
        "diagnosis": [{"condition": {"reference": "VARCHAR"}, "rank": "INTEGER",
                       "use": {"text": "VARCHAR", "coding": [{"code": "VARCHAR"}]}}]
    }') AS r
    FROM Encounter AS res
), places AS (
    SELECT res.id, res.resource ->> '$.name' AS name, res.resource ->> '$.physicalType.coding[0].code' AS kind,
        reference_id(res.resource ->> '$.partOf.reference', 'Location') AS part_of,
        reference_id(res.resource ->> '$.managingOrganization.reference', 'Organization') AS organization_id
    FROM Location AS res
), above_place AS (
    SELECT places.id AS start_id, places.*, 0 AS depth FROM places
    UNION ALL
    SELECT a.start_id, p.*, a.depth + 1 FROM above_place AS a JOIN places AS p ON p.id = a.part_of WHERE a.depth < 8
), wards AS (
    -- of a bed or a room, the nearest place above that is neither
    SELECT a.start_id, arg_min(a.name, a.depth) FILTER (coalesce(a.kind, '') NOT IN ('bd', 'ro')) AS name,
        arg_min(a.organization_id, a.depth) FILTER (a.organization_id IS NOT NULL) AS organization_id
    FROM above_place AS a GROUP BY a.start_id
), organizations AS (
    SELECT o.id, o.resource ->> '$.name' AS name, o.resource ->> '$.type[0].coding[0].code' AS kind,
        reference_id(o.resource ->> '$.partOf.reference', 'Organization') AS part_of
    FROM Organization AS o
), above_organization AS (
    SELECT organizations.id AS start_id, organizations.*, 0 AS depth FROM organizations
    UNION ALL
    SELECT a.start_id, o.*, a.depth + 1
    FROM above_organization AS a JOIN organizations AS o ON o.id = a.part_of WHERE a.depth < 8
), hospitals AS (
    SELECT a.start_id, arg_max(a.name, a.depth) AS name, arg_min(a.name, a.depth) AS own_name,
        arg_min(a.kind, a.depth) AS own_kind
    FROM above_organization AS a GROUP BY a.start_id
), placed AS (
    -- where the patient was first
    SELECT parsed.*, list_sort(list_transform(parsed.r.location, lambda l, i: {
        'since': coalesce(l.period."start", ''), 'place': i, 'id': reference_id(l.location.reference, 'Location'),
        'display': l.location.display}))[1] AS place
    FROM parsed
), diagnoses AS (
    -- the code of the principal diagnosis, else of the first discharge, billing or other diagnosis by rank
    SELECT u.id, arg_min(u.code, u.place) AS code
    FROM (
        SELECT
            d.id,
            codes_in(k.codings, chosen_system(k.codings, d.day))[1].code AS code,
            (CASE d.role WHEN 'principal' THEN 0 WHEN 'DD' THEN 1 WHEN 'billing' THEN 2 ELSE 3 END, d.place) AS place
        FROM (
            SELECT
                i.id, i.day, i.place, i.item.rank AS rank,
                coalesce(i.item."use".coding[1].code, lower(i.item."use".text), '') AS role,
                reference_id(i.item.condition.reference, 'Condition') AS condition_id
            FROM (
                SELECT p.id, coalesce(p.r.period."end", p.r.period."start")[:10] AS day, unnest(p.r.diagnosis) AS item,
                    generate_subscripts(p.r.diagnosis, 1) AS place
                FROM parsed AS p
            ) AS i
        ) AS d
        JOIN (
            SELECT res.id, from_json(res.resource -> '$.code.coding', '[{"system": "VARCHAR", "code": "VARCHAR"}]')
                AS codings
            FROM Condition AS res
            WHERE coalesce(res.resource ->> '$.verificationStatus.coding[0].code', '') 
                NOT IN ('entered-in-error', 'refuted')
        ) AS k ON k.id = d.condition_id
        WHERE (d.role = 'principal' OR (d.rank = 1 AND d.role NOT IN ('AD', 'CC', 'pre-op')))
            AND chosen_system(k.codings, d.day) LIKE 'ICD%'
    ) AS u
    GROUP BY u.id
), found AS (
    SELECT p.*, w.name AS ward, h.name AS hospital, h.own_name, h.own_kind, g.name AS managing, d.code AS diagnosis,
        lower(p.r.class.code) AS class_code, lower(p.r.class.display) AS class_words,
        p.r.hospitalization.dischargeDisposition AS gone
    FROM placed AS p
    LEFT JOIN wards AS w ON w.start_id = p.place.id
    LEFT JOIN hospitals AS h ON h.start_id = reference_id(p.r.serviceProvider.reference, 'Organization')
    LEFT JOIN hospitals AS g ON g.start_id = w.organization_id
    LEFT JOIN diagnoses AS d ON d.id = p.id
)
SELECT
    f.id AS encounter_id,
    reference_id(f.r.subject.reference, 'Patient') AS patient_id,
    -- v3 ActCode. Observation and short stays are billed as outpatient care. Codes of the site's own are read by
    -- their words.
    CASE
        WHEN f.class_code IN ('imp', 'acute', 'nonac', 'nonacute') THEN 'inpatient'
        WHEN f.class_code = 'emer' THEN 'emergency'
        WHEN f.class_code IN ('amb', 'obsenc', 'ss', 'prenc', 'fld', 'hh', 'vr') THEN 'outpatient'
        WHEN f.class_words LIKE '%inpatient%' AND f.class_words NOT LIKE '%outpatient%' THEN 'inpatient'
        WHEN f.class_words LIKE '%emergency%' THEN 'emergency'
        WHEN f.class_words IS NOT NULL THEN 'outpatient'
    END AS encounter_class,
    as_time(f.r.period."start") AS admit_time,
    as_end(f.r.period."end") AS discharge_time,
    -- exp: HL7; 20 and 40 to 42: UB-04; 371828006 and 419099009: SNOMED CT
    CASE
        WHEN len(list_filter(f.gone.coding, lambda c: lower(c.code) IN ('exp', 'expired', '20', '40', '41', '42',
            '371828006', '419099009')
            OR regexp_matches(lower(c.display), '\b(expired|deceased|died)\b'))) > 0
            OR regexp_matches(lower(f.gone.text), '\b(expired|deceased|died)\b') THEN 'Expired'
        ELSE words_of(f.gone)
    END AS discharge_disposition,
    lower(words_of(f.r.serviceType)) AS service,
    coalesce(f.ward, f.place.display, CASE WHEN f.own_kind = 'dept' THEN f.own_name END) AS department,
    coalesce(f.hospital, f.r.serviceProvider.display, f.managing) AS facility,
    CASE
        WHEN f.r.hospitalization.admitSource.coding[1].code = 'born' THEN 'newborn'
        WHEN lower(f.r.priority.coding[1].code) IN ('em', 's', 'emergency') THEN 'emergency'
        WHEN lower(f.r.priority.coding[1].code) IN ('ur', 'a', 'urgent') THEN 'urgent'
        WHEN lower(f.r.priority.coding[1].code) IN ('el', 'elective') THEN 'elective'
        WHEN lower(words_of(f.r.priority)) IN ('emergency', 'urgent', 'elective', 'newborn')
            THEN lower(words_of(f.r.priority))
    END AS admission_type,
    f.diagnosis AS primary_diagnosis,
    NULL AS sequence,
    NULL AS length_of_stay_days,
    NULL AS readmitted_30d,
    NULL AS age_at_admission,
    CASE
        WHEN f.r.status = 'entered-in-error' THEN 'entered in error'
        WHEN f.r.status IN ('planned', 'cancelled') THEN 'encounter ' || f.r.status
    END AS reject,
    CASE WHEN f.r.period."start" LIKE '%Z' AND getvariable('time_zone') IS NULL THEN 'times in UTC, as written' END
        AS flag
FROM found AS f
