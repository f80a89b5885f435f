"""`lang1 extract --check`: every query run for no row, its columns and types compared with the canonical ones.

What is missing is an InputError, all of it at once, as an extraction would raise after it began. What is only odd (a
text where a time is wanted: rows that do not parse will be set aside) is a remark beside its column.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lang1.config import ExtractConfig
from lang1.ehr.queries import Query, query_error, read_queries, relation_name
from lang1.ehr.rules import sql_type
from lang1.ehr.schema import FEATURES, OPTIONAL, TABLES
from lang1.ehr.sources import open_source, resolve
from lang1.errors import InputError

NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL")
NO_VALUE = '"NULL"'
"""DuckDB's type of a column that is NULL in every row"""


@dataclass(frozen=True)
class Checked:
    """What a query gives for one canonical column."""

    table: str
    column: str
    wanted: str
    """type that the column is read as"""
    given: str
    """type that the query gives; empty where the source has no such table"""
    remark: str


def check(cfg: ExtractConfig, *, source: str | Path) -> list[Checked]:
    """Run every query of the source for no row; returns a line a canonical column, tables in order.

    Raises InputError with everything that is missing or of a type that cannot be read.
    """
    import duckdb

    queries = read_queries(cfg)
    place = resolve(source)
    found: list[Checked] = []
    with tempfile.TemporaryDirectory(prefix="lang1-check-") as scratch:
        try:
            with open_source(cfg, place, queries, Path(scratch), set(), only_try=True) as opened:
                for table in (*TABLES, *FEATURES):
                    if table in opened.types:
                        opened.con.execute(f"SELECT * FROM {relation_name(table)} LIMIT 0").fetchall()
                        found += _compared(table, opened.types[table])
                    elif table in TABLES:
                        found.append(Checked(table, "", "", "", _why_absent(table, queries)))
        except duckdb.Error as error:
            raise query_error(error, str(place)) from None
    bad = [f"{line.table}.{line.column}: {line.remark}" for line in found if line.remark.startswith("cannot")]
    if bad:
        raise InputError(f"{place}: {'; '.join(bad)}; mend the SQL")
    return found


def _why_absent(table: str, queries: dict[str, Query]) -> str:
    why = "the source has no such table" if table in queries else f"there is no {table}.sql"
    if table in OPTIONAL:
        return f"{why}; no denial task"
    return f"{why}; no Charlson task" if table == "diagnoses" else why


def _compared(table: str, types: dict[str, str]) -> list[Checked]:
    if table in FEATURES:
        return [Checked(table, column, kind, kind, "") for column, kind in types.items()]
    lines = []
    for field in TABLES[table]:
        wanted, given = sql_type(field.type), types[field.name]
        remark = _remark(wanted, given, field.nullable)
        lines.append(Checked(table, field.name, wanted, "" if given == NO_VALUE else given, remark))
    return lines


def _remark(wanted: str, given: str, nullable: bool) -> str:
    if given == NO_VALUE:
        return "null in every row" if nullable else "cannot be null in every row"
    is_number = given.startswith(NUMBERS)
    if wanted in {"TIMESTAMP", "DATE"}:
        if given == "VARCHAR":
            return f"text read as {wanted}: what does not parse is set aside"
        if given == "DATE" and wanted == "TIMESTAMP":
            return "a day without a time is read as its midnight"
        return "" if given in {"DATE", "TIMESTAMP"} or given.startswith("TIMESTAMP_") else f"cannot be read as {wanted}"
    if wanted in {"DOUBLE", "INTEGER", "BIGINT", "BOOLEAN"}:
        if given == "VARCHAR":
            return f"text read as {wanted}: what does not parse is set aside"
        return "" if is_number or given == "BOOLEAN" else f"cannot be read as {wanted}"
    return "cannot be read as text" if given == "BLOB" or (given.endswith(("]", ")")) and not is_number) else ""


def described(found: list[Checked]) -> str:
    """The lines as a table for a terminal."""
    lines = [f"{'table':<11}{'column':<24}{'wanted':<11}{'given':<14}remark"]
    for line in found:
        given = line.given or "-"
        lines.append(
            f"{line.table:<11}{line.column or '-':<24}{line.wanted or '-':<11}{given:<14}{line.remark}".rstrip()
        )
    return "\n".join(lines)
