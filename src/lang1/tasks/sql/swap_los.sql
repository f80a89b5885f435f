-- Length of stay: two stays exchange how long they last, where both still end after their H&P was signed and in the
-- same window. A stay that would be over before its note is no row for any outcome, so it is not made one here; nor is one
-- whose H&P was filed after its end: given a longer stay, that note would be there in time, and would be the index note.
CREATE TABLE stays AS
WITH filed_late AS (
    SELECT stay_id
    FROM main.candidate_notes
    WHERE note_type = 'H&P' AND is_in_time AND NOT is_usable AND (getvariable('choose_note') = 'after' OR place = 1)
), deck AS (
    SELECT
        stays.stay_id, is_untimed, admit_time, discharge_time, given_days, index_notes.clock_time, windows.split AS place,
        (row_number() OVER (PARTITION BY is_untimed ORDER BY md5(getvariable('audit_seed') || stays.stay_id)) - 1) // 2
            AS pair
    FROM main.stays AS stays
    LEFT JOIN main.index_notes AS index_notes
        ON index_notes.stay_id = stays.stay_id AND index_notes.note_type = 'H&P'
    LEFT JOIN main.windows AS windows ON windows.family = 'shared'
        AND discharge_time >= windows.first_day AND discharge_time < windows.end_day
    ANTI JOIN filed_late ON filed_late.stay_id = stays.stay_id
    WHERE has_ended
), swapped AS (
    SELECT
        mine.stay_id, mine.admit_time + (other.discharge_time - other.admit_time) AS discharge_time, other.given_days,
        mine.pair, mine.is_untimed,
        mine.is_untimed OR (
            coalesce(mine.admit_time + (other.discharge_time - other.admit_time) > mine.clock_time, true)
            AND mine.place IS NOT DISTINCT FROM windows.split
        ) AS may_swap
    FROM deck AS mine
    JOIN deck AS other ON other.pair = mine.pair AND other.is_untimed = mine.is_untimed AND other.stay_id != mine.stay_id
    LEFT JOIN main.windows AS windows ON windows.family = 'shared'
        AND mine.admit_time + (other.discharge_time - other.admit_time) >= windows.first_day
        AND mine.admit_time + (other.discharge_time - other.admit_time) < windows.end_day
), agreed AS (
    SELECT * FROM swapped QUALIFY bool_and(may_swap) OVER (PARTITION BY pair, is_untimed)
)
SELECT
    mine.* EXCLUDE (discharge_time, given_days),
    coalesce(agreed.discharge_time, mine.discharge_time) AS discharge_time,
    CASE WHEN agreed.stay_id IS NULL THEN mine.given_days ELSE agreed.given_days END AS given_days
FROM main.stays AS mine
LEFT JOIN agreed USING (stay_id);
