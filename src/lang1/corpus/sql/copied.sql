-- Notes with their text, a patient at a time, in time order: the earlier of two stands first, unknown times last.
SELECT
    patient_id,
    note_id,
    note_type,
    author_role,
    department,
    coalesce(signed_time, written_time) AS time,
    text
FROM clean_notes
ORDER BY patient_id, time NULLS LAST, note_id;
