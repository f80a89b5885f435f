"""`lang1 tasks`: cohorts, labels, splits, statistics and the MEDS export, from records and cleaned notes.

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
from lang1.config import TasksConfig
from lang1.runs import Stage
from lang1.tasks.cautions import cautions_of
from lang1.tasks.charlson import score_codes
from lang1.tasks.cohort import Step, select_rows
from lang1.tasks.database import open_database, run_sql, set_follow_up_end, set_variables
from lang1.tasks.meds import export_meds
from lang1.tasks.origin import Origin, read_origin
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, question_for, render_question
from lang1.tasks.rows import write_left_out, write_rows
from lang1.tasks.schema import ATTRITION
from lang1.tasks.splits import refuse_what_cannot_be_split
from lang1.tasks.statistics import NO_CLAIMS, task_statistics

if TYPE_CHECKING:
    import duckdb


def build_tasks(
    cfg: TasksConfig, *, records: Path, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the task sets of `records` and `corpus` to `out`. Returns the manifest.

    Raises InputError for missing tables or columns, for records that the split cannot be made of, and for a task
    whose cohort is empty.
    """
    inputs = {"records": records, "corpus": corpus}
    work = lambda stage: _build(cfg, records, corpus, seed, stage)  # noqa: E731
    return runs.run_stage(out, "tasks", config.dump(cfg), seed, inputs, work, force)


def _build(cfg: TasksConfig, records: Path, corpus: Path, seed: int, stage: Stage) -> None:
    origin = read_origin(records)
    cfg = replace(cfg, exclude_newborns=origin.excludes_newborns(cfg))
    database = open_database(records, corpus, stage.scratch())
    try:
        make_facts(database, cfg, seed, origin)
        steps: dict[str, list[Step]] = {task: select_rows(database, task, cfg) for task in cfg.tasks}
        for task in cfg.tasks:
            write_rows(database, task, stage.out / task)
            write_left_out(database, steps[task], stage.out / "left_out" / f"{task}.parquet")
            runs.say(f"tasks: {task}: {steps[task][-1].remaining} rows of {steps[task][0].remaining} encounters")
        cautions: dict[str, list[str]] = {task: cautions_of(task, cfg, origin) for task in cfg.tasks}
        _write_tables(database, cfg, steps, cautions, stage)
        export_meds(database, cfg.tasks, stage.out / "meds")
    finally:
        database.close()
    stage.record(
        skipped={task: NO_CLAIMS for task, found in steps.items() if found[-1].remaining == 0},
        prediction_clock=cfg.prediction_clock,
        signed_time_from=origin.signed_time_from,
        dates_shifted=origin.dates_shifted,
        exclude_newborns=cfg.exclude_newborns,
        cautions={task: said for task, said in cautions.items() if said},
    )
    stage.count(encounters=next(iter(steps.values()))[0].remaining)
    stage.count(**{f"{task}_rows": found[-1].remaining for task, found in steps.items()})


def make_facts(database: duckdb.DuckDBPyConnection, cfg: TasksConfig, seed: int, origin: Origin | None = None) -> None:
    """From records to the table `facts`: a row an encounter, a column a rule or label."""
    origin = origin or Origin()
    set_variables(database, cfg, seed)
    run_sql(database, "stays")
    refuse_what_cannot_be_split(database, cfg, origin)
    set_follow_up_end(database, cfg, origin.dates_shifted)
    run_sql(database, "splits")
    run_sql(database, "notes")
    run_sql(database, "returns")
    run_sql(database, "codes")
    score_codes(database, cfg.cci_weights, cfg.cci_age_points)
    database.execute("SET VARIABLE has_claims = (SELECT count(*) > 0 FROM claims)")
    run_sql(database, "claims")
    run_sql(database, "facts")


def _write_tables(
    database: duckdb.DuckDBPyConnection,
    cfg: TasksConfig,
    steps: dict[str, list[Step]],
    cautions: dict[str, list[str]],
    stage: Stage,
) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(ATTRITION.names)
    writer.writerows(astuple(step) for found in steps.values() for step in found)
    runs.write_text(stage.out / "attrition.csv", sink.getvalue())
    statistics = {task: task_statistics(database, task, cfg, steps[task], cautions[task]) for task in cfg.tasks}
    runs.write_json(stage.out / "statistics.json", statistics)
    runs.write_json(stage.out / "questions.json", {task: _describe_question(task, cfg) for task in cfg.tasks})


def _describe_question(task: str, cfg: TasksConfig) -> dict[str, Any]:
    question = question_for(task, NOTE_TYPE_PER_TASK[task], cfg.prompt_set, cfg.cci_classes)
    return {
        "note_type": NOTE_TYPE_PER_TASK[task],
        "prompt_set": cfg.prompt_set,
        "text": question.text,
        "options": list(question.options),
        "rendered": render_question(question),
    }
