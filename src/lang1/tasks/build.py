"""`lang1 tasks`: cohorts, labels, splits, statistics, the MEDS export and the audit, from records and cleaned notes.

The labels are made by SQL (`sql/`), one table `facts` with a boolean a rule and a label a task; this module says in
which order and writes. All cohorts are counted before the first file is written: a task without rows ends the stage
with nothing half made. Texts are read once a task, when its rows are written, and are sorted outside of memory.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import config, runs
from lang1.config import TASK_IDS, OwnTask, TasksConfig, read_own_tasks
from lang1.runs import Stage
from lang1.tasks.audit import audit_built, refuse_failed, summary
from lang1.tasks.cautions import cautions_of
from lang1.tasks.charlson import score_codes
from lang1.tasks.cohort import Step, select_rows
from lang1.tasks.database import open_database, run_sql, set_follow_up_end, set_variables
from lang1.tasks.meds import export_meds
from lang1.tasks.origin import Origin, read_origin
from lang1.tasks.own import as_asked, select_own, write_definition
from lang1.tasks.prompts import Asked, built_in, describe
from lang1.tasks.rows import write_left_out, write_rows
from lang1.tasks.schema import ATTRITION, NOTE_ATTRITION
from lang1.tasks.splits import refuse_what_cannot_be_split
from lang1.tasks.statistics import NO_CLAIMS, task_statistics

if TYPE_CHECKING:
    import duckdb


def build_tasks(
    cfg: TasksConfig, *, records: Path, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the task sets of `records` and `corpus` to `out`. Returns the manifest.

    Raises InputError for missing tables or columns, for records that the split cannot be made of, for a task
    whose cohort is empty, and for a check of the leakage audit that fails and is not accepted.
    """
    own = read_own_tasks(cfg.own)
    inputs = {"records": records, "corpus": corpus}
    for task, path in zip(own, cfg.own, strict=True):
        inputs |= {f"own {task.id}": Path(path), f"own {task.id} sql": Path(task.sql)}
    work = lambda stage: _build(cfg, own, records, corpus, seed, stage)  # noqa: E731
    return runs.run_stage(out, "tasks", config.dump(cfg), seed, inputs, work, force)


def _build(cfg: TasksConfig, own: list[OwnTask], records: Path, corpus: Path, seed: int, stage: Stage) -> None:
    origin = read_origin(records)
    cfg = replace(cfg, exclude_newborns=origin.excludes_newborns(cfg))
    database = open_database(records, corpus, stage.scratch())
    asked = [
        *(built_in(task, cfg.prompt_set, cfg.cci_classes) for task in cfg.tasks),
        *(as_asked(task) for task in own),
    ]
    try:
        make_facts(database, cfg, seed, origin)
        steps: dict[str, list[Step]] = {task: select_rows(database, task, cfg) for task in cfg.tasks}
        steps |= {task.id: select_own(database, task, cfg) for task in own}
        for task, found in steps.items():
            write_rows(database, task, stage.out / task)
            write_left_out(database, found, stage.out / "left_out" / f"{task}.parquet")
            runs.say(f"tasks: {task}: {found[-1].remaining} rows of {found[0].remaining} encounters")
        cautions = {a.task: cautions_of(a.task, cfg, origin) if a.task in TASK_IDS else [] for a in asked}
        _write_tables(database, cfg, asked, steps, cautions, stage)
        for defined in own:
            write_definition(defined, stage.out / "own")
        export_meds(database, asked, stage.out / "meds")
        findings = audit_built(database, cfg, own, stage.out, seed)
    finally:
        database.close()
    stage.record(
        skipped={task: NO_CLAIMS for task, found in steps.items() if found[-1].remaining == 0},
        audit=summary(findings),
        prediction_clock=cfg.prediction_clock,
        signed_time_from=origin.signed_time_from,
        source=origin.source,
        dates_shifted=origin.dates_shifted,
        exclude_newborns=cfg.exclude_newborns,
        cautions={task: said for task, said in cautions.items() if said},
    )
    stage.count(encounters=next(iter(steps.values()))[0].remaining)
    stage.count(**{f"{task}_rows": found[-1].remaining for task, found in steps.items()})
    refuse_failed(findings, stage.out / "audit")


def make_facts(database: duckdb.DuckDBPyConnection, cfg: TasksConfig, seed: int, origin: Origin | None = None) -> None:
    """From records to the table `facts`: a row an encounter, a column a rule or label."""
    origin = origin or Origin()
    set_variables(database, cfg, seed)
    run_sql(database, "stays")
    refuse_what_cannot_be_split(database, cfg, origin)
    set_follow_up_end(database, cfg, origin.dates_shifted)
    run_sql(database, "splits")
    run_sql(database, "notes")
    run_sql(database, "return_notes")
    run_sql(database, "returns")
    run_sql(database, "spelled_codes")
    run_sql(database, "codes")
    score_codes(database, cfg.cci_weights, cfg.cci_age_points)
    database.execute("SET VARIABLE has_claims = (SELECT count(*) > 0 FROM claims)")
    run_sql(database, "claims")
    run_sql(database, "facts")


def _write_tables(
    database: duckdb.DuckDBPyConnection,
    cfg: TasksConfig,
    tasks: list[Asked],
    steps: dict[str, list[Step]],
    cautions: dict[str, list[str]],
    stage: Stage,
) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(ATTRITION.names)
    writer.writerows(astuple(step) for found in steps.values() for step in found)
    runs.write_text(stage.out / "attrition.csv", sink.getvalue())
    _write_note_attrition(database, stage)
    statistics = {
        asked.task: task_statistics(database, asked, cfg, steps[asked.task], cautions[asked.task]) for asked in tasks
    }
    runs.write_json(stage.out / "statistics.json", statistics)
    questions = {a.task: describe(a, cfg.prompt_set if a.task in TASK_IDS else None) for a in tasks}
    runs.write_json(stage.out / "questions.json", questions)


def _write_note_attrition(database: duckdb.DuckDBPyConnection, stage: Stage) -> None:
    """What each condition leaves of the notes that may be index notes, for the paper's counts of 5.2.3."""
    rows = database.execute("SELECT note_type, step, rule, notes, stays FROM note_attrition").fetchall()
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(NOTE_ATTRITION.names)
    writer.writerows(rows)
    runs.write_text(stage.out / "note_attrition.csv", sink.getvalue())
    for kind in dict.fromkeys(row[0] for row in rows):
        told = ", ".join(f"{notes:,} {rule}" for of_kind, _, rule, notes, _ in rows if of_kind == kind)
        runs.say(f"tasks: {kind} notes: {told}")
