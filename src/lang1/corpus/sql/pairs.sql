-- Candidates of one band: texts with the same key, each with the `crowd` texts before it and with the first.
-- `signatures` and the variable `crowd` are given; the column of the band is called `key` in the view `band`.
CREATE OR REPLACE TABLE bucket AS
SELECT key, rank, row_number() OVER (PARTITION BY key ORDER BY rank) AS place
FROM band
WHERE key IN (SELECT key FROM band GROUP BY key HAVING count(*) > 1);

INSERT INTO crowded
SELECT count(*) FROM (SELECT key FROM bucket GROUP BY key HAVING max(place) > getvariable('crowd') + 1);

INSERT INTO candidates
SELECT earlier.rank, later.rank
FROM (
    SELECT key, rank, unnest(range(greatest(1, place - getvariable('crowd')), place)) AS before FROM bucket
) AS later
JOIN bucket AS earlier ON earlier.key = later.key AND earlier.place = later.before
UNION ALL
SELECT earlier.rank, later.rank
FROM bucket AS later
JOIN bucket AS earlier ON earlier.key = later.key AND earlier.place = 1
WHERE later.place > getvariable('crowd') + 1;
