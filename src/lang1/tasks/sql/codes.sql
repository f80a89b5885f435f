-- The ICD codes of each stay (spelled_codes.sql): those of its own encounters, or (`cci_codes: prior`) those of the
-- patient's earlier encounters of any class, known when the H&P was signed.
CREATE TABLE stay_codes AS
SELECT DISTINCT stay_id, code_system, code
FROM spelled_codes JOIN members USING (encounter_id)
WHERE getvariable('cci_codes') = 'encounter'
UNION ALL
SELECT DISTINCT stays.stay_id, code_system, code
FROM spelled_codes
JOIN stays ON stays.patient_id = spelled_codes.patient_id
    AND CASE WHEN stays.is_untimed THEN spelled_codes.sequence < stays.sequence
             ELSE spelled_codes.end_time <= stays.admit_time END
LEFT JOIN members USING (encounter_id)
LEFT JOIN index_notes ON index_notes.stay_id = stays.stay_id AND index_notes.note_type = 'H&P'
WHERE getvariable('cci_codes') = 'prior'
    AND members.stay_id IS DISTINCT FROM stays.stay_id
    AND coalesce(coded_time <= coalesce(index_notes.clock_time, stays.admit_time), true);
