-- One row a note. note_signed_datetime is our extension of the table; where a warehouse lacks the column,
-- lang1 reads note_datetime (else the last second of note_date) under that name and says so in the manifest.
-- COLLATE "C": what is looked for is ASCII, and PostgreSQL's lower() by a locale's rules takes most of the query's time.
SELECT
    n.note_id AS note_id,
    n.person_id AS patient_id,
    n.visit_occurrence_id AS encounter_id,
    CASE
        WHEN n.note_source_value IN ('hospital', 'radiology', 'pathology') THEN n.note_source_value
        WHEN lower(n.note_title COLLATE "C") LIKE '%radiolog%' THEN 'radiology'
        WHEN lower(n.note_title COLLATE "C") LIKE '%patholog%' THEN 'pathology'
        ELSE 'hospital'
    END AS category,
    CASE
        -- an addendum is no index note: it is signed after the note whose name it bears
        WHEN lower(n.note_title COLLATE "C") LIKE '%addend%' THEN lower(n.note_title)
        WHEN lower(n.note_title COLLATE "C") LIKE '%discharge summary%' THEN 'discharge summary'
        WHEN lower(n.note_title COLLATE "C") LIKE '%h&p%' OR lower(n.note_title COLLATE "C") LIKE '%history and physical%' THEN 'H&P'
        ELSE coalesce(n.note_title, 'unknown')
    END AS note_type,
    p.specialty_source_value AS author_role,
    n.note_datetime AS written_time,
    n.note_signed_datetime AS signed_time,
    s.care_site_name AS department,
    n.note_text AS text
FROM note AS n
LEFT JOIN provider AS p ON p.provider_id = n.provider_id
LEFT JOIN care_site AS s ON s.care_site_id = p.care_site_id
