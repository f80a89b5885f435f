"""Bad input: one line that says what, where and what to do; nothing half-written."""

from pathlib import Path

import duckdb
import pytest

from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.errors import InputError

from .hospital import empty_warehouse, needs_ddl, warehouse

pytestmark = needs_ddl
CANARY = "CANARY-7731"


def fault(source: Path, out: Path, cfg: ExtractConfig | None = None) -> str:
    """The message; it is one line and leaves no file behind."""
    with pytest.raises(InputError) as caught:
        extract(cfg or ExtractConfig(), source=source, out=out, seed=1)
    message = str(caught.value)
    assert "\n" not in message and caught.value.__cause__ is None
    assert not out.exists() or not list(out.iterdir())
    return message


def test_a_path_that_does_not_exist(tmp_path: Path, out: Path) -> None:
    assert fault(tmp_path / "none.duckdb", out) == f"{tmp_path}/none.duckdb: no such file or folder (extract.path)"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"person_id,year\n1,1950\n" * 9, "another kind of file"),
        (b"SQLite format 3\x00" + b"\x00" * 99, "an SQLite file"),
        (b"", "another kind of file"),
    ],
)
def test_a_file_that_is_not_duckdb(tmp_path: Path, out: Path, content: bytes, what: str) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(content)
    assert fault(path, out) == (
        f"{path}: not a DuckDB database ({what}); give a DuckDB file, or postgresql://... for a server"
    )


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_warehouse_that_was_cut_off(tmp_path: Path, out: Path, share: float) -> None:
    more = (
        "INSERT INTO note SELECT n.* REPLACE (note_id + 1000 + i AS note_id, repeat(md5(i::VARCHAR), 40) AS note_text) "
    )
    path = warehouse(tmp_path / "w.duckdb", 1, True, more + "FROM note AS n, range(2000) AS r(i) WHERE n.note_id = 10")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in fault(path, out)


def test_a_flipped_bit_is_noticed(tmp_path: Path, out: Path) -> None:
    more = "INSERT INTO note SELECT n.* REPLACE (note_id + 1000 + i AS note_id, md5(i::VARCHAR) AS note_text) "
    path = warehouse(tmp_path / "w.duckdb", 1, True, more + "FROM note AS n, range(2000) AS r(i) WHERE n.note_id = 10")
    whole = path.read_bytes()
    assert b"Patient number 1" in whole
    path.write_bytes(whole.replace(b"Patient number 1", b"Patient number 2"))
    assert "damaged or cut off" in fault(path, out)


def test_all_missing_tables_and_columns_are_named_at_once(tmp_path: Path, out: Path) -> None:
    path = warehouse(
        tmp_path / "w.duckdb", 1, True, "DROP TABLE death", "ALTER TABLE note DROP COLUMN note_title",
        "ALTER TABLE person DROP COLUMN birth_datetime", "DROP TABLE care_site",
    )  # fmt: skip
    message = fault(path, out)
    assert message.startswith(
        f"{path}: lacks what the SQL reads: table death, person.birth_datetime, table care_site, note.note_title (it "
    )
    assert message.endswith("mend the source, or give your own SQL in extract.sql_dir")


def test_a_claim_table_without_its_columns_is_no_absent_table(tmp_path: Path, out: Path) -> None:
    path = warehouse(tmp_path / "w.duckdb", 1, True, "ALTER TABLE claim DROP COLUMN claim_status")
    assert "lacks what the SQL reads: claim.claim_status" in fault(path, out)


def test_a_duckdb_file_of_something_else(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "w.duckdb"
    duckdb.connect(str(path)).execute("CREATE TABLE sales (id INTEGER)").close()
    message = fault(path, out)
    assert "table visit_occurrence" in message and "(it has the tables sales)" in message


def test_no_inpatient_encounter(tmp_path: Path, out: Path) -> None:
    path = warehouse(tmp_path / "w.duckdb", 3, True, "UPDATE visit_occurrence SET visit_concept_id = 9203")
    assert fault(path, out) == (
        f"{path}: no inpatient encounter among 3 encounters (0 rejected, 0 excluded); see encounter_class in "
        "encounters.sql"
    )


def test_no_patient_at_all(tmp_path: Path, out: Path) -> None:
    empty_warehouse(tmp_path / "w.duckdb").close()
    assert "no inpatient encounter among 0 encounters" in fault(tmp_path / "w.duckdb", out)


def test_everybody_excluded(tmp_path: Path, out: Path) -> None:
    (tmp_path / "all.txt").write_text("1\n2\n")
    cfg = ExtractConfig(exclude_patients=str(tmp_path / "all.txt"))
    assert "(0 rejected, 2 excluded)" in fault(warehouse(tmp_path / "w.duckdb", 2), out, cfg)


def test_no_notes(tmp_path: Path, out: Path) -> None:
    path = warehouse(tmp_path / "w.duckdb", 3, True, "DELETE FROM note")
    assert fault(path, out) == (
        f"{path}: no notes (0 rows, 0 rejected, 0 excluded); there is nothing to learn from: --without-notes extracts "
        "stays and codes alone"
    )


def test_a_note_column_that_is_all_null(tmp_path: Path, out: Path) -> None:
    path = warehouse(
        tmp_path / "w.duckdb", 3, True, "ALTER TABLE note ALTER COLUMN note_text DROP NOT NULL",
        "UPDATE note SET note_text = NULL",
    )  # fmt: skip
    assert fault(path, out) == f"{path}: the text of all 6 notes is null; see notes.sql"


def test_an_exclusion_list_that_is_not_there(tmp_path: Path, out: Path) -> None:
    cfg = ExtractConfig(exclude_patients=str(tmp_path / "none.txt"))
    assert fault(warehouse(tmp_path / "w.duckdb"), out, cfg) == f"{tmp_path}/none.txt: not found"


def own_sql(tmp_path: Path, table: str, text: str) -> ExtractConfig:
    (tmp_path / "sql").mkdir(exist_ok=True)
    (tmp_path / "sql" / f"{table}.sql").write_text(text)
    return ExtractConfig(sql_dir=str(tmp_path / "sql"))


CLAIMS = "SELECT c.claim_id, c.visit_occurrence_id AS encounter_id, c.payer, c.claim_status AS status{} FROM claim AS c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SELECT c.claim_id,\nFROM FROM claim",
            'claims.sql: line 2: syntax error at or near "FROM"; the file holds one',
        ),
        ("DROP TABLE claim", "claims.sql: Only SELECT statements can be serialized"),
        (CLAIMS.format("") + "; " + CLAIMS.format(""), "claims.sql: 2 statements; the file holds one SELECT"),
        (CLAIMS.format(""), "claims.sql: no column status_time; write NULL AS status_time if the source has none"),
        (CLAIMS.format(", NULL AS status_tim"), "unknown column status_tim, did you mean status_time?"),
        (CLAIMS.format(", nope(c.payer) AS status_time"), "claims.sql: Catalog Error: Scalar Function with name nope"),
        (CLAIMS.format(", c.paid AS status_time"), "lacks what the SQL reads: claim.paid"),
        (
            CLAIMS.format(", now() AS status_time"),
            "status_time is TIMESTAMP WITH TIME ZONE; give local time without zone",
        ),
    ],
)
def test_sql_that_cannot_be_used(tmp_path: Path, out: Path, text: str, message: str) -> None:
    assert message in fault(warehouse(tmp_path / "w.duckdb"), out, own_sql(tmp_path, "claims", text))


def test_a_sql_file_with_a_wrong_name(tmp_path: Path, out: Path) -> None:
    cfg = own_sql(tmp_path, "note", "SELECT 1")
    assert fault(warehouse(tmp_path / "w.duckdb"), out, cfg).endswith(
        "note.sql: no canonical table of that name; did you mean notes.sql?"
    )


def test_after_a_fault_the_mended_command_runs(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb")
    fault(source, out, own_sql(tmp_path, "claims", CLAIMS.format("")))
    cfg = own_sql(tmp_path, "claims", CLAIMS.format(", c.status_datetime AS status_time"))
    assert extract(cfg, source=source, out=out, seed=1)["counts"]["claims_kept"] == 3


def test_no_note_text_in_an_error(tmp_path: Path, out: Path) -> None:
    source = warehouse(tmp_path / "w.duckdb", 1, True, f"UPDATE note SET note_text = '{CANARY}'")
    query = (
        "SELECT n.note_id, n.person_id AS patient_id, n.visit_occurrence_id AS encounter_id, 'hospital' AS category, "
    )
    query += (
        "'H&P' AS note_type, NULL AS author_role, CAST(n.note_text AS TIMESTAMP) AS written_time, NULL AS signed_time, "
    )
    query += "NULL AS department, n.note_text AS text FROM note AS n"
    message = fault(source, out, own_sql(tmp_path, "notes", query))
    assert "notes.sql): a CAST fails on some row; use TRY_CAST" in message and CANARY not in message
