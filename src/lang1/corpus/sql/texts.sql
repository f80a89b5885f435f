-- Every distinct text once, with the note that stands for it: the earliest, of equal times the one with the smallest id.
-- `rank` numbers the texts in that same order, so that "earlier" is one comparison from here on.
CREATE TABLE texts AS
SELECT
    row_number() OVER (ORDER BY first.time NULLS LAST, first.note_id) - 1 AS rank,
    note_hash,
    copies,
    first.note_id AS note_id,
    first.file AS file,
    first.row AS row
FROM (
    SELECT
        note_hash,
        count(*) AS copies,
        min({'unknown': time IS NULL, 'time': time, 'note_id': note_id, 'file': file, 'row': row}) AS first
    FROM notes
    GROUP BY note_hash
);
