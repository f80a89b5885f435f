-- stays, members, checked, spelled_codes (lang1.tasks) -> lace_parts: a row a stay with what the LACE index asks.
-- What is not known is null. `transfer_us` is a variable.

-- Diseases: the codes of the stay and of the patient's earlier encounters of any class.
CREATE TABLE stay_codes AS
SELECT DISTINCT stays.stay_id, spelled_codes.code_system, spelled_codes.code
FROM spelled_codes
JOIN stays USING (patient_id)
LEFT JOIN members ON members.encounter_id = spelled_codes.encounter_id
WHERE members.stay_id = stays.stay_id
    OR CASE WHEN stays.is_untimed THEN spelled_codes.sequence < stays.sequence
            ELSE spelled_codes.end_time <= stays.admit_time END;

CREATE TABLE emergency_visits AS
SELECT
    stays.stay_id,
    -- the visit that led to the stay ends less than `transfer_us` before it, or within it
    count(*) FILTER (is_earlier) AS earlier,
    count(*) FILTER (NOT is_earlier) AS led_to_it
FROM stays
JOIN (
    SELECT patient_id, admit_time, end_time FROM checked
    WHERE encounter_class = 'emergency' AND has_usable_times AND NOT is_untimed
) AS visits
    ON visits.patient_id = stays.patient_id
    AND visits.admit_time >= stays.admit_time - INTERVAL 6 MONTH
    AND visits.admit_time <= stays.admit_time
CROSS JOIN LATERAL (
    SELECT epoch_us(stays.admit_time) - epoch_us(visits.end_time) >= getvariable('transfer_us') AS is_earlier
)
WHERE NOT stays.is_untimed
GROUP BY stays.stay_id;

CREATE TABLE acuity AS
SELECT stay_id, lower(trim(admission_type)) AS admission_type
FROM members JOIN checked USING (encounter_id)
WHERE place = 1;
