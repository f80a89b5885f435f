"""`clean`: nothing lost, the same bytes however it is run, resumed after a kill, and silent about the notes' text."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_records import file_hashes, note, prose, write_records

from lang1 import runs
from lang1.config import CleanConfig
from lang1.corpus import clean, cleaning, cluster, inputs, parts, rules
from lang1.corpus.hashes import hash_id
from lang1.corpus.schema import CLEAN_NOTES, REJECTS
from lang1.ehr.schema import NOTES
from lang1.errors import InputError

CANARY = "zebracanary"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    runs.set_quiet(True)


def mixed_rows(count: int = 60) -> list[dict[str, Any]]:
    """Good notes with every kind of bad one among them."""
    bad = [None, "", "<NA>", "too short", r"{\rtf1 \u1114112 " + CANARY + "}", "n/a n/a"]
    rows = [note(i, bad[i // 5] if i % 5 == 0 and i // 5 < len(bad) else prose(i)) for i in range(count)]
    rows[7]["text"] = r"{\rtf1 " + prose(7) + r"\par \u8805?5 caf\'e9}"
    rows[8]["author_role"] = rows[8]["encounter_id"] = rows[8]["signed_time"] = None
    rows[9]["category"], rows[9]["note_type"] = "radiology", "radiology"
    return rows


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))])


def test_every_note_comes_out_or_is_rejected_with_its_reason_and_original_text(tmp_path: Path) -> None:
    rows = mixed_rows()
    records = write_records(tmp_path / "records", rows)
    manifest = clean(CleanConfig(), records=records, out=tmp_path / "corpus", seed=1)
    notes, rejects = read(tmp_path / "corpus" / "notes"), read(tmp_path / "corpus" / "rejects")
    assert notes.schema.equals(CLEAN_NOTES) and rejects.schema.equals(REJECTS)
    reasons = dict(zip(rejects["note_id"].to_pylist(), rejects["reason"].to_pylist(), strict=True))
    assert reasons == {
        "n0": "no_text", "n5": "no_text", "n10": "placeholder", "n15": "too_short", "n20": "unreadable_rtf",
        "n25": "placeholder",
    }  # fmt: skip
    assert rejects["text"].to_pylist() == [rows[i]["text"] for i in range(0, 30, 5)]
    assert notes["note_id"].to_pylist() == [r["note_id"] for r in rows if r["note_id"] not in reasons]
    assert manifest["counts"] == {
        "notes_in": 60, "notes_out": 54, "rejected_no_text": 2, "rejected_placeholder": 2, "rejected_too_short": 1,
        "rejected_unreadable_rtf": 1,
    }  # fmt: skip
    assert manifest["facts"]["rules"]["rtf"] == 1


def test_columns_beside_the_text_pass_through(tmp_path: Path) -> None:
    rows = mixed_rows(40)
    out = tmp_path / "corpus"
    clean(CleanConfig(min_words=3), records=write_records(tmp_path / "r", rows), out=out, seed=1)
    by_id = {row["note_id"]: row for row in rows}
    for row in read(out / "notes").to_pylist():
        before = by_id[row["note_id"]]
        assert {k: row[k] for k in NOTES.names if k != "text"} == {k: before[k] for k in NOTES.names if k != "text"}
        assert row["words"] == len(row["text"].split()) >= 3
        assert row["note_hash"] == hash_id(row["text"])


def test_rejects_are_for_the_owner_alone(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    clean(CleanConfig(), records=write_records(tmp_path / "r", mixed_rows()), out=out, seed=1)
    modes = {path.parent.name: stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*.parquet")}
    assert modes == {"rejects": 0o600, "notes": 0o640}
    assert not (out / runs.SCRATCH).exists()


def test_the_bytes_do_not_depend_on_partitions_or_layout(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(parts, "GROUP_ROWS", 16)
    monkeypatch.setattr(parts, "PART_GROUPS", 2)
    rows = mixed_rows(90)
    one = write_records(tmp_path / "one", rows)
    many = write_records(tmp_path / "many", rows, files=4, row_group=7)
    hashes = []
    for records, partition_rows in ((one, 1000), (one, 11), (many, 5), (many, 30)):
        out = tmp_path / f"out{len(hashes)}"
        cfg = CleanConfig(partition_rows=partition_rows, workers=1)  # two workers: in the test of the kill
        clean(cfg, records=records, out=out, seed=1)
        hashes.append(file_hashes(out))
    assert len(hashes[0]) == 4  # three parts of notes, one of rejects
    assert hashes[1:] == hashes[:1] * 3


def test_bytes_that_are_not_utf8_are_mended_and_kept_in_the_rejects(tmp_path: Path) -> None:
    rows = [note(0, None), note(1, None)]
    raw = [b"caf\xe9 " + prose(1).encode(), b"caf\xe9"]
    table = pa.Table.from_pylist(rows, schema=NOTES)
    buffers = pa.array(raw, pa.large_binary()).buffers()
    text = pa.Array.from_buffers(pa.large_string(), 2, buffers)
    runs.write_table(tmp_path / "r" / "notes" / "part-00000.parquet", table.set_column(9, NOTES.field("text"), text))
    manifest = clean(CleanConfig(), records=tmp_path / "r", out=tmp_path / "c", seed=1)
    assert read(tmp_path / "c" / "notes")["text"].to_pylist() == ["cafe " + prose(1)]
    assert read(tmp_path / "c" / "rejects")["text"].cast(pa.large_binary()).to_pylist() == [b"caf\xe9"]
    assert manifest["facts"]["rules"]["decode"] == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([note(i, None) for i in range(3)], "the column text is all null or empty of 3 (no_text 3)"),
        ([note(0, "<NA>"), note(1, "few words")], "no note is left of 2 (placeholder 1, too_short 1)"),
        ([], "holds no note"),
    ],
)
def test_records_without_a_usable_note_are_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), records=write_records(tmp_path / "r", rows), out=tmp_path / "c", seed=1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not runs.is_complete(tmp_path / "c")


def test_notes_that_lack_a_column_or_are_no_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extract the notes first"):
        (tmp_path / "empty").mkdir()
        clean(CleanConfig(), records=tmp_path / "empty", out=tmp_path / "c0", seed=1)
    records = write_records(tmp_path / "r", mixed_rows(10))
    path = records / "notes" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["signed_time", "text"]), path)
    with pytest.raises(InputError, match="no column signed_time, text"):
        clean(CleanConfig(), records=records, out=tmp_path / "c1", seed=1)
    path.write_bytes(b"not a table")
    with pytest.raises(InputError, match="not readable as Parquet"):
        clean(CleanConfig(), records=records, out=tmp_path / "c2", seed=1)


def test_no_scheduler_at_the_address_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    cfg = CleanConfig(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        clean(cfg, records=write_records(tmp_path / "r", mixed_rows(10)), out=tmp_path / "c", seed=1)


def test_a_failure_in_a_worker_names_the_note_and_never_its_text(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    def fails(text: str) -> str:
        raise ValueError(text)

    monkeypatch.setattr(rules, "RULES", (*rules.RULES[:-1], ("spacing", fails)))
    records = write_records(tmp_path / "r", [note(i, f"{CANARY} {prose(i)}") for i in range(3)])
    with pytest.raises(RuntimeError) as caught:
        clean(CleanConfig(), records=records, out=tmp_path / "c", seed=1)
    assert str(caught.value) == "note n0: cleaning rule spacing failed (ValueError)"
    assert CANARY not in capfd.readouterr().err
    assert not runs.is_complete(tmp_path / "c")


# --- as a process ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from lang1.config import CleanConfig
from lang1.corpus import clean
clean(CleanConfig(partition_rows=int(sys.argv[3]), workers=2), records=Path(sys.argv[1]), out=Path(sys.argv[2]), seed=1)
"""  # no guard around the call: worker processes must not run it again


def start(tmp_path: Path, records: Path, out: Path, partition_rows: int, **env: str) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(records), str(out), str(partition_rows)]
    return subprocess.Popen(command, env=os.environ | env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_killed_and_run_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    records = write_records(tmp_path / "r", [note(i, f"{CANARY} {prose(i, 150)}") for i in range(3_000)])
    clean(CleanConfig(), records=records, out=tmp_path / "undisturbed", seed=1)
    out = tmp_path / "killed"
    process = start(tmp_path, records, out, 30, PYTHONHASHSEED="1")
    listening: set[str] = set()
    while len(list((out / runs.SCRATCH).glob("*.json"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                listening |= {c.laddr.ip for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert listening == {"127.0.0.1"}
    assert not runs.is_complete(out)
    done = {path.name: path.stat().st_mtime_ns for path in (out / runs.SCRATCH).glob("*.json")}
    assert 3 <= len(done) < 100
    again = start(tmp_path, records, out, 30, PYTHONHASHSEED="2")
    said = again.communicate(timeout=120)[1]
    assert again.returncode == 0, said
    assert "resuming" in said
    assert CANARY not in said
    assert file_hashes(out) == file_hashes(tmp_path / "undisturbed")
    assert CANARY not in json.dumps(runs.read_json(out / runs.MANIFEST))


def test_partitions_that_are_whole_are_not_cleaned_again(tmp_path: Path, monkeypatch: Any) -> None:
    records = write_records(tmp_path / "r", mixed_rows(40))
    cfg = CleanConfig(partition_rows=10, workers=1)
    before, started = cleaning.clean_partition, []

    def dies_at_the_third(partition: inputs.Partition, *rest: Any) -> dict[str, Any]:
        started.append(partition.index)
        if partition.index == 2 and len(started) == 3:
            raise KeyboardInterrupt
        return before(partition, *rest)

    monkeypatch.setattr(cleaning, "clean_partition", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        clean(cfg, records=records, out=tmp_path / "c", seed=1)
    marks = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "c" / runs.SCRATCH).glob("*.json")}
    assert sorted(marks) == ["00000000.json", "00000001.json"]
    assert not list((tmp_path / "c").rglob("part-*.parquet"))
    clean(cfg, records=records, out=tmp_path / "c", seed=1)
    clean(CleanConfig(), records=records, out=tmp_path / "d", seed=1)
    assert file_hashes(tmp_path / "c") == file_hashes(tmp_path / "d")


def test_a_run_that_was_stopped_may_go_on_with_other_workers(tmp_path: Path, monkeypatch: Any) -> None:
    records = write_records(tmp_path / "r", mixed_rows(40))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cleaning, "clean_partition", interrupted)
        clean(CleanConfig(workers=1), records=records, out=tmp_path / "c", seed=1)
    manifest = clean(CleanConfig(workers=1, worker_memory="2GB"), records=records, out=tmp_path / "c", seed=1)
    assert manifest["facts"]["run_with"] == {"workers": 1, "worker_memory": "2GB", "scheduler": None}


def test_counters_of_the_manifest_are_the_same_however_it_is_cut(tmp_path: Path) -> None:
    rows = mixed_rows(40)
    rows[30]["text"] = "<p>" + prose(30) + "  ,  done</p>"
    records = write_records(tmp_path / "r", rows)
    found = [
        clean(CleanConfig(partition_rows=size), records=records, out=tmp_path / str(size), seed=1)["facts"]
        for size in (1000, 7)
    ]
    assert found[0] == found[1] | {"run_with": found[0]["run_with"]}
    facts = found[0]
    assert list(facts["rules"]) == ["decode", *(name for name, _ in rules.RULES)]  # filters: counts.rejected_<name>
    assert facts["rules"] | {"rtf": 1, "html": 1, "spacing": 1} == facts["rules"]
    assert facts["characters_removed"]["placeholder"] == len("<NA>") + len("n/a n/a")
    assert facts["absent"]["author_role"] == facts["absent"]["encounter_id"] == facts["absent"]["signed_time"] == 1


def test_row_groups_end_by_bytes_too_and_always_at_the_same_note(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(parts, "GROUP_BYTES", 3_000)
    rows = [note(i, prose(i, 15 if i % 7 else 400)) for i in range(60)]
    records = write_records(tmp_path / "r", rows)
    for size in (1000, 4):
        clean(CleanConfig(partition_rows=size, workers=1), records=records, out=tmp_path / str(size), seed=1)
    assert file_hashes(tmp_path / "1000") == file_hashes(tmp_path / "4")
    metadata = pq.ParquetFile(tmp_path / "4" / "notes" / "part-00000.parquet").metadata
    assert metadata.num_row_groups > 3
    assert sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) == 60


def test_a_note_of_unknown_category_or_beyond_the_limit_is_kept_aside_with_its_bytes(tmp_path: Path) -> None:
    rows = [note(i, prose(i)) for i in range(3)]
    rows[1]["category"], rows[2]["text"] = "Nursing", "long note " * 300
    clean(CleanConfig(max_note_mb=0.002), records=write_records(tmp_path / "r", rows), out=tmp_path / "c", seed=1)
    rejects = read(tmp_path / "c" / "rejects").to_pylist()
    assert [(r["note_id"], r["reason"]) for r in rejects] == [("n1", "unknown_category"), ("n2", "too_long")]
    assert [r["text"] for r in rejects] == [rows[1]["text"], rows[2]["text"]]
