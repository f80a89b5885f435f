"""A tiny OMOP warehouse by the official definitions, for the tests of this room."""

import functools
import os
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest

DATA = Path(os.environ.get("LANG1_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
DDL = DATA / "omop_cdm54_ddl" / "OMOPCDM_duckdb_5.4_ddl.sql"
needs_ddl = pytest.mark.skipif(not DDL.exists(), reason=f"no OMOP table definitions in {DDL.parent}")

NOTE = "Chief complaint chest pain for two days. History of heart failure. No fever. Plan admit to medicine."

# Each patient: one inpatient stay, an H&P, a discharge summary, two diagnoses and, with extensions, a claim.
ROWS = f"""
INSERT INTO location (location_id, county) VALUES (1, 'Kings');
INSERT INTO care_site (care_site_id, care_site_name, place_of_service_source_value, care_site_source_value)
    VALUES (1, '4 West', 'Medicine', 'Main');
INSERT INTO provider (provider_id, specialty_source_value, care_site_id) VALUES (1, 'attending', 1);
INSERT INTO concept (concept_id, concept_name, domain_id, vocabulary_id, concept_class_id, concept_code,
                     valid_start_date, valid_end_date)
    VALUES (2000000001, 'Heart failure', 'Condition', 'ICD10CM', 'code', 'I50.9', '1970-01-01', '2099-12-31');
INSERT INTO person (person_id, gender_concept_id, year_of_birth, month_of_birth, day_of_birth, race_concept_id,
                    ethnicity_concept_id, location_id)
    SELECT i, 8532, 1950, 3, 4, 8527, 38003564, 1 FROM patient;
INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, visit_start_date,
                              visit_start_datetime, visit_end_date, visit_end_datetime, visit_type_concept_id,
                              care_site_id, visit_source_value, discharged_to_source_value)
    SELECT 100 + i, i, 9201, day, day + INTERVAL 10 HOUR, day + 3, day + INTERVAL 84 HOUR, 32817, 1, 'Emergency', 'Home'
    FROM patient;
INSERT INTO note (note_id, person_id, note_date, note_datetime, note_type_concept_id, note_class_concept_id,
                  note_title, note_text, encoding_concept_id, language_concept_id, provider_id, visit_occurrence_id,
                  note_source_value)
    SELECT 10 * i + k, i, day + 3 * k, day + 3 * k + INTERVAL 630 MINUTE, 32817, 0,
           CASE k WHEN 0 THEN 'H&P' ELSE 'discharge summary' END,
           '{NOTE} Patient number ' || i || '.', 0, 0, 1, 100 + i, 'hospital'
    FROM patient, (VALUES (0), (1)) AS kinds(k);
INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id, condition_start_date,
                                  condition_type_concept_id, condition_status_concept_id, visit_occurrence_id,
                                  condition_source_value, condition_source_concept_id, condition_status_source_value)
    SELECT 10 * i, i, 0, DATE '2020-02-20', 32817, 32902, 100 + i, 'I50.9', 2000000001, '1' FROM patient
    UNION ALL
    SELECT 10 * i + 1, i, 0, DATE '2020-02-20', 32817, 32908, 100 + i, 'E11.9', 0, '2' FROM patient;
"""
EXTENSIONS = """
ALTER TABLE note ADD COLUMN note_signed_datetime TIMESTAMP;
UPDATE note SET note_signed_datetime = note_datetime + INTERVAL 1 HOUR;
CREATE TABLE claim (claim_id INTEGER, visit_occurrence_id INTEGER, payer VARCHAR, claim_status VARCHAR,
                    status_datetime TIMESTAMP);
INSERT INTO claim SELECT i, 100 + i, 'Medicare', 'no denial', TIMESTAMP '2020-04-01' FROM patient;
"""


def empty_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(str(path))
    con.execute(DDL.read_text(encoding="utf-8").replace("@cdmDatabaseSchema.", ""))
    return con


@functools.cache
def _built(patients: int, extensions: bool) -> bytes:
    folder = Path(tempfile.mkdtemp())
    try:
        con = empty_warehouse(folder / "w.duckdb")
        con.execute(
            "CREATE TEMP TABLE patient AS SELECT i::INTEGER AS i, DATE '2020-02-01' + (i - 1)::INTEGER AS day "
            f"FROM range(1, {patients} + 1) AS r(i)"
        )
        con.execute(ROWS)
        if extensions:
            con.execute(EXTENSIONS)
        con.close()
        return (folder / "w.duckdb").read_bytes()
    finally:
        shutil.rmtree(folder)


def warehouse(path: Path, patients: int = 3, extensions: bool = True, *statements: str) -> Path:
    """A warehouse file, then changed by `statements`."""
    path.write_bytes(_built(patients, extensions))
    if statements:
        con = duckdb.connect(str(path))
        for statement in statements:
            con.execute(statement)
        con.close()
    return path
