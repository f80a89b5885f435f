"""A tiny OMOP warehouse by the official definitions, for the tests of this room."""

import os
from pathlib import Path

import duckdb
import pytest

DATA = Path(os.environ.get("LANG1_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
DDL = DATA / "omop_cdm54_ddl" / "OMOPCDM_duckdb_5.4_ddl.sql"
needs_ddl = pytest.mark.skipif(not DDL.exists(), reason=f"no OMOP table definitions in {DDL.parent}")

NOTE = "Chief complaint chest pain for two days. History of heart failure. No fever. Plan admit to medicine."


def empty_warehouse(path: Path) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(str(path))
    con.execute(DDL.read_text(encoding="utf-8").replace("@cdmDatabaseSchema.", ""))
    return con


def extend(con: duckdb.DuckDBPyConnection) -> None:
    """Our two extensions."""
    con.execute("ALTER TABLE note ADD COLUMN note_signed_datetime TIMESTAMP")
    con.execute(
        "CREATE TABLE claim (claim_id INTEGER, visit_occurrence_id INTEGER, payer VARCHAR, "
        "claim_status VARCHAR, status_datetime TIMESTAMP)"
    )


def insert(con: duckdb.DuckDBPyConnection, table: str, **values: object) -> None:
    """One row; columns that must not be null and are not given get 0 or the first day of 2020."""
    row: dict[str, object] = {}
    for name, kind, *_ in con.execute(f"DESCRIBE {table}").fetchall():
        needed = con.execute(
            "SELECT is_nullable FROM information_schema.columns WHERE table_name = ? AND column_name = ?", [table, name]
        ).fetchone()
        if needed == ("NO",):
            row[name] = "2020-01-01" if kind in {"DATE", "TIMESTAMP"} else "" if kind == "VARCHAR" else 0
    row |= values
    names = ", ".join(f'"{name}"' for name in row)
    con.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def fill(con: duckdb.DuckDBPyConnection, patients: int = 3, extensions: bool = True) -> None:
    """Each patient: one inpatient stay, an H&P, a discharge summary, two diagnoses and, with extensions, a claim."""
    insert(con, "location", location_id=1, county="Kings")
    insert(
        con,
        "care_site",
        care_site_id=1,
        care_site_name="4 West",
        place_of_service_source_value="Medicine",
        care_site_source_value="Main",
    )
    insert(con, "provider", provider_id=1, specialty_source_value="attending", care_site_id=1)
    insert(con, "concept", concept_id=2_000_000_001, concept_name="Heart failure", vocabulary_id="ICD10CM")
    for i in range(1, patients + 1):
        insert(
            con,
            "person",
            person_id=i,
            gender_concept_id=8532,
            year_of_birth=1950,
            month_of_birth=3,
            day_of_birth=4,
            race_concept_id=8527,
            ethnicity_concept_id=38003564,
            location_id=1,
        )
        insert(
            con,
            "visit_occurrence",
            visit_occurrence_id=100 + i,
            person_id=i,
            visit_concept_id=9201,
            visit_start_datetime=f"2020-02-{i:02d} 10:00:00",
            visit_start_date=f"2020-02-{i:02d}",
            visit_end_datetime=f"2020-02-{i + 3:02d} 12:00:00",
            visit_end_date=f"2020-02-{i + 3:02d}",
            care_site_id=1,
            visit_source_value="Emergency",
            discharged_to_source_value="Home",
        )
        for k, title in enumerate(("H&P", "discharge summary")):
            signed = {"note_signed_datetime": f"2020-02-{i + 3 * k:02d} 11:30:00"} if extensions else {}
            insert(
                con,
                "note",
                note_id=10 * i + k,
                person_id=i,
                visit_occurrence_id=100 + i,
                note_title=title,
                note_source_value="hospital",
                note_text=f"{NOTE} Patient number {i}.",
                provider_id=1,
                note_date=f"2020-02-{i + 3 * k:02d}",
                note_datetime=f"2020-02-{i + 3 * k:02d} 10:30:00",
                **signed,
            )
        insert(
            con,
            "condition_occurrence",
            condition_occurrence_id=10 * i,
            person_id=i,
            visit_occurrence_id=100 + i,
            condition_source_value="I50.9",
            condition_source_concept_id=2_000_000_001,
            condition_status_concept_id=32902,
            condition_status_source_value="1",
            condition_start_date="2020-02-20",
        )
        insert(
            con,
            "condition_occurrence",
            condition_occurrence_id=10 * i + 1,
            person_id=i,
            visit_occurrence_id=100 + i,
            condition_source_value="E11.9",
            condition_source_concept_id=0,
            condition_status_source_value="2",
            condition_start_date="2020-02-20",
        )
        if extensions:
            insert(
                con,
                "claim",
                claim_id=i,
                visit_occurrence_id=100 + i,
                payer="Medicare",
                claim_status="no denial",
                status_datetime="2020-04-01",
            )


def warehouse(path: Path, patients: int = 3, extensions: bool = True, *statements: str) -> Path:
    con = empty_warehouse(path)
    if extensions:
        extend(con)
    fill(con, patients, extensions)
    for statement in statements:
        con.execute(statement)
    con.close()
    return path
