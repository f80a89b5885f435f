"""What `clean` reads: records, Parquet, CSV. Planned as partitions, read a few megabytes at a time, one schema out.

A partition is a range of rows of a Parquet file or of bytes of a CSV file. It is read piece by piece, so that memory
does not grow with the partition; a piece holds READ_BYTES, or one note where that is longer. Order is the input's:
files by name, rows as they stand.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import CleanConfig
from lang1.corpus import delimited
from lang1.ehr.schema import NOTES, TIME
from lang1.errors import InputError

READ_BYTES = 2_000_000
"""of notes in memory at a time"""
READ_ROWS = 256
"""notes that Parquet decodes at a time, at most: notes of very different length may follow each other"""
PIECES_A_GROUP = 8
"""partitions that a Parquet row group is cut into, at most: the rows before a range are decoded to get to it"""
NEEDED = ("note_id", "patient_id", "text")
DEFAULTS = {"category": "hospital", "note_type": "unknown"}
"""for columns that cleaned notes always have"""
_CSV = {".csv": ",", ".tsv": "\t"}
_NAME = re.compile(r"[^\W\d][\w.-]*(?: [\w.-]+){0,2}")
"""a column's name: up to three words, the first of which begins with a letter; a note has more"""
_SHOWN, _LONGEST = 40, 64
"""letters of a name that a message repeats, and of any name"""

Rows = Callable[[], int]
"""how many rows stand before a piece; asked only for a message"""

RAW_NOTES = pa.schema(
    [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in NOTES]
).set(NOTES.get_field_index("text"), pa.field("text", pa.large_binary()))
"""notes as they are read: plain strings, since dictionaries differ between partitions; text as bytes of any encoding"""


@dataclass(frozen=True)
class Source:
    """One file of notes. `name` is what the user calls it, `path` what is read (a .gz unpacked)."""

    path: str
    name: str
    columns: dict[str, str]
    """canonical column to the file's own; absent ones are left out"""
    delimiter: str = ""
    """empty: Parquet"""
    header: tuple[str, ...] = ()
    data: int = 0
    """byte of a CSV at which the rows begin"""


@dataclass(frozen=True)
class Partition:
    """Part of one file: rows [first, last) of Parquet, or bytes between the first and the last cut of a CSV."""

    index: int
    source: Source
    cuts: tuple[int, ...]

    def described(self) -> str:
        """For a message: where the notes stand."""
        start, stop = self.cuts[0], self.cuts[-1]
        if self.source.delimiter:
            return f"bytes {start} to {stop - 1} of {self.source.name}"
        return f"rows {start + 1} to {stop} of {self.source.name}"


# --- plan ------------------------------------------------------------------------------------------------------


def plan_records(cfg: CleanConfig, records: Path) -> list[Partition]:
    """The partitions of canonical records, in their order. Reads footers only."""
    folder = records / "notes"
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: no part-*.parquet; extract the notes first (lang1 extract)")
    partitions = _numbered(
        [plan for path in paths for plan in _plan_parquet(cfg, parquet_source(path, cfg, strict=True))]
    )
    if not partitions:
        raise InputError(f"{folder}: holds no note; check the source of the extraction")
    return partitions


def plan_notes(cfg: CleanConfig, notes: Path, scratch: Path) -> list[Partition]:
    """The partitions of a file or folder of notes. Reads footers, and all of a CSV once; a resumed run does not."""
    plan = scratch / "plan.json"
    if plan.exists():
        return [_from_json(value) for value in json.loads(plan.read_text())]
    found: list[tuple[Source, tuple[int, ...]]] = []
    for index, path in enumerate(note_files(notes)):
        if _kind(path) == ".parquet":
            found += _plan_parquet(cfg, parquet_source(path, cfg, strict=False))
        else:
            found += plan_csv(cfg, path, scratch / f"unpacked-{index:05d}")
    partitions = _numbered(found)
    if not partitions:
        raise InputError(f"{notes}: holds no note")
    with runs.atomic_write(plan, 0o600) as sink:
        sink.write(json.dumps([asdict(partition) for partition in partitions]).encode())
    return partitions


def note_files(notes: Path) -> list[Path]:
    """The CSV, TSV and Parquet files that `--notes` names, by name. Raises InputError when there are none."""
    if not notes.exists():
        raise InputError(f"{notes}: not found")
    files = [notes] if notes.is_file() else sorted(p for p in notes.rglob("*") if p.is_file())
    known = [path for path in files if _kind(path) and not path.name.startswith((".", "_"))]
    if not known:
        raise InputError(f"{notes}: no .csv, .tsv, .csv.gz, .tsv.gz or .parquet file")
    others = [path.name for path in files if path not in known and path.name != runs.MANIFEST]
    if others:
        runs.say(f"clean: {notes}: left alone: {', '.join(others[:5])}{' ...' if len(others) > 5 else ''}")
    return known


def _kind(path: Path) -> str:
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    return kind if kind in _CSV or (kind == ".parquet" and path.suffix.lower() == kind) else ""


def _numbered(found: list[tuple[Source, tuple[int, ...]]]) -> list[Partition]:
    return [Partition(index, source, cuts) for index, (source, cuts) in enumerate(found)]


def _from_json(value: dict[str, Any]) -> Partition:
    source = value["source"] | {"header": tuple(value["source"]["header"])}
    return Partition(value["index"], Source(**source), tuple(value["cuts"]))


def _mapped(name: str, there: list[str], own: dict[str, str], needed: tuple[str, ...]) -> dict[str, str]:
    """Canonical columns to those of the file. A column that the user named must be there."""
    missing = [own[c] for c in NOTES.names if own[c] not in there and (c in needed or own[c] != c)]
    if missing:
        by = "name it by clean.columns"
        raise InputError(f"{name}: no column {', '.join(missing)}{described_header(missing[0], there, by)}")
    columns = {c: own[c] for c in NOTES.names if own[c] in there}
    twice = sorted({column for column in columns.values() if there.count(column) > 1})
    if twice:
        raise InputError(f"{name}: column {twice[0]} stands twice in the header")
    return columns


def described_header(missing: str, there: list[str], by: str) -> str:
    """For a message: the names of a file and the one nearest to `missing`; of a first row that is a note, no word.

    `by` says how a column is named.
    """
    names = [name for name in there if name]  # an index that pandas wrote has none
    if not names or any(len(name) > _LONGEST or not _NAME.fullmatch(name) for name in names):
        return f"; the first row is no header ({len(there)} fields)"
    shown = [name for name in names if len(name) <= _SHOWN]
    near = difflib.get_close_matches(missing, shown, 1, 0.5)
    hint = f"; {by}, did you mean {near[0]}?" if near else f"; {by}"
    return f"{hint}; the file has {', '.join(shown[:20]) or f'{len(there)} fields'}"


def plan_csv(cfg: CleanConfig, path: Path, unpacked: Path) -> Iterator[tuple[Source, tuple[int, ...]]]:
    """A CSV file and where its partitions are cut; a .gz is first written out as `unpacked`."""
    delimiter, at = _CSV[_kind(path)], path.resolve()
    if path.suffix.lower() == ".gz":
        if not unpacked.exists():
            delimited.unpack(path, unpacked)
        at = unpacked.resolve()
    header, data = delimited.read_header(at, str(path), delimiter)
    columns = _mapped(str(path), header, asdict(cfg.columns), NEEDED)
    # names that need no care in Arrow: those of the file may repeat
    safe = tuple(name if name in columns.values() else f"{i}:{name}" for i, name in enumerate(header))
    source = Source(str(at), str(path), columns, delimiter, safe, data)
    most = round(cfg.partition_mb * 1e6)
    cuts = delimited.find_cuts(at, str(path), delimiter, data, min(READ_BYTES, most))
    first = 0
    for last in range(1, len(cuts)):
        if last + 1 == len(cuts) or cuts[last + 1] - cuts[first] > most:
            yield source, tuple(cuts[first : last + 1])
            first = last


def parquet_source(path: Path, cfg: CleanConfig, *, strict: bool) -> Source:
    """A Parquet file as records write it (`strict`: every column, by its own name), or as `--notes` takes it."""
    with open_parquet(path, str(path)) as parquet:
        own = {name: name for name in NOTES.names} if strict else asdict(cfg.columns)
        columns = _mapped(str(path), parquet.schema_arrow.names, own, tuple(NOTES.names) if strict else NEEDED)
        source = Source(str(path.resolve()), str(path), columns)
        _check_types(source, parquet.schema_arrow)
    return source


def _plan_parquet(cfg: CleanConfig, source: Source) -> Iterator[tuple[Source, tuple[int, ...]]]:
    with open_parquet(Path(source.path), source.name) as parquet:
        facts = map(parquet.metadata.row_group, range(parquet.num_row_groups))
        groups = [(group.num_rows, group.total_byte_size) for group in facts]
    most = round(cfg.partition_mb * 1e6)
    start = stop = weight = 0
    for rows, size in groups:
        pieces = min(max(-(-rows // cfg.partition_rows), -(-size // most), 1), PIECES_A_GROUP)
        for piece in range(pieces):
            more = rows * (piece + 1) // pieces - rows * piece // pieces
            if stop > start and (stop + more - start > cfg.partition_rows or weight + size // pieces > most):
                yield source, (start, stop)
                start, weight = stop, 0
            stop, weight = stop + more, weight + size // pieces
    if stop > start:
        yield source, (start, stop)


def open_parquet(path: Path, name: str) -> pq.ParquetFile:
    """A Parquet file read as a stream. Raises InputError when it is none."""
    try:
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (OSError, pa.ArrowException):
        raise InputError(f"{name}: not readable as Parquet; copy it, or run the stage that wrote it, again") from None


def _check_types(source: Source, schema: pa.Schema) -> None:
    for column, theirs in source.columns.items():
        kind = schema.field(theirs).type
        problem = None
        if pa.types.is_nested(kind):
            problem = "is nested"
        elif column.endswith("_id") and pa.types.is_floating(kind):
            problem = "holds floating point numbers; write ids as text or whole numbers"
        elif column.endswith("_time") and pa.types.is_timestamp(kind) and kind.tz is not None:
            problem = f"has the time zone {kind.tz}; write local times without one"
        elif column == "text" and not _is_text(kind):
            problem = f"is {kind}, not text"
        if problem:
            raise InputError(f"{source.name}: column {theirs} {problem}")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_null(kind) or any(
        is_kind(kind) for is_kind in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
            pa.types.is_large_binary, pa.types.is_binary_view,
        )
    )  # fmt: skip


# --- read --------------------------------------------------------------------------------------------------------


def iter_notes(partition: Partition, absent: dict[str, int] | None = None) -> Iterator[pa.Table]:
    """The notes of a partition in RAW_NOTES, a few megabytes at a time; counts in `absent` what is not there.

    Raises InputError, with file and row, for rows that are no notes.
    """
    source = partition.source
    absent = {} if absent is None else absent
    if source.delimiter:
        path = Path(source.path)
        for start, stop in zip(partition.cuts, partition.cuts[1:], strict=False):
            piece = delimited.read_piece(
                path, source.name, source.delimiter, source.header, list(source.columns.values()),
                source.data, start, stop,
            )  # fmt: skip
            yield _canonical(piece, source, partial(delimited.count_rows, path, source.data, start), absent)
        return
    with open_parquet(Path(source.path), source.name) as parquet:
        for first, piece in _iter_parquet(parquet, source, partition.cuts[0], partition.cuts[-1]):
            yield _canonical(piece, source, partial(int, first), absent)


def _iter_parquet(parquet: pq.ParquetFile, source: Source, start: int, stop: int) -> Iterator[tuple[int, pa.Table]]:
    """Row number and rows; only the row groups that the range touches are decoded."""
    groups, position, first, size = [], 0, None, 0
    for group in range(parquet.num_row_groups):
        facts = parquet.metadata.row_group(group)
        if position < stop and position + facts.num_rows > start:
            groups.append(group)
            first = position if first is None else first
            size = max(size, facts.total_byte_size // max(facts.num_rows, 1))
        position += facts.num_rows
    position = first or 0
    waiting: list[pa.RecordBatch] = []
    rows = min(max(READ_BYTES // max(size, 1), 1), READ_ROWS)
    try:
        for batch in parquet.iter_batches(rows, groups, list(source.columns.values()), use_threads=False):
            begin, end = max(start - position, 0), min(stop - position, len(batch))
            position += len(batch)
            if begin < end:
                waiting.append(batch.slice(begin, end - begin))
            if waiting and (sum(b.nbytes for b in waiting) >= READ_BYTES or position >= stop):
                table = pa.Table.from_batches(waiting)
                waiting = []
                yield min(position, stop) - len(table), table
                del table
            if position >= stop:
                return
    except (OSError, pa.ArrowException):
        where = f"{source.name}: damaged after row {position}"
        raise InputError(f"{where}; copy it, or run the stage that wrote it, again") from None


def _canonical(piece: pa.Table, source: Source, rows_before: Rows, absent: dict[str, int]) -> pa.Table:
    """The columns of RAW_NOTES: absent ones null, those that cleaned notes always have with their default."""
    columns: dict[str, Any] = {}
    for field in RAW_NOTES:
        theirs = source.columns.get(field.name)
        if theirs is None:
            values = pa.chunked_array([pa.nulls(len(piece), field.type)])
        else:
            values = _cast(piece[theirs], field, source, theirs, rows_before)
            if source.delimiter and field.type == pa.string():  # some programs write "" for null
                values = pc.if_else(pc.equal(values, ""), None, values)
        if field.name not in NEEDED:
            absent[field.name] = absent.get(field.name, 0) + values.null_count
        columns[field.name] = pc.fill_null(values, DEFAULTS[field.name]) if field.name in DEFAULTS else values
    for name in ("note_id", "patient_id"):
        empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(columns[name]), ""), True)
        if pc.any(empty).as_py():
            row = rows_before() + pc.index(empty, True).as_py() + 1
            raise InputError(f"{source.name}: row {row}: no {source.columns[name]}; every note needs one")
    return pa.table(columns, schema=RAW_NOTES)


def _cast(values: pa.ChunkedArray, field: pa.Field, source: Source, theirs: str, rows_before: Rows) -> pa.ChunkedArray:
    """Values in the canonical type; the row is looked for when one does not fit."""
    try:
        return _cast_all(values, field)
    except pa.ArrowException:
        for index in range(len(values)):
            try:
                _cast_all(values.slice(index, 1), field)
            except pa.ArrowException:
                row = rows_before() + index + 1
                what = "a local time such as 2020-01-31 08:30:00" if field.type == TIME else "text in UTF-8"
                raise InputError(f"{source.name}: row {row}: column {theirs} is not {what}") from None
        raise


def _cast_all(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    if field.name == "text":
        return values.cast(pa.large_binary())
    if field.type == TIME and not (pa.types.is_temporal(values.type) or pa.types.is_null(values.type)):
        texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
        return pc.if_else(pc.equal(texts, ""), None, texts).cast(TIME)
    if field.type == TIME:
        return values.cast(TIME, safe=False)  # nanoseconds are cut to microseconds
    return values.cast(pa.string())
