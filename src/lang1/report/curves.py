"""From the files of pretraining, finetuning and evaluation to the points that the figures draw."""

from __future__ import annotations

from typing import Any

from lang1.config import TASK_IDS
from lang1.report import sections
from lang1.report.collect import RunData
from lang1.report.plots import CalibrationCurve

MODEL_NAMES = {
    "model": ("lang1 finetuned joint", "lang1 finetuned"),
    "model-random": ("lang1 random init finetuned joint", "lang1 random init finetuned"),
}


def model_name(data: RunData, folder: str) -> str:
    """The name under which the model of a folder stands in the results."""
    joint, single = MODEL_NAMES[folder]
    return joint if len(data.config(folder).get("tasks", [])) > 1 else single


def finetuning_points(data: RunData) -> dict[str, list[tuple[str, int, float]]]:
    """By model: (task, step, validation AUROC), as the finetuning logged it."""
    points: dict[str, list[tuple[str, int, float]]] = {}
    for folder, curve in data.finetuning.items():
        found = [
            (task, int(row["step"]), float(value))
            for row in curve
            for task, value in _validation(row).items()
            if value is not None
        ]
        if found:
            order = sections.task_ids(data)
            points[model_name(data, folder)] = sorted(found, key=lambda point: (order.index(point[0]), point[1]))
    return points


def _validation(row: dict[str, Any]) -> dict[str, float | None]:
    tasks = row.get("val") or {}
    return {task: facts.get("auroc") for task, facts in tasks.items() if isinstance(facts, dict)}


def finetuning_losses(data: RunData) -> dict[str, list[tuple[int, float]]]:
    """By model: (step, training loss)."""
    return {
        model_name(data, folder): [
            (int(row["step"]), float(row["loss"])) for row in curve if row.get("loss") is not None
        ]
        for folder, curve in data.finetuning.items()
        if curve
    }


def best_steps(data: RunData) -> dict[str, int]:
    """By model: the step whose weights were kept."""
    return {
        model_name(data, folder): int(facts["best_step"])
        for folder, facts in data.models.items()
        if facts.get("best_step") is not None
    }


def calibration_curves(data: RunData, split: str) -> list[CalibrationCurve]:
    """The bins of every model and task on `split`, in the order of tasks."""
    rows = [row for row in data.calibration if row["split"] == split]
    rows.sort(key=lambda row: TASK_IDS.index(row["task"]) if row["task"] in TASK_IDS else len(TASK_IDS))
    return [
        CalibrationCurve(
            task=row["task"],
            model=row["model"],
            predicted=[float(b["predicted"]) for b in row["bins"]],
            observed=[float(b["observed"]) for b in row["bins"]],
            rows=[int(b["n"]) for b in row["bins"]],
            ece=row.get("ece"),
            of=row["of"],
            options=sections.question_options(data, row["task"]),
        )
        for row in rows
    ]
