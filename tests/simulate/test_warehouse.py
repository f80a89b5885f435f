"""The warehouse: OMOP's own tables, whole references, the same content from the same seed, whatever happened before."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from lang1.config import SimulateConfig
from lang1.errors import InputError
from lang1.simulate import simulate_hospital
from lang1.simulate.warehouse import TABLES, TRUTH_SCHEMA

FILLED = (*TABLES, "location", "care_site", "provider", "concept")


def content(folder: Path) -> dict[str, str]:
    """A hash of every filled table's rows in order, and of the truth file's bytes."""
    hashes = {"truth": hashlib.sha256((folder / "truth.parquet").read_bytes()).hexdigest()}
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        for table in FILLED:
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()
            hashes[table] = hashlib.sha256(repr(rows).encode()).hexdigest()
    return hashes


def make(out: Path, seed: int = 5, workers: int = 1, encounters: int = 2_200, **settings: Any) -> dict[str, Any]:
    cfg = SimulateConfig(encounters=encounters, workers=workers, **settings)
    return simulate_hospital(cfg, seed=seed, out=out)


def test_tables_are_omops(warehouse: Any) -> None:
    tables = {name for (name,) in warehouse.execute("SELECT table_name FROM information_schema.tables").fetchall()}
    assert {
        "person",
        "visit_occurrence",
        "condition_occurrence",
        "note",
        "death",
        "concept",
        "cost",
        "episode",
    } <= tables
    assert len(tables) == 40  # the 39 of CDM 5.4 and `claim`
    columns = warehouse.execute(
        "SELECT count(*) FROM information_schema.columns "
        "WHERE table_name = 'note' AND column_name = 'note_signed_datetime'"
    ).fetchone()
    assert columns == (1,)


@pytest.mark.parametrize(
    ("table", "column", "other"),
    [
        ("visit_occurrence", "person_id", "person"),
        ("visit_occurrence", "care_site_id", "care_site"),
        ("visit_occurrence", "provider_id", "provider"),
        ("note", "visit_occurrence_id", "visit_occurrence"),
        ("note", "person_id", "person"),
        ("note", "provider_id", "provider"),
        ("condition_occurrence", "visit_occurrence_id", "visit_occurrence"),
        ("death", "person_id", "person"),
        ("person", "location_id", "location"),
        ("claim", "visit_occurrence_id", "visit_occurrence"),
    ],
)
def test_references_are_whole(warehouse: Any, table: str, column: str, other: str) -> None:
    lost = warehouse.execute(f"SELECT count(*) FROM {table} ANTI JOIN {other} USING ({column})").fetchone()
    rows = warehouse.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert lost == (0,)
    assert rows[0] > 20


def test_every_code_has_a_concept_of_its_time(warehouse: Any) -> None:
    rows = warehouse.execute(
        "SELECT k.vocabulary_id, min(visit_end_date), max(visit_end_date), "
        "bool_and(k.concept_code = condition_source_value) "
        "FROM condition_occurrence c JOIN concept k ON k.concept_id = c.condition_source_concept_id "
        "JOIN visit_occurrence v USING (visit_occurrence_id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    (ten, ten_first, _, ten_same), (nine, _, nine_last, nine_same) = rows
    assert (ten, nine) == ("ICD10CM", "ICD9CM")
    assert str(nine_last) < "2015-10-01" <= str(ten_first)
    assert ten_same and nine_same


def test_years_strata_and_growth(warehouse: Any) -> None:
    years = dict(warehouse.execute(
        "SELECT year(visit_start_date), count(*) FROM visit_occurrence WHERE visit_concept_id = 9201 GROUP BY 1"
    ).fetchall())  # fmt: skip
    assert set(years) == set(range(2011, 2025))
    assert 0.11 < years[2024] / sum(years.values()) < 0.155
    boroughs = warehouse.execute("SELECT DISTINCT county FROM person JOIN location USING (location_id)").fetchall()
    assert len(boroughs) == 6
    children = warehouse.execute(
        "SELECT avg(CASE WHEN date_diff('day', birth_datetime, visit_start_datetime) < 6575 THEN 1 ELSE 0 END) "
        "FROM visit_occurrence JOIN person USING (person_id) WHERE visit_concept_id = 9201"
    ).fetchone()[0]
    assert 0.03 < children < 0.12


def test_claims_have_the_four_statuses(warehouse: Any) -> None:
    shares = dict(
        warehouse.execute("SELECT claim_status, count(*) / sum(count(*)) OVER () FROM claim GROUP BY 1").fetchall()
    )
    assert set(shares) == {"no denial", "final, adverse determination", "final, favorable determination", "pending"}
    assert 0.03 < shares["pending"] < 0.10


def test_truth_has_a_row_a_task_and_stay(hospital: Path, warehouse: Any) -> None:
    table = pq.read_table(hospital / "truth.parquet")
    assert table.schema.equals(TRUTH_SCHEMA)
    assert len(set(zip(table["task"].to_pylist(), table["encounter_id"].to_pylist(), strict=True))) == table.num_rows
    visits = warehouse.execute("SELECT count(*) FROM visit_occurrence WHERE visit_concept_id = 9201").fetchone()[0]
    mortality = pq.read_table(hospital / "truth.parquet", filters=[("task", "=", "mortality")])
    assert mortality.num_rows == visits
    assert mortality["p_2"].null_count == visits
    for row in table.slice(0, 500).to_pylist():
        assert sum(row[f"p_{k}"] or 0 for k in range(5)) == pytest.approx(1)


def test_content_does_not_depend_on_workers_and_does_on_the_seed(tmp_path: Path) -> None:
    make(tmp_path / "one")
    make(tmp_path / "two", workers=2)
    make(tmp_path / "other", seed=6, encounters=900)
    make(tmp_path / "again", encounters=900)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    other, again = content(tmp_path / "other"), content(tmp_path / "again")
    assert other["note"] != again["note"]
    assert other["truth"] != again["truth"]


def test_a_killed_run_leaves_nothing_and_its_rerun_is_the_same(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom lang1.config import SimulateConfig\n"
        "from lang1.simulate import simulate_hospital\n"
        "simulate_hospital(SimulateConfig(encounters=2200, workers=1), seed=5, out=Path(sys.argv[1]))\n"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(script), str(out)], env={**os.environ, "PYTHONHASHSEED": "1"},
                               stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 60
    while not (out / ".scratch" / "warehouse.duckdb").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "warehouse.duckdb").exists() and not (out / "manifest.json").exists()
    make(out)
    make(tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".lock")) == [
        "manifest.json", "truth.parquet", "warehouse.duckdb"]  # fmt: skip


def test_a_second_run_does_nothing_and_another_seed_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path / "out", encounters=200)
    assert make(tmp_path / "out", encounters=200) == first
    assert make(tmp_path / "out", encounters=200, workers=2) == first
    with pytest.raises(InputError, match="seed: 5 -> 6"):
        make(tmp_path / "out", seed=6, encounters=200)


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make(tmp_path / "file" / "out", encounters=50)


def test_the_external_hospital_is_older_and_sicker(tmp_path: Path, warehouse: Any) -> None:
    make(tmp_path / "out", encounters=2_200, hospital="external")
    age = ("SELECT avg(date_diff('year', birth_datetime, visit_start_datetime)) FROM visit_occurrence "
           "JOIN person USING (person_id) WHERE visit_concept_id = 9201")  # fmt: skip
    with duckdb.connect(str(tmp_path / "out" / "warehouse.duckdb"), read_only=True) as external:
        assert external.execute(age).fetchone()[0] > warehouse.execute(age).fetchone()[0] + 5
        headers = external.execute("SELECT count(*) FROM note WHERE note_text LIKE '%REASON FOR VISIT%'").fetchone()[0]
        assert headers > 100
    assert warehouse.execute("SELECT count(*) FROM note WHERE note_text LIKE '%REASON FOR VISIT%'").fetchone() == (0,)


def test_the_smallest_hospital(tmp_path: Path) -> None:
    counts = make(tmp_path / "out", encounters=1)["counts"]
    assert counts["person"] == 1
    assert counts["inpatient"] >= 1
