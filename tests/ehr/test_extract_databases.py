"""One's own SQL over any database: SQLite here, by SQLAlchemy, and a DuckDB file by its path or URL."""

import re
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from lang1.config import ExtractConfig
from lang1.ehr import alchemy, crew, extract
from lang1.errors import InputError, Unfinished

from .server import Server
from .test_extract_postgres import data_files

TABLES = """
CREATE TABLE pat (id INTEGER, born TEXT, sex TEXT);
CREATE TABLE stay (nr INTEGER, pat INTEGER, a TEXT, z TEXT, los DOUBLE, days INTEGER);
CREATE TABLE doc (id TEXT, pat INTEGER, signed TEXT, t TEXT);
"""
SQL = {
    "patients": "SELECT p.id AS patient_id, p.born AS birth_date, p.sex, NULL AS race, NULL AS ethnicity, "
    "NULL AS borough, NULL AS death_date FROM pat p",
    "encounters": "SELECT s.nr AS encounter_id, s.pat AS patient_id, 'inpatient' AS encounter_class, "
    "s.a AS admit_time, s.z AS discharge_time, NULL AS discharge_disposition, NULL AS service, "
    "NULL AS department, NULL AS facility, "
    "NULL AS admission_type, NULL AS primary_diagnosis, NULL AS sequence, s.los AS length_of_stay_days, "
    "NULL AS readmitted_30d, NULL AS age_at_admission FROM stay s;",
    "notes": "WITH d AS (SELECT * FROM doc) SELECT d.id AS note_id, d.pat AS patient_id, NULL AS encounter_id, "
    "'hospital' AS category, 'H&P' AS note_type, NULL AS author_role, NULL AS written_time, d.signed AS signed_time, "
    "NULL AS department, d.t AS text FROM d",
    "features_admission": "SELECT s.nr AS encounter_id, s.los, s.days, 'W' AS ward FROM stay s",
}
PATIENTS = [(i, f"19{50 + i % 40}-02-03", "female") for i in range(1, 61)]
STAYS = [(1000 + i, i, f"2020-01-{1 + i % 28:02d} 10:00:00", f"2020-02-{1 + i % 28:02d} 12:00:00", i + 0.25, i)
         for i in range(1, 61)]  # fmt: skip
NOTES = [(f"n'{i}", i, f"2020-01-{1 + i % 28:02d} 11:30:00", f'note "{i}" ünï\nline') for i in range(1, 61)]
BAD = [(None, 1, "2020-01-01", "x"), ("n'1", 1, "2020-01-01", "again"), ("n'99", 1, "31 Feb", "y")]


def fill(con: Any) -> None:
    con.executemany("INSERT INTO pat VALUES (?, ?, ?)", PATIENTS)
    con.executemany("INSERT INTO stay VALUES (?, ?, ?, ?, ?, ?)", STAYS)
    con.executemany("INSERT INTO doc VALUES (?, ?, ?, ?)", [*NOTES, *BAD])


@pytest.fixture
def cfg(tmp_path: Path) -> ExtractConfig:
    (tmp_path / "sql").mkdir()
    for table, text in SQL.items():
        (tmp_path / "sql" / f"{table}.sql").write_text(text)
    return ExtractConfig(source="sql", sql_dir=str(tmp_path / "sql"), partition_rows=7)


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "h.db") as con:
        con.executescript(TABLES)
        fill(con)
    con.close()
    return tmp_path / "h.db"


def test_sqlite_gives_the_bytes_that_duckdb_gives(tmp_path: Path, cfg: ExtractConfig, sqlite: Path) -> None:
    with duckdb.connect(str(tmp_path / "h.duckdb")) as con:
        con.execute(TABLES)
        fill(con)
    by_path = extract(cfg, source=tmp_path / "h.duckdb", out=tmp_path / "a", seed=1)
    by_url = extract(cfg, source=f"duckdb:///{tmp_path}/h.duckdb", out=tmp_path / "b", seed=1)
    by_alchemy = extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "c", seed=1)
    assert data_files(by_path) == data_files(by_url) == data_files(by_alchemy)
    assert by_alchemy["facts"]["rejects"]["notes"] == {
        "missing note_id": 1, "duplicate note_id": 1, "unreadable signed_time": 1}  # fmt: skip
    assert by_alchemy["facts"]["database"]["partitions"]["notes"] == 10
    features = pq.read_table(tmp_path / "c" / "features_admission").to_pylist()[0]
    assert features == {"encounter_id": "1001", "los": 1.25, "days": 1, "ward": "W"}


def test_a_percent_sign_of_the_sql_is_no_place_for_a_parameter(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fills_in(self: Any, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        cursor.execute(statement % tuple(parameters))  # as the drivers of MySQL do

    monkeypatch.setattr(sqlalchemy.engine.default.DefaultDialect, "do_execute", fills_in)
    text = SQL["notes"].replace("'H&P' AS", "CASE WHEN d.t LIKE '%1%s' THEN 'no' ELSE '100 %' END AS")
    (tmp_path / "sql" / "notes.sql").write_text(text)
    extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
    assert set(pq.read_table(tmp_path / "out" / "notes")["note_type"].to_pylist()) == {"100 %"}


def test_ids_that_are_decimals_are_cut_and_stay_the_same_text_in_every_table(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite3.converters, "DECIMAL", lambda text: Decimal(text.decode()))
    with sqlite3.connect(sqlite) as con:
        con.execute("CREATE TABLE s AS SELECT * FROM stay")
        con.executescript("DROP TABLE stay; CREATE TABLE stay (nr DECIMAL, pat INTEGER, a TEXT, z TEXT, los DECIMAL, "
                          "days INTEGER); INSERT INTO stay SELECT * FROM s")  # fmt: skip
    made = extract(cfg, source=f"sqlite:///{sqlite}?detect_types=1", out=tmp_path / "out", seed=1)
    assert made["counts"]["features_admission_kept"] == 60
    features = pq.read_table(tmp_path / "out" / "features_admission").to_pylist()[0]
    assert features == {"encounter_id": "1001", "los": 1.25, "days": 1, "ward": "W"}
    assert [alchemy._as_cut(cut) for cut in (Decimal("1E+3"), 7, "n'1", "a\\b", b"1", 0.5)] == [
        "1000", "7", "'n''1'", "", "", ""]  # fmt: skip


def test_an_id_with_a_backslash_is_no_cut_and_the_others_are(tmp_path: Path, cfg: ExtractConfig, sqlite: Path) -> None:
    with sqlite3.connect(sqlite) as con:
        con.execute("UPDATE doc SET id = 'n\\' || id WHERE pat % 2 = 0")
    made = extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
    assert made["counts"]["notes_kept"] == 60 and 2 < made["facts"]["database"]["partitions"]["notes"] < 10


def test_a_bit_of_mysql_is_a_number() -> None:
    rows = [(b"\x01", b"\x01", 3), (b"\x00", None, 4)]
    result = MagicMock()
    result.keys.return_value = ["yes", "raw", "n"]
    result.cursor.description = [("yes", alchemy.MYSQL_BIT), ("raw", 252), ("n", 3)]
    result.__iter__.return_value = iter(rows)
    engine = MagicMock()
    engine.dialect.name = "mysql"
    engine.connect.return_value.exec_driver_sql.return_value = result
    [batch] = alchemy.AlchemyReader(engine, ()).read("SELECT")[1]
    assert batch.to_pydict() == {"yes": ["1", "0"], "raw": ["\x01", None], "n": ["3", "4"]}


PEOPLE = [(f"M{i}", f"19{50 + i}-01-02", "F", "White", "Kings", None) for i in range(12)]
KEPT = [(f"S{i}", f"M{i}", "I", f"2020-03-{1 + i:02d} 08:00:00", f"2020-04-{1 + i:02d} 09:30:00",
         "DIED" if i == 3 else "Home", "Medicine", "4 West") for i in range(12)]  # fmt: skip
DOCUMENTS = [(f"D{i}", f"M{i}", f"S{i}", "Admission H&P", "resident", f"2020-03-{1 + i:02d} 09:00:00",
              f"2020-03-{1 + i:02d} 10:00:00", f"Chest pain, number {i}.") for i in range(12)]  # fmt: skip
CLINIC = {
    "people": ("mrn TEXT, birth DATE, sex TEXT, race TEXT, county TEXT, died DATE", PEOPLE),
    "stays": ("stay_id TEXT, mrn TEXT, kind TEXT, admitted TIMESTAMP, discharged TIMESTAMP, went_to TEXT, "
              "service TEXT, ward TEXT", KEPT),
    "documents": ("doc_id TEXT, mrn TEXT, stay_id TEXT, title TEXT, author TEXT, begun TIMESTAMP, signed TIMESTAMP, "
                  "body TEXT", DOCUMENTS),
}  # fmt: skip


def test_the_example_of_the_docs_gives_the_same_records_from_every_kind_of_source(
    server: Server, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources" / "sql.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```sql\n-- my-sql/(\w+)\.sql\n(.*?)```", page, re.DOTALL))
    assert set(blocks) == {"patients", "encounters", "notes"}
    for folder in ("my-sql", "csv"):
        (tmp_path / folder).mkdir()
    for table, text in blocks.items():
        (tmp_path / "my-sql" / f"{table}.sql").write_text(text)
    light, heavy = sqlite3.connect(tmp_path / "c.db"), duckdb.connect(str(tmp_path / "c.duckdb"))
    with server.database() as database, psycopg.connect(server.url(database), autocommit=True) as con:
        for name, (columns, rows) in CLINIC.items():
            marks = ", ".join("?" * len(rows[0]))
            for each in (light, heavy, con):
                each.execute(f"CREATE TABLE {name} ({columns})")
            light.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
            heavy.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
            con.cursor().executemany(f"INSERT INTO {name} VALUES ({marks.replace('?', '%s')})".encode(), rows)
            heavy.execute(f"COPY {name} TO '{tmp_path}/csv/{name}.csv' (HEADER)")
        light.commit()
        light.close()
        heavy.close()
        cfg = ExtractConfig(source="sql", sql_dir=str(tmp_path / "my-sql"), partition_rows=5)
        sources = [f"sqlite:///{tmp_path}/c.db", tmp_path / "c.duckdb", tmp_path / "csv", server.url(database)]
        found = [
            data_files(extract(cfg, source=source, out=tmp_path / f"out{i}", seed=1))
            for i, source in enumerate(sources)
        ]
    assert all(files == found[0] for files in found) and len(found[0]) == 5
    encounters = pq.read_table(tmp_path / "out0" / "encounters").to_pylist()
    assert {e["encounter_id"] for e in encounters if e["discharge_disposition"] == "Expired"} == {"S3"}


def test_a_changed_sqlite_file_is_another_input(tmp_path: Path, cfg: ExtractConfig, sqlite: Path) -> None:
    url, out = f"sqlite:///{sqlite}", tmp_path / "out"
    first = extract(cfg, source=url, out=out, seed=1)
    assert extract(cfg, source=url, out=out, seed=1) == first
    with sqlite3.connect(sqlite) as con:
        con.execute("DELETE FROM doc WHERE pat = 5")
    with pytest.raises(InputError, match=r"inputs\.source changed"):
        extract(cfg, source=url, out=out, seed=1)


def test_the_file_is_only_read(tmp_path: Path, cfg: ExtractConfig, sqlite: Path) -> None:
    before = sqlite.read_bytes()
    extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
    assert sqlite.read_bytes() == before
    (tmp_path / "sql" / "notes.sql").write_text("DELETE FROM doc")
    with pytest.raises(InputError):
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "other", seed=1)
    assert sqlite.read_bytes() == before


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("notes", SQL["notes"].replace("d.t AS", "d.tt AS"), "notes.sql: no such column: d.tt"),
        ("notes", SQL["notes"].replace(", d.t AS text", ""), "notes.sql: no column text; write NULL AS text"),
        ("patients", "SELECT 1 AS patient_id, 2 AS birth", "unknown column birth, did you mean birth_date?"),
    ],
)
def test_sql_that_does_not_fit_is_named(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, table: str, text: str, message: str
) -> None:
    (tmp_path / "sql" / f"{table}.sql").write_text(text)
    with pytest.raises(InputError) as caught:
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
    assert message in str(caught.value) and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:////nowhere/h.db", "/nowhere/h.db: no such file (extract.path)"),
        ("sqlite://", "no file; write sqlite:///relative.db"),
        ("duckdb:////nowhere/h.duckdb", "/nowhere/h.duckdb: no such file or folder"),
        ("nosuch://h/x", "SQLAlchemy knows no dialect nosuch"),
        ("mssql+pyodbc://u:pw-881@h/x", "its driver is not installed: pip install pyodbc"),
        ("mysql+pymysql://u:pw-881@h:port/x", "not a database URL"),
        ("sqlite:///{h.db}?timeout=ten", "its driver does not take the URL (ValueError: could not convert"),
        ("sqlite:///{h.db}?cached_statements=99999999999", "cannot connect: its driver does not take the URL (Over"),
    ],
)
def test_a_url_that_leads_nowhere(tmp_path: Path, cfg: ExtractConfig, sqlite: Path, url: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        extract(cfg, source=url.replace("{h.db}", str(sqlite)), out=tmp_path / "out", seed=1)
    assert message in str(caught.value) and "pw-881" not in str(caught.value)


def test_a_file_that_is_no_database_and_a_text_that_is_not_unicode(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path
) -> None:
    (tmp_path / "no.db").write_bytes(b"not a database at all" * 99)
    with pytest.raises(InputError, match="file is not a database"):
        extract(cfg, source=f"sqlite:///{tmp_path}/no.db", out=tmp_path / "a", seed=1)
    with sqlite3.connect(sqlite) as con:
        con.execute("UPDATE doc SET t = CAST(x'43414e415259ff' AS TEXT) WHERE pat = 5")
    with pytest.raises(InputError) as caught:
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "b", seed=1)
    assert "notes.sql): the database stopped: OperationalError" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    with sqlite3.connect(sqlite) as con:
        con.execute("UPDATE doc SET t = x'43414e415259ff' WHERE pat = 5")
    with pytest.raises(InputError, match=r"notes\.sql\): a text is not Unicode; convert it in the SQL") as caught:
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "b", seed=1)
    assert "CANARY" not in str(caught.value)


def test_a_connection_that_closes_costs_a_partition(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{sqlite}"
    whole = data_files(extract(cfg, source=url, out=tmp_path / "whole", seed=1))
    plain, reads = alchemy.AlchemyReader.read, 0

    def read(self: Any, sql: str) -> Any:
        nonlocal reads
        reads += 1
        if reads > 5:
            error = sqlalchemy.exc.OperationalError("", {}, sqlite3.OperationalError("gone"))
            error.connection_invalidated = True
            raise alchemy._fault(error)
        return plain(self, sql)

    monkeypatch.setattr(crew, "FIRST_WAIT_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(alchemy.AlchemyReader, "read", read)
        with pytest.raises(Unfinished, match="the connection was lost 6 times"):
            extract(cfg, source=url, out=tmp_path / "out", seed=1)
    assert len(list((tmp_path / "out").rglob("raw/*/*.parquet"))) == 5
    assert data_files(extract(cfg, source=url, out=tmp_path / "out", seed=1)) == whole


def test_a_connection_that_closes_while_the_queries_are_tried(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sql" / "encounters.sql").write_text(SQL["encounters"].replace("s.a AS", "s.gone AS"))
    monkeypatch.setattr("sqlalchemy.dialects.sqlite.pysqlite.SQLiteDialect_pysqlite.is_disconnect", lambda *_: True)
    with pytest.raises(InputError) as caught:
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
    assert str(caught.value) == (
        f"sqlite:///{sqlite}: the connection was closed (OperationalError); nothing was read, the same command begins "
        "again"
    )


def test_a_server_that_goes_within_the_rows_is_lost_and_said_by_its_number() -> None:
    result, engine = MagicMock(), MagicMock()
    result.keys.return_value = ["text"]
    engine.connect.return_value.exec_driver_sql.return_value = result
    words = {1053: "the connection was closed (OSError 1053)", 1969: "the database stopped: OSError 1969"}
    for number, message in words.items():
        result.__iter__.side_effect = sqlalchemy.exc.OperationalError("", {}, OSError(number, "CANARY"))
        with pytest.raises(alchemy.Fault) as caught:
            list(alchemy.AlchemyReader(engine, ()).read("SELECT")[1])
        assert str(caught.value) == message and caught.value.lost == (number == alchemy.MYSQL_SHUTDOWN)
    assert result.cursor._result.unbuffered_active is False


def test_partitions_that_give_a_row_twice_are_refused(
    tmp_path: Path, cfg: ExtractConfig, sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ENUM of MySQL does: it is sorted by the place of its words, and compared as text."""
    plain = alchemy.Alchemy._cuts

    def cuts(self: Any, rows_of: str, key: str, rows: int) -> tuple[list[str], int | None]:
        wheres, count = plain(self, rows_of, key, rows)
        return [where.replace(">=", ">= 0 OR q.patient_id >=") for where in wheres], count

    monkeypatch.setattr(alchemy.Alchemy, "_cuts", cuts)
    with pytest.raises(InputError, match=r"patients: its partitions gave \d+ rows where the query had 60: .*CONCAT"):
        extract(cfg, source=f"sqlite:///{sqlite}", out=tmp_path / "out", seed=1)
