"""Tables B1-B7: rows, patients, words and labels of every task and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lang1.config import TasksConfig
from lang1.tasks.cohort import Step
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, OPTIONS_PER_TASK, question_for
from lang1.tasks.schema import SPLITS

if TYPE_CHECKING:
    import duckdb

NO_CLAIMS = "no claims in these records"


def task_statistics(
    database: duckdb.DuckDBPyConnection, task: str, cfg: TasksConfig, steps: list[Step]
) -> dict[str, Any]:
    """A task's numbers: each split and `total` with rows, patients, words, labels and base_rates.

    `labels` counts each option, `base_rates` is its share (null without rows). `died_after_discharge` counts the
    readmission rows labelled 0 whose patient died within the window. `message` says why there are no rows, or null.
    """
    has_rows = steps[-1].remaining > 0
    return {
        "note_type": NOTE_TYPE_PER_TASK[task],
        "options": list(question_for(task, NOTE_TYPE_PER_TASK[task], cfg.prompt_set).options),
        **{split: _count(database, task, split) for split in SPLITS},
        "total": _count(database, task, None),
        "message": None if has_rows else NO_CLAIMS,
    }


def _count(database: duckdb.DuckDBPyConnection, task: str, split: str | None) -> dict[str, Any]:
    options = OPTIONS_PER_TASK[task]
    labels = ", ".join(f"count(*) FILTER (label = {k})" for k in range(options))
    found = database.execute(
        f"SELECT count(*), count(DISTINCT patient_id), coalesce(sum(words), 0), "
        f"count(*) FILTER (died_after_discharge), {labels} FROM rows_{task} WHERE $split IS NULL OR split = $split",
        {"split": split},
    ).fetchall()[0]
    rows, patients, words, died, *counts = found
    return {
        "rows": int(rows),
        "patients": int(patients),
        "words": int(words),
        "labels": [int(n) for n in counts],
        "base_rates": [round(n / rows, 6) for n in counts] if rows else None,
        **({"died_after_discharge": int(died)} if task == "readmission" else {}),
    }
