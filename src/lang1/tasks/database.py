"""Records and corpus as views of a DuckDB database in memory, and the settings that the SQL files read.

Two threads and 1 GB whatever the machine, so that a million encounters pass in bounded memory; what does not fit
spills to the stage's scratch folder, which only its owner can read. Every query that writes is ordered by a key
without ties: the result depends neither on threads nor on the order of the input's rows. What is left out: DuckDB
would be faster with every core and all memory; the labels of 30,000 encounters take about a second as it is.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1.config import TasksConfig, WindowsConfig
from lang1.corpus.hashes import fold_cuts
from lang1.corpus.schema import CLEAN_NOTES
from lang1.ehr.schema import OPTIONAL, TABLES
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

THREADS = 2
MEMORY = "1GB"
_HOUR_US = 3_600_000_000


def open_database(records: Path, corpus: Path | None, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database that sees the canonical tables under their names and the cleaned notes as `clean_notes`.

    Without a corpus there is no `clean_notes`. Raises InputError for a table that is missing, unreadable, or lacks
    columns.
    """
    import duckdb

    scratch.chmod(0o700)
    database = duckdb.connect(":memory:")
    database.execute(f"SET threads = {THREADS}; SET memory_limit = '{MEMORY}'; SET preserve_insertion_order = false")
    database.execute(f"SET temp_directory = {quote(str(scratch))}")
    # nothing is fetched from a network behind the user's back
    database.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    problems: list[str] = []
    for name, schema in TABLES.items():
        _add_view(database, name, records / name, schema, problems, is_optional=name in OPTIONAL)
    if corpus is not None:
        _add_view(database, "clean_notes", corpus / "notes", CLEAN_NOTES, problems)
    if problems:
        raise InputError("; ".join(problems))
    _require_unique(database, records, corpus is not None)
    return database


def run_sql(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """Run `sql/<name>.sql`."""
    database.execute((files("lang1.tasks") / "sql" / f"{name}.sql").read_text(encoding="utf-8"))


AS_THEY_ARE = (
    "exclude_post_death",
    "prediction_clock",
    "later_edits",
    "notes_within_stay",
    "hp_choice",
    "choose_note",
    "summary_choice",
    "readmission_by",
    "readmission_days",
    "readmission_boundary",
    "exclude_unfollowed",
    "exclude_planned",
    "planned_ends_search",
    "los_unit",
    "cci_codes",
    "exclude_uncoded",
    "cci_classes",
    "denial_rule",
    "denial_other_half",
    "split_by",
    "split_unit",
    "sequence_fraction",
)
"""keys of TasksConfig that the SQL reads under their own names"""


def set_variables(database: duckdb.DuckDBPyConnection, cfg: TasksConfig, seed: int = 0) -> None:
    """The configuration as DuckDB variables and the table `windows`, as the SQL files read them."""
    for name in AS_THEY_ARE:
        _set(database, name, getattr(cfg, name))
    _set(database, "seed", str(seed))
    for name, cut in zip(("train_end", "val_end"), fold_cuts(cfg.split_ratio), strict=True):
        _set(database, name, cut, "DOUBLE")
    _set(database, "transfer_us", round(cfg.transfer_hours * _HOUR_US))
    _set(database, "readmission_us", cfg.readmission_days * 24 * _HOUR_US)
    _set(database, "claims_us", cfg.claims_follow_up_days * 24 * _HOUR_US)
    for name, hours in (("note_delay_us", cfg.max_note_delay_hours), ("summary_delay_us", cfg.max_summary_delay_hours)):
        _set(database, name, None if hours is None else round(hours * _HOUR_US), "BIGINT")
    for name, words in (
        ("admission_note_types", cfg.admission_note_types),
        ("discharge_note_types", cfg.discharge_note_types),
        ("index_note_types", cfg.admission_note_types + cfg.discharge_note_types),
        ("exclude_services", cfg.exclude_services),
    ):
        _set(database, name, _lowered(words), "VARCHAR[]")
    departments = "|".join(re.escape(word) for word in _lowered(cfg.exclude_departments) if word)
    _set(database, "excluded_departments", departments or None, "VARCHAR")
    database.execute("CREATE TABLE windows (family VARCHAR, split VARCHAR, first_day TIMESTAMP, end_day TIMESTAMP)")
    for family, windows in (("shared", cfg.windows), ("denial", cfg.denial_windows)):
        _add_windows(database, family, windows)


def set_follow_up_end(database: duckdb.DuckDBPyConnection, cfg: TasksConfig, dates_shifted: bool) -> None:
    """Until when a readmission would be seen: the end of the configured day, or the last discharge of a stay.

    Null where dates are shifted: no day is the end of every patient's records.
    """
    if dates_shifted:
        _set(database, "follow_up_end", None, "TIMESTAMP")
    elif cfg.follow_up_end is not None:
        day_after = datetime.combine(cfg.follow_up_end, datetime.min.time()) + timedelta(days=1)
        _set(database, "follow_up_end", day_after, "TIMESTAMP")
    else:
        last = database.execute("SELECT max(discharge_time) FROM stays WHERE has_ended").fetchall()[0][0]
        _set(database, "follow_up_end", last, "TIMESTAMP")


def count(database: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number that a query gives."""
    return int(database.execute(query).fetchall()[0][0] or 0)


def _lowered(words: tuple[str, ...]) -> list[str]:
    return [word.strip().lower() for word in words]


def _set(database: duckdb.DuckDBPyConnection, name: str, value: Any, kind: str | None = None) -> None:
    database.execute(f"SET VARIABLE {name} = {f'?::{kind}' if kind else '?'}", [value])


def _add_windows(database: duckdb.DuckDBPyConnection, family: str, windows: WindowsConfig) -> None:
    for split in ("train", "temporal_1", "temporal_2"):
        window = getattr(windows, split)
        database.execute("INSERT INTO windows VALUES (?, ?, ?, ?)", [family, split, window.start, window.end])


def _add_view(
    database: duckdb.DuckDBPyConnection,
    name: str,
    folder: Path,
    schema: pa.Schema,
    problems: list[str],
    is_optional: bool = False,
) -> None:
    """`folder`'s Parquet files as the view `name`; what is wrong with them goes to `problems`."""
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        if is_optional:
            database.register("empty", schema.empty_table().cast(_plain(schema)))
            database.execute(f"CREATE TABLE {name} AS SELECT * FROM empty")
            database.unregister("empty")
        else:
            problems.append(f"{folder}: no Parquet files; run the stage that writes them")
        return
    before = len(problems)
    for part in parts:
        _check_columns(part, schema, problems)
    if len(problems) == before:
        columns = ", ".join(f'"{field.name}"' for field in schema)
        listed = ", ".join(quote(str(part)) for part in parts)
        database.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM read_parquet([{listed}])")


def _check_columns(part: Path, schema: pa.Schema, problems: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_schema(part)
    except (pa.ArrowInvalid, OSError):
        problems.append(f"{part}: not readable as Parquet; run the stage that writes it again")
        return
    for field in schema:
        if field.name not in found.names:
            problems.append(f"{part}: column {field.name} is missing")
        elif not _is_alike(found.field(field.name).type, field.type):
            problems.append(f"{part}: column {field.name} is {found.field(field.name).type}, expected {field.type}")


def _is_alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Same kind of value: dictionary or plain, 32 or 64 bit; an all-null column is alike to everything."""
    import pyarrow.types as kinds

    def family(kind: pa.DataType) -> str:
        if kinds.is_dictionary(kind):
            kind = kind.value_type
        if kinds.is_string(kind) or kinds.is_large_string(kind):
            return "text"
        if kinds.is_integer(kind) or kinds.is_floating(kind):
            return "number"
        return "time" if kinds.is_timestamp(kind) else str(kind)

    return kinds.is_null(found) or family(found) == family(wanted)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema with dictionary columns as text."""
    import pyarrow as pa

    return pa.schema(
        [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in schema]
    )


def _require_unique(database: duckdb.DuckDBPyConnection, records: Path, has_corpus: bool) -> None:
    for table, key in (
        ("encounters", "encounter_id"),
        ("patients", "patient_id"),
        ("notes", "note_id"),
        *([("clean_notes", "note_id")] if has_corpus else []),
    ):
        twice = count(database, f"SELECT count(*) - count(DISTINCT {key}) FROM {table}")
        if twice:
            raise InputError(f"{records}: {table}.{key} is not unique ({twice} rows too many); mend the source's SQL")


def quote(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
