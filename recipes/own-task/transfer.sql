-- Asked when the first H&P of a stay is signed: will the stay go on in another hospital of the system?
WITH asked AS (
    SELECT stays.stay_id AS encounter_id, min(notes.signed_time) AS prediction_time
    FROM stays JOIN notes USING (encounter_id)
    WHERE stays.place = 1 AND notes.note_type = 'H&P'
        AND notes.signed_time >= stays.admit_time AND notes.signed_time < stays.discharge_time
    GROUP BY ALL
), moved AS (
    SELECT stays.stay_id AS encounter_id, count(DISTINCT encounters.facility) > 1 AS is_moved
    FROM stays JOIN encounters USING (encounter_id)
    GROUP BY ALL
)
SELECT encounter_id, prediction_time, CASE WHEN is_moved THEN 'yes' ELSE 'no' END AS label
FROM asked JOIN moved USING (encounter_id)
