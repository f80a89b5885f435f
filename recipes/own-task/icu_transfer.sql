-- Asked when the first H&P of a stay is signed: will the patient be seen in intensive care later in the stay? A patient
-- who is there already is no row: there is nothing to predict.
WITH asked AS (
    SELECT stays.stay_id AS encounter_id, min(notes.signed_time) AS prediction_time
    FROM stays JOIN notes USING (encounter_id)
    WHERE stays.place = 1 AND notes.note_type = 'H&P'
        AND notes.signed_time >= stays.admit_time AND notes.signed_time < stays.discharge_time
    GROUP BY ALL
), seen AS (
    SELECT encounter_id, admit_time AS seen_time, department FROM encounters
    UNION ALL
    SELECT encounter_id, written_time, department FROM notes
), intensive AS (
    SELECT stays.stay_id AS encounter_id, min(seen_time) AS seen_time
    FROM seen JOIN stays USING (encounter_id)
    WHERE regexp_matches(department, '(?i)\b[a-z]?icu\b|intensive care|critical care')
    GROUP BY ALL
)
SELECT
    encounter_id,
    prediction_time,
    CASE WHEN intensive.seen_time IS NULL THEN 'no' ELSE 'yes' END AS label
FROM asked
LEFT JOIN intensive USING (encounter_id)
WHERE intensive.seen_time IS NULL OR intensive.seen_time > prediction_time
