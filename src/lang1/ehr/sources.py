"""What `extract` reads: a DuckDB connection in which every query of the source is a view.

`omop` attaches a DuckDB warehouse read-only; `sql` makes a view of each CSV, TSV or Parquet file. The checks, the
order and the writer see only those views, so another database or file format is one more function here.
DuckDB spills sorts that do not fit into MEMORY_LIMIT to the stage's scratch folder, which only its owner can read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.ehr.queries import Query, bind, missing_names, parse
from lang1.ehr.rules import quoted
from lang1.ehr.schema import OPTIONAL
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "2GB"
DATA_PREFIX = "../shared/data"
SIGNED = ("note", "note_signed_datetime")
"""our extension of OMOP's NOTE"""
CSV = {".csv": ",", ".tsv": "\t"}


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


# --- omop ------------------------------------------------------------------------------------------------------


def _open_omop(source: Source, path: Path, _scratch: Path) -> dict[str, set[str]]:
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
        escaped = str(warehouse).replace("'", "''")
        con.execute(f"ATTACH '{escaped}' AS warehouse (READ_ONLY)")
    except duckdb.Error as error:
        reason = "open in another program that writes to it" if "lock" in str(error).lower() else "cut off or damaged"
        raise InputError(
            f"{warehouse}: cannot be opened as a DuckDB database ({reason}, or from a newer DuckDB than "
            f"{duckdb.__version__})"
        ) from None


# --- sql -------------------------------------------------------------------------------------------------------


def _open_files(source: Source, path: Path, scratch: Path) -> dict[str, set[str]]:
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    views: dict[str, Path] = {}
    for file in files:
        for member in _unzipped(file, scratch) if file.suffix.lower() == ".zip" else [file]:
            stem = _stem(member)
            if stem is None and path.is_dir():
                continue  # a README beside the data
            if stem is None:
                raise InputError(f"{member}: not a CSV, TSV (also .gz or in a .zip) or Parquet file")
            if stem in views:
                raise InputError(f"{path}: two files give a table {stem}: {views[stem].name} and {member.name}")
            views[stem] = member
    if not views:
        raise InputError(f"{path}: no CSV, TSV or Parquet file in it")
    if len(views) == 1:
        views.setdefault("source", next(iter(views.values())))
    return {stem.lower(): _view(source.con, stem, file) for stem, file in views.items()}


def _stem(file: Path) -> str | None:
    suffixes = [s.lower() for s in file.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes = suffixes[:-1]
    if not suffixes or suffixes[-1] not in {*CSV, ".parquet"}:
        return None
    return file.name[: file.name.lower().rindex(suffixes[-1])]


def _unzipped(archive: Path, scratch: Path) -> list[Path]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [
                m for m in opened.infolist() if _stem(Path(m.filename)) and not m.filename.startswith("__MACOSX")
            ]
            if not members:
                raise InputError(f"{archive}: no CSV, TSV or Parquet file in it")
            found = []
            for member in members:
                # by its last name alone, so that no member leaves the scratch folder
                target = scratch / "unzipped" / archive.name / Path(member.filename).name
                with (
                    runs.atomic_path(target, 0o600) as temporary,
                    opened.open(member) as packed,
                    temporary.open("wb") as sink,
                ):
                    shutil.copyfileobj(packed, sink, 1 << 20)
                found.append(target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{archive}: not a whole zip file ({error.__class__.__name__}); download it again") from None
    return found


def _view(con: duckdb.DuckDBPyConnection, stem: str, file: Path) -> set[str]:
    import duckdb

    escaped = str(file).replace("'", "''")
    kind = next(s.lower() for s in reversed(file.suffixes) if s.lower() != ".gz")
    if kind == ".parquet":
        reader = f"read_parquet('{escaped}')"
    else:
        # every value as text: types come from the user's SQL, not from a guess over the first rows
        reader = (
            f"read_csv('{escaped}', header = true, all_varchar = true, delim = '{CSV[kind]}', quote = '\"', "
            "escape = '\"', strict_mode = true)"
        )
    try:
        con.execute(f"CREATE TEMP VIEW {quoted(stem)} AS SELECT * FROM {reader}")
        rows = con.execute(f"DESCRIBE {quoted(stem)}").fetchall()
    except duckdb.Error as error:
        raise InputError(
            f"{file}: cannot be read as {kind.removeprefix('.')} ({error.__class__.__name__}): "
            "damaged, cut off, or another format"
        ) from None
    return {str(row[0]).lower() for row in rows}


_OPENERS: dict[str, Callable[[Source, Path, Path], dict[str, set[str]]]] = {"omop": _open_omop, "sql": _open_files}
