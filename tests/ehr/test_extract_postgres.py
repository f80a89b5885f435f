"""Records from PostgreSQL: the bytes that DuckDB gives, of one state of the database, whatever the warehouse lacks."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

import lang1.ehr
from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import databases, extract, writing
from lang1.ehr.crew import Crew
from lang1.ehr.postgres import Postgres
from lang1.errors import InputError

from .hospital import needs_ddl, warehouse
from .server import Server

IN_53 = [
    f"ALTER TABLE visit_occurrence RENAME COLUMN {new} TO {old}"
    for new, old in (
        ("admitted_from_concept_id", "admitting_source_concept_id"),
        ("admitted_from_source_value", "admitting_source_value"),
        ("discharged_to_concept_id", "discharge_to_concept_id"),
        ("discharged_to_source_value", "discharge_to_source_value"),
    )
]
BROKEN = [
    "UPDATE person SET birth_datetime = '0001-01-01' WHERE person_id = 2",
    "INSERT INTO death (person_id, death_date) VALUES (3, DATE '1949-01-01'), (4, DATE 'infinity')",
    "UPDATE visit_occurrence SET visit_start_datetime = '4000-01-01 (BC)' WHERE person_id = 5",
    "UPDATE visit_occurrence SET visit_end_datetime = '-infinity' WHERE person_id = 6",
    "UPDATE note SET note_signed_datetime = 'infinity' WHERE note_id = 70",
    "UPDATE note SET note_id = 80 WHERE note_id IN (81, 90)",
    "UPDATE note SET visit_occurrence_id = 77 WHERE note_id IN (100, 95)",  # before and after 80 as text
    "UPDATE note SET note_text = e'quotes \"\" '' \\\\ tab\t and\r\nlines, ünï, 𝔘 \\x01' WHERE note_id = 110",
    "UPDATE note SET note_text = '' WHERE note_id = 111",
    "UPDATE claim SET claim_id = NULL WHERE claim_id = 12",
    "INSERT INTO claim SELECT * FROM claim WHERE claim_id = 13",
    "UPDATE condition_occurrence SET condition_source_value = NULL WHERE condition_occurrence_id = 140",
]


def data_files(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def config(**more: Any) -> ExtractConfig:
    return ExtractConfig(**more)


@pytest.mark.parametrize(("workers", "rows"), [(1, 200_000), (4, 150)])
def test_the_simulated_hospital_gives_the_bytes_that_duckdb_gives(
    server: Server, hospital: str, simulated: Path, tmp_path: Path, workers: int, rows: int
) -> None:
    from_duckdb = extract(config(), source=simulated, out=tmp_path / "duckdb", seed=1)
    cfg = config(workers=workers, partition_rows=rows)
    manifest = extract(cfg, source=server.url(hospital), out=tmp_path / "postgres", seed=1)
    assert data_files(manifest) == data_files(from_duckdb) and len(data_files(manifest)) == 5
    assert manifest["counts"] == from_duckdb["counts"] and manifest["counts"]["notes_kept"] > 1000
    about = manifest["facts"]["database"]
    assert about["schema"] == "cdm" and about["one_state"] and len(about["snapshots"]) == 1
    assert (about["partitions"]["notes"] > 2) == (rows == 150)
    assert not list((tmp_path / "postgres").rglob(".*"))


@needs_ddl
@pytest.mark.parametrize(("adbc", "piece_bytes"), [(True, 1), (True, 2**26), (False, 1)])
def test_rows_that_break_rules_give_the_same_bytes_by_either_driver_and_in_any_pieces(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adbc: bool, piece_bytes: int
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 20, True, *BROKEN)
    from_duckdb = extract(config(), source=source, out=tmp_path / "duckdb", seed=1)
    if not adbc:  # as where it is not installed
        monkeypatch.setitem(sys.modules, "adbc_driver_manager", None)
        monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    monkeypatch.setattr(databases, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(writing, "BATCH_ROWS", 2_048 if piece_bytes > 1 else 3)
    with server.database() as database:
        server.load(database, source)
        manifest = extract(config(partition_rows=7), source=server.url(database), out=tmp_path / "postgres", seed=1)
    assert manifest["facts"]["rejects"] == from_duckdb["facts"]["rejects"]
    assert {"duplicate note_id", "impossible date in signed_time", "no such encounter", "no such patient"} == set(
        manifest["facts"]["rejects"]["notes"]
    )
    assert data_files(manifest) == data_files(from_duckdb) and "rejects/claims.parquet" in data_files(manifest)


@needs_ddl
def test_plain_omop_53_extracts_and_says_what_stands_in(server: Server, tmp_path: Path) -> None:
    dead = "UPDATE visit_occurrence SET discharged_to_concept_id = 4216643 WHERE person_id = 1"
    day = "UPDATE note SET note_datetime = NULL WHERE note_id = 10"
    source = warehouse(tmp_path / "w.duckdb", 3, False, dead, day, *IN_53)
    from_duckdb = extract(config(), source=source, out=tmp_path / "duckdb", seed=1)
    with server.database() as database:
        server.load(database, warehouse(tmp_path / "w54.duckdb", 3, False, dead, day), "omop", extensions=False)
        server.run(database, *(f"SET search_path = omop; {statement}" for statement in IN_53))
        manifest = extract(config(), source=server.url(database), out=tmp_path / "postgres", seed=1)
    assert data_files(manifest) == data_files(from_duckdb)
    for facts in (manifest["facts"], from_duckdb["facts"]):
        assert (facts["signed_time_from"], facts["cdm_version"]) == ("note_datetime", "5.3")
        assert facts["absent_tables"] == ["claims"]
    encounters = pq.read_table(tmp_path / "postgres" / "encounters").to_pylist()
    assert [e["discharge_disposition"] for e in encounters] == ["Expired", "Home", "Home"]


@needs_ddl
def test_the_schema_is_found_named_or_asked_for(server: Server, tmp_path: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb")
    with server.database() as database:
        server.load(database, source, "cdm")
        server.run(database, "CREATE TABLE public.person (id integer)")  # somebody else's: no visits beside it
        assert extract(config(), source=server.url(database), out=tmp_path / "a", seed=1)["facts"]["database"][
            "schema"
        ] == ("cdm")
        server.load(database, source, "other")
        with pytest.raises(InputError) as caught:
            extract(config(), source=server.url(database), out=tmp_path / "b", seed=1)
        assert str(caught.value).endswith(
            "the schemas cdm, other all hold a table person; name yours: ?options=-csearch_path%3Dcdm"
        )
        url = server.url(database, more="options=-csearch_path%3Dother")
        manifest = extract(config(), source=url, out=tmp_path / "b", seed=1)
        assert manifest["facts"]["database"]["schema"] == "other"
        assert manifest["inputs"]["source"].endswith(f"/{database} schema other")
        url = server.url(database, more="options=-csearch_path%3Dnowhere")
        with pytest.raises(
            InputError, match=r"no schema of the search path \(nowhere\) holds a table person; cdm, oth"
        ):
            extract(config(), source=url, out=tmp_path / "c", seed=1)


@needs_ddl
def test_a_vocabulary_in_a_schema_of_its_own(server: Server, tmp_path: Path) -> None:
    with server.database() as database:
        server.load(database, warehouse(tmp_path / "w.duckdb"))
        server.run(database, "CREATE SCHEMA vocab; ALTER TABLE cdm.concept SET SCHEMA vocab")
        with pytest.raises(InputError) as caught:
            extract(config(), source=server.url(database), out=tmp_path / "a", seed=1)
        assert "lacks what the SQL reads: table concept (it has" in str(caught.value)
        assert str(caught.value).endswith("name every schema, ?options=-csearch_path%3Dcdm,vocab")
        url = server.url(database, more="options=-csearch_path%3Dcdm,vocab")
        assert extract(config(), source=url, out=tmp_path / "a", seed=1)["counts"]["diagnoses_kept"] == 6


@needs_ddl
def test_the_servers_statistics_cut_the_rows_evenly_without_a_look_at_them(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 200)
    before = extract(config(), source=source, out=tmp_path / "duckdb", seed=1)
    sampled: list[str] = []
    sizes: dict[str, list[int]] = {}
    rows, write = Postgres._rows, Crew._write

    def count(self: Any, job: Any, reader: Any) -> int:
        found = write(self, job, reader)
        sizes.setdefault(job.table, []).append(found)
        return found

    def asked(self: Any, query: Any, sql: str) -> list[Any]:
        sampled.extend([query.table] if "random()" in sql else [])
        return rows(self, query, sql)

    monkeypatch.setattr(Crew, "_write", count)
    monkeypatch.setattr(Postgres, "_rows", asked)
    with server.database() as database:
        server.load(database, source)
        server.run(database, "ANALYZE")
        known = extract(config(partition_rows=50), source=server.url(database), out=tmp_path / "known", seed=1)
        assert "notes" not in sampled and len(sizes["notes"]) > 3
        assert sum(sizes["notes"]) == 400 and max(sizes["notes"]) < 1.3 * min(sizes["notes"])
        # another number of rows than the table had: what its statistics say may not be so of these
        (tmp_path / "sql").mkdir()
        notes = (Path(lang1.ehr.__file__).parent / "sql/omop/notes.sql").read_text() + "\nWHERE n.note_id < 1100"
        (tmp_path / "sql/notes.sql").write_text(notes)
        half = config(partition_rows=50, sql_dir=str(tmp_path / "sql"))
        extract(half, source=server.url(database), out=tmp_path / "half", seed=1)
    assert data_files(known) == data_files(before)
    assert "notes" in sampled


@needs_ddl
def test_a_table_is_written_while_later_ones_are_still_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = warehouse(tmp_path / "w.duckdb", 40), tmp_path / "out"
    write, seen = Crew._write, []

    def late(self: Any, job: Any, reader: Any) -> int:
        if job.table == "notes":
            end = time.monotonic() + 60
            while not (out / "encounters/part-00000.parquet").exists() and time.monotonic() < end:
                time.sleep(0.01)
            seen.append((out / "encounters/part-00000.parquet").exists())
        return write(self, job, reader)

    monkeypatch.setattr(Crew, "_write", late)
    with server.database() as database:
        server.load(database, source)
        extract(config(partition_rows=30), source=server.url(database), out=out, seed=1)
    assert seen and all(seen)


@needs_ddl
def test_rows_written_during_the_run_do_not_show(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 40)
    before = extract(config(), source=source, out=tmp_path / "duckdb", seed=1)
    plain, lock = Crew._write, threading.Lock()
    with server.database() as database:
        server.load(database, source)

        def write(self: Any, job: Any, reader: Any) -> int:
            with lock:  # before each partition a note and a claim go, and people grow younger
                server.run(
                    database,
                    "DELETE FROM cdm.note WHERE note_id = (SELECT min(note_id) FROM cdm.note)",
                    "UPDATE cdm.person SET year_of_birth = year_of_birth + 1",
                    "DELETE FROM cdm.claim WHERE claim_id = (SELECT max(claim_id) FROM cdm.claim)",
                )
            return plain(self, job, reader)

        monkeypatch.setattr(Crew, "_write", write)
        manifest = extract(config(partition_rows=20), source=server.url(database), out=tmp_path / "postgres", seed=1)
    assert data_files(manifest) == data_files(before)
    assert manifest["facts"]["database"]["one_state"]


def own_sql(folder: Path, **texts: str) -> ExtractConfig:
    folder.mkdir(exist_ok=True)
    for table, text in texts.items():
        (folder / f"{table}.sql").write_text(text)
    return config(source="sql", sql_dir=str(folder), partition_rows=5)


PATIENTS = (
    "SELECT p.id AS patient_id, p.born AS birth_date, p.sex, NULL AS race, NULL AS ethnicity, "
    "NULL AS borough, NULL AS death_date FROM pat p"
)
ENCOUNTERS = (
    "SELECT s.nr AS encounter_id, s.pat AS patient_id, 'inpatient' AS encounter_class, s.a AS admit_time, "
    "s.a + interval '50 hours' AS discharge_time, NULL AS discharge_disposition, NULL AS service, "
    "s.ward AS department, NULL AS facility, NULL AS admission_type, NULL AS primary_diagnosis, NULL AS sequence, "
    "NULL AS length_of_stay_days, NULL AS readmitted_30d, s.age AS age_at_admission FROM stay s"
)
NOTES = (
    "SELECT n.id AS note_id, n.pat AS patient_id, NULL AS encounter_id, 'hospital' AS category, 'H&P' AS note_type, "
    "NULL AS author_role, NULL AS written_time, n.at AS signed_time, NULL AS department, n.t AS text FROM doc n"
)
TABLES = """
CREATE TYPE kind AS ENUM ('female', 'male');
CREATE TABLE pat (id uuid, born date, sex kind);
INSERT INTO pat SELECT md5(i::text)::uuid, date '1950-01-01' + i, (ARRAY['female', 'male'])[1 + i % 2]::kind
    FROM generate_series(1, 30) i;
CREATE TABLE stay (nr numeric(20), pat uuid, a timestamp, ward char(8), age numeric(4, 1), money money, j jsonb);
INSERT INTO stay SELECT 90000000000000000000 + i, md5(i::text)::uuid, timestamp '2020-01-01' + i * interval '1 day',
    'W' || i % 3, 70.5, 12.5, '{"a": 1}' FROM generate_series(1, 30) i;
CREATE TABLE doc (id text, pat uuid, at timestamp, t text);
INSERT INTO doc SELECT 'N-' || i, md5(i::text)::uuid, timestamp '2020-01-01' + i * interval '1 day', repeat('word ', 30)
    FROM generate_series(1, 30) i;
"""


def test_types_that_arrow_lacks_come_as_text_and_numbers_of_features_as_numbers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "PIECE_BYTES", 1)  # the ids of patients are uuids: each partition is sorted alone
    features = "SELECT s.nr AS encounter_id, s.age, s.money::numeric AS paid, s.j->>'a' AS a, s.ward FROM stay s"
    cfg = own_sql(tmp_path / "sql", patients=PATIENTS, encounters=ENCOUNTERS, notes=NOTES, features_admission=features)
    with server.database() as database:
        server.run(database, TABLES)
        manifest = extract(cfg, source=server.url(database), out=tmp_path / "out", seed=1)
        assert manifest["facts"]["rejects"] == {t: {} for t in manifest["facts"]["rejects"]}
        assert all(manifest["facts"]["database"]["partitions"][t] > 1 for t in ("patients", "notes"))
    patients = pq.read_table(tmp_path / "out" / "patients")["patient_id"].to_pylist()
    assert patients == sorted(patients) and len(set(patients)) == len(patients) > 20
    [first, *_] = pq.read_table(tmp_path / "out" / "encounters").to_pylist()
    assert first["encounter_id"] == "90000000000000000001" and first["department"] == "W1"
    assert first["age_at_admission"] == 70.5
    row = pq.read_table(tmp_path / "out" / "features_admission").to_pylist()[0]
    assert row == {"encounter_id": "90000000000000000001", "age": 70.5, "paid": 12.5, "a": "1", "ward": "W1"}


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (NOTES.replace("n.at AS", "n.at::timestamptz AS"), "signed_time is TIMESTAMP WITH TIME ZONE; give local time"),
        (NOTES.replace("n.t AS", "n.tt AS"), "lacks what the SQL reads: doc.tt"),
        ("\n-- mine\n" + NOTES.replace("n.t AS", "nope(n.t) AS"), "notes.sql: line 3: function nope(text) d"),
        (NOTES.replace(", n.t AS text", ""), "no column text; write NULL AS text"),
        (NOTES.replace("'H&P'", "(1 / (n.id = 'N-1')::int)::text"), "a CAST or a computation fails on some row"),
        (NOTES.replace("n.at AS", "CAST(n.t AS timestamp) AS"), "(InvalidDatetimeFormat, SQLSTATE 22007)"),
        ("DELETE FROM doc", 'notes.sql: line 1: syntax error at or near "FROM"'),
    ],
)  # fmt: skip
def test_sql_that_fails_is_named_without_a_value(server: Server, tmp_path: Path, notes: str, message: str) -> None:
    cfg = own_sql(tmp_path / "sql", patients=PATIENTS, encounters=ENCOUNTERS, notes=notes)
    with server.database() as database:
        server.run(database, TABLES)
        with pytest.raises(InputError) as caught:
            extract(cfg, source=server.url(database), out=tmp_path / "out", seed=1)
        with psycopg.connect(server.url(database)) as con:
            assert con.execute("SELECT count(*) FROM doc").fetchone() == (30,)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "word" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_the_faults_of_all_files_come_at_once(server: Server, tmp_path: Path) -> None:
    mine = "SELECT p.id AS patient_id, jsonb_object(p.sex) ? 'a' AS sex FROM pat p"  # DuckDB has no such operator
    cfg = own_sql(tmp_path / "sql", patients=mine, encounters=ENCOUNTERS.replace("s.ward", "no(s.ward)"), notes=NOTES)
    with server.database() as database:
        server.run(database, TABLES)
        with pytest.raises(InputError) as caught:
            extract(cfg, source=server.url(database), out=tmp_path / "out", seed=1)
    first, second = str(caught.value).split("; ")
    assert "patients.sql: line 1: function jsonb_object(kind) does not exist" in first
    assert "encounters.sql: line 1: function no(character) does not exist" in second


def test_a_complete_folder_stays_and_force_reads_the_database_again(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = own_sql(tmp_path / "sql", patients=PATIENTS, encounters=ENCOUNTERS, notes=NOTES)
    with server.database() as database:
        server.run(database, TABLES)
        url = server.url(database)
        first = extract(cfg, source=url, out=tmp_path / "out", seed=1)
        server.run(database, "DELETE FROM doc WHERE id = 'N-1'")
        runs.set_quiet(False)
        assert extract(cfg, source=url, out=tmp_path / "out", seed=1) == first
        assert "a database is not asked for changes; --force reads it again" in capsys.readouterr().err
        again = extract(cfg, source=url, out=tmp_path / "out", seed=1, force=True)
    assert again["counts"]["notes_kept"] == first["counts"]["notes_kept"] - 1 == 29
