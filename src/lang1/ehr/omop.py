"""Source `omop`: an OMOP CDM 5.4 warehouse in a DuckDB file, attached read-only.

Two extensions of ours may be there, or not: the table `claim` (its SQL is skipped without it) and the column
note.note_signed_datetime (note_datetime stands in, and the manifest says so).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.ehr.rules import literal, quoted
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

SIGNED = ("note", "note_signed_datetime")
"""our extension of OMOP's NOTE"""


def open_warehouse(source: Source, path: Path, _scratch: Path) -> dict[str, set[str]]:
    """Attach the warehouse read-only; returns the columns of its tables."""
    warehouse = _warehouse_file(path)
    _attach(source.con, warehouse)
    rows = source.con.execute(
        "SELECT lower(table_schema), lower(table_name), lower(column_name) FROM information_schema.columns "
        "WHERE table_catalog = 'warehouse'"
    ).fetchall()
    schemas = {schema for schema, table, _ in rows if table == "person"} or {"main"}
    schema = "main" if "main" in schemas else sorted(schemas)[0]
    source.con.execute(f"USE warehouse.{quoted(schema)}")
    there: dict[str, set[str]] = {}
    for of_schema, table, column in rows:
        if of_schema == schema:
            there.setdefault(table, set()).add(column)
    table, column = SIGNED
    source.facts["signed_time_from"] = column
    if {"note_datetime", "note_date"} <= there.get(table, set()) and column not in there[table]:
        # a day alone: the note was there by its last second, never assumed earlier
        source.con.execute(
            f"CREATE TEMP VIEW {table} AS SELECT *, coalesce(note_datetime, CAST(note_date AS TIMESTAMP) + "
            f"INTERVAL '86399' SECOND) AS {column} FROM warehouse.{quoted(schema)}.{table}"
        )
        there[table].add(column)
        source.facts["signed_time_from"] = "note_datetime"
        runs.say(f"extract: {warehouse.name} has no note.{column}; note_datetime is the clock of signing")
    return there


def _warehouse_file(path: Path) -> Path:
    if path.is_dir():
        files = sorted(path.glob("*.duckdb"))
        if len(files) != 1:
            raise InputError(f"{path}: {len(files)} *.duckdb files; give the path of the warehouse file")
        return files[0]
    return path


def _attach(con: duckdb.DuckDBPyConnection, warehouse: Path) -> None:
    import duckdb

    try:
        with warehouse.open("rb") as sink:
            head = sink.read(12)
    except OSError as error:
        raise InputError(f"{warehouse}: cannot be read ({os.strerror(error.errno or 0)})") from None
    if head[8:12] != b"DUCK":
        what = "an SQLite file" if head.startswith(b"SQLite") else "another kind of file"
        raise InputError(f"{warehouse}: not a DuckDB database ({what}); source omop reads an OMOP CDM 5.4 DuckDB file")
    try:
        con.execute(f"ATTACH {literal(str(warehouse))} AS warehouse (READ_ONLY)")
    except duckdb.Error as error:
        reason = "open in another program that writes to it" if "lock" in str(error).lower() else "cut off or damaged"
        raise InputError(
            f"{warehouse}: cannot be opened as a DuckDB database ({reason}, or from a newer DuckDB than "
            f"{duckdb.__version__})"
        ) from None
