-- Every note once, without its text. A note's time is when it was signed, else when it was written.
-- `file` and `row` say where it stands: the row of the part, counted from 0.
CREATE TABLE notes AS
SELECT
    note_id,
    patient_id,
    note_hash,
    coalesce(signed_time, written_time) AS time,
    parts.file AS file,
    file_row_number AS row
FROM clean_notes
JOIN parts USING (filename);
