"""The cleaned notes as a view of a DuckDB database in memory: for stages that sort, join or count over all of them.

What does not fit the memory given spills to the stage's scratch folder, which only its owner can read. Every query
that writes is ordered by a key without ties, so that the result depends neither on threads nor on how the notes are
cut into files.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lang1.corpus.schema import CLEAN_NOTES
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb


def list_parts(corpus: Path) -> list[Path]:
    """The part files of a cleaned corpus, in order, checked. Raises InputError for none, or one that is no corpus's."""
    paths = sorted((corpus / "notes").glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{corpus}: no notes/part-*.parquet; run lang1 clean first")
    for path in paths:
        try:
            names = pq.read_schema(path).names
        except (OSError, pa.ArrowException):
            raise InputError(f"{path}: not readable as Parquet; run lang1 clean again with --force") from None
        missing = [name for name in CLEAN_NOTES.names if name not in names]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; it is no part of a cleaned corpus")
    return paths


def open_notes(corpus: Path, scratch: Path, *, threads: int, memory_gb: float) -> duckdb.DuckDBPyConnection:
    """A database with the view `clean_notes` (and `filename`, `file_row_number`) and the table `parts`."""
    import duckdb

    paths = list_parts(corpus)
    scratch.chmod(0o700)
    database = duckdb.connect(":memory:")
    database.execute(f"SET threads = {threads or os.cpu_count() or 1}; SET memory_limit = '{memory_gb:.3f}GB'")
    database.execute(f"SET preserve_insertion_order = false; SET temp_directory = {quote(str(scratch / 'duckdb'))}")
    listed = ", ".join(quote(str(path)) for path in paths)
    database.execute(
        f"CREATE VIEW clean_notes AS SELECT * FROM read_parquet([{listed}], filename = true, file_row_number = true)"
    )
    database.execute("CREATE TABLE parts (file BIGINT, filename VARCHAR)")
    database.executemany("INSERT INTO parts VALUES (?, ?)", [[i, str(path)] for i, path in enumerate(paths)])
    return database


def run_sql(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """Run `sql/<name>.sql`."""
    database.execute(read_sql(name))


def read_sql(name: str) -> str:
    """The text of `sql/<name>.sql`."""
    return (files("lang1.corpus") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def numbers(database: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    """The one row that a query gives, nulls as 0."""
    return [value or 0 for value in database.execute(query).fetchall()[0]]


def quote(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
