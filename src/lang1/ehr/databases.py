"""Rows of a database server, in partitions, as raw Parquet files under the stage's scratch; then a view a table.

    query --ranges of its id--> partitions --connections at once--> raw/<table>/00012.parquet --> incoming_<table>

The plan, with every partition's SQL, is written down first. A partition's file appears whole or not at all, so a
dropped connection or a killed process costs the partitions that were under way and the same command goes on with the
rest. The bytes of the records do not depend on how a table was cut: extraction.py sorts what the views give, from the
first table on while later ones are still on their way.
The price is that raw rows lie on disk, readable by their owner only, until their table is written. docs/decisions/0010
has what was weighed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr.crew import Crew, Job
from lang1.ehr.files import exact
from lang1.ehr.plans import ONE_PARTITION, Database, Fault, Plan, TablePlan
from lang1.ehr.queries import Query, column_problems, relation_name
from lang1.ehr.rules import literal, quoted
from lang1.ehr.schema import FEATURES, TABLES
from lang1.ehr.since import choose, scan_statement
from lang1.ehr.writing import ROW_BYTES
from lang1.errors import InputError, Unfinished

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

RAW = "raw"
"""folder of the stage's scratch"""
PLAN = "plan.json"
PIECE_BYTES = 2**26
"""raw rows that are sorted at once, about"""


@contextlib.contextmanager
def fetching(
    source: Source,
    database: Database,
    cfg: ExtractConfig,
    queries: dict[str, Query],
    scratch: Path,
    done: set[str],
    base: Path | None,
) -> Iterator[None]:
    """Bring the rows of all tables but `done` to disk within the block; `source.wait` makes the view of one.

    It, its pieces and `source.finish` raise InputError or Unfinished. `base`: records that the rows are merged into; of
    notes only those that they lack or have otherwise are read.
    """
    folder = scratch / RAW
    with contextlib.ExitStack() as stack:
        stack.callback(database.close)
        plan, begun = _plan(source, database, cfg, queries, folder, base)
        files = {
            table: [_file(folder, table, n) for n in range(len(plan.tables[table].wheres))]
            for table in (*TABLES, *FEATURES)
            if table in plan.tables
        }
        jobs = [
            Job(table, n, file)
            for table, of_table in files.items()
            for n, file in enumerate(of_table)
            if table not in done and not file.exists()
        ]
        if begun and not plan.snapshots:  # counted in a state that nobody read
            for of_table in plan.tables.values():
                of_table.rows = None
        if jobs and begun:
            try:
                database.connect()
            except InputError as error:
                raise Unfinished(f"{error}; the partitions that are there are kept for the same command") from None
        crew = Crew(database, cfg, plan, queries, jobs, partial(_keep, plan, folder))
        stack.callback(crew.close)
        crew.start()

        def wait(table: str, whole: bool) -> None:
            if table not in files or table in source.types:
                return
            piecewise = plan.tables[table].ordered and base is None and not whole
            for n in range(1 if piecewise else len(files[table])):
                crew.wait(table, n)
            if not piecewise:
                _refuse_other_count(database.name, table, plan, files[table])
            view = partial(_view, source.con, queries[table])
            if whole:  # looked at before its turn
                view(files[table])
                return
            source.types[table] = view(files[table][:1] if piecewise else files[table])
            if piecewise:
                source.pieces[table] = ((partial(view, p), size) for p, size in _pieces(crew, table, files[table]))

        def finish() -> None:
            crew.finish()
            states = {snapshot["state"] for snapshot in plan.snapshots}
            source.facts["database"] = plan.facts["database"] | {
                "partitions": {table: len(of_table.wheres) for table, of_table in plan.tables.items()},
                "snapshots": plan.snapshots,
                "one_state": len(plan.snapshots) < 2 or (len(states) == 1 and "" not in states),
            }

        source.absent += plan.absent
        source.facts.update(plan.facts)
        source.wait, source.finish = wait, finish
        yield


def try_queries(
    source: Source, database: Database, cfg: ExtractConfig, queries: dict[str, Query], scratch: Path
) -> None:
    """Every query run by the driver that would read it, for no row; views as `fetching`. Raises InputError."""
    try:
        database.connect()
        plan = database.plan(source.con, queries, ONE_PARTITION)
        for of_table in plan.tables.values():
            of_table.wheres = ["1 = 0"]
        folder = scratch / RAW
        jobs = [Job(table, 0, _file(folder, table, 0)) for table in plan.tables]
        crew = Crew(database, replace(cfg, workers=1), plan, queries, jobs, partial(_keep, plan, folder))
        try:
            crew.start()
            crew.finish()
        finally:
            crew.close()
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


def _refuse_other_count(name: str, table: str, plan: Plan, files: list[Path]) -> None:
    """Raise InputError when the partitions of one state gave a row twice or not at all."""
    import pyarrow.parquet as pq

    counted = plan.tables[table].rows
    read = sum(pq.read_metadata(file).num_rows for file in files)
    if counted is not None and read != counted and len(plan.snapshots) < 2:
        raise InputError(
            f"{name}: {table}: its partitions gave {read:,} rows where the query had {counted:,}: the table changed "
            "meanwhile (MyISAM, Aria), or the database sorts the id in one way and compares it in another (ENUM): give "
            f"it as plain text, such as CONCAT(id, ''), or set extract.partition_rows above {counted:,}"
        )


def _pieces(crew: Crew, table: str, files: list[Path]) -> Iterator[tuple[list[Path], int]]:
    """Neighbouring raw files as they come, put together to about PIECE_BYTES, and their bytes."""
    import pyarrow.parquet as pq

    piece: list[Path] = []
    so_far = 0
    for n, file in enumerate(files):
        crew.wait(table, n)
        about = pq.read_metadata(file)
        texts = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        size = texts + about.num_rows * ROW_BYTES
        if piece and so_far + size > PIECE_BYTES:
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
        # an id stays the text that it is in the other tables
        casts = {c: "VARCHAR" if c.lower() == "encounter_id" else _type_of(found) for c, found in kinds.items()}
        columns = ", ".join(f"TRY_CAST({quoted(c)} AS {cast}) AS {quoted(c)}" for c, cast in casts.items())
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
