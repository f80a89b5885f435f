"""What a report is made from: the manifests of a run's stages and the small result files that they wrote.

Every stage is optional: a run that stopped after `tasks` has a report too, and each section that lacks its files says
which stage was not run. A folder without a manifest counts as not finished and is not read. Nothing is computed here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.errors import InputError

FOLDERS = {
    "warehouse": "simulate",
    "records": "extract",
    "corpus": "clean",
    "tokens": "tokenize",
    "checkpoints": "pretrain",
    "tasks": "tasks",
    "model": "finetune",
    "model-random": "finetune",
    "scores": "evaluate",
}
"""a run's folders in the order of the way of the data, and the stage that writes each"""

OTHERS = {"tokens": "tokenize", "checkpoints": "pretrain", "model": "finetune", "model-*": "finetune"}
"""the folders of each model in others/, and the stage that writes each"""


@dataclass(frozen=True)
class AttritionStep:
    """One rule of a task's cohort and what it left."""

    step: int
    rule: str
    left_out: int
    remaining: int


@dataclass(frozen=True)
class RunData:
    """A run, as far as it went. What a stage did not write is empty."""

    run: Path
    manifests: dict[str, dict[str, Any]]
    attrition: dict[str, list[AttritionStep]]
    statistics: dict[str, Any]
    questions: dict[str, Any]
    tokens_index: dict[str, Any]
    pretraining: list[dict[str, Any]]
    finetuning: dict[str, list[dict[str, Any]]]
    models: dict[str, dict[str, Any]]
    results: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    metrics: dict[str, Any]
    calibration: list[dict[str, Any]]
    decisions: list[dict[str, Any]]

    def has(self, folder: str) -> bool:
        """True when the stage of this folder ended."""
        return folder in self.manifests

    def config(self, folder: str) -> dict[str, Any]:
        """The resolved configuration of a stage; empty when it was not run."""
        found: dict[str, Any] = self.manifests.get(folder, {}).get("config", {})
        return found

    def facts(self, folder: str) -> dict[str, Any]:
        """What a stage recorded in its manifest; empty when it was not run."""
        found: dict[str, Any] = self.manifests.get(folder, {}).get("facts", {})
        return found

    def counts(self, folder: str) -> dict[str, int]:
        """What a stage counted; empty when it was not run."""
        found: dict[str, int] = self.manifests.get(folder, {}).get("counts", {})
        return found

    def comes_from(self, folder: str, earlier: str) -> bool:
        """True when the manifest of `folder` names `earlier`, or a file in it, as an input: by hash, not by path."""
        if not (self.has(folder) and self.has(earlier)):
            return False
        inputs: dict[str, str] = self.manifests[folder].get("inputs", {})
        return str(self.manifests[earlier]["identity"]) in {value.partition("/")[0] for value in inputs.values()}


def complete_folders(run: Path) -> dict[str, Path]:
    """The folders of `run` whose stage ended. Raises InputError when there is none: nothing could be told."""
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder; lang1 run RECIPE makes one")
    others = sorted(folder for folder in (run / "others").glob("*") if folder.is_dir())
    stages = FOLDERS | {
        str(path.relative_to(run)): stage
        for folder in others
        for pattern, stage in OTHERS.items()
        for path in sorted(folder.glob(pattern))
    }
    found = {name: run / name for name in stages if runs.is_complete(run / name)}
    if not found:
        raise InputError(f"{run}: holds no finished stage ({', '.join(FOLDERS)}); give the folder of a run")
    for name, folder in found.items():
        stage = runs.read_manifest(folder).get("stage")
        if stage != stages[name]:
            raise InputError(f"{folder}: was written by the stage {stage}, not {stages[name]}; it is out of place")
    return found


def collect(folders: dict[str, Path], run: Path) -> RunData:
    """Read what the finished stages in `folders` wrote. Raises InputError for a file that cannot be read."""

    def value(folder: str, name: str, empty: Any) -> Any:
        path = folders.get(folder, run / folder) / name
        return runs.read_json(path) if folder in folders and path.exists() else empty

    def lines(folder: str, name: str = "curve.jsonl") -> list[dict[str, Any]]:
        return runs.read_lines(folders[folder] / name) if folder in folders else []

    summary = value("scores", "summary.json", {})
    return RunData(
        run=run,
        manifests={name: runs.read_manifest(folder) for name, folder in folders.items()},
        attrition=_read_attrition(folders["tasks"] / "attrition.csv") if "tasks" in folders else {},
        statistics=value("tasks", "statistics.json", {}),
        questions=value("tasks", "questions.json", {}),
        tokens_index=value("tokens", "index.json", {}),
        pretraining=lines("checkpoints"),
        finetuning={name: lines(name) for name in ("model", "model-random")},
        models={name: value(name, "lang1.json", {}) for name in ("model", "model-random")},
        results=summary.get("results", []),
        comparisons=summary.get("comparisons", []),
        metrics=value("scores", "metrics.json", {}),
        calibration=value("scores", "calibration.json", []),
        decisions=value("scores", "decision_curves.json", []),
    )


def _read_attrition(path: Path) -> dict[str, list[AttritionStep]]:
    steps: dict[str, list[AttritionStep]] = {}
    if not path.exists():
        return steps
    with path.open(encoding="utf-8", newline="") as source:
        for number, row in enumerate(csv.DictReader(source), start=2):
            try:
                step = AttritionStep(int(row["step"]), row["rule"], int(row["left_out"]), int(row["remaining"]))
                steps.setdefault(row["task"], []).append(step)
            except (KeyError, TypeError, ValueError):
                raise InputError(
                    f"{path}: line {number}: not task,step,rule,left_out,remaining; run the tasks stage again"
                ) from None
    return {task: sorted(found, key=lambda s: s.step) for task, found in steps.items()}
