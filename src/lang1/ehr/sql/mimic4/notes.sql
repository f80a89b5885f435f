-- One row a note of MIMIC-IV-Note: discharge summaries and radiology, no admission notes. The clock of signing is
-- storetime, else charttime; a discharge summary's charttime is a day (00:00:00), which ends with its last second. The
-- manifest counts notes by clock. AD and AR are addenda.
SELECT
    d.note_id AS note_id,
    d.subject_id AS patient_id,
    d.hadm_id AS encounter_id,
    'hospital' AS category,
    CASE trim(d.note_type)
        WHEN 'DS' THEN 'discharge summary' WHEN 'AD' THEN 'discharge summary addendum' ELSE trim(d.note_type)
    END AS note_type,
    NULL AS author_role,
    CASE WHEN d.charttime NOT LIKE '% 00:00:00' AND length(d.charttime) > 10 THEN d.charttime END AS written_time,
    coalesce(
        d.storetime,
        CASE
            WHEN d.charttime LIKE '% 00:00:00' OR length(d.charttime) = 10 THEN left(d.charttime, 10) || ' 23:59:59'
            ELSE d.charttime
        END
    ) AS signed_time,
    NULL AS department,
    d.text AS text,
    CASE
        WHEN d.storetime IS NOT NULL THEN 'signed_time from storetime'
        WHEN d.charttime LIKE '% 00:00:00' OR length(d.charttime) = 10 THEN 'signed_time from the day of charttime, its last second'
        WHEN d.charttime IS NOT NULL THEN 'signed_time from charttime'
        ELSE 'no signed_time'
    END AS flag
FROM discharge AS d
UNION ALL
SELECT
    r.note_id AS note_id,
    r.subject_id AS patient_id,
    r.hadm_id AS encounter_id,
    'radiology' AS category,
    CASE trim(r.note_type) WHEN 'RR' THEN 'radiology' WHEN 'AR' THEN 'radiology addendum' ELSE trim(r.note_type) END AS note_type,
    NULL AS author_role,
    r.charttime AS written_time,
    coalesce(r.storetime, r.charttime) AS signed_time,
    NULL AS department,
    r.text AS text,
    CASE
        WHEN r.storetime IS NOT NULL THEN 'signed_time from storetime'
        WHEN r.charttime IS NOT NULL THEN 'signed_time from charttime'
        ELSE 'no signed_time'
    END AS flag
FROM radiology AS r
