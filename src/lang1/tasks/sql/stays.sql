-- Encounters -> stays. A stay is one encounter, or several with a gap shorter than `transfer_us` (transfers), that
-- touch or overlap: one time in hospital. It carries the id of its first encounter.

-- What is known of each encounter alone.
CREATE TABLE checked AS
WITH deaths AS (
    SELECT patient_id, min(discharge_time) AS died_time
    FROM encounters
    WHERE lower(trim(discharge_disposition)) = 'expired'
    GROUP BY patient_id
), known AS (
    SELECT
        encounters.* EXCLUDE (length_of_stay_days, readmitted_30d, age_at_admission),
        length_of_stay_days AS given_days,
        readmitted_30d AS given_readmitted,
        age_at_admission AS given_age,
        patients.birth_date,
        patients.death_date,
        lower(trim(discharge_disposition)) = 'expired' AS is_expired,
        encounter_class = 'inpatient' AS is_inpatient,
        admit_time IS NULL AND discharge_time IS NULL AS is_untimed,
        coalesce(discharge_time, admit_time) AS end_time,
        deaths.died_time
    FROM encounters
    LEFT JOIN patients USING (patient_id)
    LEFT JOIN deaths USING (patient_id)
)
SELECT
    *,
    is_untimed OR (admit_time IS NOT NULL AND end_time >= admit_time) AS has_usable_times,
    NOT getvariable('exclude_post_death') OR (
        NOT coalesce(admit_time::DATE > death_date, false)
        -- the stay in which the patient died does not begin after its own end, even when it lasted no time
        AND NOT coalesce(admit_time >= died_time AND NOT (coalesce(is_expired, false) AND discharge_time = died_time),
                         false)
    ) AS is_before_death
FROM known;

-- Which stay each encounter belongs to. A stay without an end lasts no time here: it cannot swallow later ones.
CREATE TABLE members AS
WITH ordered AS (
    SELECT
        encounter_id, patient_id, admit_time, end_time,
        max(end_time) OVER (
            PARTITION BY patient_id ORDER BY admit_time, end_time, encounter_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS latest_end,
        coalesce(admit_time < latest_end, false) AS is_overlapping
    FROM checked
    WHERE is_inpatient AND has_usable_times AND is_before_death AND NOT is_untimed
), numbered AS (
    SELECT
        *,
        count(*) FILTER (latest_end IS NULL OR (
            admit_time > latest_end AND epoch_us(admit_time) - epoch_us(latest_end) >= getvariable('transfer_us')
        )) OVER (
            PARTITION BY patient_id ORDER BY admit_time, end_time, encounter_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS stay_number
    FROM ordered
)
SELECT
    encounter_id,
    first_value(encounter_id) OVER stay AS stay_id,
    row_number() OVER stay AS place,
    is_overlapping
FROM numbered
WINDOW stay AS (PARTITION BY patient_id, stay_number ORDER BY admit_time, end_time, encounter_id)
UNION ALL
SELECT encounter_id, encounter_id, 1, false
FROM checked
WHERE is_inpatient AND is_before_death AND is_untimed;

SET VARIABLE last_day = (SELECT max(discharge_time)::DATE FROM checked JOIN members USING (encounter_id));

CREATE TABLE stays AS
WITH joined AS (
    SELECT members.stay_id, members.place, members.is_overlapping, checked.*
    FROM members JOIN checked USING (encounter_id)
), merged AS (
    SELECT
        stay_id,
        any_value(patient_id) AS patient_id,
        any_value(birth_date) AS birth_date,
        any_value(death_date) AS death_date,
        any_value(died_time) AS died_time,
        bool_and(is_untimed) AS is_untimed,
        min(admit_time) AS admit_time,
        max(end_time) AS discharge_time,
        -- Where a source must give an end (OMOP does), a stay that goes on ends with the records, without disposition.
        bool_and(is_untimed OR (discharge_time IS NOT NULL AND NOT (
            discharge_disposition IS NULL AND discharge_time::DATE >= getvariable('last_day')))) AS has_ended,
        coalesce(bool_or(is_expired), false) AS is_expired,
        last(discharge_disposition ORDER BY end_time, admit_time, encounter_id) AS disposition,
        bool_or(is_overlapping) AS has_overlap,
        coalesce(bool_or(lower(trim(admission_type)) = 'newborn'), false) AS is_newborn,
        coalesce(bool_or(list_contains(getvariable('exclude_services'), lower(trim(service)))), false)
            AS is_excluded_service,
        coalesce(bool_or(regexp_matches(lower(department), getvariable('excluded_departments'))), false)
            AS is_excluded_department,
        coalesce(lower(trim(first(admission_type ORDER BY place))) = 'elective', false) AS is_planned,
        first(department ORDER BY place) AS department,
        first(sequence ORDER BY place) AS sequence,
        first(given_days ORDER BY place) AS given_days,
        first(given_readmitted ORDER BY place) AS given_readmitted,
        first(given_age ORDER BY place) AS given_age
    FROM joined
    GROUP BY stay_id
)
SELECT
    *,
    lead(admit_time) OVER following AS next_admit_time,
    min(admit_time) FILTER (is_planned) OVER later AS next_planned_time,
    min(admit_time) FILTER (NOT is_planned) OVER later AS next_unplanned_time,
    CASE WHEN sequence IS NOT NULL
         THEN row_number() OVER (PARTITION BY sequence IS NULL ORDER BY sequence, stay_id) END AS sequence_place,
    count(sequence) OVER () AS sequence_count
FROM merged
WINDOW
    following AS (PARTITION BY patient_id, is_untimed ORDER BY admit_time, stay_id),
    later AS (PARTITION BY patient_id, is_untimed ORDER BY admit_time, stay_id
              ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING);
