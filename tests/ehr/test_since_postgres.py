"""`--since` from a server: only notes that changed travel, and the merged records are the whole extraction's."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import databases, extract

from .hospital import needs_ddl, warehouse
from .server import Server
from .test_since import LATER, SINCE, data, run

pytestmark = needs_ddl


@pytest.mark.parametrize("rows", [pytest.param(200_000, marks=pytest.mark.long), 5])
def test_unchanged_notes_stay_on_the_server_and_the_bytes_are_the_whole_extractions(
    server: Server, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 20)
    with server.database() as name:
        server.load(name, source)
        cfg = ExtractConfig(partition_rows=rows)
        before = extract(cfg, source=server.url(name), out=out, seed=1)
        run(source, LATER)
        server.run(name, "DROP SCHEMA cdm CASCADE")
        server.load(name, source)
        fetched: list[int] = []
        keep = databases.forget

        def forget(scratch: Path, table: str) -> None:
            if table == "notes":
                fetched.extend(
                    pq.read_metadata(file).num_rows for file in (scratch / databases.RAW / "notes").glob("*.parquet")
                )
            keep(scratch, table)

        monkeypatch.setattr("lang1.ehr.extraction.forget", forget)
        later = ExtractConfig(partition_rows=rows, since=SINCE)
        merged = extract(later, source=server.url(name), out=out, seed=1)
        assert sum(fetched) == 4, "two new, two changed"
        whole = extract(cfg, source=server.url(name), out=out.with_name("whole"), seed=1)
        again = extract(later, source=server.url(name), out=out, seed=1)
    assert data(merged) == data(whole) == data(again) != data(before)
    assert merged["counts"]["notes_changed"] == 2 and merged["counts"]["notes_late"] == 1
    notes = pq.read_table(out / "notes").num_rows
    assert runs.read_manifest(out)["counts"]["notes_kept"] == notes == 42


def test_rows_that_broke_rules_are_asked_again_and_a_doubled_id_is_read_whole(
    server: Server, tmp_path: Path, out: Path
) -> None:
    source = warehouse(tmp_path / "w.duckdb", 20)
    broken = [
        "UPDATE note SET note_id = 80 WHERE note_id IN (81, 90)",
        "UPDATE note SET note_text = NULL WHERE note_id = 30",
        "UPDATE note SET note_text = '' WHERE note_id = 40",
        "UPDATE note SET visit_occurrence_id = 77 WHERE note_id = 100",
    ]
    with server.database() as name:
        server.load(name, source)
        server.run(name, "SET search_path = cdm; ALTER TABLE note ALTER note_text DROP NOT NULL; " + "; ".join(broken))
        extract(ExtractConfig(), source=server.url(name), out=out, seed=1)
        server.run(
            name,
            "SET search_path = cdm; UPDATE note SET visit_occurrence_id = 110 WHERE note_id = 100; "
            "UPDATE note SET note_text = '' WHERE note_id = 30; UPDATE note SET note_text = NULL WHERE note_id = 40; "
            "DELETE FROM note WHERE note_id = 80 AND note_title = 'H&P' AND person_id = 9",
        )
        merged = extract(ExtractConfig(since=SINCE), source=server.url(name), out=out, seed=1)
        whole = extract(ExtractConfig(), source=server.url(name), out=out.with_name("whole"), seed=1)
    assert data(merged) == data(whole)
