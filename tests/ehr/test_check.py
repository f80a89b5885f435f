"""`--check`: what a source gives and lacks, before an hour is spent."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from lang1.config import ExtractConfig
from lang1.ehr.checking import Checked, check
from lang1.errors import InputError

from .hospital import needs_ddl, warehouse


def line(found: list[Checked], table: str, column: str) -> Checked:
    return next(entry for entry in found if (entry.table, entry.column) == (table, column))


@needs_ddl
def test_whole_warehouse_has_a_line_a_column_and_writes_nothing(tmp_path: Path) -> None:
    found = check(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb"))
    assert line(found, "notes", "text").given == "VARCHAR"
    assert line(found, "encounters", "sequence").remark == "null in every row"
    assert line(found, "encounters", "admit_time") == Checked("encounters", "admit_time", "TIMESTAMP", "TIMESTAMP", "")
    assert [path.name for path in tmp_path.iterdir()] == ["w.duckdb"]


@needs_ddl
def test_all_that_is_missing_is_named_at_once_and_claims_may_be_absent(tmp_path: Path) -> None:
    path = warehouse(tmp_path / "w.duckdb")
    with duckdb.connect(str(path)) as con:
        con.execute("DROP TABLE claim")
    assert line(check(ExtractConfig(), source=path), "claims", "").remark.endswith("no denial task")
    with duckdb.connect(str(path)) as con:
        con.execute("ALTER TABLE note DROP COLUMN note_text; DROP TABLE location")
    with pytest.raises(InputError, match=r"(?s)note\.note_text.*table location|table location.*note\.note_text"):
        check(ExtractConfig(), source=path)


@pytest.mark.parametrize("place", ["files", "sqlite"])
def test_users_own_sql_is_compared_with_what_is_wanted(tmp_path: Path, place: str) -> None:
    source: str | Path = tmp_path / "data"
    if place == "files":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "t.csv").write_text("id,day\n1,2020-01-01\n")
    else:
        import sqlite3

        with sqlite3.connect(tmp_path / "data.db") as con:
            con.execute("CREATE TABLE t (id INTEGER, day TEXT)")
        source = f"sqlite:///{tmp_path / 'data.db'}"
    sql = tmp_path / "sql"
    sql.mkdir()
    patients = (
        "SELECT id AS patient_id, day AS birth_date, NULL AS sex, NULL AS race, NULL AS ethnicity, NULL AS borough"
    )
    (sql / "patients.sql").write_text(f"{patients}, NULL AS death_date FROM t")
    (sql / "encounters.sql").write_text(
        "SELECT id AS encounter_id, id AS patient_id, 'inpatient' AS encounter_class, day AS admit_time, "
        "day AS discharge_time, NULL AS discharge_disposition, NULL AS service, NULL AS department, NULL AS facility, "
        "NULL AS admission_type, NULL AS primary_diagnosis, NULL AS sequence, NULL AS length_of_stay_days, "
        "NULL AS readmitted_30d, NULL AS age_at_admission FROM t"
    )
    (sql / "notes.sql").write_text(
        "SELECT id AS note_id, id AS patient_id, id AS encounter_id, 'hospital' AS category, 'H&P' AS note_type, "
        "NULL AS author_role, day AS written_time, day AS signed_time, NULL AS department, 'words' AS text FROM t"
    )
    cfg = ExtractConfig(source="sql", sql_dir=str(sql))
    found = check(cfg, source=source)
    assert line(found, "patients", "birth_date").remark == "text read as DATE: what does not parse is set aside"
    assert line(found, "diagnoses", "").remark == "there is no diagnoses.sql; no Charlson task"
    (sql / "patients.sql").write_text(patients + ", 5 AS deathdate FROM t")
    with pytest.raises(InputError, match=r"no column death_date.*unknown column deathdate, did you mean death_date"):
        check(cfg, source=source)
    if place == "files":
        (sql / "patients.sql").write_text(patients + ", true AS death_date FROM t")
        with pytest.raises(InputError, match=r"patients\.death_date: cannot be read as DATE"):
            check(cfg, source=source)
