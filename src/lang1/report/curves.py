"""From the files of pretraining, finetuning and evaluation to the points that the figures draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lang1 import figures
from lang1.config import TASK_IDS
from lang1.report import sections
from lang1.report.collect import RunData
from lang1.report.decisions import DecisionCurve
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
    """The bins of every model and task on `split`, in the order of tasks; models as they are, not recalibrated."""
    rows = [row for row in _by_task(data.calibration, split) if row.get("recalibration") is None]
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


@dataclass(frozen=True)
class Recalibrated:
    """The expected calibration error of a model on a task, as it is and after recalibration."""

    task: str
    model: str
    method: str
    before: float | None
    after: float | None


def recalibrated(data: RunData, split: str) -> list[Recalibrated]:
    """What recalibration did on `split`, in the order of tasks and models; empty where nobody asked for it."""
    rows = _by_task(data.calibration, split)
    plain = {(row["task"], row["model"]): row.get("ece") for row in rows if row.get("recalibration") is None}
    order = figures.order_models({model for _, model in plain})
    found = [
        Recalibrated(row["task"], one["of"], one["method"], plain.get((row["task"], one["of"])), row.get("ece"))
        for row in rows
        if (one := row.get("recalibration")) is not None
    ]
    tasks = list(dict.fromkeys(one.task for one in found))
    return sorted(found, key=lambda one: (tasks.index(one.task), order.index(one.model) if one.model in order else -1))


def decision_curves(data: RunData, split: str) -> list[DecisionCurve]:
    """The decision curves of every model and binary task on `split`, by task, recalibrated ones marked."""
    return [
        DecisionCurve(
            task=row["task"],
            model=row["model"] if one is None else one["of"],
            recalibration=None if one is None else one["method"],
            **{
                name: [point.get(key) for point in row["points"]]
                for name, key in (
                    ("thresholds", "threshold"),
                    ("net_benefit", "net_benefit"),
                    ("low", "net_benefit_ci_low"),
                    ("high", "net_benefit_ci_high"),
                    ("treat_all", "treat_all"),
                )
            },
        )
        for row, one in ((row, row.get("recalibration")) for row in _by_task(data.decisions, split))
    ]


def _by_task(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    here = [row for row in rows if row["split"] == split]
    return sorted(here, key=lambda row: TASK_IDS.index(row["task"]) if row["task"] in TASK_IDS else len(TASK_IDS))
