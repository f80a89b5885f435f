"""What `extract` reads: a DuckDB connection in which every query of the source is a view.

`omop` attaches a DuckDB warehouse read-only; `sql` makes a view of each CSV, TSV or Parquet file. A database on a
server is read into raw files first (databases.py), and the views are over those. The checks, the order and the writer
see only the views, so another file format is one more function here.
DuckDB spills sorts that do not fit into MEMORY_LIMIT to the stage's scratch folder, which only its owner can read.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.config.addresses import is_url, without_password
from lang1.ehr.databases import fetching, try_queries
from lang1.ehr.fhir import open_export
from lang1.ehr.files import check_gzip, open_files
from lang1.ehr.mimic import notes_of, open_mimic3, open_mimic4
from lang1.ehr.omop import open_warehouse
from lang1.ehr.plans import Database
from lang1.ehr.queries import Query, Uses, bind, names_problem, parse
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "2GB"
"""of DuckDB; sorts beyond it spill. 1.6 GB of notes of 86 kB sort within it, within 1 GB they do not"""
THREADS = 2
"""each holds vectors of 2,048 whole notes while it sorts: more threads ask for more memory"""
DATA_PREFIX = "../shared/data"


@dataclass
class Source:
    """An open source: a view a table, and what the manifest says about it."""

    con: duckdb.DuckDBPyConnection
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    """columns and DuckDB types of each table's view"""
    absent: list[str] = field(default_factory=list)
    """tables that the source does not have"""
    facts: dict[str, Any] = field(default_factory=dict)
    time_zone: str | None = None
    """extract.time_zone, for the opener"""
    only_try: bool = False
    """the views are wanted for their columns alone (--check)"""
    aside: dict[str, str] = field(default_factory=dict)
    """rejects/<name>.parquet -> SELECT of what the opener set aside before any query: rule, patient_id, ..."""
    files: dict[str, Path] = field(default_factory=dict)
    """the file behind a table, by its name in lower case; those that the SQL reads are checked to be whole"""
    pieces: dict[str, Iterator[tuple[Callable[[], object], int]]] = field(default_factory=dict)
    """of a table in pieces, in the order of its ids: what makes its view that of the next piece, and the bytes"""
    wait: Callable[[str, bool], None] = lambda _table, _whole: None
    """(table, whole): until a table of a server can be read; `whole`: before its turn, not in pieces"""
    finish: Callable[[], None] = lambda: None
    """until all has come from a server, for the facts of its reading"""
    notes: Path | None = None
    """folder of the notes, where mimic4 has them"""


def resolve(source: str | Path) -> Path | str:
    """The source's path, or its URL without a password. A path that starts with ../shared/data lies under LANG1_DATA
    when that is set; duckdb:/// and a file name is that file. Raises InputError when there is nothing."""
    if isinstance(source, str) and is_url(source):
        try:
            url = without_password(source)
        except ValueError as error:
            raise InputError(str(error)) from None
        if not url.lower().startswith("duckdb:"):
            return url
        source = unquote(url.partition(":///")[2].partition("?")[0])
    path = Path(source)
    root = os.environ.get("LANG1_DATA")
    if root and path.parts[:3] == Path(DATA_PREFIX).parts:
        path = Path(root, *path.parts[3:])
    if not path.exists():
        raise InputError(f"{path}: no such file or folder (extract.path)")
    return path


def identity(place: Path | str) -> Path | str:
    """What an input is to the manifest: a file or folder, or server, port, database and schema of a URL."""
    if isinstance(place, Path):
        # a warehouse that a lang1 stage wrote is known by its manifest, another file by its size and change time
        return place.parent if place.is_file() and runs.is_complete(place.parent) else place
    if is_postgres(place):
        from lang1.ehr.pgaddress import address

        return address(place)
    from lang1.ehr.alchemy import address as address_of_any

    return address_of_any(place)


def is_postgres(url: str) -> bool:
    """True for the URL of a PostgreSQL server, by whatever driver it names."""
    return re.match(r"postgres(ql)?(\+\w+)?://", url) is not None


def _database(url: str, kind: str) -> Database:
    if is_postgres(url):
        from lang1.ehr.postgres import Postgres

        return Postgres(url, kind)
    if kind != "sql":
        raise InputError(
            f"{url}: source {kind} reads files or PostgreSQL; for another database write your own SQL: "
            "lang1 extract sql URL --sql FOLDER"
        )
    from lang1.ehr.alchemy import Alchemy

    return Alchemy(url)


@contextlib.contextmanager
def open_source(
    cfg: ExtractConfig,
    place: Path | str,
    queries: dict[str, Query],
    scratch: Path,
    done: set[str],
    base: Path | None = None,
    only_try: bool = False,
) -> Iterator[Source]:
    """A connection with a view a query; of a server's tables only those that are not `done`.

    `base`: records that the rows will be merged into (since.py). `only_try`: a server runs every query for no row.

    Raises InputError that names everything that is missing at once.
    """
    import duckdb

    scratch.chmod(0o700)
    con = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": MEMORY_LIMIT,
            "threads": str(THREADS),
            "temp_directory": str(scratch / "duckdb"),
            # nothing is fetched from a network behind the user's back
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    with contextlib.ExitStack() as stack:
        stack.callback(con.close)
        con.execute("SET enable_progress_bar = false; SET arrow_large_buffer_size = true; SET TimeZone = 'UTC'")
        source = Source(con, time_zone=cfg.time_zone, only_try=only_try)
        if isinstance(place, str) and only_try:
            try_queries(source, _database(place, cfg.source), cfg, queries, scratch)
        elif isinstance(place, str):
            stack.enter_context(fetching(source, _database(place, cfg.source), cfg, queries, scratch, done, base))
        else:
            source.notes = notes_of(cfg, place)
            _bind_all(source, place, queries, _OPENERS[cfg.source](source, place, scratch))
        yield source


def _bind_all(source: Source, path: Path, queries: dict[str, Query], there: dict[str, set[str]]) -> None:
    problems: list[str] = []
    uses: dict[str, Uses | None] = {}
    for table, query in queries.items():
        try:
            uses[table] = parse(source.con, query)
        except InputError as error:
            problems.append(str(error))
    missing, absent = names_problem(uses, there)
    source.absent += absent
    if missing is not None:
        problems.append(f"{path}: {missing}")
    if not problems:
        for table, query in queries.items():
            if table not in source.absent:
                try:
                    source.types[table] = bind(source.con, query)
                except InputError as error:
                    problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))
    read = {name for use in uses.values() if use is not None for name in use.columns}
    for table in sorted(read & source.files.keys()):
        check_gzip(source.files[table])


_OPENERS: dict[str, Callable[[Source, Path, Path], dict[str, set[str]]]] = {
    "omop": open_warehouse,
    "fhir": open_export,
    "mimic3": open_mimic3,
    "mimic4": open_mimic4,
    "sql": open_files,
}
