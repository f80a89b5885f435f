"""The SQL files of a source: one SELECT a canonical table, found, parsed, and checked before any row is read.

DuckDB stops at the first name that it does not know. So that a user mends a warehouse in one go, the tables and
columns that a query reads are taken from its syntax tree and compared with what is there: all that is missing is
named at once. Columns without a table's alias cannot be placed that way; DuckDB still names those one by one.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1.config import ExtractConfig
from lang1.ehr.schema import FEATURES, OPTIONAL, TABLES
from lang1.errors import ConfigError, InputError, Unfinished

if TYPE_CHECKING:
    import duckdb

KNOWN = (*TABLES, *FEATURES)
REQUIRED = ("patients", "encounters", "notes")
"""tables without which there are no records"""
OWN_RULE, OWN_FLAG = OWN_COLUMNS = ("reject", "flag")
"""columns that a query may have besides the table's: the name of a rule of the source's own that the row breaks, and a
word on a kept row that the manifest counts; null for most rows, fixed words of the SQL and never a value of the row"""

_DAMAGE = {
    "IOException",
    "SerializationException",
    "InvalidInputException",
    "FatalException",
    "InternalException",
}


_REASONS = {"unterminated quote": "unterminated quote, or more than 128 MB in a row"}


@dataclass(frozen=True)
class Query:
    """One SQL file."""

    table: str
    path: Path
    text: str

    @property
    def name(self) -> str:
        """The file as an error names it."""
        return str(self.path)

    @property
    def sha256(self) -> str:
        """Of the text: an edited query is another extraction."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass
class Uses:
    """Tables and columns that a query reads, in lower case."""

    columns: dict[str, set[str]] = field(default_factory=dict)


def read_queries(cfg: ExtractConfig) -> dict[str, Query]:
    """The SQL files of the configured source, by canonical table.

    Files of `sql_dir` stand in for the source's own; source `sql` has none, `sql_dir` holds them all.
    Raises InputError for a folder or file that is not there or has another name.
    """
    found: dict[str, Query] = {}
    if cfg.source != "sql":
        for item in importlib.resources.files("lang1.ehr").joinpath("sql", cfg.source).iterdir():
            path = Path(str(item))
            found[path.stem] = Query(path.stem, path, item.read_text(encoding="utf-8"))
    elif cfg.sql_dir is None:
        raise ConfigError(
            "extract.sql_dir: source sql needs the folder that holds patients.sql, encounters.sql, "
            "notes.sql and what else there is"
        )
    if cfg.sql_dir is not None:
        found |= _read_folder(Path(cfg.sql_dir))
    if cfg.without_notes:
        found.pop("notes", None)
    missing = [table for table in REQUIRED if table not in found and not (cfg.without_notes and table == "notes")]
    if missing:
        raise InputError(
            f"{cfg.sql_dir}: no {' and no '.join(f'{table}.sql' for table in missing)}; "
            f"{', '.join(REQUIRED)} are needed, other tables may be absent"
        )
    return {table: found[table] for table in KNOWN if table in found}


def _read_folder(folder: Path) -> dict[str, Query]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of SQL files (extract.sql_dir)")
    found: dict[str, Query] = {}
    for path in sorted(folder.glob("*.sql")):
        if path.stem not in KNOWN:
            near = difflib.get_close_matches(path.stem, KNOWN, 1, 0.5)
            hint = f"did you mean {near[0]}.sql?" if near else f"known: {', '.join(KNOWN)}"
            raise InputError(f"{path}: no canonical table of that name; {hint}")
        try:
            found[path.stem] = Query(path.stem, path, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a text file ({error.__class__.__name__})") from None
    return found


def parse(con: duckdb.DuckDBPyConnection, query: Query) -> Uses:
    """The tables and columns that one SELECT reads. Raises InputError, with the line, when it is not one SELECT."""
    [(serialized,)] = con.execute("SELECT json_serialize_sql(?)", [query.text]).fetchall()
    tree = json.loads(serialized)
    if tree.get("error"):
        message = str(tree.get("error_message", "not a SELECT")).split("\n")[0]
        where = query.name
        if str(tree.get("position", "")).isdigit():
            where += f": line {query.text.encode()[: int(tree['position'])].count(10) + 1}"
        raise InputError(f"{where}: {message}; the file holds one SELECT")
    if len(tree["statements"]) != 1:
        raise InputError(f"{query.name}: {len(tree['statements'])} statements; the file holds one SELECT")
    aliases: dict[str, set[str]] = {}
    references: set[tuple[str, str]] = set()
    local: set[str] = set()
    _walk(tree, aliases, references, local)
    uses = Uses({table: set() for tables in aliases.values() for table in tables if table not in local})
    for alias, column in references:
        for table in aliases.get(alias, set()) & uses.columns.keys():
            uses.columns[table].add(column)
    # an alias that two subqueries give to two tables cannot tell them apart: leave its columns to DuckDB
    for alias, tables in aliases.items():
        if len(tables) > 1:
            for table in tables & uses.columns.keys():
                uses.columns[table] -= {column for name, column in references if name == alias}
    return uses


def _walk(node: Any, aliases: dict[str, set[str]], references: set[tuple[str, str]], local: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(item, aliases, references, local)
    elif isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            table = str(node["table_name"]).lower()
            aliases.setdefault((node.get("alias") or table).lower(), set()).add(table)
        elif node.get("type") == "COLUMN_REF" and len(node["column_names"]) > 1:
            references.add((node["column_names"][0].lower(), node["column_names"][1].lower()))
        local.update(str(entry["key"]).lower() for entry in (node.get("cte_map") or {}).get("map", []))
        for value in node.values():
            _walk(value, aliases, references, local)


def missing_names(uses: Uses, there: dict[str, set[str]]) -> list[str]:
    """What a query reads and the source lacks: `table note`, `note.note_text`."""
    missing: list[str] = []
    for table, columns in sorted(uses.columns.items()):
        if table not in there:
            missing.append(f"table {table}")
        else:
            missing += [f"{table}.{column}" for column in sorted(columns - there[table])]
    return missing


def names_problem(uses: dict[str, Uses | None], there: dict[str, set[str]]) -> tuple[str | None, list[str]]:
    """All that the queries read and the source lacks, as one phrase; and the tables that may be absent and are."""
    missing: list[str] = []
    absent: list[str] = []
    for table, use in uses.items():
        lacks = missing_names(use, there) if use is not None else []
        if table in OPTIONAL and any(name.startswith("table ") for name in lacks):
            absent.append(table)
        else:
            missing += [name for name in lacks if name not in missing]
    if not missing:
        return None, absent
    known = ", ".join(sorted(there)[:12]) + (" ..." if len(there) > 12 else "")
    return (
        f"lacks what the SQL reads: {', '.join(missing)} (it has the tables {known}); "
        "mend the source, or give your own SQL in extract.sql_dir"
    ), absent


def relation_name(table: str) -> str:
    """The DuckDB view that holds a query's rows as they come."""
    return f"incoming_{table}"


def bind(con: duckdb.DuckDBPyConnection, query: Query) -> dict[str, str]:
    """Make the query's view; returns its columns and DuckDB types. Raises InputError when names or types are wrong."""
    import duckdb

    name = relation_name(query.table)
    try:
        con.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS\n{query.text.strip().rstrip(';')}")
        rows = con.execute(f"DESCRIBE {name}").fetchall()
    except duckdb.Error as error:
        # parser, binder and catalog messages quote the SQL file, never a row
        raise InputError(f"{query.name}: {_one_line(error)}") from None
    types = {str(row[0]): str(row[1]) for row in rows}
    problems = column_problems(query.table, types)
    if problems:
        raise InputError(f"{query.name}: {'; '.join(problems)}")
    return types


def column_problems(table: str, types: dict[str, str]) -> list[str]:
    """What is wrong with a query's columns, by name and DuckDB type."""
    problems = [
        f"{column} is {kind}; give local time without zone, such as {column} AT TIME ZONE 'America/New_York'"
        for column, kind in types.items()
        if kind == "TIMESTAMP WITH TIME ZONE"
    ]
    if table in FEATURES:
        if "encounter_id" not in types:
            problems.append("no column encounter_id")
        return problems
    wanted = TABLES[table].names
    problems += [
        f"no column {column}; write NULL AS {column} if the source has none" for column in wanted if column not in types
    ]
    for column in types:
        if column not in wanted and column not in OWN_COLUMNS:
            near = difflib.get_close_matches(column, wanted, 1, 0.6)
            problems.append(f"unknown column {column}" + (f", did you mean {near[0]}?" if near else ""))
    return problems


def _one_line(error: Exception) -> str:
    message = str(error).split("\n\n")[0].replace("\n", " ").strip()
    line = re.search(r"LINE (\d+):", str(error))
    # the view's first line is ours: CREATE VIEW
    return message.split(" LINE ")[0] + (f" (line {max(1, int(line[1]) - 1)})" if line else "")


def query_error(error: Exception, where: str) -> Exception:
    """A DuckDB fault while rows are read, as one line without any value of a row.

    An InputError, or a RuntimeError where the fault is ours; DuckDB's own message may quote the row.
    """
    message, kind = str(error), error.__class__.__name__
    # DuckDB's own lines come last; a row quoted before them cannot pass for a file that exists
    named = re.findall(r"^\s*file = (.+)$|GZIP stream: (.+)$", message, re.MULTILINE)
    file = "".join(named[-1]) if named else ""
    where = file if file and os.path.isfile(file) else where  # noqa: PTH113, too long a name is no file
    line = re.search(r"CSV Error on Line: (\d+)", message)
    if line:
        reason = re.search(
            r"Expected Number of Columns: \d+ Found: \d+|unterminated quote|Maximum line size of \d+ bytes|not utf-8",
            message,
        )
        return InputError(
            f"{where}: row {line[1]} (the header is row 1) is not a whole CSV row of UTF-8 text "
            f"({_REASONS.get(reason[0], reason[0]) if reason else kind}); mend the file"
        )
    if kind in {"ConversionException", "OutOfRangeException"}:
        return InputError(
            f"{where}: a CAST fails on some row; use TRY_CAST, or leave the text as it is: "
            "a value that does not fit its column then goes to rejects"
        )
    if kind == "OutOfMemoryException" or "No space left" in message:
        return Unfinished(f"{where}: the query needs more memory, or disk for its sort, than there is; make room")
    if kind in _DAMAGE or message.startswith("Corrupt database file"):
        return InputError(f"{where}: cannot be read to its end ({kind}): damaged or cut off")
    return RuntimeError(f"{where}: DuckDB {kind}")
