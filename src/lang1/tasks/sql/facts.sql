-- One row an encounter: what every rule asks (a boolean a rule, cohort.py lists their order) and every label.
CREATE TABLE facts AS
WITH timed AS (
    SELECT
        stays.*,
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
            WHEN getvariable('readmission_by') = 'adt' THEN by_adt
            ELSE by_note
        END AS readmitted,
        by_adt,
        by_note,
        window_end,
        coalesce(NOT is_untimed AND NOT is_expired AND (
            death_date BETWEEN discharge_time::DATE AND last_day
            OR (died_time > discharge_time AND died_time <= window_end)), false) AS died_within,
        CASE WHEN days <= 2 THEN 0 WHEN days <= 3 THEN 1 WHEN days <= 5 THEN 2 WHEN days > 5 THEN 3 END AS los_label,
        score IS NOT NULL AS has_codes,
        CASE WHEN score = 0 THEN 0 WHEN score <= 2 THEN 1 WHEN score <= 4 THEN 2
             WHEN score <= 7 OR (score > 7 AND getvariable('cci_classes') = 4) THEN 3 WHEN score > 7 THEN 4
             WHEN NOT getvariable('exclude_uncoded') THEN 0 END AS cci_label,
        claim_facts.stay_id IS NOT NULL AS has_claim,
        claim_facts.denied,
        claim_facts.settled_time,
        shared.split AS shared_window,
        denial.split AS denial_window
    FROM timed
    LEFT JOIN charlson_scores USING (stay_id)
    LEFT JOIN claim_facts USING (stay_id)
    LEFT JOIN returns USING (stay_id)
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
    NOT stay.has_overlap AS has_no_overlap,
    stay.has_ended,
    NOT stay.is_newborn AS is_no_newborn,
    -- readmission
    NOT stay.is_expired AND (stay.is_untimed OR stay.death_date IS NULL
        OR stay.death_date >= stay.discharge_time::DATE) AS survived,
    NOT (stay.is_untimed AND coalesce(lower(stay.disposition) LIKE '%hospice%', false)) AS is_not_hospice,
    NOT stay.is_excluded_service AS is_acute_service,
    NOT stay.is_excluded_department AS is_acute_department,
    stay.is_untimed OR stay.next_admit_time IS NOT NULL AS is_followed_by_a_stay,
    CASE WHEN stay.is_untimed THEN stay.given_readmitted IS NOT NULL
         WHEN NOT getvariable('exclude_unfollowed') THEN true
         ELSE getvariable('follow_up_end') IS NULL OR stay.window_end <= getvariable('follow_up_end')
    END AS has_follow_up,
    stay.readmitted::INTEGER AS readmission_label,
    stay.by_adt,
    stay.by_note,
    NOT stay.died_within AS lived_on,
    coalesce(NOT stay.readmitted AND stay.died_within, false) AS died_after_discharge,
    -- mortality, LOS
    stay.is_expired OR stay.disposition IS NOT NULL AS has_disposition,
    stay.is_expired::INTEGER AS mortality_label,
    stay.days IS NOT NULL AND stay.days >= 0 AS has_length,
    stay.days AS los_days,
    stay.los_label,
    -- Charlson
    stay.has_codes,
    stay.cci_label,
    -- denial
    getvariable('has_claims') AS has_claims,
    stay.has_claim,
    stay.is_untimed OR getvariable('follow_up_end') IS NULL
        OR epoch_us(stay.discharge_time) + getvariable('claims_us') <= epoch_us(getvariable('follow_up_end')) AS is_mature,
    stay.denied IS NOT NULL AS has_final_status,
    stay.denied AS denial_label,
    date_diff('day', stay.discharge_time, stay.settled_time) AS claim_days,
    -- index notes
    hp.stay_id IS NOT NULL AS hp_exists, hp.is_clean AS hp_is_clean, hp.is_original AS hp_is_original, hp.is_signed AS hp_is_signed,
    hp.is_after_admission AS hp_is_after_admission, hp.is_in_time AS hp_is_in_time, hp.is_usable AS hp_is_usable,
    hp_note.note_id AS hp_note_id, hp_note.clock_time AS hp_time,
    ds.stay_id IS NOT NULL AS ds_exists, ds.is_clean AS ds_is_clean, ds.is_original AS ds_is_original, ds.is_acute AS ds_is_acute,
    ds.is_signed AS ds_is_signed,
    ds.is_after_admission AS ds_is_after_admission, ds.is_in_time AS ds_is_in_time, ds.is_usable AS ds_is_usable,
    ds_note.note_id AS ds_note_id, ds_note.clock_time AS ds_time,
    -- split: the place is a window or the fold's (train); in train the hash of the unit decides
    CASE getvariable('split_by')
        WHEN 'time' THEN shared_window
        WHEN 'sequence' THEN CASE
            WHEN sequence_place > sequence_count - floor(sequence_count * getvariable('sequence_fraction')) THEN 'temporal_2'
            WHEN sequence_place IS NOT NULL THEN 'train' END
        ELSE 'train'
    END AS shared_place,
    CASE WHEN getvariable('split_by') = 'time' THEN denial_window ELSE shared_place END AS denial_place,
    CASE getvariable('split_unit') WHEN 'note' THEN 'note:' || hp_note_id ELSE checked.patient_id END AS hp_unit,
    CASE getvariable('split_unit') WHEN 'note' THEN 'note:' || ds_note_id ELSE checked.patient_id END AS ds_unit,
    CASE WHEN shared_place = 'train' THEN fold_of(hp_unit) ELSE shared_place END AS hp_split,
    CASE WHEN shared_place = 'train' THEN fold_of(ds_unit) ELSE shared_place END AS ds_split,
    CASE WHEN denial_place = 'train' THEN fold_of(hp_unit) ELSE denial_place END AS denial_fold,
    denial_fold NOT IN ('val', 'test') OR keeps_half_of(hp_unit) AS is_in_denial_half,
    CASE WHEN is_in_denial_half OR getvariable('denial_other_half') = 'leave' THEN denial_fold ELSE 'train' END
        AS denial_split,
    shared_place IS NOT NULL AS is_in_window,
    denial_place IS NOT NULL AS is_in_denial_window,
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
