"""Sorted, checked rows to Parquet parts and to a file of rejects.

Row groups and parts are cut here, after so many rows or bytes of text, whichever comes first: how DuckDB batches its
rows does not show in the files. Row groups are compressed in a thread while DuckDB sorts the next rows.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections import Counter, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lang1 import runs
from lang1.ehr.files import exact
from lang1.ehr.queries import OWN_FLAG, relation_name
from lang1.ehr.rules import EXCLUDED, RAW, RULE, Checked, literal, quoted

if TYPE_CHECKING:
    import duckdb

REJECTS = "rejects"
BATCH_ROWS = 2_048
GROUP_ROWS = {"notes": 10_000}
DEFAULT_GROUP_ROWS = 100_000
"""rows a row group; notes are longer"""
GROUP_BYTES = 64 * 2**20
"""bytes of note text a row group, about: the row that passes it is its last"""
GROUPS_A_PART = 10
WAITING_BYTES = GROUP_BYTES
"""row groups that wait to be compressed hold so much, about, while DuckDB sorts the next rows"""
SORT_BYTES = 2**28
"""a table beyond it is cut into ranges of its ids first, and each is sorted alone: DuckDB's sort of long texts does not
go to disk but ends with an error soon after they fill its memory (860 MB of notes under a limit of 800 MB)"""
ROW_BYTES = 256
"""of a row, about, beside its note"""
SAMPLED_IDS = 20_000


@dataclass
class Tally:
    """Rows of one table by what became of them."""

    kept: int = 0
    excluded: int = 0
    with_text: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    """kept rows by the source's own word on them"""


class Parts:
    """Parquet parts of a table; a context: parts appear whole, none appears when the block raises."""

    def __init__(self, folder: Path, schema: pa.Schema, table: str, single: bool = False) -> None:
        """`single`: one file <table>.parquet, mode 0600, made only when a row comes; else part-*.parquet."""
        self._folder, self.schema, self._table, self._single = folder, schema, table, single
        self._group_rows = GROUP_ROWS.get(table, DEFAULT_GROUP_ROWS)
        self._buffer: list[pa.Table] = []
        self._rows = 0
        self._any = False
        self._thread = ThreadPoolExecutor(1)
        self._writing: deque[tuple[Future[None], int]] = deque()
        self._files = self._write_files()
        next(self._files)

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._rows or not (self._any or self._single):
                    self._write_group(self._rows)
                self._send(None, 0)
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._files.close()

    def add(self, rows: pa.Table) -> None:
        """Rows with the schema's columns, in order; types are made the schema's when a group is written."""
        if rows.num_rows == 0:
            return
        self._buffer.append(rows)
        self._rows += rows.num_rows
        while (rows := self._full_group()) is not None:
            self._write_group(rows)

    def _full_group(self) -> int | None:
        """Rows of the next row group, when the waiting rows fill one."""
        rows = self._group_rows if self._rows >= self._group_rows else None
        if "text" in self.schema.names:
            lengths = [pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy() for table in self._buffer]
            passed = int(np.searchsorted(np.cumsum(np.concatenate(lengths)), GROUP_BYTES)) + 1
            if passed <= min(self._rows, self._group_rows):
                return passed
        return rows

    def _write_group(self, rows: int) -> None:
        waiting = pa.concat_tables(self._buffer) if self._buffer else self.schema.empty_table()
        self._buffer = [waiting.slice(rows)]
        self._rows -= rows
        self._any = True
        self._send(waiting.slice(0, rows), waiting.slice(0, rows).nbytes)
        self._wait(WAITING_BYTES)

    def _send(self, group: pa.Table | None, size: int) -> None:
        def send() -> None:
            with contextlib.suppress(StopIteration):
                self._files.send(group)

        self._writing.append((self._thread.submit(send), size))

    def _wait(self, most: int) -> None:
        """Until no more than `most` bytes wait to be written, or one row group; the fault of one is raised here."""
        while self._writing and (most == 0 or (len(self._writing) > 1 and sum(n for _, n in self._writing) > most)):
            self._writing.popleft()[0].result()

    def _write_files(self) -> Generator[None, pa.Table | None, None]:
        """Row groups that are sent in, as files; None ends the last one. In the thread; closed early, it undoes it."""
        group = yield
        for number in itertools.count():
            if group is None:
                return
            name = f"{self._table}.parquet" if self._single else f"part-{number:05d}.parquet"
            with runs.parquet_writer(self._folder / name, self.schema, 0o600 if self._single else None) as writer:
                for _ in itertools.count() if self._single else range(GROUPS_A_PART):
                    writer.write_table(_typed(group, self.schema), row_group_size=max(group.num_rows, 1))
                    group = yield
                    if group is None:
                        break


def _typed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for f in schema:
        column = rows[f.name].combine_chunks()
        if pa.types.is_dictionary(f.type):
            # encoded afresh a group: the dictionary's order is that of the rows
            column = column.cast(f.type.value_type).dictionary_encode()
        columns.append(column.cast(f.type))
    return pa.Table.from_arrays(columns, schema=schema)


def write_checked(
    con: duckdb.DuckDBPyConnection, pieces: Iterator[tuple[Checked, int]], out: Path, scratch: Path
) -> Tally:
    """Stream the checked rows of one table: kept ones to <table>/, those that break a rule to rejects/.

    `pieces`: at least one, in the order of the ids: how to read it, and its bytes, about; a piece is asked for when
    the one before is written. A large one goes to disk through `scratch` first, and gives the same bytes.
    """
    tally = Tally()
    last_id: str | None = None
    plan, size = next(pieces)
    with (
        Parts(out / plan.table, plan.schema, plan.table) as kept,
        Parts(out / REJECTS, _rejects_schema(plan.schema), plan.table, single=True) as rejects,
    ):
        for plan, size in itertools.chain([(plan, size)], pieces):  # noqa: B020 - the first one, then the others
            for batch in _sorted(con, plan, scratch, size):
                last_id = _divide(pa.Table.from_batches([batch]), plan, kept, rejects, tally, last_id)
    return tally


def _divide(
    rows: pa.Table, plan: Checked, kept: Parts, rejects: Parts, tally: Tally, last_id: str | None
) -> str | None:
    """Give each row its place; returns the last id seen."""
    names, rules = plan.schema.names, rows[RULE].combine_chunks()
    is_good = pc.is_null(rules)
    if plan.id_column:
        repeated, last_id = _repeated(rows[plan.id_column].combine_chunks(), is_good, last_id)
        if pc.any(repeated).as_py():
            rules = pc.if_else(repeated, pa.scalar(f"duplicate {plan.id_column}", rules.type), rules)
            is_good = pc.is_null(rules)
    good = rows if rules.null_count == len(rules) else rows.filter(is_good)  # else no copy of the texts
    if good is not rows:
        is_bad = pc.fill_null(pc.not_equal(rules, EXCLUDED), False)
        _reject(rejects, tally, rules.filter(is_bad), rows.filter(is_bad), names)
        tally.excluded += len(rows) - len(good) - pc.sum(is_bad).as_py()
    if OWN_FLAG in good.column_names:
        _add_counts(tally.flagged, good[OWN_FLAG].drop_null())
    tally.kept += good.num_rows
    if "text" in names:
        tally.with_text += good.num_rows - good["text"].null_count
    kept.add(good.select(names))
    return last_id


def write_aside(con: duckdb.DuckDBPyConnection, name: str, sql: str, out: Path) -> None:
    """What a source set aside before its queries, to rejects/<name>.parquet; nothing of an excluded patient."""
    query = f"SELECT * FROM ({sql}) AS a WHERE coalesce(a.patient_id NOT IN (FROM excluded_patients), true)"
    reader = con.sql(query).to_arrow_reader(BATCH_ROWS)
    schema = pa.schema([pa.field(f.name, pa.large_string()) for f in reader.schema])
    with Parts(out / REJECTS, schema, name, single=True) as rejects:
        for batch in reader:
            columns = [column.cast(pa.large_string()) for column in batch.columns]
            rejects.add(pa.Table.from_arrays(columns, schema=schema))


def _sorted(con: duckdb.DuckDBPyConnection, plan: Checked, scratch: Path, size: int) -> Iterator[pa.RecordBatch]:
    if size <= SORT_BYTES:
        yield from con.sql(f"{plan.sql} ORDER BY {plan.order}").to_arrow_reader(BATCH_ROWS)
        return
    cuts = _cuts(con, plan, -(-size // SORT_BYTES))
    key = f"c.{quoted(plan.sort_column)}"
    after = "".join(f" + ({key} >= {literal(cut)})::INTEGER" for cut in cuts)
    folder = scratch / "ranges" / plan.table
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # a row waits in memory only until its range has a vector of them
    con.execute(f"SET partitioned_write_flush_threshold = {BATCH_ROWS}; SET preserve_insertion_order = false")
    con.execute(
        f"COPY (SELECT c.*, coalesce(0{after}, {len(cuts)}) AS range FROM ({plan.sql}) AS c) "
        f"TO {literal(str(folder))} "
        f"(FORMAT parquet, PARTITION_BY (range), COMPRESSION lz4, ROW_GROUP_SIZE {BATCH_ROWS})"
    )
    con.execute("SET preserve_insertion_order = true")
    for number in range(len(cuts) + 1):
        files = [exact(file) for file in sorted((folder / f"range={number}").glob("*.parquet"))]
        if files:
            listed = ", ".join(literal(file) for file in files)
            rows = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false) ORDER BY {plan.order}"
            yield from con.sql(rows).to_arrow_reader(BATCH_ROWS)
            shutil.rmtree(folder / f"range={number}")
    shutil.rmtree(folder, ignore_errors=True)


def _cuts(con: duckdb.DuckDBPyConnection, plan: Checked, ranges: int) -> list[str]:
    """Ids that cut the table into so many ranges of about as many bytes, by a sample; any cuts give the same order."""
    length = "strlen(CAST(i.text AS VARCHAR))" if "text" in plan.schema.names else "0"
    sampled = con.execute(
        f"SELECT id, bytes FROM (SELECT CAST(i.{quoted(plan.sort_column)} AS VARCHAR) AS id, "
        f"{ROW_BYTES} + coalesce({length}, 0) AS bytes FROM {relation_name(plan.table)} AS i) "
        f"WHERE id IS NOT NULL USING SAMPLE reservoir({SAMPLED_IDS} ROWS) REPEATABLE (1)"
    ).fetchall()
    sampled.sort(key=lambda row: row[0].encode())
    total, so_far = sum(row[1] for row in sampled), 0
    cuts: list[str] = []
    for key, size in sampled:
        so_far += size
        if len(cuts) < ranges - 1 and so_far * ranges >= total * (len(cuts) + 1) and (not cuts or key != cuts[-1]):
            cuts.append(key)
    return cuts


def _repeated(ids: pa.Array, is_good: pa.Array, last_id: str | None) -> tuple[pa.Array, str | None]:
    """Which good rows have the id of the good row before them, and the last one's id; rows are sorted by id."""
    good = ids.filter(is_good)
    if not len(good):
        return pa.repeat(False, len(ids)), last_id
    before = pa.concat_arrays([pa.array([last_id], ids.type), good.slice(0, len(good) - 1)])
    found = pc.fill_null(pc.equal(good, before), False)
    return pc.replace_with_mask(pa.repeat(False, len(ids)), is_good, found), good[-1].as_py()


def _rejects_schema(schema: pa.Schema) -> pa.Schema:
    rule = pa.field(RULE, pa.string(), nullable=False, metadata={"meaning": "Name of the rule that the row breaks."})
    return pa.schema([rule, *[pa.field(f.name, pa.large_string(), metadata=f.metadata) for f in schema]])


def _reject(rejects: Parts, tally: Tally, rules: pa.Array, rows: pa.Table, names: list[str]) -> None:
    """Set rows aside, every value as text: as the source wrote it; of a duplicate, whose values are good, as read."""
    if not len(rows):
        return
    raw = rows[RAW].combine_chunks()
    as_read = pc.is_null(raw)
    texts = [
        pc.if_else(
            as_read,
            rows[name].combine_chunks().cast(pa.large_string()),
            pc.struct_field(raw, name).cast(pa.large_string()),
        )
        for name in names
    ]
    rejects.add(pa.Table.from_arrays([rules.cast(pa.string()), *texts], names=[f.name for f in rejects.schema]))
    _add_counts(tally.rejected, rules)


def _add_counts(counter: Counter[str], values: pa.ChunkedArray | pa.Array) -> None:
    for entry in pc.value_counts(values):
        counter[entry["values"].as_py()] += entry["counts"].as_py()
