"""Records from an OMOP warehouse: what comes out, what is set aside, and that the bytes are fixed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import extract, writing
from lang1.ehr.schema import TABLES
from lang1.errors import InputError, Unfinished

from .hospital import NOTE, needs_ddl, warehouse

pytestmark = needs_ddl


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return list(pq.read_table(out / table).to_pylist())


def data_files(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def test_gives_every_canonical_table_with_its_schema(tmp_path: Path, out: Path) -> None:
    extract(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb"), out=out, seed=1)
    for table, schema in TABLES.items():
        written = pq.read_schema(next((out / table).glob("*.parquet")))
        assert written.equals(schema), table
        assert pa.types.is_dictionary(TABLES["patients"].field("sex").type)
    assert rows(out, "patients")[0] == {
        "patient_id": "1", "birth_date": date(1950, 3, 4), "sex": "female", "race": "White",
        "ethnicity": "Not Hispanic", "borough": "Kings", "death_date": None,
    }  # fmt: skip
    encounter = rows(out, "encounters")[0]
    assert encounter["encounter_id"] == "101" and encounter["encounter_class"] == "inpatient"
    assert encounter["admit_time"] == datetime(2020, 2, 1, 10) and encounter["discharge_time"] == datetime(
        2020, 2, 4, 12
    )
    assert (encounter["service"], encounter["department"], encounter["facility"]) == ("medicine", "4 West", "Main")
    assert (encounter["admission_type"], encounter["primary_diagnosis"]) == ("emergency", "I50.9")
    note = rows(out, "notes")[0]
    assert (note["note_id"], note["note_type"], note["author_role"]) == ("10", "H&P", "attending")
    assert note["signed_time"] == datetime(2020, 2, 1, 11, 30) and note["text"].startswith(NOTE)
    assert {(d["code"], d["code_system"], d["position"]) for d in rows(out, "diagnoses")} == {
        ("I50.9", "ICD10CM", 1), ("E11.9", "ICD10CM", 2)}  # fmt: skip
    assert rows(out, "claims")[0]["status"] == "no denial"


@pytest.mark.parametrize(
    ("code", "day", "system"),
    [
        ("428.0", "2012-01-01", "ICD9CM"),
        ("I50.9", "2012-01-01", "ICD10CM"),
        ("V45.81", "2015-09-30", "ICD9CM"),
        ("V45.81", "2015-10-01", "ICD10CM"),
        ("E888", "2012-01-01", "ICD9CM"),
        ("E11.65", "2020-01-01", "ICD10CM"),
        ("C7A.1", "2020-01-01", "ICD10CM"),
        ("44054006", "2020-01-01", None),  # SNOMED
    ],
)
def test_code_system_without_a_source_concept(
    tmp_path: Path, out: Path, code: str, day: str, system: str | None
) -> None:
    change = (
        f"UPDATE condition_occurrence SET condition_source_value = '{code}', condition_source_concept_id = 0, "
        f"condition_start_date = '{day}'"
    )
    extract(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb", 1, True, change), out=out, seed=1)
    assert {d["code_system"] for d in rows(out, "diagnoses")} == {system}


def test_death_in_the_stay_is_expired_and_death_elsewhere_is_not(tmp_path: Path, out: Path) -> None:
    source = warehouse(
        tmp_path / "w.duckdb", 3, True,
        "UPDATE visit_occurrence SET discharged_to_concept_id = 4216643, discharged_to_source_value = 'morgue' "
        "WHERE visit_occurrence_id = 101",
        "UPDATE visit_occurrence SET discharged_to_source_value = '20' WHERE visit_occurrence_id = 102",
        "INSERT INTO death (person_id, death_date) VALUES (3, DATE '2020-03-01')",
    )  # fmt: skip
    extract(ExtractConfig(), source=source, out=out, seed=1)
    assert [e["discharge_disposition"] for e in rows(out, "encounters")] == ["Expired", "Expired", "Home"]
    assert rows(out, "patients")[2]["death_date"] == date(2020, 3, 1)


def test_plain_omop_has_no_claims_and_takes_note_datetime_for_signing(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb", 2, False, "UPDATE note SET note_datetime = NULL WHERE note_id = 10")
    manifest = extract(ExtractConfig(), source=source, out=out, seed=1)
    assert manifest["facts"]["absent_tables"] == ["claims"]
    assert manifest["facts"]["signed_time_from"] == "note_datetime"
    assert pq.read_table(out / "claims").num_rows == 0
    signed = {note["note_id"]: note["signed_time"] for note in rows(out, "notes")}
    assert signed["20"] == datetime(2020, 2, 2, 10, 30)
    assert signed["10"] == datetime(2020, 2, 1, 23, 59, 59)  # a day alone: known by its end


def test_an_unsigned_note_stays_unsigned(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb", 1, True, "UPDATE note SET note_signed_datetime = NULL WHERE note_id = 10")
    manifest = extract(ExtractConfig(), source=source, out=out, seed=1)
    assert manifest["facts"]["signed_time_from"] == "note_signed_datetime"
    assert {note["note_id"]: note["signed_time"] is None for note in rows(out, "notes")} == {"10": True, "11": False}


RULES = [
    ("UPDATE person SET birth_datetime = '0001-01-01' WHERE person_id = 2", "patients",
     "impossible date in birth_date"),
    ("INSERT INTO death (person_id, death_date) VALUES (2, DATE '1949-01-01')", "patients", "death before birth"),
    ("UPDATE visit_occurrence SET visit_end_datetime = '2020-01-01' WHERE person_id = 2", "encounters",
     "discharge before admission"),
    ("UPDATE visit_occurrence SET visit_start_datetime = '1949-01-01' WHERE person_id = 2", "encounters",
     "admission before birth"),
    ("UPDATE visit_occurrence SET visit_start_datetime = '0001-01-01' WHERE person_id = 2", "encounters",
     "impossible date in admit_time"),
    ("UPDATE visit_occurrence SET visit_end_datetime = '9999-12-31' WHERE person_id = 2", "encounters",
     "impossible date in discharge_time"),
    ("UPDATE visit_occurrence SET person_id = 77 WHERE person_id = 2", "encounters", "no such patient"),
    ("UPDATE note SET person_id = 77 WHERE note_id = 20", "notes", "no such patient"),
    ("UPDATE note SET visit_occurrence_id = 77 WHERE note_id = 20", "notes", "no such encounter"),
    ("UPDATE note SET visit_occurrence_id = 103 WHERE note_id = 20", "notes", "encounter of another patient"),
    ("UPDATE note SET note_signed_datetime = 'infinity' WHERE note_id = 20", "notes", "impossible date in signed_time"),
    ("UPDATE note SET note_id = 10 WHERE note_id = 20", "notes", "duplicate note_id"),
    ("UPDATE condition_occurrence SET condition_source_value = NULL WHERE condition_occurrence_id = 20", "diagnoses",
     "missing code"),
    ("UPDATE condition_occurrence SET visit_occurrence_id = 77 WHERE condition_occurrence_id = 20", "diagnoses",
     "no such encounter"),
    ("UPDATE claim SET visit_occurrence_id = 77 WHERE claim_id = 2", "claims", "no such encounter"),
    ("UPDATE claim SET claim_id = NULL WHERE claim_id = 2", "claims", "missing claim_id"),
    ("INSERT INTO claim SELECT * FROM claim WHERE claim_id = 2", "claims", "duplicate claim_id"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "table", "rule"), RULES, ids=[f"{t}-{r}" for _, t, r in RULES])
def test_a_row_that_breaks_a_rule_is_set_aside_by_name(
    tmp_path: Path, out: Path, statement: str, table: str, rule: str
) -> None:
    manifest = extract(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb", 3, True, statement), out=out, seed=1)
    assert manifest["facts"]["rejects"][table] == {rule: 1}
    rejects = out / "rejects" / f"{table}.parquet"
    assert [row["rule"] for row in pq.read_table(rejects).to_pylist()] == [rule]
    assert rejects.stat().st_mode & 0o777 == 0o600
    counts = manifest["counts"]
    for name in TABLES:
        kept = pq.read_table(out / name).num_rows
        assert counts[f"{name}_kept"] == kept
        assert counts[f"{name}_in"] == kept + counts[f"{name}_rejected"] + counts[f"{name}_excluded"]


def test_rows_of_a_rejected_patient_follow_it(tmp_path: Path, out: Path) -> None:
    source = warehouse(
        tmp_path / "w.duckdb", 3, True, "UPDATE person SET birth_datetime = '0001-01-01' WHERE person_id = 2"
    )
    rejects = extract(ExtractConfig(), source=source, out=out, seed=1)["facts"]["rejects"]
    assert rejects["encounters"] == {"no such patient": 1} and rejects["notes"] == {"no such patient": 2}
    assert rejects["claims"] == {"no such encounter": 1}


def test_a_reject_holds_the_row_as_it_came(tmp_path: Path, out: Path) -> None:
    (tmp_path / "sql").mkdir()
    query = (
        "SELECT n.note_id, n.person_id AS patient_id, n.visit_occurrence_id AS encounter_id, 'hospital' AS category, "
    )
    query += "'H&P' AS note_type, NULL AS author_role, NULL AS written_time, "
    query += "CASE WHEN n.note_id = 10 THEN '31 Feb 2020' ELSE '2020-02-02 08:00' END AS signed_time, "
    query += "NULL AS department, n.note_text AS text FROM note AS n"
    (tmp_path / "sql" / "notes.sql").write_text(query)
    cfg = ExtractConfig(sql_dir=str(tmp_path / "sql"))
    extract(cfg, source=warehouse(tmp_path / "w.duckdb"), out=out, seed=1)
    [reject] = pq.read_table(out / "rejects" / "notes.parquet").to_pylist()
    assert (reject["rule"], reject["signed_time"]) == ("unreadable signed_time", "31 Feb 2020")
    assert rows(out, "notes")[0]["signed_time"] == datetime(2020, 2, 2, 8)


def test_excluded_patients_are_left_out_of_everything_and_counted(tmp_path: Path, out: Path) -> None:
    # one of their notes has lost its patient: it is still theirs, and must not come back as a reject
    source = warehouse(tmp_path / "w.duckdb", 3, True, "UPDATE note SET person_id = 77 WHERE note_id = 20")
    (tmp_path / "opt-out.txt").write_text("2\n\n  999 \n")
    cfg = ExtractConfig(exclude_patients=str(tmp_path / "opt-out.txt"))
    counts = extract(cfg, source=source, out=out, seed=1)["counts"]
    assert {name: counts[f"{name}_excluded"] for name in TABLES} == {
        "patients": 1, "encounters": 1, "notes": 2, "diagnoses": 2, "claims": 1}  # fmt: skip
    assert counts["excluded_patient_ids"] == 2 and not (out / "rejects").exists()
    for name in TABLES:
        assert all(row.get("patient_id") != "2" and row.get("encounter_id") != "102" for row in rows(out, name))
    assert "Patient number 2" not in "".join(note["text"] for note in rows(out, "notes"))


def test_same_rows_in_another_order_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writing.GROUP_ROWS, "notes", 7)
    twist = [
        f"CREATE TABLE x AS SELECT * FROM {t} ORDER BY rowid DESC; DELETE FROM {t}; INSERT INTO {t} FROM x; "
        "DROP TABLE x"
        for t in ("person", "visit_occurrence", "note", "condition_occurrence", "claim")
    ]
    # which of the three is kept must not depend on their order
    same_id = "UPDATE note SET note_id = 10 WHERE note_id IN (20, 30)"
    first = extract(
        ExtractConfig(), source=warehouse(tmp_path / "a.duckdb", 20, True, same_id), out=tmp_path / "a", seed=1
    )
    other = extract(
        ExtractConfig(), source=warehouse(tmp_path / "b.duckdb", 20, True, same_id, *twist), out=tmp_path / "b", seed=1
    )
    assert data_files(first) == data_files(other) and len(data_files(first)) == 6
    assert first["facts"]["rejects"]["notes"] == {"duplicate note_id": 2}


def test_parts_hold_every_row_once_in_order(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(writing.GROUP_ROWS, "notes", 3)
    monkeypatch.setattr(writing, "GROUPS_A_PART", 2)
    extract(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb", 20), out=out, seed=1)
    parts = sorted((out / "notes").glob("part-*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [6] * 6 + [4]
    ids = [note["note_id"] for note in rows(out, "notes")]
    assert ids == sorted(ids) and len(set(ids)) == 40


def test_long_notes_make_shorter_row_groups(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "GROUP_BYTES", 300)  # a note has 117 or 118 bytes: the third passes it
    extract(ExtractConfig(), source=warehouse(tmp_path / "w.duckdb", 5), out=out, seed=1)
    [part] = (out / "notes").glob("part-*.parquet")
    found = pq.read_metadata(part)
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [3, 3, 3, 1]


def test_a_second_run_does_nothing_and_edited_sql_is_another_extraction(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb")
    (tmp_path / "sql").mkdir()
    text = (Path(writing.__file__).parent / "sql" / "omop" / "claims.sql").read_text()
    (tmp_path / "sql" / "claims.sql").write_text(text)
    cfg = ExtractConfig(sql_dir=str(tmp_path / "sql"))
    first = extract(cfg, source=source, out=out, seed=1)
    assert extract(cfg, source=source, out=out, seed=1) == first
    (tmp_path / "sql" / "claims.sql").write_text(text + "WHERE c.claim_id <> 1")
    with pytest.raises(InputError, match=r"made with other settings or inputs \(sql.claims"):
        extract(cfg, source=source, out=out, seed=1)
    assert extract(cfg, source=source, out=out, seed=1, force=True)["counts"]["claims_kept"] == 2


def test_a_killed_extraction_ends_with_the_same_bytes(tmp_path: Path) -> None:
    many = (
        "INSERT INTO note SELECT n.* REPLACE (1000 + 100 * i + n.note_id AS note_id) FROM note AS n, range(9000) r(i)"
    )
    source = warehouse(tmp_path / "w.duckdb", 3, True, many)
    script = (
        "import sys; from pathlib import Path; from lang1.config import ExtractConfig; from lang1.ehr import extract\n"
        "extract(ExtractConfig(), source=Path(sys.argv[1]), out=Path(sys.argv[2]), seed=1)"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "killed")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "killed").glob("encounters/part-*.parquet")):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(tmp_path / "killed"), "it ended before the kill: nothing was tested"
    resumed = extract(ExtractConfig(), source=source, out=tmp_path / "killed", seed=1)
    whole = extract(ExtractConfig(), source=source, out=tmp_path / "whole", seed=1)
    assert data_files(resumed) == data_files(whole)
    assert not list((tmp_path / "killed").rglob(".*"))


def test_tables_that_are_written_are_kept_when_the_disk_is_full(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 5, True, "UPDATE visit_occurrence SET person_id = 77 WHERE person_id = 2")
    whole = extract(ExtractConfig(), source=source, out=tmp_path / "whole", seed=1)
    plain = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.parent.name == "notes":
            raise OSError(28, "No space left on device")
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(Unfinished, match="the disk is full"):
            extract(ExtractConfig(), source=source, out=out, seed=1)
    kept = {path: path.stat().st_ino for path in out.glob("*/*.parquet") if path.name != "notes.parquet"}
    assert {path.parent.name for path in kept} == {"patients", "encounters", "rejects"}
    resumed = extract(ExtractConfig(), source=source, out=out, seed=1)
    assert data_files(resumed) == data_files(whole) and resumed["counts"] == whole["counts"]
    assert resumed["facts"] == whole["facts"]
    assert {path: path.stat().st_ino for path in kept} == kept


def test_the_source_is_not_changed(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb")
    before = runs.sha256_file(source)
    source.chmod(0o400)
    extract(ExtractConfig(), source=source, out=out, seed=1)
    assert runs.sha256_file(source) == before
    assert Counter(p.name for p in tmp_path.iterdir()) == Counter(["w.duckdb", "records"])
