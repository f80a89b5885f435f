"""`lang1 clean`: section 5.1 on Dask, a partition a task, every note kept or rejected with a reason.

A partition is part of one file of notes (`inputs.py`). Its worker reads it piece by piece, applies the steps of
`rules.py` and writes two scratch files and, last, its counts; the parent joins the scratch files in the order of the
input into row groups and parts that the notes alone determine (`parts.py`). So the bytes written do not depend on
partitions, workers, file formats or hash seeds, and a killed run does again only the partitions whose counts are not
there. Cost: the notes lie on disk twice until the stage ends. One partition left to do is cleaned in this process: a
cluster takes two seconds to start.

Tasks carry file names and row numbers, and an exception leaves a worker with the note's id in place of its text.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from lang1 import runs
from lang1.config import CleanConfig, dump
from lang1.corpus import cluster, inputs, rules
from lang1.corpus.hashes import hash_id
from lang1.corpus.inputs import Partition
from lang1.corpus.parts import open_parts, plain
from lang1.corpus.schema import CLEAN_NOTES, REJECTS
from lang1.ehr.schema import CATEGORIES, NOTES
from lang1.errors import InputError

SECRET = 0o600
SAY_EVERY_S = 10.0
FREE = ("workers", "worker_memory", "scheduler")
"""settings that change nothing that is written: a run may be resumed with others"""
REJECTED = frozenset(f"rejected_{reason}" for reason in rules.REASONS)
"""counters of the manifest that say why notes were left out"""
Counts = dict[str, dict[str, int]]
"""groups of counters: notes, rules, characters_removed, characters_added, absent"""


def clean(
    cfg: CleanConfig, *, out: Path, seed: int, records: Path | None = None, notes: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Clean every note of `records`, or of a file or folder `notes`, into `out`; returns the manifest.

    Raises InputError for input that cannot be used.
    """
    if (records is None) == (notes is None):
        raise InputError("clean: give --records DIR or --notes FILE_OR_FOLDER, one of them")
    given = {"records": records} if records is not None else {"notes": notes}

    def work(stage: runs.Stage) -> None:
        scratch = stage.scratch().resolve()
        partitions = (
            inputs.plan_records(cfg, records)
            if records is not None
            else inputs.plan_notes(cfg, Path(str(notes)), scratch)
        )
        counts = _clean_partitions(cfg, partitions, stage.out, scratch)
        _check_balance(counts["notes"], str(records / "notes" if records is not None else notes))
        stage.count(**counts["notes"])
        changed = {name: n for name, n in counts["rules"].items() if f"rejected_{name}" not in REJECTED}
        stage.record(**{group: values for group, values in counts.items() if group != "notes"} | {"rules": changed})
        stage.record(run_with={name: getattr(cfg, name) for name in FREE})

    config = {name: value for name, value in dump(cfg).items() if name not in FREE}
    if notes is None:
        del config["columns"]  # those of `--notes` alone
    return runs.run_stage(out, "clean", config, seed, {k: v for k, v in given.items() if v is not None}, work, force)


# --- a partition, in a worker ------------------------------------------------------------------------------------


def clean_partition(partition: Partition, scratch: str, cfg: CleanConfig) -> Counts:
    """Clean one partition into scratch files and return its counts; done already, only read those."""
    stem = Path(scratch) / f"{partition.index:08d}"
    done = stem.with_suffix(".json")
    if done.exists():
        return dict(json.loads(done.read_text()))
    steps, tally = rules.chosen_steps(cfg), rules.Tally()
    notes, absent = Counter[str](notes_in=0, notes_out=0), dict[str, int]()
    with ExitStack() as stack:
        kept = stack.enter_context(_ipc_writer(stem.with_suffix(".kept"), plain(CLEAN_NOTES)))
        left = stack.enter_context(_ipc_writer(stem.with_suffix(".left"), REJECTS))
        for piece in inputs.iter_notes(partition, absent):
            texts, reasons = _clean_piece(piece, steps, tally)
            kept.write_table(_kept_table(piece, texts, reasons, steps))
            left.write_table(_left_table(piece, reasons))
            notes.update("notes_out" if reason is None else f"rejected_{reason}" for reason in reasons)
            notes["notes_in"] += len(piece)
    counts = {
        "notes": dict(notes), "rules": tally.notes, "characters_removed": tally.removed,
        "characters_added": tally.added, "absent": absent,
    }  # fmt: skip
    with runs.atomic_write(done, SECRET) as sink:
        sink.write(json.dumps(counts).encode())
    return counts


def _clean_piece(piece: pa.Table, steps: rules.Steps, tally: rules.Tally) -> tuple[list[str], list[str | None]]:
    texts: list[str] = []
    reasons: list[str | None] = []
    ids, categories, raws = (piece[name].to_pylist() for name in ("note_id", "category", "text"))
    for note_id, category, raw in zip(ids, categories, raws, strict=True):
        text, reason = _clean_note(note_id, category, raw, steps, tally)
        texts.append(text)
        reasons.append(reason)
    return texts, reasons


def _clean_note(
    note_id: str, category: str, raw: bytes | None, steps: rules.Steps, tally: rules.Tally
) -> tuple[str, str | None]:
    if category not in CATEGORIES:
        return "", "unknown_category"
    try:
        return rules.clean_note(raw, steps, tally)
    except rules.RuleError as error:
        raise RuntimeError(f"note {note_id}: cleaning rule {error.rule} failed ({error.kind})") from None


def _kept_table(piece: pa.Table, texts: list[str], reasons: list[str | None], steps: rules.Steps) -> pa.Table:
    kept = [text for text, reason in zip(texts, reasons, strict=True) if reason is None]
    table = piece.drop_columns("text").filter(pa.array([reason is None for reason in reasons]))
    columns = {name: table[name] for name in NOTES.names if name != "text"}
    columns["text"] = pa.array(kept, pa.large_string())
    columns["words"] = pa.array([rules.count_words(text, steps) for text in kept], pa.int32())
    columns["note_hash"] = pa.array([hash_id(text) for text in kept], pa.string())
    return pa.table([columns[name] for name in CLEAN_NOTES.names], schema=plain(CLEAN_NOTES))


def _left_table(piece: pa.Table, reasons: list[str | None]) -> pa.Table:
    names = ["note_id", "patient_id", "encounter_id", "text"]
    table = piece.select(names).filter(pa.array([reason is not None for reason in reasons]))
    columns = {name: table[name] for name in names}
    # the bytes as they came, UTF-8 or not: a cast would refuse them
    texts = [chunk.view(pa.large_string()) for chunk in table["text"].chunks]
    columns["text"] = pa.chunked_array(texts, pa.large_string())
    columns["reason"] = pa.array([reason for reason in reasons if reason is not None], pa.string())
    return pa.table([columns[name] for name in REJECTS.names], schema=REJECTS)


@contextlib.contextmanager
def _ipc_writer(path: Path, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with runs.atomic_write(path, SECRET) as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        yield writer


# --- all partitions, in the parent ---------------------------------------------------------------------------------


def _clean_partitions(cfg: CleanConfig, partitions: list[Partition], out: Path, scratch: Path) -> Counts:
    totals: Counts = {}
    said = time.monotonic()
    with ExitStack() as stack:
        stack.callback(pa.set_memory_pool, pa.default_memory_pool())
        pa.set_memory_pool(pa.system_memory_pool())  # what is freed goes back at once
        kept = stack.enter_context(open_parts(out / "notes", CLEAN_NOTES, None))
        left = stack.enter_context(open_parts(out / "rejects", REJECTS, SECRET))
        for done, counts in enumerate(_iter_cleaned(cfg, partitions, scratch), start=1):
            stem = scratch / f"{done - 1:08d}"
            for parts, suffix in ((kept, ".kept"), (left, ".left")):
                for table in _iter_ipc(stem.with_suffix(suffix)):
                    parts.add(table)
            for group, values in counts.items():
                total = totals.setdefault(group, {})
                for key, value in values.items():
                    total[key] = total.get(key, 0) + value
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                runs.say(f"clean: {totals['notes']['notes_in']:,} notes, partition {done} of {len(partitions)}")
    return totals


def _iter_cleaned(cfg: CleanConfig, partitions: list[Partition], scratch: Path) -> Iterator[Counts]:
    """The counts of every partition, in order, as they are done."""
    to_do = [p for p in partitions if not (scratch / f"{p.index:08d}.json").exists()]
    workers = min(cfg.workers or os.cpu_count() or 1, len(to_do))
    if cfg.scheduler is None and workers <= 1:
        for partition in partitions:
            yield clean_partition(partition, str(scratch), cfg)
        return
    settings: dict[str, Any] = {"scratch": str(scratch), "cfg": cfg, "pure": False}
    with cluster.open_client(cfg.scheduler, workers, cfg.worker_memory, scratch) as client:
        run = uuid.uuid4().hex  # of two tasks with one key a scheduler does the first, also for another driver
        futures = [client.submit(clean_partition, p, key=f"clean-{p.index}-{run}", **settings) for p in partitions]
        for index, future in enumerate(futures):
            yield cluster.wait_for(client, future, partitions[index].described())
            future.release()


def _iter_ipc(path: Path) -> Iterator[pa.Table]:
    with path.open("rb") as source, pa.ipc.open_file(source) as reader:
        for index in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(index)])


def _check_balance(notes: dict[str, int], where: str) -> None:
    rejected = {key.removeprefix("rejected_"): n for key, n in sorted(notes.items()) if key.startswith("rejected_")}
    total = notes["notes_in"]
    if total != notes["notes_out"] + sum(rejected.values()):
        raise RuntimeError(f"clean: {total} notes in, {notes['notes_out']} out and {sum(rejected.values())} rejected")
    if not notes["notes_out"]:
        shown = ", ".join(f"{reason} {n}" for reason, n in rejected.items())
        what = "the column text is all null or empty" if set(rejected) == {"no_text"} else "no note is left"
        raise InputError(f"{where}: {what} of {total} ({shown}); check the source's notes query")
