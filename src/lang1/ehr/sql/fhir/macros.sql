-- What the queries of source fhir share. The variable time_zone is extract.time_zone, or null.

-- Patient/123, https://ehr.example.org/fhir/Patient/123, Patient/123/_history/2, urn:uuid:... -> the id; a reference
-- to another kind of resource, or by identifier alone, is null. What is contained has the id <resource>#<contained>.
CREATE OR REPLACE TEMP MACRO reference_id(reference, kind) AS CASE
    WHEN reference LIKE 'urn:uuid:%' OR reference LIKE 'urn:oid:%' THEN split_part(reference, ':', 3)
    ELSE nullif(regexp_extract(reference, '(?:^|/)' || kind || '/([^/?]+)(?:/_history/[^/]+)?$', 1), '')
END;

-- A FHIR date, dateTime or instant -> local time without zone, as text; what is none of them stays as it is, and goes
-- to the rejects as unreadable. Without extract.time_zone the clock written beside the offset counts. A day alone
-- begins.
CREATE OR REPLACE TEMP MACRO as_time(written) AS CASE
    WHEN regexp_full_match(written, '[0-9]{4}') THEN written || '-01-01 00:00:00'
    WHEN regexp_full_match(written, '[0-9]{4}-[0-9]{2}') THEN written || '-01 00:00:00'
    WHEN regexp_full_match(written, '[0-9]{4}-[0-9]{2}-[0-9]{2}') THEN written || ' 00:00:00'
    WHEN getvariable('time_zone') IS NOT NULL AND regexp_matches(written, '(Z|z|[+-][0-9]{2}:[0-9]{2})$') THEN
        coalesce(CAST(TRY_CAST(written AS TIMESTAMPTZ) AT TIME ZONE getvariable('time_zone') AS VARCHAR), written)
    ELSE regexp_replace(
        written,
        '^([0-9-]{10})T([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)[0-9]*(?:Z|z|[+-][0-9]{2}:[0-9]{2})?$',
        '\1 \2')
END;

-- The same for an end: a day, a month or a year alone ends with its last second.
CREATE OR REPLACE TEMP MACRO as_end(written) AS CASE
    WHEN regexp_full_match(written, '[0-9]{4}') THEN written || '-12-31 23:59:59'
    WHEN regexp_full_match(written, '[0-9]{4}-[0-9]{2}') THEN
        coalesce(CAST(last_day(TRY_CAST(written || '-01' AS DATE)) AS VARCHAR) || ' 23:59:59', written)
    WHEN regexp_full_match(written, '[0-9]{4}-[0-9]{2}-[0-9]{2}') THEN written || ' 23:59:59'
    ELSE as_time(written)
END;

-- The local day.
CREATE OR REPLACE TEMP MACRO as_day(written) AS
    CASE WHEN TRY_CAST(as_time(written) AS TIMESTAMP) IS NULL THEN written ELSE as_time(written)[:10] END;

-- A CodeableConcept's words.
CREATE OR REPLACE TEMP MACRO words_of(concept) AS
    coalesce(concept.text, list_filter(concept.coding, lambda c: c.display IS NOT NULL)[1].display,
        concept.coding[1].code);

CREATE OR REPLACE TEMP MACRO code_system(uri) AS CASE
    WHEN lower(uri) IN ('http://hl7.org/fhir/sid/icd-10-cm', 'urn:oid:2.16.840.1.113883.6.90',
                        'http://terminology.hl7.org/codesystem/icd10cm') THEN 'ICD10CM'
    WHEN lower(uri) IN ('http://hl7.org/fhir/sid/icd-9-cm', 'http://hl7.org/fhir/sid/icd-9-cm/diagnosis',
                        'urn:oid:2.16.840.1.113883.6.103', 'http://terminology.hl7.org/codesystem/icd9cm',
                        'http://terminology.hl7.org/codesystem/icd-9-cm') THEN 'ICD9CM'
    WHEN lower(uri) IN ('http://hl7.org/fhir/sid/icd-10', 'urn:oid:2.16.840.1.113883.6.3') THEN 'ICD10'
    WHEN lower(uri) IN ('http://snomed.info/sct', 'urn:oid:2.16.840.1.113883.6.96') THEN 'SNOMED'
    ELSE coalesce(uri, 'unknown')
END;

-- All codes of the one system that counts: ICD-9-CM or ICD-10-CM as in force on the day (2015-10-01) where a condition
-- has both, else the ICD that there is, else SNOMED, else the first system. Never without a system: the tasks would
-- read such a code as ICD by its date.
CREATE OR REPLACE TEMP MACRO codes_in(codings, wanted) AS
    list_filter(codings, lambda c: code_system(c.system) = wanted AND c.code IS NOT NULL);
CREATE OR REPLACE TEMP MACRO chosen_system(codings, day) AS CASE
    WHEN len(codes_in(codings, 'ICD9CM')) > 0 AND (TRY_CAST(day AS TIMESTAMP) < DATE '2015-10-01'
        OR coalesce(len(codes_in(codings, 'ICD10CM')), 0) = 0) THEN 'ICD9CM'
    WHEN len(codes_in(codings, 'ICD10CM')) > 0 THEN 'ICD10CM'
    WHEN len(codes_in(codings, 'ICD10')) > 0 THEN 'ICD10'
    WHEN len(codes_in(codings, 'SNOMED')) > 0 THEN 'SNOMED'
    ELSE code_system(codings[1].system)
END;

-- Whether a line of an adjudication says that the payer refuses: a category of CARIN Blue Button, a reason of HL7, or
-- one of the X12 claim adjustment reasons that are denials (others adjust a price or are the patient's share). Edit as
-- you bill.
CREATE OR REPLACE TEMP MACRO denies(category, reason) AS
    len(list_filter(category, lambda c: c.code IN ('denialreason', 'rejectreason'))) > 0
    OR len(list_filter(reason, lambda c: c.code IN ('ar001', 'ar002', '16', '22', '26', '27', '29', '31', '39', '50',
        '55', '96', '109', '119', '150', '151', '197', '198', '204', '226', '252', 'A1'))) > 0;
CREATE OR REPLACE TEMP MACRO is_paid(category) AS
    len(list_filter(category, lambda c: c.code IN ('benefit', 'paidtoprovider', 'paidtopatient'))) > 0;
