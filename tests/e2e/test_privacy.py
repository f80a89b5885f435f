"""No note text in a manifest, a log, a report or an error: canary strings are planted and looked for."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import duckdb
import pytest
from running import RECIPE, lang1

CANARY = re.compile(rb"CANARY-[0-9a-f]{12}")
DATA = {".parquet", ".bin", ".duckdb"}
"""files that hold notes because that is what they are for"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A hospital whose every note carries a canary of its own, so that no tokenizer learns one as a word."""
    assert lang1("simulate", RECIPE, "--out", tmp_path / "hospital").returncode == 0
    warehouse = tmp_path / "warehouse.duckdb"
    warehouse.write_bytes((tmp_path / "hospital" / "warehouse.duckdb").read_bytes())
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(
            "UPDATE note SET note_text = 'CANARY-' || md5(note_id::varchar)[1:12] || ' ' || note_text || "
            "' CANARY-' || md5(note_id::varchar)[1:12]"
        )
    return warehouse


def leaks(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in DATA:
            content = path.read_bytes()
            content += gzip.decompress(content) if content[:2] == b"\x1f\x8b" else b""
            if CANARY.search(content) or CANARY.search(path.name.encode()):
                found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.slow
def test_note_text_stays_in_the_data_files(planted: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "planted.yaml"
    text = RECIPE.read_text().replace("name: small", f"name: planted\nextract: {{path: {planted}}}\nrandom_twin: false")
    recipe.write_text(re.sub(r"^simulate:.*\n", "", text, flags=re.MULTILINE))
    done = lang1("run", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "CANARY" in duckdb.sql(f"SELECT text FROM '{tmp_path}/run/corpus/notes/*.parquet'").fetchall()[0][0]
    assert leaks(tmp_path / "run") == []
    assert not CANARY.search((done.stdout + done.stderr).encode())


def test_fault_in_a_file_does_not_print_what_it_read(tmp_path: Path) -> None:
    """A value that does not parse is what a database likes to quote."""
    canary = "CANARY-" + hashlib.md5(b"a note").hexdigest()[:12]
    (tmp_path / "stays.csv").write_text(
        "id,patient,start,stop\n" + "".join(f"{i},{i},2020-01-01 10:00,{canary}\n" for i in range(30))
    )
    sql = tmp_path / "sql"
    sql.mkdir()
    (sql / "patients.sql").write_text("SELECT patient AS patient_id FROM stays\n")
    (sql / "encounters.sql").write_text(
        "SELECT id AS encounter_id, patient AS patient_id, 'inpatient' AS encounter_class,\n"
        "  CAST(start AS TIMESTAMP) AS admit_time, CAST(stop AS TIMESTAMP) AS discharge_time FROM stays\n"
    )
    done = lang1("extract", "sql", tmp_path / "stays.csv", "--sql", sql, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in done.stderr
    assert canary not in done.stdout + done.stderr
    assert leaks(tmp_path / "out") == []


def test_searching_finds_a_canary_when_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text('{"note": "CANARY-0123456789ab"}')
    (tmp_path / "page.gz").write_bytes(gzip.compress(b"<p>CANARY-0123456789ab</p>"))
    (tmp_path / "notes.parquet").write_bytes(b"CANARY-0123456789ab")
    assert sorted(leaks(tmp_path)) == ["log.json", "page.gz"]
