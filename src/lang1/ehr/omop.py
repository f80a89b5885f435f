"""Source `omop`: an OMOP CDM 5.3 or 5.4 warehouse, here in a DuckDB file attached read-only; postgres.py reads the
same from a server.

The SQL files are written for 5.4 and our two extensions. Where a table lacks a column of those, a table of the same
name stands before it that has the column (`substitutes`): what 5.3 calls otherwise, and the time of signing, which
OMOP has not. The table `claim` may be absent: its SQL is skipped then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.ehr.rules import literal, quoted
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

SIGNED = ("note", "note_signed_datetime")
"""our extension of OMOP's NOTE"""
STAND_INS: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    # a day alone: the note was there by its last second, never assumed earlier
    SIGNED: (
        ("note_datetime", "note_date"),
        "coalesce(note_datetime, CAST(note_date AS TIMESTAMP) + INTERVAL '86399' SECOND)",
    ),
    **{
        ("visit_occurrence", name): ((in_53,), in_53)
        for name, in_53 in (
            ("discharged_to_concept_id", "discharge_to_concept_id"),
            ("discharged_to_source_value", "discharge_to_source_value"),
            ("admitted_from_concept_id", "admitting_source_concept_id"),
            ("admitted_from_source_value", "admitting_source_value"),
        )
    },
}
"""(table, column of 5.4 or ours) -> the columns that it is made from, and how; DuckDB and PostgreSQL read it alike"""


def substitutes(there: dict[str, set[str]]) -> dict[str, dict[str, str]]:
    """Columns that tables lack and that others give: table -> column -> expression. `there` gets the columns."""
    found: dict[str, dict[str, str]] = {}
    for (table, column), (needs, expression) in STAND_INS.items():
        columns = there.get(table, set())
        if column not in columns and set(needs) <= columns:
            found.setdefault(table, {})[column] = expression
    for table, given in found.items():
        there[table] |= given.keys()
    return found


def facts_of(given: dict[str, dict[str, str]], name: str) -> dict[str, Any]:
    """What the manifest says of the columns that stand in for others; said aloud for the clock of signing."""
    signed = SIGNED[1] not in given.get(SIGNED[0], {})
    if not signed:
        runs.say(f"extract: {name} has no {'.'.join(SIGNED)}; note_datetime is the clock of signing")
    version = "5.3" if "discharged_to_concept_id" in given.get("visit_occurrence", {}) else "5.4"
    return {"signed_time_from": SIGNED[1] if signed else "note_datetime", "cdm_version": version}


def open_warehouse(source: Source, path: Path, _scratch: Path) -> dict[str, set[str]]:
    """Attach the warehouse read-only; returns the columns of its tables."""
    warehouse = _warehouse_file(path)
    attach(source.con, warehouse)
    schema, there = tables_of(source.con, warehouse, "person")
    given = substitutes(there)
    for table, columns in given.items():
        extra = ", ".join(f"{expression} AS {column}" for column, expression in columns.items())
        source.con.execute(
            f"CREATE TEMP VIEW {table} AS SELECT *, {extra} FROM warehouse.{quoted(schema)}.{quoted(table)}"
        )
    source.facts.update(facts_of(given, warehouse.name))
    return there


def tables_of(con: duckdb.DuckDBPyConnection, file: Path, holds: str | None = None) -> tuple[str, dict[str, set[str]]]:
    """The schema of the attached file that holds the table `holds`, else main, made current; and its tables' columns.

    Raises InputError when two schemas other than main hold it.
    """
    rows = con.execute(
        "SELECT lower(table_schema), lower(table_name), lower(column_name) FROM information_schema.columns "
        "WHERE table_catalog = 'warehouse'"
    ).fetchall()
    schemas = sorted({schema for schema, table, _ in rows if table == holds and schema != "main"})
    in_main = any(schema == "main" and table == holds for schema, table, _ in rows)
    if len(schemas) > 1 and not in_main:
        raise InputError(f"{file}: the schemas {', '.join(schemas)} all hold a table {holds}; give a file with one")
    schema = schemas[0] if schemas and not in_main else "main"
    con.execute(f"USE warehouse.{quoted(schema)}")
    there: dict[str, set[str]] = {}
    for of_schema, table, column in rows:
        if of_schema == schema:
            there.setdefault(table, set()).add(column)
    return schema, there


def _warehouse_file(path: Path) -> Path:
    if path.is_dir():
        files = sorted(path.glob("*.duckdb"))
        if len(files) != 1:
            raise InputError(f"{path}: {len(files)} *.duckdb files; give the path of the warehouse file")
        return files[0]
    return path


def attach(con: duckdb.DuckDBPyConnection, warehouse: Path) -> None:
    """Attach a DuckDB file as `warehouse`, read-only. Raises InputError for another kind of file or a damaged one."""
    import duckdb

    try:
        with warehouse.open("rb") as sink:
            head = sink.read(12)
    except OSError as error:
        raise InputError(f"{warehouse}: cannot be read ({os.strerror(error.errno or 0)})") from None
    if head[8:12] != b"DUCK":
        what = "an SQLite file" if head.startswith(b"SQLite") else "another kind of file"
        raise InputError(
            f"{warehouse}: not a DuckDB database ({what}); give a DuckDB file, or postgresql://... for a server"
        )
    try:
        con.execute(f"ATTACH {literal(str(warehouse))} AS warehouse (READ_ONLY)")
    except duckdb.Error as error:
        reason = "open in another program that writes to it" if "lock" in str(error).lower() else "cut off or damaged"
        raise InputError(
            f"{warehouse}: cannot be opened as a DuckDB database ({reason}, or from a newer DuckDB than "
            f"{duckdb.__version__})"
        ) from None
