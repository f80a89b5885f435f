"""What `extract` reads: a DuckDB connection in which every query of the source is a view.

`omop` attaches a DuckDB warehouse read-only; `sql` makes a view of each CSV, TSV or Parquet file. The checks, the
order and the writer see only those views, so another database or file format is one more function here.
DuckDB spills sorts that do not fit into MEMORY_LIMIT to the stage's scratch folder, which only its owner can read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1.ehr.files import open_files
from lang1.ehr.omop import open_warehouse
from lang1.ehr.queries import Query, bind, missing_names, parse
from lang1.ehr.schema import OPTIONAL
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


def resolve(path: Path) -> Path:
    """The path as given; one that starts with ../shared/data lies under LANG1_DATA when that is set."""
    root = os.environ.get("LANG1_DATA")
    if root and path.parts[:3] == Path(DATA_PREFIX).parts:
        path = Path(root, *path.parts[3:])
    if not path.exists():
        raise InputError(f"{path}: no such file or folder (extract.path)")
    return path


@contextlib.contextmanager
def open_source(kind: str, path: Path, queries: dict[str, Query], scratch: Path) -> Iterator[Source]:
    """A connection with a view a query. Raises InputError that names everything that is missing at once."""
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
    try:
        con.execute("SET enable_progress_bar = false; SET arrow_large_buffer_size = true; SET TimeZone = 'UTC'")
        source = Source(con)
        names = _OPENERS[kind](source, path, scratch)
        _bind_all(source, path, queries, names)
        yield source
    finally:
        con.close()


def _bind_all(source: Source, path: Path, queries: dict[str, Query], there: dict[str, set[str]]) -> None:
    problems: list[str] = []
    missing: list[str] = []
    for table, query in queries.items():
        try:
            uses = parse(source.con, query)
        except InputError as error:
            problems.append(str(error))
            continue
        lacks = missing_names(uses, there)
        if table in OPTIONAL and any(name.startswith("table ") for name in lacks):
            source.absent.append(table)
        else:
            missing += [name for name in lacks if name not in missing]
    if missing:
        known = ", ".join(sorted(there)[:12]) + (" ..." if len(there) > 12 else "")
        problems.append(
            f"{path}: lacks what the SQL reads: {', '.join(missing)} (it has the tables {known}); "
            "mend the source, or give your own SQL in extract.sql_dir"
        )
    if not problems:
        for table, query in queries.items():
            if table not in source.absent:
                try:
                    source.types[table] = bind(source.con, query)
                except InputError as error:
                    problems.append(str(error))
    if problems:
        raise InputError("; ".join(problems))


_OPENERS: dict[str, Callable[[Source, Path, Path], dict[str, set[str]]]] = {"omop": open_warehouse, "sql": open_files}
