-- Every note of a cluster of two or more. `near` holds the texts that follow another: (rank, leader, similarity).
-- A text's first note is `near` (or `kept`, where the text follows none); its other notes are `exact`.
CREATE TABLE clusters AS
WITH followed AS (
    SELECT
        texts.note_hash,
        texts.file,
        texts.row,
        texts.rank,
        coalesce(near.leader, texts.rank) AS leader,
        coalesce(near.similarity, 1.0) AS similarity,
        near.leader IS NOT NULL AS is_near,
        sum(texts.copies) OVER (PARTITION BY coalesce(near.leader, texts.rank)) AS notes_of_cluster
    FROM texts
    LEFT JOIN near USING (rank)
)
SELECT
    notes.note_id,
    leaders.note_id AS cluster_id,
    CASE
        WHEN (notes.file, notes.row) <> (followed.file, followed.row) THEN 'exact'
        WHEN followed.is_near THEN 'near'
        ELSE 'kept'
    END AS kind,
    followed.similarity::FLOAT AS similarity,
    notes.patient_id = kept.patient_id AS same_patient,
    notes.time,
    notes.file,
    notes.row,
    followed.leader
FROM followed
JOIN notes USING (note_hash)
JOIN texts AS leaders ON leaders.rank = followed.leader
JOIN notes AS kept ON kept.file = leaders.file AND kept.row = leaders.row
WHERE followed.notes_of_cluster > 1;
