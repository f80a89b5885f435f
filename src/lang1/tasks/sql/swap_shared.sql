-- Readmission, denial and Charlson: what decides the outcome changes hands, here in the schema `swapped`, and the SQL
-- of the cohort runs on it. Each stay takes over from the next in an order that a hash of the seed draws.
CREATE TABLE givers AS
WITH drawn AS (
    SELECT
        *,
        CASE WHEN has_ended AND (NOT is_untimed OR given_readmitted IS NOT NULL) THEN is_untimed END AS deck
    FROM main.stays
)
SELECT
    stay_id,
    lead(stay_id, 1, first_stay) OVER (PARTITION BY deck ORDER BY key) AS giver
FROM (
    SELECT stay_id, deck, md5(getvariable('audit_seed') || stay_id) AS key,
        first_value(stay_id) OVER (PARTITION BY deck ORDER BY md5(getvariable('audit_seed') || stay_id)) AS first_stay
    FROM drawn
    WHERE deck IS NOT NULL
);

CREATE TABLE stays AS
SELECT
    mine.* EXCLUDE (next_admit_time, next_planned_time, next_unplanned_time, given_readmitted),
    -- the gaps to the next stays move, so that those still come after this one
    CASE WHEN givers.stay_id IS NULL THEN mine.next_admit_time
         ELSE mine.discharge_time + (giver.next_admit_time - giver.discharge_time) END AS next_admit_time,
    CASE WHEN givers.stay_id IS NULL THEN mine.next_planned_time
         ELSE mine.discharge_time + (giver.next_planned_time - giver.discharge_time) END AS next_planned_time,
    CASE WHEN givers.stay_id IS NULL THEN mine.next_unplanned_time
         ELSE mine.discharge_time + (giver.next_unplanned_time - giver.discharge_time) END AS next_unplanned_time,
    CASE WHEN givers.stay_id IS NULL THEN mine.given_readmitted ELSE giver.given_readmitted END AS given_readmitted
FROM main.stays AS mine
LEFT JOIN givers USING (stay_id)
LEFT JOIN main.stays AS giver ON giver.stay_id = givers.giver;

-- The gaps to the H&Ps of later encounters go the same way, as `readmission_by: admission_note` reads them; until when a
-- return counts stays each stay's own (main.windows_of_return: no end moves here).
CREATE TABLE return_notes AS
SELECT
    mine.stay_id,
    mine.discharge_time + (notes.planned_time - giver.discharge_time) AS planned_time,
    mine.discharge_time + (notes.unplanned_time - giver.discharge_time) AS unplanned_time
FROM main.stays AS mine
LEFT JOIN givers USING (stay_id)
JOIN main.stays AS giver ON giver.stay_id = coalesce(givers.giver, mine.stay_id)
JOIN main.return_notes AS notes ON notes.stay_id = giver.stay_id;

-- All codes of a stay go to another stay that has codes.
CREATE TABLE stay_codes AS
WITH coded AS (
    SELECT stay_id, md5(getvariable('audit_seed') || 'codes' || stay_id) AS key
    FROM (SELECT DISTINCT stay_id FROM main.stay_codes)
), takers AS (
    SELECT stay_id AS giver, lead(stay_id, 1, first_stay) OVER (ORDER BY key) AS taker
    FROM (SELECT *, first_value(stay_id) OVER (ORDER BY key) AS first_stay FROM coded)
)
SELECT takers.taker AS stay_id, code_system, code
FROM main.stay_codes JOIN takers ON takers.giver = stay_codes.stay_id;

-- All claims of a stay go to another stay whose claims have a final status too.
CREATE TABLE claims AS
WITH final AS (
    SELECT stay_id, md5(getvariable('audit_seed') || 'claims' || stay_id) AS key
    FROM main.claim_facts
    WHERE denied IS NOT NULL
), takers AS (
    SELECT stay_id AS giver, lead(stay_id, 1, first_stay) OVER (ORDER BY key) AS taker
    FROM (SELECT *, first_value(stay_id) OVER (ORDER BY key) AS first_stay FROM final)
)
SELECT claims.* EXCLUDE (encounter_id), coalesce(takers.taker, claims.encounter_id) AS encounter_id
FROM main.claims AS claims
LEFT JOIN members USING (encounter_id)
LEFT JOIN takers ON takers.giver = members.stay_id;
