"""Rows of a database server, in partitions, as raw Parquet files under the stage's scratch; then a view a table.

    query --ranges of its id--> partitions --connections at once--> raw/<table>/00012.parquet --> incoming_<table>

The plan, with every partition's SQL, is written down first. A partition's file appears whole or not at all, so a
dropped connection or a killed process costs the partitions that were under way and the same command goes on with the
rest. The bytes of the records do not depend on how a table was cut: extraction.py sorts what the views give.
The price is that raw rows lie on disk, readable by their owner only, until their table is written. docs/decisions/0010
has what was weighed.
"""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr.files import exact
from lang1.ehr.queries import Query, column_problems, relation_name
from lang1.ehr.rules import literal, quoted
from lang1.ehr.schema import FEATURES
from lang1.ehr.since import choose, scan_statement
from lang1.ehr.writing import ROW_BYTES
from lang1.errors import InputError, Unfinished

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lang1.ehr.sources import Source

ONE_PARTITION = 2**62
"""rows a partition when a table is not to be cut, and so not to be looked at"""
RAW = "raw"
"""folder of the stage's scratch"""
PLAN = "plan.json"
LONGEST_WAIT_S = 30.0
FIRST_WAIT_S = 1.0
SAY_EVERY_S = 10.0
PIECE_BYTES = 2**26
"""raw rows that are sorted at once, about"""


class Fault(Exception):
    """What a server answered instead of rows: safe to show, it quotes no row."""

    def __init__(self, message: str, lost: bool = False) -> None:
        """`lost`: the connection or the server went away; asking again may help."""
        super().__init__(message)
        self.lost = lost


@dataclass
class TablePlan:
    """How one table is read: a SELECT, and the condition of each partition ("" for all rows)."""

    select: str
    wheres: list[str]
    ordered: bool = False
    """partitions come in the order of the ids' text, a null id last: each can be sorted alone"""

    def sql(self, n: int) -> str:
        """The statement of partition `n`."""
        return self.select + (f"\nWHERE {self.wheres[n]}" if self.wheres[n] else "")


@dataclass
class Plan:
    """What is read from a database; kept in the scratch folder while the stage is not complete."""

    tables: dict[str, TablePlan]
    absent: list[str]
    facts: dict[str, Any]
    snapshots: list[dict[str, str]]
    """when a state of the database was taken, and what names it; one unless a run was cut off"""


class Reader(Protocol):
    """One connection that reads partitions, in one read-only transaction where the server has such."""

    snapshot: dict[str, str]
    kinds: dict[str, list[str]]
    """where every value is read as text: what Python types the last statement's columns had"""

    def read(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows as Arrow batches of bounded size. It and the iterator raise Fault."""

    def close(self) -> None:
        """Never raises."""


class Database(Protocol):
    """A server: postgres.py and alchemy.py have one each."""

    name: str
    """as errors name it: no password"""
    at_once: int
    """connections that may read the same state of the database"""
    digests: bool
    """the server can tell changed rows from unchanged ones without sending them (since.py)"""

    def connect(self) -> None:
        """Try the server once. Raises InputError in the user's words."""

    def plan(self, con: duckdb.DuckDBPyConnection, queries: dict[str, Query], rows: int) -> Plan:
        """Check every query and cut it into partitions of about `rows` rows. Raises InputError with all faults."""

    def resume(self, plan: Plan) -> None:
        """Take up a plan that an earlier run made."""

    def reader(self) -> Reader:
        """A new connection. Raises Fault."""

    def close(self) -> None:
        """Never raises."""


def fetch(
    source: Source,
    database: Database,
    cfg: ExtractConfig,
    queries: dict[str, Query],
    scratch: Path,
    done: set[str],
    base: Path | None,
) -> None:
    """Bring the rows of all tables but `done` to disk, and make their views. Raises InputError or Unfinished.

    `base`: records that the rows are merged into; of notes only those that they lack or have otherwise are read.
    """
    folder = scratch / RAW
    try:
        plan, begun = _plan(source, database, cfg, queries, folder, base)
        jobs = [
            Job(table, n, _file(folder, table, n))
            for table, of_table in plan.tables.items()
            for n in range(len(of_table.wheres))
            if table not in done and not _file(folder, table, n).exists()
        ]
        if jobs:
            if begun:
                try:
                    database.connect()
                except InputError as error:
                    raise Unfinished(f"{error}; the partitions that are there are kept for the same command") from None
            _Crew(database, cfg, plan, queries, jobs, folder).work()
    finally:
        database.close()
    source.absent += plan.absent
    source.facts.update(plan.facts)
    states = {snapshot["state"] for snapshot in plan.snapshots}
    source.facts["database"] = plan.facts["database"] | {
        "partitions": {table: len(of_table.wheres) for table, of_table in plan.tables.items()},
        "snapshots": plan.snapshots,
        "one_state": len(plan.snapshots) < 2 or (len(states) == 1 and "" not in states),
    }
    for table in (plan.tables.keys() - done) | {"encounters"}:  # the exclusion list asks for the encounters again
        files = [_file(folder, table, n) for n in range(len(plan.tables[table].wheres))]
        source.types[table] = _view(source.con, queries[table], files)
        if plan.tables[table].ordered and base is None:
            source.pieces[table] = [
                (partial(_view, source.con, queries[table], piece), size) for piece, size in _pieces(files, PIECE_BYTES)
            ]


def try_queries(
    source: Source, database: Database, cfg: ExtractConfig, queries: dict[str, Query], scratch: Path
) -> None:
    """Every query run by the driver that would read it, for no row; views as `fetch` makes them. Raises InputError."""
    try:
        database.connect()
        plan = database.plan(source.con, queries, ONE_PARTITION)
        for of_table in plan.tables.values():
            of_table.wheres = ["1 = 0"]
        folder = scratch / RAW
        jobs = [Job(table, 0, _file(folder, table, 0)) for table in plan.tables]
        _Crew(database, replace(cfg, workers=1), plan, queries, jobs, folder).work()
    finally:
        database.close()
    source.absent += plan.absent
    source.facts.update(plan.facts)
    for table in plan.tables:
        source.types[table] = _view(source.con, queries[table], [_file(folder, table, 0)])


def forget(scratch: Path, table: str) -> None:
    """Delete the raw rows of a table that is written; encounters stay, the rules of later runs ask for them."""
    if table != "encounters":
        shutil.rmtree(scratch / RAW / table, ignore_errors=True)


def _plan(
    source: Source, database: Database, cfg: ExtractConfig, queries: dict[str, Query], folder: Path, base: Path | None
) -> tuple[Plan, bool]:
    """The plan, and whether an earlier run made it."""
    path = folder / PLAN
    if path.exists():
        kept = runs.read_json(path)
        plan = Plan(**kept | {"tables": {t: TablePlan(**p) for t, p in kept["tables"].items()}})
        database.resume(plan)
        return plan, True
    database.connect()
    plan = database.plan(source.con, queries, cfg.partition_rows)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if base is not None and cfg.since is not None:
        _choose_notes(source, database, plan, cfg.since, folder, base)
    _keep(plan, folder)
    return plan, False


def _choose_notes(source: Source, database: Database, plan: Plan, since: datetime, folder: Path, base: Path) -> None:
    """Cut the plan of the notes to those that the records lack or have otherwise."""
    if not database.digests:
        runs.say("extract: this database gives no digests: all notes are read and compared here")
        return
    scanned = folder / "scanned.parquet"
    try:
        reader = database.reader()
        try:
            schema, batches = reader.read(scan_statement(plan.tables["notes"].select, since))
            with runs.parquet_writer(scanned, schema, 0o600) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        finally:
            reader.close()
    except Fault as fault:
        raise InputError(f"{database.name}: {fault}; nothing is changed, the same command begins again") from None
    conditions = choose(source.con, base, scanned)
    if conditions is not None:
        plan.tables["notes"].wheres = conditions


def _keep(plan: Plan, folder: Path) -> None:
    tables = {table: vars(of_table) for table, of_table in plan.tables.items()}
    runs.write_json(folder / PLAN, vars(plan) | {"tables": tables}, 0o600)


def _file(folder: Path, table: str, n: int) -> Path:
    return folder / table / f"{n:05d}.parquet"


def _pieces(files: list[Path], most: int) -> Iterator[tuple[list[Path], int]]:
    """Neighbouring raw files, put together to about so many bytes, and their bytes."""
    import pyarrow.parquet as pq

    piece: list[Path] = []
    so_far = 0
    for file in files:
        about = pq.read_metadata(file)
        texts = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        size = texts + about.num_rows * ROW_BYTES
        if piece and so_far + size > most:
            yield piece, so_far
            piece, so_far = [], 0
        piece.append(file)
        so_far += size
    yield piece, so_far


def _view(con: duckdb.DuckDBPyConnection, query: Query, files: list[Path]) -> dict[str, str]:
    """The view of a query's raw rows; returns its columns and DuckDB types."""
    columns = "*"
    kinds = _kinds(files) if query.table in FEATURES else {}
    if kinds:
        columns = ", ".join(f"TRY_CAST({quoted(c)} AS {_type_of(found)}) AS {quoted(c)}" for c, found in kinds.items())
    paths = ", ".join(literal(exact(file)) for file in files)
    name = relation_name(query.table)
    con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {columns} FROM read_parquet([{paths}])")
    types = {str(row[0]): str(row[1]) for row in con.execute(f"DESCRIBE {name}").fetchall()}
    problems = column_problems(query.table, types)
    if problems:
        raise InputError(f"{query.name}: {'; '.join(problems)}")
    return types


def _kinds(files: list[Path]) -> dict[str, set[str]]:
    import pyarrow.parquet as pq

    found: dict[str, set[str]] = {}
    for file in files:
        for column, kinds in json.loads((pq.read_metadata(file).metadata or {}).get(b"kinds", b"{}")).items():
            found.setdefault(column, set()).update(kinds)
    return found


def _type_of(kinds: set[str]) -> str:
    if kinds and kinds <= {"int"}:
        return "BIGINT"
    if kinds and kinds <= {"int", "float", "Decimal"}:
        return "DOUBLE"
    return "BOOLEAN" if kinds == {"bool"} else "VARCHAR"


@dataclass(frozen=True)
class Job:
    """One partition to read, and the file that it becomes."""

    table: str
    n: int
    file: Path


class _Stop(Exception):
    """Another partition failed, or the user interrupted: this one ends at its next batch."""


class _Crew:
    """Threads with a connection each; Arrow, Parquet and the drivers leave the interpreter's lock while they work."""

    def __init__(
        self,
        database: Database,
        cfg: ExtractConfig,
        plan: Plan,
        queries: dict[str, Query],
        jobs: list[Job],
        folder: Path,
    ) -> None:
        self._database, self._cfg, self._plan, self._queries = database, cfg, plan, queries
        self._folder, self._all = folder, len(jobs)
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._ended: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        self._stop, self._lock = threading.Event(), threading.Lock()

    def work(self) -> None:
        """Every job, or the first fault."""
        threads = [
            threading.Thread(target=self._run, name=f"extract-{i}", daemon=True)
            for i in range(min(self._cfg.workers, self._database.at_once, self._all))
        ]
        for thread in threads:
            thread.start()
        rows, said = 0, time.monotonic()
        try:
            for ended in range(1, self._all + 1):
                outcome = self._ended.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                rows += outcome
                if time.monotonic() - said > SAY_EVERY_S:
                    runs.say(f"extract: {ended} of {self._all} partitions, {rows:,} rows")
                    said = time.monotonic()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(5)
        runs.say(f"extract: {self._all} partitions read, {rows:,} rows")

    def _run(self) -> None:
        reader: Reader | None = None
        try:
            while not self._stop.is_set():
                job = self._jobs.get_nowait()
                rows, reader = self._fetch(job, reader)
                self._ended.put(rows)
        except (queue.Empty, _Stop):
            pass  # nothing left to do
        except BaseException as error:  # handed to the main thread, which raises it
            self._ended.put(error)
        finally:
            if reader is not None:
                reader.close()

    def _fetch(self, job: Job, reader: Reader | None) -> tuple[int, Reader]:
        for attempt in range(self._cfg.tries):
            try:
                if reader is None:
                    reader = self._connected()
                return self._write(job, reader), reader
            except BaseException as error:
                if reader is not None:
                    reader.close()
                    reader = None
                if not isinstance(error, Fault):  # a full disk, an end that somebody else brought
                    raise
                if not error.lost:
                    raise InputError(f"{self._database.name} ({self._queries[job.table].name}): {error}") from None
                last = error
            if attempt + 1 < self._cfg.tries:
                wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
                runs.say(f"extract: {job.table}: connection lost ({last}); again in {wait:g} s")
                if self._stop.wait(wait):
                    raise _Stop
        raise Unfinished(
            f"{self._database.name}: the connection was lost {self._cfg.tries} times while {job.table} was read "
            f"({last}); what was read is kept: when the server answers, the same command goes on from there"
        )

    def _connected(self) -> Reader:
        try:
            reader = self._database.reader()
        except Fault as fault:
            if fault.lost:
                raise
            # a password that was changed meanwhile, say: no reason to throw away what was read
            raise Unfinished(f"{self._database.name}: cannot connect: {fault}; what was read is kept") from None
        self._note_snapshot(reader.snapshot)
        return reader

    def _write(self, job: Job, reader: Reader) -> int:
        schema, batches = reader.read(self._plan.tables[job.table].sql(job.n))
        rows = 0
        with runs.parquet_writer(job.file, schema, 0o600, fleeting=True) as writer:
            for batch in batches:
                if self._stop.is_set():
                    raise _Stop
                writer.write_batch(batch)
                rows += batch.num_rows
            if reader.kinds:
                writer.add_key_value_metadata({"kinds": json.dumps(reader.kinds)})
        return rows

    def _note_snapshot(self, snapshot: dict[str, str]) -> None:
        with self._lock:
            known = self._plan.snapshots
            if snapshot in known:
                return
            if known and (snapshot["state"] != known[-1]["state"] or not snapshot["state"]):
                runs.say(
                    f"extract: the rows read so far are the database's as of {known[-1]['taken']}, the others as of "
                    f"{snapshot['taken']} (see database.snapshots in the manifest); --force reads all at one time"
                )
            known.append(snapshot)
            _keep(self._plan, self._folder)
