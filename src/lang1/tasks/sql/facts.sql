-- One row an encounter: what every rule asks (a boolean a rule, cohort.py lists their order) and every label.
CREATE TABLE facts AS
WITH timed AS (
    SELECT
        stays.*,
        epoch_us(next_admit_time) - epoch_us(discharge_time) AS gap_us,
        CASE
            WHEN is_untimed THEN given_days
            WHEN getvariable('los_unit') = 'calendar' THEN date_diff('day', admit_time::DATE, discharge_time::DATE)
            ELSE (epoch_us(discharge_time) - epoch_us(admit_time)) / 86400e6
        END AS days,
        CASE WHEN is_untimed THEN floor(given_age) ELSE date_sub('year', birth_date::TIMESTAMP, admit_time) END AS age
    FROM stays
), labelled AS (
    SELECT
        timed.*,
        CASE
            WHEN is_untimed THEN given_readmitted
            ELSE coalesce(gap_us > 0 AND gap_us <= getvariable('readmission_us')
                AND NOT (getvariable('exclude_planned') AND coalesce(lower(next_admission_type) = 'elective', false)), false)
        END AS readmitted,
        CASE WHEN days <= 2 THEN 0 WHEN days <= 3 THEN 1 WHEN days <= 5 THEN 2 WHEN days > 5 THEN 3 END AS los_label,
        CASE WHEN score = 0 THEN 0 WHEN score <= 2 THEN 1 WHEN score <= 4 THEN 2 WHEN score <= 7 THEN 3
             WHEN score > 7 THEN 4 END AS cci_label,
        claim_facts.stay_id IS NOT NULL AS has_claim,
        claim_facts.denied,
        folds.fold,
        folds.keeps_half,
        shared.split AS shared_window,
        denial.split AS denial_window
    FROM timed
    LEFT JOIN charlson_scores USING (stay_id)
    LEFT JOIN claim_facts USING (stay_id)
    JOIN folds USING (patient_id)
    LEFT JOIN windows AS shared ON shared.family = 'shared'
        AND discharge_time >= shared.first_day AND discharge_time < shared.end_day
    LEFT JOIN windows AS denial ON denial.family = 'denial'
        AND discharge_time >= denial.first_day AND discharge_time < denial.end_day
)
SELECT
    checked.encounter_id,
    checked.patient_id,
    checked.is_inpatient,
    checked.has_usable_times,
    checked.is_before_death,
    members.place = 1 AS is_first_of_stay,
    stay.has_ended,
    -- readmission
    NOT stay.is_expired AND (stay.is_untimed OR stay.death_date IS NULL
        OR stay.death_date >= stay.discharge_time::DATE) AS survived,
    NOT (stay.is_untimed AND coalesce(lower(stay.disposition) LIKE '%hospice%', false)) AS is_not_hospice,
    NOT stay.is_excluded_service AS is_acute_service,
    CASE WHEN stay.is_untimed THEN stay.given_readmitted IS NOT NULL
         ELSE epoch_us(stay.discharge_time) + getvariable('readmission_us') <= epoch_us(getvariable('follow_up_end'))
    END AS has_follow_up,
    stay.readmitted::INTEGER AS readmission_label,
    coalesce(NOT stay.readmitted AND NOT stay.is_untimed
        AND stay.death_date BETWEEN stay.discharge_time::DATE
            AND (stay.discharge_time + to_microseconds(getvariable('readmission_us')))::DATE, false) AS died_after_discharge,
    -- mortality, LOS
    stay.is_expired OR stay.disposition IS NOT NULL AS has_disposition,
    stay.is_expired::INTEGER AS mortality_label,
    stay.days IS NOT NULL AND stay.days >= 0 AS has_length,
    stay.los_label,
    -- Charlson
    stay.cci_label IS NOT NULL AS has_codes,
    stay.cci_label,
    -- denial
    getvariable('has_claims') AS has_claims,
    stay.has_claim,
    stay.is_untimed OR getvariable('claims_us') = 0
        OR epoch_us(stay.discharge_time) + getvariable('claims_us') <= epoch_us(getvariable('follow_up_end')) AS is_mature,
    stay.denied IS NOT NULL AS has_final_status,
    stay.denied AS denial_label,
    -- index notes
    hp.stay_id IS NOT NULL AS hp_exists, hp.is_clean AS hp_is_clean, hp.is_signed AS hp_is_signed,
    hp.is_after_admission AS hp_is_after_admission, hp.is_in_time AS hp_is_in_time, hp.is_usable AS hp_is_usable,
    hp_note.note_id AS hp_note_id,
    ds.stay_id IS NOT NULL AS ds_exists, ds.is_clean AS ds_is_clean, ds.is_signed AS ds_is_signed,
    ds.is_after_admission AS ds_is_after_admission, ds.is_in_time AS ds_is_in_time, ds.is_usable AS ds_is_usable,
    ds_note.note_id AS ds_note_id,
    -- split
    CASE getvariable('split_by')
        WHEN 'time' THEN CASE WHEN shared_window = 'train' THEN fold ELSE shared_window END
        WHEN 'sequence' THEN CASE
            WHEN sequence_place > sequence_count - floor(sequence_count * getvariable('sequence_fraction')) THEN 'temporal_2'
            WHEN sequence_place IS NOT NULL THEN fold END
        ELSE fold
    END AS shared_split,
    CASE WHEN getvariable('split_by') = 'time'
         THEN CASE WHEN denial_window = 'train' THEN fold ELSE denial_window END
         ELSE shared_split END AS denial_split,
    shared_split IS NOT NULL AS is_in_window,
    denial_split IS NOT NULL AS is_in_denial_window,
    denial_split NOT IN ('val', 'test') OR keeps_half AS is_in_denial_half,
    -- strata
    CASE WHEN age < 0 THEN NULL WHEN age < 18 THEN '0-17' WHEN age < 35 THEN '18-34' WHEN age < 50 THEN '35-49'
         WHEN age < 65 THEN '50-64' WHEN age < 75 THEN '65-74' WHEN age < 85 THEN '75-84' WHEN age >= 85 THEN '85+'
    END AS age_band,
    CASE WHEN age >= 0 THEN age < 18 END AS is_child,
    stay.department
FROM checked
LEFT JOIN members USING (encounter_id)
LEFT JOIN labelled AS stay ON stay.stay_id = members.stay_id
LEFT JOIN note_facts AS hp ON hp.stay_id = stay.stay_id AND hp.note_type = 'H&P'
LEFT JOIN note_facts AS ds ON ds.stay_id = stay.stay_id AND ds.note_type = 'discharge summary'
LEFT JOIN index_notes AS hp_note ON hp_note.stay_id = stay.stay_id AND hp_note.note_type = 'H&P'
LEFT JOIN index_notes AS ds_note ON ds_note.stay_id = stay.stay_id AND ds_note.note_type = 'discharge summary';
