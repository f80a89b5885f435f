"""A task of one's own: its SQL over the records becomes rows in the same splits, files and audit as ReMedE's.

The SQL reads the records as the views patients, encounters, notes (without text), diagnoses, claims and stays, and
gives encounter_id, prediction_time and label: whom it returns is eligible. It is one SELECT in a DuckDB that has no
network. Left out: several rows an encounter (a daily question), since a row's id is its encounter's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lang1 import config, runs
from lang1.config import OwnTask, TasksConfig
from lang1.ehr.queries import Query, missing_names, parse
from lang1.errors import InputError
from lang1.tasks.cohort import Rule, Step, count_steps, refuse_empty
from lang1.tasks.database import count, run_sql
from lang1.tasks.prompts import Asked, Question

if TYPE_CHECKING:
    import duckdb

VIEWS = ("patients", "encounters", "notes", "diagnoses", "claims", "stays")
STAYS = """
SELECT members.stay_id, members.encounter_id, members.place, stays.patient_id, stays.admit_time, stays.discharge_time,
    stays.disposition, stays.is_expired, stays.has_ended, stays.next_admit_time
FROM main.members JOIN main.stays USING (stay_id)
"""
"""the view `stays`: a row an encounter of a stay, with its place in it (1 is the first)"""
_TIMES = ("TIMESTAMP", "DATE")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


def as_asked(task: OwnTask) -> Asked:
    """The task as it is asked."""
    return Asked(task.id, task.note_type, Question(task.question, task.options))


def select_own(database: duckdb.DuckDBPyConnection, task: OwnTask, cfg: TasksConfig) -> list[Step]:
    """Make `reasons_<id>` and `rows_<id>` as `select_rows` does. Returns the attrition steps.

    Raises InputError for SQL that is not one SELECT of the three columns, and for rows that are no rows of a task.
    """
    make_views(database)
    check_outcome_columns(database, task)
    types = run_own_sql(database, task, "own_raw")
    _check_columns(task, types)
    _take_labels(database, task, types)
    _make_splits(database, cfg)
    database.execute("SET VARIABLE own_note_type = ?", [task.note_type])
    run_sql(database, "own")
    rules = _rules(task, cfg)
    cases = " ".join(f"WHEN ({rule.column}) IS NOT TRUE THEN {step}" for step, rule in enumerate(rules, 1))
    database.execute(
        f"CREATE OR REPLACE TABLE reasons_{task.id} AS SELECT encounter_id, CASE {cases} END AS step FROM own_facts"
    )
    _make_rows(database, task.id)
    steps = count_steps(database, task.id, rules)
    refuse_empty(database, task.id, steps)
    return steps


def write_definition(task: OwnTask, folder: Path) -> None:
    """Keep what defined the task beside its rows: <id>.yaml and <id>.sql, readable as they were given."""
    sql = _read(task)
    definition = config.dump(replace(task, sql=f"{task.id}.sql"))
    runs.write_text(folder / f"{task.id}.yaml", yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
    runs.write_text(folder / f"{task.id}.sql", sql)


def make_views(database: duckdb.DuckDBPyConnection, permuted: dict[str, str] | None = None) -> None:
    """The schema `own` with what the SQL may read; `permuted` gives other SELECTs for some of its views."""
    database.execute("CREATE SCHEMA IF NOT EXISTS own")
    for name in VIEWS:
        select = (permuted or {}).get(name) or source_of(name)
        database.execute(f"CREATE OR REPLACE VIEW own.{name} AS {select}")


def source_of(view: str) -> str:
    """What a view of the schema `own` selects."""
    return STAYS if view == "stays" else f"SELECT * {'EXCLUDE (text) ' if view == 'notes' else ''}FROM main.{view}"


def check_outcome_columns(database: duckdb.DuckDBPyConnection, task: OwnTask) -> None:
    """Raise InputError when the YAML names an outcome column that its table lacks. The views of `own` must be there."""
    for name in task.outcome:
        table, _, column = name.partition(".")
        there = columns_of(database, table)
        if column not in there:
            raise InputError(f"{task.id}: outcome: {name}: no such column; {table} has {', '.join(there)}")


def columns_of(database: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    """Columns of a view of the schema `own`."""
    return [str(row[0]) for row in database.execute(f"DESCRIBE own.{view}").fetchall()]


def run_own_sql(database: duckdb.DuckDBPyConnection, task: OwnTask, table: str) -> dict[str, str]:
    """The result of the task's SQL as the temporary table `table`. Returns its columns and their types."""
    import duckdb

    query = Query("label", Path(task.sql), _read(task))
    missing = missing_names(parse(database, query), {view: set(columns_of(database, view)) for view in VIEWS})
    if missing:
        raise InputError(f"{task.sql}: {', '.join(missing)}: not there; it may read {', '.join(VIEWS)}")
    try:
        database.execute("SET search_path = 'own'")
        database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS\n{query.text.strip().rstrip(';')}")
    except duckdb.Error as error:
        raise _sql_error(task, error) from None
    finally:
        database.execute("SET search_path = 'main'")
    return {str(name).lower(): str(kind) for name, kind, *_ in database.execute(f"DESCRIBE {table}").fetchall()}


def _sql_error(task: OwnTask, error: Exception) -> InputError:
    kind = error.__class__.__name__
    if kind in {"ParserException", "BinderException", "CatalogException"}:
        # these quote the SQL file, never a row
        message = " ".join(re.split(r"\n\n|LINE \d|Candidate functions", str(error))[0].split())
        return InputError(f"{task.sql}: {message}")
    return InputError(f"{task.sql}: fails on some row ({kind}); use TRY_CAST where a value may not fit")


def _read(task: OwnTask) -> str:
    try:
        return Path(task.sql).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{task.sql}: cannot be read as a text file ({error.__class__.__name__})") from None


def _check_columns(task: OwnTask, types: dict[str, str]) -> None:
    problems = [
        f"no column {name}; it gives encounter_id, prediction_time and label"
        for name in ("encounter_id", "prediction_time", "label")
        if name not in types
    ]
    time = types.get("prediction_time", "TIMESTAMP")
    if "TIME ZONE" in time:
        problems.append(f"prediction_time is {time}; give local time without zone")
    elif not time.startswith(_TIMES):
        problems.append(f"prediction_time is {time}; give a timestamp")
    label = types.get("label", "BIGINT")
    if label not in (*_WHOLE, "VARCHAR", "BOOLEAN") and not label.startswith("ENUM"):
        problems.append(f"label is {label}; give the index or the text of an option")
    if problems:
        raise InputError(f"{task.sql}: {'; '.join(problems)}")


def _take_labels(database: duckdb.DuckDBPyConnection, task: OwnTask, types: dict[str, str]) -> None:
    """From `own_raw` to `own_given`, after every check of its rows."""
    label = (
        "TRY_CAST(label AS BIGINT)"
        if types["label"] in (*_WHOLE, "BOOLEAN")
        else "list_position($options, trim(label)) - 1"
    )
    options = {"options": list(task.options)} if "$options" in label else {}
    database.execute(
        "CREATE OR REPLACE TEMP TABLE own_given AS SELECT encounter_id::VARCHAR AS encounter_id, "
        f"prediction_time::TIMESTAMP AS prediction_time, {label} AS label FROM own_raw",
        options,
    )
    rows = count(database, "SELECT count(*) FROM own_given")
    if rows == 0:
        raise InputError(f"{task.sql}: returns no rows; {task.id} would be empty")
    number = len(task.options)
    problems = [
        f"{found} of {rows} rows {what}"
        for what, condition in (
            ("have no encounter_id", "encounter_id IS NULL"),
            ("have no prediction_time", "prediction_time IS NULL"),
            (
                "have no label or one that is none of the options",
                f"label IS NULL OR label NOT BETWEEN 0 AND {number - 1}",
            ),
            (
                "name an encounter that the records do not have",
                "encounter_id NOT IN (SELECT encounter_id FROM encounters)",
            ),
        )
        if (found := count(database, f"SELECT count(*) FROM own_given WHERE {condition}"))
    ]
    twice = count(database, "SELECT count(encounter_id) - count(DISTINCT encounter_id) FROM own_given")
    if twice:
        problems.append(f"{twice} of {rows} rows repeat an encounter; give one row an encounter")
    if problems:
        raise InputError(f"{task.sql}: {'; '.join(problems)}; the options are {', '.join(task.options)}")


def _make_splits(database: duckdb.DuckDBPyConnection, cfg: TasksConfig) -> None:
    """The table `own_places` (encounter_id, place): of its stay, or of its own discharge where it is no stay."""
    alone = {"time": "windows.split", "patient": "'train'"}.get(cfg.split_by, "NULL")
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE own_places AS
        SELECT encounters.encounter_id,
            CASE WHEN members.stay_id IS NULL THEN {alone} ELSE facts.shared_place END AS place
        FROM encounters
        JOIN own_given USING (encounter_id)
        LEFT JOIN members USING (encounter_id)
        LEFT JOIN facts USING (encounter_id)
        LEFT JOIN windows ON windows.family = 'shared'
            AND coalesce(encounters.discharge_time, encounters.admit_time) >= windows.first_day
            AND coalesce(encounters.discharge_time, encounters.admit_time) < windows.end_day
        """
    )


def _rules(task: OwnTask, cfg: TasksConfig) -> list[Rule]:
    note = task.note_type
    original = Rule(f"a note of the type {note} is no addendum and no later edit", "is_original")
    return [
        Rule("is returned by the task's SQL", "is_given"),
        Rule(f"has a note of the type {note}", "has_note"),
        Rule(f"a note of the type {note} passed cleaning", "is_clean"),
        *([original] if cfg.later_edits == "exclude" else []),
        Rule(f"a note of the type {note} was signed", "is_signed"),
        Rule(f"a note of the type {note} was signed at or before the prediction time", "is_in_time"),
        Rule("has a place in a split", "split IS NOT NULL"),
    ]


def _make_rows(database: duckdb.DuckDBPyConnection, task: str) -> None:
    database.execute(
        f"""
        CREATE OR REPLACE TABLE rows_{task} AS
        SELECT '{task}-' || own_facts.encounter_id AS row_id, encounters.patient_id, own_facts.encounter_id,
            clean.note_id, clean.note_type, own_facts.prediction_time, own_facts.label::INTEGER AS label,
            own_facts.split, clean.note_hash, clean.words, clean.author_role,
            coalesce(facts.department, encounters.department) AS department, facts.age_band, facts.is_child,
            patients.sex, patients.race, patients.ethnicity, patients.borough, NULL::BOOLEAN AS died_after_discharge,
            NOT facts.is_no_newborn AS is_newborn
        FROM reasons_{task} JOIN own_facts USING (encounter_id) JOIN encounters USING (encounter_id)
        JOIN clean_notes AS clean ON clean.note_id = own_facts.note_id
        LEFT JOIN facts ON facts.encounter_id = own_facts.encounter_id
        LEFT JOIN patients ON patients.patient_id = encounters.patient_id
        WHERE reasons_{task}.step IS NULL
        """
    )
