"""Source `sql`: CSV, TSV (also .gz, or in a .zip) and Parquet files as tables for the user's own SQL.

Nothing is guessed: a CSV is UTF-8, its header names the columns, every value is text, and a row that has another
number of columns ends the extraction. DuckDB's sniffer, which would skip rows until a file looks regular, is off.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.ehr.omop import attach, tables_of
from lang1.ehr.rules import literal, quoted
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

CSV = {".csv": ",", ".tsv": "\t"}
"""delimiter by suffix"""
LONGEST_ROW = 2**27
"""bytes of a CSV row: a note of 100 MB passes, a quote that is never closed ends there"""


def open_files(source: Source, path: Path, scratch: Path) -> dict[str, set[str]]:
    """A view a file, under the file's name without suffixes; one file alone is also `source`.

    A DuckDB file gives its tables.
    """
    if path.is_file() and path.suffix.lower() in {".duckdb", ".db", ".ddb"}:
        attach(source.con, path)
        return tables_of(source.con, path)[1]
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    views: dict[str, Path] = {}
    for file in files:
        for member in _unzipped(file, scratch) if file.suffix.lower() == ".zip" else [file]:
            stem = table_name(member)
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
    source.files |= {stem.lower(): file for stem, file in views.items()}
    return {stem.lower(): make_view(source.con, stem, file) for stem, file in views.items()}


def table_name(file: Path) -> str | None:
    """A data file's name without suffixes; None for a file of another kind."""
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
                m for m in opened.infolist() if table_name(Path(m.filename)) and not m.filename.startswith("__MACOSX")
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
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive}: not a whole zip file ({error.__class__.__name__}); download it again") from None
    except (RuntimeError, NotImplementedError):  # zipfile's words for a password and for other compressions
        raise InputError(f"{archive}: encrypted, or packed as Python does not unpack; unpack it first") from None
    return found


def make_view(con: duckdb.DuckDBPyConnection, stem: str, file: Path) -> set[str]:
    """A view of one file under the name `stem`; returns its columns in lower case. Raises InputError."""
    import duckdb

    kind = next(s.lower() for s in reversed(file.suffixes) if s.lower() != ".gz")
    if kind == ".parquet":
        reader = f"read_parquet({literal(exact(file))})"
    else:
        # no guessing over the first rows: the header names the columns, every value is text, types are the SQL's
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in _header(file, CSV[kind]))
        reader = (
            f"read_csv({literal(exact(file))}, auto_detect = false, header = true, columns = {{{columns}}}, "
            f"delim = '{CSV[kind]}', quote = '\"', escape = '\"', strict_mode = true, "
            f"max_line_size = {LONGEST_ROW}, buffer_size = {LONGEST_ROW})"
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


def check_gzip(file: Path) -> None:
    """Read a .gz to its end and compare its checksum, which DuckDB does not. Raises InputError when it is damaged."""
    if file.suffix.lower() != ".gz":
        return
    try:
        with gzip.open(file, "rb") as packed:
            while packed.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{file}: cut off or damaged ({error.__class__.__name__}): it does not unpack to its end; download it again"
        ) from None


def exact(file: Path) -> str:
    """A path in which DuckDB finds no pattern."""
    return re.sub(r"[\[*?]", lambda match: f"[{match[0]}]", str(file))


def _header(file: Path, delimiter: str) -> list[str]:
    try:
        with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as packed:
            # read ahead of the header, so bad bytes in the rows pass here: DuckDB names their row
            lines = io.TextIOWrapper(packed, encoding="utf-8-sig", errors="surrogateescape", newline="")
            names = next(csv.reader(lines, delimiter=delimiter), [])
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise InputError(
            f"{file}: its header cannot be read ({error.__class__.__name__}): damaged or cut off"
        ) from None
    names = [name.strip() for name in names]
    if not names:
        raise InputError(f"{file}: empty; its first row must name the columns")
    if not all(name.isprintable() for name in names):
        raise InputError(f"{file}: its header is not UTF-8 text; convert the file, with iconv for one")
    twice = sorted({name for name in names if [n.lower() for n in names].count(name.lower()) > 1})
    if twice or "" in names:
        what = f"column {', '.join(twice)} twice" if twice and twice != [""] else "a column without a name"
        raise InputError(f"{file}: its header has {what}; the first row must name every column")
    return names
