-- One row a note. Discharge summaries, ECG and Echo have a day alone (CHARTDATE), other notes a time, some a time of
-- storing. The clock of signing is STORETIME, else CHARTTIME, else the last second of CHARTDATE: a note is never
-- assumed earlier than is known. The manifest counts notes by clock.
SELECT
    n.row_id AS note_id,
    n.subject_id AS patient_id,
    n.hadm_id AS encounter_id,
    -- CATEGORY has trailing spaces in some rows ('Physician '); MIMIC-III has no pathology notes
    CASE WHEN lower(trim(n.category)) = 'radiology' THEN 'radiology' ELSE 'hospital' END AS category,
    CASE
        WHEN lower(trim(n.category)) = 'discharge summary' AND lower(trim(n.description)) = 'addendum'
            THEN 'discharge summary addendum'
        WHEN lower(trim(n.category)) = 'discharge summary' THEN 'discharge summary'
        -- 5.2.3: "filtering descriptions for 'admission' while excluding 'readmission'"; which one of a stay is taken
        -- is for the task sets, by author_role
        WHEN n.description ILIKE '%admission%' AND n.description NOT ILIKE '%readmission%' THEN 'H&P'
        ELSE lower(trim(n.category))
    END AS note_type,
    -- The category names who writes; an admission note's description says which of them: 'Physician: Physician
    -- Resident Admission Note'. The priorities of 5.2.3 read it.
    CASE
        WHEN n.description ILIKE '%admission%' AND n.description NOT ILIKE '%readmission%'
            AND lower(trim(n.category)) <> 'discharge summary'
            THEN trim(n.category) || ': ' || trim(n.description)
        ELSE trim(n.category)
    END AS author_role,
    n.charttime AS written_time,
    coalesce(n.storetime, n.charttime, left(n.chartdate, 10) || ' 23:59:59') AS signed_time,
    NULL AS department,
    n.text AS text,
    CASE WHEN trim(n.iserror) = '1' THEN 'ISERROR is 1' END AS reject,
    CASE
        WHEN n.storetime IS NOT NULL THEN 'signed_time from STORETIME'
        WHEN n.charttime IS NOT NULL THEN 'signed_time from CHARTTIME'
        WHEN n.chartdate IS NOT NULL THEN 'signed_time from CHARTDATE, its last second'
        ELSE 'no signed_time'
    END AS flag
FROM noteevents AS n
