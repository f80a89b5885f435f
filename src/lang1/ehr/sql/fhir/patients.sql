-- One row a Patient, after US Core. The words for race and ethnicity are those of source omop.
WITH parsed AS (
    SELECT p.id, from_json(p.resource, '{
        "birthDate": "VARCHAR", "gender": "VARCHAR", "deceasedDateTime": "VARCHAR", "deceasedBoolean": "BOOLEAN",
        "address": [{"use": "VARCHAR", "district": "VARCHAR", "city": "VARCHAR", "period": {"end": "VARCHAR"}}],
        "extension": [{"url": "VARCHAR", "extension": [{"url": "VARCHAR", "valueString": "VARCHAR",
                                                        "valueCoding": {"code": "VARCHAR", "display": "VARCHAR"}}]}]
    }') AS r
    FROM Patient AS p
), known AS (
    SELECT
        parsed.id, parsed.r,
        list_filter(parsed.r.extension, lambda e: e.url LIKE '%/us-core-race')[1].extension AS race,
        list_filter(parsed.r.extension, lambda e: e.url LIKE '%/us-core-ethnicity')[1].extension AS ethnicity,
        list_filter(parsed.r.address, lambda a: a.period."end" IS NULL
                    AND coalesce(a."use", 'home') NOT IN ('old', 'temp', 'billing')) AS addresses
    FROM parsed
), chosen AS (
    SELECT
        known.*,
        list_filter(known.race, lambda e: e.url = 'ombCategory') AS races,
        coalesce(list_filter(known.addresses, lambda a: a."use" = 'home')[1], known.addresses[1], known.r.address[1])
            AS home
    FROM known
)
SELECT
    c.id AS patient_id,
    as_day(c.r.birthDate) AS birth_date,
    c.r.gender AS sex,
    CASE
        WHEN len(c.races) > 1 THEN 'Two or more'
        WHEN c.races[1].valueCoding.code = '2106-3' THEN 'White'
        WHEN c.races[1].valueCoding.code = '2054-5' THEN 'Black'
        WHEN c.races[1].valueCoding.code = '2028-9' THEN 'Asian'
        WHEN c.races[1].valueCoding.code = '1002-5' THEN 'American Indian or Alaska Native'
        WHEN c.races[1].valueCoding.code = '2076-8' THEN 'Native Hawaiian or Other Pacific Islander'
        ELSE coalesce(c.races[1].valueCoding.display, list_filter(c.race, lambda e: e.url = 'text')[1].valueString)
    END AS race,
    CASE list_filter(c.ethnicity, lambda e: e.url = 'ombCategory')[1].valueCoding.code
        WHEN '2135-2' THEN 'Hispanic'
        WHEN '2186-5' THEN 'Not Hispanic'
        ELSE list_filter(c.ethnicity, lambda e: e.url = 'text')[1].valueString
    END AS ethnicity,
    -- US addresses have the county in district, New York's its borough; many exports have the city alone
    coalesce(c.home.district, c.home.city) AS borough,
    as_day(c.r.deceasedDateTime) AS death_date,
    CASE WHEN c.r.deceasedBoolean AND c.r.deceasedDateTime IS NULL THEN 'deceased, no day' END AS flag
FROM chosen AS c
