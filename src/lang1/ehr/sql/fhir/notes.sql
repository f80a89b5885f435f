-- One row a clinical document: a DocumentReference, or a Composition. The LOINC code of its type says what note it is,
-- else its words do: `types` is the table to edit. H&P and discharge summary are those of physicians in a hospital.
WITH types AS (
    SELECT MAP {
        '34117-2': 'H&P', '11492-6': 'H&P', '28626-0': 'H&P', '34774-0': 'H&P', '34095-0': 'H&P', '51849-8': 'H&P',
        '47039-3': 'H&P', '34763-3': 'H&P', '34094-3': 'H&P', '34138-8': 'H&P',
        '34115-6': 'student H&P', '34116-4': 'nursing facility H&P', '34096-8': 'nursing facility H&P',
        '78390-2': 'nursing admission',
        '18842-5': 'discharge summary', '11490-0': 'discharge summary', '28655-9': 'discharge summary',
        '34105-7': 'discharge summary', '34106-5': 'discharge summary',
        '34745-0': 'nursing discharge summary', '29761-4': 'dental discharge summary',
        '59258-4': 'emergency discharge summary',
        '11506-3': 'progress', '34131-3': 'outpatient progress', '28623-7': 'nursing', '34746-8': 'nursing',
        '11488-4': 'consult', '11504-8': 'operative', '28570-0': 'procedure', '18761-7': 'transfer',
        '34111-5': 'emergency', '34878-9': 'emergency', '54094-8': 'emergency triage',
        '34133-9': 'episode summary', '57133-1': 'referral', '55107-7': 'addendum',
        '18748-4': 'radiology', '18726-0': 'radiology', '11526-1': 'pathology', '27898-6': 'pathology'
    } AS of_loinc
), references_of_documents AS NOT MATERIALIZED (
    SELECT res.id, res.content, res.texts, from_json(res.resource, '{
        "status": "VARCHAR", "docStatus": "VARCHAR", "date": "VARCHAR",
        "subject": {"reference": "VARCHAR"}, "author": [{"reference": "VARCHAR"}],
        "type": {"text": "VARCHAR", "coding": [{"system": "VARCHAR", "code": "VARCHAR", "display": "VARCHAR"}]},
        "category": [{"coding": [{"code": "VARCHAR"}]}],
        "masterIdentifier": {"system": "VARCHAR", "value": "VARCHAR"},
        "identifier": [{"system": "VARCHAR", "value": "VARCHAR"}],
        "context": {"encounter": [{"reference": "VARCHAR"}], "period": {"start": "VARCHAR"},
                    "related": [{"reference": "VARCHAR"}]},
        "content": [{"attachment": {"url": "VARCHAR"}}],
        "extension": [{"url": "VARCHAR", "valueDateTime": "VARCHAR"}]
    }') AS r
    FROM DocumentReference AS res
), compositions AS NOT MATERIALIZED (
    SELECT res.id, res.content, res.texts, from_json(res.resource, '{
        "status": "VARCHAR", "date": "VARCHAR",
        "subject": {"reference": "VARCHAR"}, "author": [{"reference": "VARCHAR"}],
        "type": {"text": "VARCHAR", "coding": [{"system": "VARCHAR", "code": "VARCHAR", "display": "VARCHAR"}]},
        "category": [{"coding": [{"code": "VARCHAR"}]}],
        "identifier": {"system": "VARCHAR", "value": "VARCHAR"},
        "encounter": {"reference": "VARCHAR"}, "attester": [{"time": "VARCHAR"}]
    }') AS r
    FROM Composition AS res
), documents AS NOT MATERIALIZED (
    SELECT
        'DocumentReference' AS kind, d.id, d.content, d.texts, d.r.subject.reference AS subject, d.r.author AS author,
        d.r.type AS type, d.r.category AS category, d.r.context.encounter[1].reference AS encounter,
        d.r.status AS status, d.r.docStatus AS stage, d.r.date AS written, d.r.context.period."start" AS begun,
        -- US Core 8: when the document was verified. R4's `authenticator` has no time
        list_transform(list_filter(d.r.extension, lambda e: e.url LIKE '%/us-core-authentication-time'),
                       lambda e: e.valueDateTime) AS signed,
        list_concat(
            list_transform(list_append(d.r.identifier, d.r.masterIdentifier),
                           lambda i: 'is ' || coalesce(i.system, '') || ' ' || i.value),
            list_transform(d.r.context.related, lambda x: 'at ' || reference_id(x.reference, 'Composition')),
            list_transform(d.r.content, lambda x: 'at ' || reference_id(x.attachment.url, 'Composition'))) AS marks
    FROM references_of_documents AS d
    UNION ALL
    SELECT
        'Composition', c.id, c.content, c.texts, c.r.subject.reference, c.r.author, c.r.type, c.r.category,
        c.r.encounter.reference, c.r.status, c.r.status, c.r.date, NULL, list_transform(c.r.attester, lambda a: a.time),
        ['is ' || coalesce(c.r.identifier.system, '') || ' ' || c.r.identifier.value, 'at ' || c.id]
    FROM compositions AS c
), chosen AS NOT MATERIALIZED (
    SELECT
        d.*,
        -- of several representations the plainest that can be read: plain text, then HTML, then RTF; of two the first
        list_sort(list_filter(
            list_transform(d.content, lambda c, i:
                {'rank': list_position(['plain', 'html', 'rtf'], c.format), 'place': i}),
            lambda c: c.rank IS NOT NULL))[1].place AS best,
        reference_id(d.subject, 'Patient') AS patient_id,
        reference_id(d.encounter, 'Encounter') AS encounter_id,
        list_transform(list_filter(d.type.coding, lambda c:
            c.system IN ('http://loinc.org', 'urn:oid:2.16.840.1.113883.6.1')),
                       lambda c: c.code) AS loinc,
        lower(concat_ws(' ', d.type.text, array_to_string(list_transform(d.type.coding, lambda c: c.display), ' ')))
            AS words,
        list_transform(flatten(list_transform(d.category, lambda g: g.coding)), lambda c: c.code) AS categories,
        list_filter(list_transform(d.author, lambda a: coalesce(
            'PractitionerRole/' || reference_id(a.reference, 'PractitionerRole'),
            'Practitioner/' || reference_id(a.reference, 'Practitioner'))), lambda a: a IS NOT NULL)[1] AS author_id
    FROM documents AS d
), named AS NOT MATERIALIZED (
    SELECT c.*, coalesce(
        list_filter(list_transform(c.loinc, lambda l: k.of_loinc[l]), lambda w: w IS NOT NULL)[1],
        CASE
            WHEN regexp_matches(c.words, 'nurs|student|dental|interval|addend') THEN NULL
            WHEN regexp_matches(c.words, 'discharge summar') THEN 'discharge summary'
            WHEN regexp_matches(c.words, 'history (and|&) physical|\bh ?(&|and) ?p\b') THEN 'H&P'
            WHEN regexp_matches(c.words, 'patholog') THEN 'pathology'
            WHEN regexp_matches(c.words, 'radiolog|imaging') THEN 'radiology'
            WHEN regexp_matches(c.words, 'progress') THEN 'progress'
        END,
        words_of(c.type), 'unknown') AS note_type
    FROM chosen AS c, types AS k
), marked AS (
    -- one note as a DocumentReference and as a Composition: they share an identifier, or the one names the other,
    -- or their type, stay, day and words are the same
    SELECT c.kind, c.patient_id, c.id, unnest(list_append(c.marks,
        'as ' || c.loinc[1] || ' ' || coalesce(c.encounter_id, '') || ' ' || c.written[:10] || ' '
        || coalesce(c.content[c.best].digest, y.content[1].digest))) AS mark
    FROM chosen AS c LEFT JOIN "Binary" AS y ON y.id = c.content[c.best].binary_id
    WHERE c.best IS NOT NULL AND coalesce(c.status, '') <> 'entered-in-error'
), twins AS (
    SELECT DISTINCT d.id
    FROM marked AS d JOIN marked AS c ON c.mark = d.mark AND c.patient_id = d.patient_id
    WHERE d.kind = 'DocumentReference' AND c.kind = 'Composition'
), roles AS (
    SELECT res.id, from_json(res.resource, '{
        "practitioner": {"reference": "VARCHAR"}, "organization": {"reference": "VARCHAR", "display": "VARCHAR"},
        "code": [{"text": "VARCHAR", "coding": [{"code": "VARCHAR", "display": "VARCHAR"}]}],
        "specialty": [{"text": "VARCHAR", "coding": [{"code": "VARCHAR", "display": "VARCHAR"}]}]
    }') AS r
    FROM PractitionerRole AS res
), departments AS (
    SELECT r.id, r.r, coalesce(o.resource ->> '$.name', r.r.organization.display, words_of(r.r.specialty[1]))
        AS department
    FROM roles AS r LEFT JOIN Organization AS o ON o.id = reference_id(r.r.organization.reference, 'Organization')
), titles AS (
    -- a practitioner with several roles counts by the one with the smallest id, without any by the qualification
    SELECT 'PractitionerRole/' || d.id AS author_id, '' AS place, d.r.code[1] AS title, d.department
    FROM departments AS d
    UNION ALL
    SELECT 'Practitioner/' || reference_id(d.r.practitioner.reference, 'Practitioner'), '1 ' || d.id, d.r.code[1],
        d.department
    FROM departments AS d
    UNION ALL
    SELECT 'Practitioner/' || res.id, '2', from_json(res.resource -> '$.qualification[0].code',
        '{"text": "VARCHAR", "coding": [{"code": "VARCHAR", "display": "VARCHAR"}]}'), NULL
    FROM Practitioner AS res
), staff AS (
    SELECT
        t.author_id,
        arg_min(t.department, t.place) AS department,
        -- NUCC taxonomy, HL7 practitioner-role, HL7 degrees; others in their own words
        arg_min(CASE
            WHEN t.title.coding[1].code = '390200000X' THEN 'resident'
            WHEN t.title.coding[1].code LIKE '363A_____X' OR t.title.coding[1].code = 'PA' THEN 'physician assistant'
            WHEN t.title.coding[1].code LIKE '363L_____X' OR t.title.coding[1].code IN ('NP', 'ANP', 'CRNP', 'FNP')
                THEN 'nurse practitioner'
            WHEN t.title.coding[1].code LIKE '163W_____X' OR t.title.coding[1].code IN ('nurse', 'RN', 'LPN')
                THEN 'nurse'
            WHEN t.title.coding[1].code LIKE '20_______X' OR t.title.coding[1].code IN ('doctor', 'MD', 'DO')
                THEN 'physician'
            ELSE lower(words_of(t.title))
        END, t.place) AS role
    FROM titles AS t
    WHERE t.author_id IS NOT NULL
    GROUP BY t.author_id
)
SELECT
    n.kind || '/' || n.id AS note_id,
    n.patient_id,
    n.encounter_id,
    CASE
        WHEN n.note_type IN ('radiology', 'pathology') THEN n.note_type
        WHEN list_has_any(n.categories, ['LP29684-5', 'RAD', 'imaging']) THEN 'radiology'
        WHEN list_has_any(n.categories, ['LP7839-6', 'PAT', 'SP', 'CP']) THEN 'pathology'
        ELSE 'hospital'
    END AS category,
    n.note_type,
    s.role AS author_role,
    as_time(coalesce(n.begun, n.written)) AS written_time,
    -- Of an amended note nobody has the first text: it counts from its last clock. Else the first signature
    -- counts, else the document's date; a day alone ends with its last second.
    CASE
        WHEN n.stage = 'preliminary' THEN NULL
        WHEN n.stage IN ('amended', 'appended', 'corrected')
            THEN list_max(list_transform(list_append(n.signed, n.written), lambda t: as_end(t)))
        ELSE coalesce(list_min(list_transform(n.signed, lambda t: as_end(t))), as_end(n.written))
    END AS signed_time,
    s.department,
    coalesce(n.texts[n.best], y.texts[1]) AS text,
    CASE
        WHEN 'entered-in-error' IN (coalesce(n.status, ''), coalesce(n.stage, '')) THEN 'entered in error'
        WHEN n.status = 'superseded' THEN 'superseded'
        WHEN t.id IS NOT NULL THEN 'also a Composition'
        WHEN text IS NULL THEN coalesce(y.content[1].problem, n.content[n.best].problem, n.content[1].problem,
            'no attachment')
    END AS reject,
    CASE
        WHEN n.stage = 'preliminary' THEN 'preliminary: unsigned'
        WHEN n.stage IN ('amended', 'appended', 'corrected') THEN 'amended: signed at its last clock'
        WHEN coalesce(len(list_filter(n.signed, lambda t: t IS NOT NULL)), 0) = 0
            THEN 'no time of signing: the date is the clock'
    END AS flag
FROM named AS n
LEFT JOIN staff AS s ON s.author_id = n.author_id
LEFT JOIN twins AS t ON n.kind = 'DocumentReference' AND t.id = n.id
LEFT JOIN "Binary" AS y ON y.id = n.content[n.best].binary_id
