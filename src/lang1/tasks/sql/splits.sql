-- hash_fraction and patient_fold of lang1.corpus.hashes, for a million ids at once. A unit is a patient, or a note.
CREATE MACRO fraction_of(unit) AS
    ('0x' || left(sha256(getvariable('seed') || ':' || unit), 14))::UBIGINT / 72057594037927936::DOUBLE;

CREATE MACRO fold_of(unit) AS CASE
    WHEN fraction_of(unit) < getvariable('train_end') THEN 'train'
    WHEN fraction_of(unit) < getvariable('val_end') THEN 'val'
    ELSE 'test'
END;

-- The half of val and test that denial keeps: a hash of its own, nested in the folds.
CREATE MACRO keeps_half_of(unit) AS fraction_of('denial:' || unit) < 0.5;

-- Every patient's fold; where notes are split, patients have none. Of all encounters, not of stays: a task of one's own
-- may have rows of patients who were never inpatients.
CREATE TABLE folds AS
SELECT patient_id, fold_of(patient_id) AS fold
FROM (SELECT DISTINCT patient_id FROM encounters)
WHERE getvariable('split_unit') = 'patient';
