"""Tables B1-B7: rows, patients, words and labels of every task and split; what a rule changed, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lang1.config import TasksConfig
from lang1.tasks.cohort import Step
from lang1.tasks.prompts import Asked
from lang1.tasks.schema import SPLITS

if TYPE_CHECKING:
    import duckdb

NO_CLAIMS = "no claims in these records"
SMALL_CLASS = 50
"""rows; a class with fewer gives an AUROC that one patient moves (the paper's CCI above 7: 30 test notes)"""


def task_statistics(
    database: duckdb.DuckDBPyConnection, asked: Asked, cfg: TasksConfig, steps: list[Step], cautions: list[str]
) -> dict[str, Any]:
    """A task's numbers: each split and `total` with rows, patients, words, labels and base_rates.

    `labels` counts each option, `base_rates` is its share (null without rows), `patients_also_in_train` those of the
    split with a row in train. `small_classes` are the (split, option) with fewer than 50 rows. `message` says why
    there are no rows, or null; `cautions` what to know before reading. Readmission adds what its two readings and the
    deaths change, LOS its mean in days, denial how long claims take.
    """
    has_rows = steps[-1].remaining > 0
    task, options = asked.task, asked.question.options
    counts = {split: _count(database, task, split, len(options)) for split in SPLITS}
    return {
        "note_type": asked.note_type,
        "options": list(options),
        **counts,
        "total": _count(database, task, None, len(options)),
        "small_classes": [
            [split, option]
            for split, found in counts.items()
            for option, rows in zip(options, found["labels"], strict=True)
            if found["rows"] and rows < SMALL_CLASS
        ],
        "prediction_clock": cfg.prediction_clock,
        "cautions": cautions,
        "message": None if has_rows else NO_CLAIMS,
        **(_readmission(database, cfg) if task == "readmission" else {}),
        **(_length(database, cfg) if task == "los" else {}),
        **(_denial(database, cfg) if task == "denial" else {}),
    }


def _count(database: duckdb.DuckDBPyConnection, task: str, split: str | None, options: int) -> dict[str, Any]:
    labels = ", ".join(f"count(*) FILTER (label = {k})" for k in range(options))
    found = database.execute(
        f"WITH trained AS (SELECT DISTINCT patient_id FROM rows_{task} WHERE split = 'train') "
        "SELECT count(*), count(DISTINCT patient_id), coalesce(sum(words), 0), "
        "count(DISTINCT patient_id) FILTER (patient_id IN (FROM trained)), "
        f"count(*) FILTER (is_newborn), count(*) FILTER (died_after_discharge), {labels} "
        f"FROM rows_{task} WHERE $split IS NULL OR split = $split",
        {"split": split},
    ).fetchall()[0]
    rows, patients, words, in_train, newborns, died, *counts = found
    return {
        "rows": int(rows),
        "patients": int(patients),
        "patients_also_in_train": int(in_train),
        "newborns": int(newborns),
        "words": int(words),
        "labels": [int(n) for n in counts],
        "base_rates": [round(n / rows, 6) for n in counts] if rows else None,
        **(_deaths(int(rows), int(died), counts) if task == "readmission" else {}),
    }


def _deaths(rows: int, died: int, labels: list[int]) -> dict[str, Any]:
    """Rows labelled 0 whose patient died within the days, and the rate with and without them."""
    return {
        "died_after_discharge": died,
        "rate_with_deaths_as_0": round(labels[1] / rows, 6) if rows else None,
        "rate_without_deaths": round(labels[1] / (rows - died), 6) if rows > died else None,
    }


def _readmission(database: duckdb.DuckDBPyConnection, cfg: TasksConfig) -> dict[str, Any]:
    """How far an inpatient stay and an H&P of a later encounter agree on who came back, over rows with times."""
    both, adt, note, neither = database.execute(
        "SELECT count(*) FILTER (by_adt AND by_note), count(*) FILTER (by_adt AND NOT by_note), "
        "count(*) FILTER (by_note AND NOT by_adt), count(*) FILTER (NOT by_adt AND NOT by_note) FROM rows_readmission"
    ).fetchall()[0]
    rows = both + adt + note + neither
    return {
        "readmission_by": cfg.readmission_by,
        "readings": {
            "both": both,
            "adt_only": adt,
            "admission_note_only": note,
            "neither": neither,
            "agreement": round((both + neither) / rows, 6) if rows else None,
        },
    }


def _length(database: duckdb.DuckDBPyConnection, cfg: TasksConfig) -> dict[str, Any]:
    """Days of a stay, as `los_unit` counts them: the classes alone do not say their mean."""
    [(mean,)] = database.execute("SELECT avg(los_days) FROM rows_los").fetchall()
    return {"los_unit": cfg.los_unit, "mean_days": None if mean is None else round(mean, 4)}


def _denial(database: duckdb.DuckDBPyConnection, cfg: TasksConfig) -> dict[str, Any]:
    """Days from discharge to the last status by label: a cut-off below them takes one label more than the other."""
    days = {
        label: database.execute(
            "SELECT quantile_disc(claim_days, [0.5, 0.95]) FROM rows_denial WHERE label = ?", [label]
        ).fetchall()[0][0]
        for label in (0, 1)
    }
    others = [task for task in cfg.tasks if task != "denial"]
    elsewhere = " UNION ".join(f"SELECT patient_id FROM rows_{task} WHERE split IN ('val', 'test')" for task in others)
    shared = (
        database.execute(
            f"SELECT count(DISTINCT patient_id) FROM rows_denial WHERE split = 'train' AND patient_id IN ({elsewhere})"
        ).fetchall()[0][0]
        if others
        else 0
    )
    return {
        "denial_rule": cfg.denial_rule,
        "claim_days_median_and_95th_by_label": [days[0], days[1]],
        "train_patients_in_val_or_test_of_other_tasks": int(shared),
    }
