"""`lang1 clean`: section 5.1 on Dask, a partition a task, every note kept or rejected with a reason.

A partition is a range of rows of one records file. Its worker reads that range, applies `rules.RULES` and writes two
scratch files and, last, its counts; the parent joins the scratch files in the order of the records into parts of a
fixed number of rows. So the bytes written depend on the notes alone, not on partitions, workers or hash seeds, and a
killed run does again only the partitions whose counts are not there. Cost: the notes lie on disk twice until the
stage ends. One partition left to do is cleaned in this process: a cluster takes two seconds to start.

Tasks carry file names and row numbers, and an exception leaves a worker with the note's id in place of its text.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import CleanConfig, dump
from lang1.corpus import cluster, rules
from lang1.corpus.hashes import hash_id
from lang1.corpus.schema import CLEAN_NOTES, REJECTS
from lang1.ehr.schema import NOTES
from lang1.errors import InputError

READ_ROWS = 4096
"""notes of a partition in memory as Python text at a time"""
GROUP_ROWS = 20_000
"""notes a Parquet row group: what a later stage decodes at a time"""
PART_ROWS = 200_000
"""notes a part file"""
SECRET = 0o600
SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class Partition:
    """Rows [start, stop) of one file of notes."""

    index: int
    path: str
    start: int
    stop: int

    def described(self) -> str:
        """For a message: where the rows stand."""
        return f"rows {self.start} to {self.stop - 1} of {self.path}"


def clean(cfg: CleanConfig, *, records: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Clean every note of `records` into `out`; returns the manifest. Raises InputError for unusable records."""

    def work(stage: runs.Stage) -> None:
        partitions = plan_partitions(records / "notes", cfg.partition_rows)
        counts = _clean_partitions(cfg, partitions, stage)
        _check_balance(partitions, counts, records)
        stage.count(**counts["notes"])
        stage.record(rules=counts["rules"])

    return runs.run_stage(out, "clean", dump(cfg), seed, {"records": records}, work, force)


# --- plan ------------------------------------------------------------------------------------------------------


def plan_partitions(folder: Path, partition_rows: int) -> list[Partition]:
    """The ranges of rows to clean, in the order of the records. Reads footers only."""
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no part-*.parquet; extract the notes first (lang1 extract)")
    partitions: list[Partition] = []
    for path in paths:
        rows = _check_notes(path)
        for start in range(0, rows, partition_rows):
            partitions.append(Partition(len(partitions), str(path.resolve()), start, min(start + partition_rows, rows)))
    if not partitions:
        raise InputError(f"{folder}: holds no note; check the source of the extraction")
    return partitions


def _check_notes(path: Path) -> int:
    try:
        source = pq.ParquetFile(path)
    except (OSError, pa.ArrowException):
        raise InputError(f"{path}: not readable as Parquet; run the stage that wrote it again with --force") from None
    with source:
        missing = [name for name in NOTES.names if name not in source.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; notes need {', '.join(NOTES.names)}")
        return int(source.metadata.num_rows)


# --- a partition, in a worker ------------------------------------------------------------------------------------


def clean_partition(partition: Partition, scratch: str, min_words: int) -> dict[str, Any]:
    """Clean one partition into scratch files and return its counts; done already, only read those."""
    stem = Path(scratch) / f"{partition.index:08d}"
    done = stem.with_suffix(".json")
    if done.exists():
        return dict(json.loads(done.read_text()))
    counts: dict[str, Any] = {"notes": {"notes_in": 0, "notes_out": 0}, "rules": dict.fromkeys(_rule_names(), 0)}
    with ExitStack() as stack:
        kept = stack.enter_context(_ipc_writer(stem.with_suffix(".kept"), _plain(CLEAN_NOTES)))
        left = stack.enter_context(_ipc_writer(stem.with_suffix(".left"), REJECTS))
        for batch in _iter_rows(partition):
            texts, reasons = _clean_texts(batch, min_words, counts)
            kept.write_table(_kept_table(batch, texts, reasons))
            left.write_table(_left_table(batch, reasons))
    with runs.atomic_write(done, SECRET) as sink:
        sink.write(json.dumps(counts).encode())
    return counts


def _rule_names() -> list[str]:
    return ["decode", *(name for name, _ in rules.RULES)]


def _iter_rows(partition: Partition) -> Iterator[pa.Table]:
    """The partition's rows, a few thousand at a time: only the row groups that it touches are decoded."""
    with pq.ParquetFile(partition.path) as source:
        groups, first, position = [], None, 0
        for group in range(source.metadata.num_row_groups):
            rows = source.metadata.row_group(group).num_rows
            if position < partition.stop and position + rows > partition.start:
                groups.append(group)
                first = position if first is None else first
            position += rows
        position = first or 0
        for batch in source.iter_batches(batch_size=READ_ROWS, row_groups=groups, columns=NOTES.names):
            start, stop = max(partition.start - position, 0), min(partition.stop - position, len(batch))
            position += len(batch)
            if start < stop:
                yield _plain_table(pa.Table.from_batches([batch]).slice(start, stop - start))


def _clean_texts(batch: pa.Table, min_words: int, counts: dict[str, Any]) -> tuple[list[str], list[str | None]]:
    texts: list[str] = []
    reasons: list[str | None] = []
    touched, notes = counts["rules"], counts["notes"]
    raws = batch["text"].cast(pa.large_binary()).to_pylist()
    for note_id, raw in zip(batch["note_id"].to_pylist(), raws, strict=True):
        text, reason = _clean_note(note_id, raw, min_words, touched)
        key = "notes_out" if reason is None else f"rejected_{reason}"
        notes[key] = notes.get(key, 0) + 1
        texts.append(text)
        reasons.append(reason)
    notes["notes_in"] += len(texts)
    return texts, reasons


def _clean_note(note_id: str, raw: bytes | None, min_words: int, touched: dict[str, int]) -> tuple[str, str | None]:
    text, mended = rules.decode(raw)
    touched["decode"] += mended
    if not text or text.isspace():
        return "", "no_text"
    try:
        text = rules.apply_rules(text, touched)
    except rules.RuleError as error:
        if error.rule in rules.PARSERS:
            return "", f"unreadable_{error.rule}"
        raise RuntimeError(f"note {note_id}: cleaning rule {error.rule} failed ({error.kind})") from None
    return text, rules.reason_to_leave_out(text, min_words)


def _kept_table(batch: pa.Table, texts: list[str], reasons: list[str | None]) -> pa.Table:
    kept = [text for text, reason in zip(texts, reasons, strict=True) if reason is None]
    table = batch.filter(pa.array([reason is None for reason in reasons]))
    columns = {name: table[name] for name in NOTES.names if name != "text"}
    columns["text"] = pa.array(kept, pa.large_string())
    columns["words"] = pa.array([rules.count_words(text) for text in kept], pa.int32())
    columns["note_hash"] = pa.array([hash_id(text) for text in kept], pa.string())
    return pa.table([columns[name] for name in CLEAN_NOTES.names], schema=_plain(CLEAN_NOTES))


def _left_table(batch: pa.Table, reasons: list[str | None]) -> pa.Table:
    table = batch.filter(pa.array([reason is not None for reason in reasons]))
    columns = {name: table[name] for name in ("note_id", "patient_id", "encounter_id", "text")}
    columns["reason"] = pa.array([reason for reason in reasons if reason is not None], pa.string())
    return pa.table([columns[name] for name in REJECTS.names], schema=REJECTS)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with plain strings for categories: dictionaries would differ between partitions."""
    return pa.schema(
        [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in schema]
    )


def _plain_table(table: pa.Table) -> pa.Table:
    return table.select(NOTES.names).cast(_plain(NOTES))


@contextlib.contextmanager
def _ipc_writer(path: Path, schema: pa.Schema) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with runs.atomic_write(path, SECRET) as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        yield writer


# --- all partitions, in the parent ---------------------------------------------------------------------------------


def _clean_partitions(cfg: CleanConfig, partitions: list[Partition], stage: runs.Stage) -> dict[str, Any]:
    scratch = stage.scratch().resolve()
    totals: dict[str, Any] = {"notes": {}, "rules": {}}
    said = time.monotonic()
    with ExitStack() as stack:
        kept = stack.enter_context(_joined(stage.out / "notes", CLEAN_NOTES, None))
        left = stack.enter_context(_joined(stage.out / "rejects", REJECTS, SECRET))
        for done, counts in enumerate(_iter_cleaned(cfg, partitions, scratch), start=1):
            stem = scratch / f"{done - 1:08d}"
            kept.add(_read_ipc(stem.with_suffix(".kept")))
            left.add(_read_ipc(stem.with_suffix(".left")))
            for group in totals:
                for key, value in counts[group].items():
                    totals[group][key] = totals[group].get(key, 0) + value
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                runs.say(f"clean: {totals['notes']['notes_in']:,} notes, partition {done} of {len(partitions)}")
    return totals


def _iter_cleaned(cfg: CleanConfig, partitions: list[Partition], scratch: Path) -> Iterator[dict[str, Any]]:
    """The counts of every partition, in order, as they are done."""
    to_do = [p for p in partitions if not (scratch / f"{p.index:08d}.json").exists()]
    workers = min(cfg.workers or os.cpu_count() or 1, len(to_do))
    if cfg.scheduler is None and workers <= 1:
        for partition in partitions:
            yield clean_partition(partition, str(scratch), cfg.min_words)
        return
    settings: dict[str, Any] = {"scratch": str(scratch), "min_words": cfg.min_words, "pure": False}
    with cluster.open_client(cfg.scheduler, workers, scratch) as client:
        futures = [
            client.submit(clean_partition, p, key=f"clean-{p.index}-{os.getpid()}", **settings) for p in partitions
        ]
        for index, future in enumerate(futures):
            yield cluster.wait_for(client, future, partitions[index].described())
            future.release()


# --- joined parts ----------------------------------------------------------------------------------------------------


class _Joined:
    """Tables added in order, written as parts of PART_ROWS rows in row groups of GROUP_ROWS."""

    def __init__(self, folder: Path, schema: pa.Schema, mode: int | None) -> None:
        self.folder, self.schema, self.mode = folder, schema, mode
        self.pending: list[pa.Table] = []
        self.parts = self.groups = 0
        self.open = ExitStack()
        self.writer: Any = None

    def add(self, table: pa.Table) -> None:
        self.pending.append(table)
        if sum(len(t) for t in self.pending) >= GROUP_ROWS:
            whole = pa.concat_tables(self.pending)
            full = len(whole) - len(whole) % GROUP_ROWS
            for start in range(0, full, GROUP_ROWS):
                self._write(whole.slice(start, GROUP_ROWS))
            self.pending = [whole.slice(full)]

    def finish(self) -> None:
        rest = pa.concat_tables(self.pending) if self.pending else _plain(self.schema).empty_table()
        if len(rest) or not self.parts:
            self._write(rest)
        self.open.close()

    def _write(self, table: pa.Table) -> None:
        if self.writer is None or self.groups == PART_ROWS // GROUP_ROWS:
            self.open.close()
            path = self.folder / f"part-{self.parts:05d}.parquet"
            self.writer = self.open.enter_context(runs.parquet_writer(path, self.schema, self.mode))
            self.parts, self.groups = self.parts + 1, 0
        self.writer.write_table(_encoded(table, self.schema))
        self.groups += 1


@contextlib.contextmanager
def _joined(folder: Path, schema: pa.Schema, mode: int | None) -> Iterator[_Joined]:
    joined = _Joined(folder, schema, mode)
    try:
        yield joined
        joined.finish()
    except BaseException:
        with contextlib.suppress(OSError, InputError):
            joined.open.__exit__(*sys.exc_info())
        raise


def _encoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Categories as dictionaries in order of first appearance: the same rows, the same bytes."""
    table = table.combine_chunks()
    columns = [
        table[field.name].dictionary_encode() if pa.types.is_dictionary(field.type) else table[field.name]
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _read_ipc(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _check_balance(partitions: Iterable[Partition], counts: dict[str, Any], records: Path) -> None:
    notes = counts["notes"]
    rejected = {key.removeprefix("rejected_"): n for key, n in sorted(notes.items()) if key.startswith("rejected_")}
    planned = sum(p.stop - p.start for p in partitions)
    if not planned == notes["notes_in"] == notes["notes_out"] + sum(rejected.values()):
        raise RuntimeError(f"clean: {planned} notes in, {notes['notes_out']} out and {sum(rejected.values())} rejected")
    if not notes["notes_out"]:
        shown = ", ".join(f"{reason} {n}" for reason, n in rejected.items())
        what = "the column text is all null or empty" if set(rejected) == {"no_text"} else "no note is left"
        raise InputError(f"{records / 'notes'}: {what} of {planned} ({shown}); check the source's notes query")
