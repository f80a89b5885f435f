-- audit_note_ids(note_id) -> what the records say of the notes that any task's rows name, read once for all tasks.
CREATE OR REPLACE TEMP TABLE audit_used AS
SELECT notes.note_id, notes.patient_id, notes.encounter_id, notes.note_type, notes.author_role, notes.written_time,
    notes.signed_time
FROM notes SEMI JOIN audit_note_ids USING (note_id);

-- When the first of the notes that share encounter, type, author and beginning was signed: another with a later signing
-- is an edit of it. A resident's note and a nurse's are two, though they were begun at once; unnamed authors are one.
CREATE OR REPLACE TEMP TABLE audit_first_signed AS
SELECT patient_id, encounter_id, note_type, author_role, written_time, min(signed_time) AS signed_time
FROM notes
SEMI JOIN audit_used AS used ON used.patient_id = notes.patient_id AND used.encounter_id = notes.encounter_id
    AND used.note_type = notes.note_type AND used.written_time = notes.written_time
    AND used.author_role IS NOT DISTINCT FROM notes.author_role
GROUP BY ALL
HAVING min(signed_time) < max(signed_time);
