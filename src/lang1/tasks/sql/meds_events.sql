-- The records and cleaned notes as MEDS events: a row an event, its time null where it holds for good (static).
-- What happened at no known time is no event: meds_left_out counts it. A death is at the end of its day, or at the
-- discharge with which it came: a date read as midnight would be known before it happened.
CREATE VIEW meds_deaths AS
SELECT patient_id, max(discharge_time) AS died_time
FROM encounters
WHERE lower(trim(discharge_disposition)) = 'expired' AND discharge_time IS NOT NULL
GROUP BY patient_id;

CREATE VIEW meds_events AS
WITH facts AS (
    SELECT patient_id, NULL::TIMESTAMP AS time, 0 AS place, kind || '//' || value AS code
    FROM (
        SELECT patient_id, unnest(['SEX', 'RACE', 'ETHNICITY', 'BOROUGH']) AS kind,
            unnest([sex::VARCHAR, race::VARCHAR, ethnicity::VARCHAR, borough::VARCHAR]) AS value
        FROM patients
    )
    WHERE value IS NOT NULL
), births AS (
    SELECT patient_id, birth_date::TIMESTAMP AS time, 1 AS place, 'MEDS_BIRTH' AS code
    FROM patients
    WHERE birth_date IS NOT NULL
), deaths AS (
    SELECT
        patient_id,
        CASE WHEN death_date IS NULL OR death_date = died_time::DATE THEN died_time
             ELSE death_date + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND END AS time,
        7 AS place,
        'MEDS_DEATH' AS code
    FROM patients LEFT JOIN meds_deaths USING (patient_id)
    WHERE death_date IS NOT NULL OR died_time IS NOT NULL
), people AS (
    SELECT *, NULL AS encounter_id, NULL AS note_id, NULL AS note_type, NULL AS author_role, NULL AS department,
        NULL AS text_value
    FROM (SELECT * FROM facts UNION ALL FROM births UNION ALL FROM deaths)
), encountered AS (
    SELECT patient_id, admit_time AS time, 2 AS place,
        concat_ws('//', 'ENCOUNTER_START', encounter_class, admission_type) AS code,
        encounter_id, NULL AS note_id, NULL AS note_type, NULL AS author_role, department, NULL AS text_value
    FROM encounters
    UNION ALL
    SELECT patient_id, discharge_time, 6,
        concat_ws('//', 'ENCOUNTER_END', encounter_class, discharge_disposition),
        encounter_id, NULL, NULL, NULL, department, NULL
    FROM encounters
), coded AS (
    -- A stay's codes are billed after it, but OMOP dates them by the condition's start, often the admission: the later
    -- of the two. DuckDB's greatest passes over a null.
    SELECT diagnoses.patient_id, greatest(coded_time, discharge_time) AS time, 4 AS place,
        coalesce(code_system, 'ICD') || '//' || upper(trim(code)) AS code,
        diagnoses.encounter_id, NULL AS note_id, NULL AS note_type, NULL AS author_role, NULL AS department,
        NULL AS text_value
    FROM diagnoses LEFT JOIN encounters USING (encounter_id)
), claimed AS (
    SELECT encounters.patient_id, status_time AS time, 5 AS place, 'CLAIM//' || status AS code,
        claims.encounter_id, NULL AS note_id, NULL AS note_type, NULL AS author_role, NULL AS department,
        NULL AS text_value
    FROM claims JOIN encounters USING (encounter_id)
    WHERE status IS NOT NULL
), noted AS (
    SELECT patient_id, signed_time AS time, 3 AS place, 'NOTE//' || note_type AS code,
        encounter_id, note_id, note_type, author_role, department, text AS text_value
    FROM clean_notes
)
SELECT patient_id, time, place, code, encounter_id, note_id, note_type, author_role, department, text_value
FROM (SELECT * FROM people UNION ALL FROM encountered UNION ALL FROM coded UNION ALL FROM claimed UNION ALL FROM noted);
