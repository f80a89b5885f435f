-- A row a note with what the profile counts by. A note's diagnosis is the main one of its stay.
CREATE TABLE described AS
SELECT
    clean_notes.patient_id,
    clean_notes.category,
    clean_notes.note_type,
    clean_notes.department,
    coalesce(stays.primary_diagnosis, coded.code) AS diagnosis,
    people.borough,
    year(coalesce(clean_notes.signed_time, clean_notes.written_time)) AS year,
    clean_notes.words
FROM clean_notes
LEFT JOIN people USING (patient_id)
LEFT JOIN stays USING (encounter_id)
LEFT JOIN coded USING (encounter_id);
