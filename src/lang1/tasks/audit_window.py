"""Does the cohort read the label? What decides the outcome is permuted and the cohort is made again by the same SQL.

| task | what changes hands | among |
|---|---|---|
| readmission | the gaps to the next stay and the next H&P (untimed records: the given fact) | stays that ended |
| mortality | disposition, death in the stay | stays with a disposition |
| los | how long a stay lasts | pairs that both still end after their H&P, filed before the end, and in their window |
| cci | all codes of a stay | stays with codes |
| denial | all claims of a stay | stays whose claims are final |
| own | the columns that its YAML names under `outcome` | rows that have a value |

The permuted tables stand in a schema before `main`, so every later SQL file runs on them unchanged. Then the chosen
encounters and notes must be those of the task files: one that comes, goes or is asked about another note depends on an
outcome. Not seen: a window whose rule reads the outcome outside of these columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lang1.config import TASK_IDS, OwnTask, TasksConfig
from lang1.tasks.audit_rows import Finding, Scope, offend
from lang1.tasks.charlson import score_codes
from lang1.tasks.cohort import choose
from lang1.tasks.database import count, quote, run_sql
from lang1.tasks.own import columns_of, make_views, run_own_sql, source_of

if TYPE_CHECKING:
    import duckdb

CHECK = "label_dependent_window"
_COMPARED = "the chosen encounters and notes with those that the same SQL chooses when outcomes are permuted"
_SWAPS = {
    "swap_shared": ("readmission", "cci", "denial"),
    "swap_mortality": ("mortality",),
    "swap_los": ("los",),
}
"""one of these a run of the SQL: outcomes that do not meet share one"""


def check_windows(database: duckdb.DuckDBPyConnection, scope: Scope) -> list[Finding]:
    """The check of every task that has rows."""
    sizes = {task: count(database, f"SELECT count(*) FROM {_files(scope, task)}") for task in scope.tasks}
    if scope.no_facts is not None or scope.made is None:
        why = scope.no_facts or "lang1 did not write these task sets: nothing says how they were chosen"
        return [scope.unknown(CHECK, task, _COMPARED, n, why) for task, n in sizes.items()]
    database.execute("SET VARIABLE audit_seed = ?", [f"audit:{scope.seed}:"])
    found: dict[str, Finding] = {}
    for script, tasks in _SWAPS.items():
        here = [task for task in tasks if task in sizes]
        if here:
            with _swapped(database, script):
                found |= {task: _compare(database, scope, scope.made, task, sizes[task]) for task in here}
    for task in scope.own:
        if task.id in sizes:
            found[task.id] = _compare_own(database, scope, task, sizes[task.id])
    others = {task: n for task, n in sizes.items() if task not in found}
    why = "the folder says nothing of how this task was chosen"
    return [*found.values(), *(scope.unknown(CHECK, task, _COMPARED, n, why) for task, n in others.items())]


def _files(scope: Scope, task: str) -> str:
    listed = ", ".join(quote(str(path)) for path in scope.files(task).values())
    return f"read_parquet([{listed}])"


@contextlib.contextmanager
def _swapped(database: duckdb.DuckDBPyConnection, script: str) -> Iterator[None]:
    """The cohort's tables on permuted outcomes, in a schema of their own; gone when the block ends."""
    database.execute("CREATE SCHEMA swapped; SET search_path = 'swapped,main'")
    try:
        run_sql(database, script)
        run_sql(database, "notes")
        if script == "swap_shared":
            run_sql(database, "returns")
            score_codes(database)
            run_sql(database, "claims")
        run_sql(database, "facts")
        yield
    finally:
        database.execute("SET search_path = 'main'; DROP SCHEMA swapped CASCADE")


def _compare(database: duckdb.DuckDBPyConnection, scope: Scope, made: TasksConfig, task: str, n: int) -> Finding:
    assert task in TASK_IDS
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE audit_chosen AS
        SELECT mine.split, mine.row_id, mine.encounter_id AS mine, other.encounter_id AS other,
            coalesce(mine.note_id = other.note_id, false) AS same_note, mine.label != other.label AS new_label
        FROM {_files(scope, task)} AS mine
        FULL JOIN ({choose(task, made)}) AS other ON other.encounter_id = mine.encounter_id
        """
    )
    return _judge(database, scope, task, n)


def _compare_own(database: duckdb.DuckDBPyConnection, scope: Scope, task: OwnTask, n: int) -> Finding:
    if not task.outcome:
        why = "the task's YAML names no outcome columns to permute (outcome: [table.column])"
        return scope.unknown(CHECK, task.id, _COMPARED, n, why)
    make_views(database)
    run_own_sql(database, task, "own_plain")
    make_views(database, _permuted(database, task))
    try:
        run_own_sql(database, task, "own_swapped")
    finally:
        make_views(database)
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE audit_chosen AS
        SELECT coalesce(rows.split, 'none') AS split, coalesce(rows.row_id, 'none') AS row_id,
            mine.encounter_id::VARCHAR AS mine, other.encounter_id::VARCHAR AS other,
            coalesce(mine.prediction_time = other.prediction_time, false) AS same_note,
            mine.label IS DISTINCT FROM other.label AS new_label
        FROM own_plain AS mine
        FULL JOIN own_swapped AS other ON other.encounter_id = mine.encounter_id
        LEFT JOIN {_files(scope, task.id)} AS rows ON rows.encounter_id = mine.encounter_id::VARCHAR
        """
    )
    return _judge(database, scope, task.id, n)


def _judge(database: duckdb.DuckDBPyConnection, scope: Scope, task: str, n: int) -> Finding:
    changed = count(database, "SELECT count(*) FROM audit_chosen WHERE mine = other AND new_label")
    differs = "mine IS NULL OR other IS NULL OR NOT same_note"
    found = count(database, f"SELECT count(*) FROM audit_chosen WHERE {differs}")
    if not changed and not found:
        return scope.unknown(CHECK, task, _COMPARED, n, "no label changed: the rows are of one class, or too few")
    offend(database, CHECK, task, f"SELECT split, row_id FROM audit_chosen WHERE ({differs}) AND mine IS NOT NULL")
    come = count(database, "SELECT count(*) FROM audit_chosen WHERE mine IS NULL")
    gone = count(database, "SELECT count(*) FROM audit_chosen WHERE other IS NULL")
    why = f"{changed:,} labels changed" + (f"; {gone:,} rows went, {come:,} came" if found else "")
    return scope.judge(CHECK, task, _COMPARED, n, n, found, why)


def _permuted(database: duckdb.DuckDBPyConnection, task: OwnTask) -> dict[str, str]:
    """SELECTs of the views whose outcome columns go, together, from each row that has them to another."""
    by_view: dict[str, list[str]] = {}
    for name in task.outcome:
        view, _, column = name.partition(".")
        by_view.setdefault(view, []).append(column)
    selects = {}
    for view, moved in by_view.items():
        columns = columns_of(database, view)
        key = ", ".join(f"{column}::VARCHAR" for column in columns)
        has = " OR ".join(f"{column} IS NOT NULL" for column in moved)
        database.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE audit_deck_{view} AS
            SELECT *, CASE WHEN {has} THEN row_number() OVER (
                PARTITION BY {has} ORDER BY md5(concat_ws('|', getvariable('audit_seed'), {key}))) END AS place
            FROM ({source_of(view)})
            """
        )
        last = count(database, f"SELECT max(place) FROM audit_deck_{view}")
        listed = ", ".join(f"{'giver' if column in moved else 'mine'}.{column}" for column in columns)
        selects[view] = (
            f"SELECT {listed} FROM temp.audit_deck_{view} AS mine LEFT JOIN temp.audit_deck_{view} AS giver "
            f"ON giver.place = mine.place % {max(last, 1)} + 1"
        )
    return selects
