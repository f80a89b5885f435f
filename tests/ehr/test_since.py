"""`--since`: merged records are those of a whole extraction, whatever came new, corrected or late."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.errors import InputError

from .hospital import needs_ddl, warehouse

pytestmark = needs_ddl
SINCE = datetime(2020, 6, 1)
LATER = """
-- new: a patient with a stay and notes
INSERT INTO person SELECT * REPLACE (50 AS person_id) FROM person WHERE person_id = 1;
INSERT INTO visit_occurrence SELECT * REPLACE (150 AS visit_occurrence_id, 50 AS person_id,
    TIMESTAMP '2020-07-01 10:00' AS visit_start_datetime, TIMESTAMP '2020-07-04 09:30' AS visit_end_datetime)
    FROM visit_occurrence WHERE visit_occurrence_id = 101;
INSERT INTO note SELECT * REPLACE (500 AS note_id, 50 AS person_id, 150 AS visit_occurrence_id,
    TIMESTAMP '2020-07-01 12:00' AS note_datetime, TIMESTAMP '2020-07-01 12:30:00.25' AS note_signed_datetime)
    FROM note WHERE note_id = 10;
-- corrected: a word of an old note, and the signing time of another
UPDATE note SET note_text = note_text || ' Amended.' WHERE note_id = 21;
UPDATE note SET note_signed_datetime = note_signed_datetime + INTERVAL 1 MINUTE WHERE note_id = 20;
-- late: a note of February arrives in June
INSERT INTO note SELECT * REPLACE (77 AS note_id, 'Progress note' AS note_title) FROM note WHERE note_id = 10;
-- a disposition, a code and a claim change after the stay
UPDATE visit_occurrence SET discharged_to_source_value = 'Rehab' WHERE visit_occurrence_id = 102;
UPDATE condition_occurrence SET condition_source_value = 'E11.65' WHERE condition_occurrence_id = 11;
INSERT INTO condition_occurrence SELECT * REPLACE (999 AS condition_occurrence_id, 'N18.3' AS condition_source_value)
    FROM condition_occurrence WHERE condition_occurrence_id = 20;
UPDATE claim SET claim_status = 'final, adverse determination' WHERE claim_id = 3;
-- the patient of a note that was set aside
INSERT INTO person SELECT * REPLACE (99 AS person_id) FROM person WHERE person_id = 1;
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = warehouse(tmp_path / "w.duckdb")
    run(path, "INSERT INTO note SELECT * REPLACE (990 AS note_id, 99 AS person_id, NULL AS visit_occurrence_id) "
              "FROM note WHERE note_id = 10")  # fmt: skip
    return path


def run(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as con:
        con.execute(sql)


def data(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def test_merged_records_are_those_of_a_whole_extraction_byte_for_byte(source: Path, out: Path) -> None:
    before = extract(ExtractConfig(), source=source, out=out, seed=1)
    assert before["facts"]["rejects"]["notes"] == {"no such patient": 1}
    run(source, LATER)
    merged = extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    whole = extract(ExtractConfig(), source=source, out=out.with_name("whole"), seed=1)
    assert data(merged) == data(whole) != data(before)
    assert runs.read_manifest(out) == merged
    counts = merged["counts"]
    assert (counts["notes_new"], counts["notes_late"], counts["notes_changed"]) == (2, 1, 2)
    assert (counts["patients_new"], counts["encounters_new"], counts["claims_new"]) == (2, 1, 0)
    assert merged["facts"]["rejects"]["notes"] == {}
    assert not list(out.parent.glob("records.*")), "nothing is left beside the records"


def test_same_command_again_changes_nothing(source: Path, out: Path) -> None:
    extract(ExtractConfig(), source=source, out=out, seed=1)
    run(source, LATER)
    first = extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    assert extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1) == first
    again = extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1, force=True)
    assert data(again) == data(first)


def test_rows_that_only_the_records_have_stay(source: Path, out: Path) -> None:
    """A source may hand out its changes alone: an export since a time, a nightly file."""
    extract(ExtractConfig(), source=source, out=out, seed=1)
    notes = pq.read_table(out / "notes").num_rows
    run(source, "DELETE FROM note WHERE note_id <> 21; UPDATE note SET note_text = note_text || ' Amended.'")
    run(source, "DROP TABLE claim")
    merged = extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    texts = {row["note_id"]: row["text"] for row in pq.read_table(out / "notes").to_pylist()}
    assert len(texts) == notes
    assert [key for key, text in texts.items() if text.endswith("Amended.")] == ["21"]
    assert merged["counts"]["notes_changed"] == 1
    assert pq.read_table(out / "claims").num_rows == merged["counts"]["claims_before"] > 0


def test_exclusion_list_that_grew_takes_patients_out_of_what_was_there(source: Path, out: Path, tmp_path: Path) -> None:
    listed = tmp_path / "opt-outs.txt"
    listed.write_text("3\n")
    cfg = ExtractConfig(exclude_patients=str(listed))
    extract(cfg, source=source, out=out, seed=1)
    listed.write_text("1\n3\n")
    merged = extract(ExtractConfig(exclude_patients=str(listed), since=SINCE), source=source, out=out, seed=1)
    whole = extract(cfg, source=source, out=out.with_name("whole"), seed=1)
    assert data(merged) == data(whole)
    assert "1" not in pq.read_table(out / "notes")["patient_id"].to_pylist()


def test_kill_between_the_two_renames_loses_nothing(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = extract(ExtractConfig(), source=source, out=out, seed=1)
    run(source, LATER)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.startswith("records.since"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    assert not out.exists()
    monkeypatch.setattr(Path, "rename", rename)
    merged = extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    whole = extract(ExtractConfig(), source=source, out=out.with_name("whole"), seed=1)
    assert data(merged) == data(whole) != data(before)


def test_nothing_to_go_on_with_and_other_settings_are_one_line(source: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extract once without --since"):
        extract(ExtractConfig(since=SINCE), source=source, out=out, seed=1)
    before = extract(ExtractConfig(), source=source, out=out, seed=1)
    listed = tmp_path / "list.txt"
    listed.write_text("1\n")
    with pytest.raises(InputError, match=r"other settings \(exclude_patients\)"):
        extract(ExtractConfig(since=SINCE, exclude_patients=str(listed)), source=source, out=out, seed=1)
    assert runs.read_manifest(out) == before
