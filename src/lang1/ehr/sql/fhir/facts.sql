-- What the manifest says of an export beside the counts of rows: fact, value, resources.
SELECT
    'encounter_time_offsets' AS fact,
    coalesce(nullif(regexp_extract(e.resource ->> '$.period.start', '(Z|[+-][0-9]{2}:[0-9]{2})$'), ''), 'none')
        AS value,
    count(*) AS rows
FROM Encounter AS e GROUP BY ALL
UNION ALL
SELECT 'encounter_class_codes', coalesce(e.resource ->> '$.class.code', 'none'), count(*)
FROM Encounter AS e GROUP BY ALL
UNION ALL
SELECT 'attachment_problems', coalesce(y.content[1].problem, a.item.problem), count(*)
FROM (SELECT unnest(d.content) AS item FROM DocumentReference AS d) AS a
LEFT JOIN "Binary" AS y ON y.id = a.item.binary_id
WHERE y.content[1].problem IS NOT NULL OR (y.id IS NULL AND a.item.problem IS NOT NULL) GROUP BY ALL
UNION ALL
SELECT 'attachment_formats', a.item.format, count(*)
FROM (SELECT unnest(d.content) AS item FROM DocumentReference AS d) AS a WHERE a.item.format IS NOT NULL GROUP BY ALL
ORDER BY ALL
