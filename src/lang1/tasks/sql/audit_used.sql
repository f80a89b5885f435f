-- audit_note_ids(note_id) -> what the records say of the notes that any task's rows name, read once for all tasks.
CREATE OR REPLACE TEMP TABLE audit_used AS
SELECT notes.note_id, notes.patient_id, notes.encounter_id, notes.note_type, notes.author_role, notes.written_time,
    notes.signed_time
FROM notes SEMI JOIN audit_note_ids USING (note_id);

-- When the first of the notes that share encounter, type and beginning was signed: another with a later signing is an
-- edit of it.
CREATE OR REPLACE TEMP TABLE audit_first_signed AS
SELECT patient_id, encounter_id, note_type, written_time, min(signed_time) AS signed_time
FROM notes
SEMI JOIN audit_used USING (patient_id, encounter_id, note_type, written_time)
GROUP BY ALL
HAVING min(signed_time) < max(signed_time);
