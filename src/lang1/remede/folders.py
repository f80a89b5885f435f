"""Find the scores that a path means: a scores folder, a run that holds one, or one model's folder inside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.errors import InputError
from lang1.remede.scores import slug


@dataclass(frozen=True)
class ScoresFolder:
    """A complete evaluation: its metrics.json, read."""

    path: Path
    rows: list[dict[str, Any]]
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """What a reader calls it: the run's name, or the folder's where it is in no run."""
        marker = self.path.parent / "run.json"
        if marker.exists():
            return str(runs.read_json(marker).get("name") or self.path.resolve().parent.name)
        return self.path.resolve().name

    def models(self) -> list[str]:
        """The models that have score files, in the order of the evaluation."""
        return list(dict.fromkeys(row["model"] for row in self.rows if row.get("recalibration") is None))


@dataclass(frozen=True)
class ModelScores:
    """One model's scores in a folder."""

    folder: ScoresFolder
    model: str

    def files(self) -> dict[tuple[str, str], Path]:
        """Score files by (task, split), as they were evaluated."""
        keys = dict.fromkeys((row["task"], row["split"]) for row in self.folder.rows if row["model"] == self.model)
        return {key: self.folder.path / slug(self.model) / key[0] / f"{key[1]}.parquet" for key in keys}

    def checkpoint(self) -> str | None:
        """What the model's rows say of its checkpoint."""
        return next((row.get("checkpoint") for row in self.folder.rows if row["model"] == self.model), None)


def open_scores(path: Path) -> ScoresFolder:
    """A scores folder, or that of a run. Raises InputError for another folder, an unfinished one or a changed one."""
    folder = path / "scores" if not runs.is_complete(path) and runs.is_complete(path / "scores") else path
    stage = runs.read_manifest(folder).get("stage")
    if stage != "evaluate":
        raise InputError(f"{folder}: written by the stage {stage}, not evaluate; give a scores folder or its run")
    runs.identify(folder)
    found = runs.read_json(folder / "metrics.json")
    rows, facts = (found.get(key) for key in ("rows", "facts")) if isinstance(found, dict) else (None, None)
    if not isinstance(rows, list) or not isinstance(facts, dict):
        raise InputError(
            f"{folder / 'metrics.json'}: not the rows and facts of an evaluation; run lang1 evaluate again"
        )
    return ScoresFolder(folder, rows, facts)


def open_model(path: Path) -> ModelScores:
    """The model that a path means: `scores/<model>`, or the one that a scores folder or a run is about.

    Raises InputError when there is no such model.
    """
    inside = path.parent
    if not runs.is_complete(path) and not runs.is_complete(path / "scores") and runs.is_complete(inside):
        folder = open_scores(inside)
        named = {slug(model): model for model in folder.models()}
        if path.resolve().name not in named:
            raise InputError(f"{path}: no model of {inside}; there are {', '.join(named)}")
        return ModelScores(folder, named[path.resolve().name])
    folder = open_scores(path)
    subject = folder.facts.get("subject")
    if subject is None or subject not in folder.models():
        raise InputError(f"{folder.path}: holds no model that it is about; give one: {folder.path}/MODEL")
    return ModelScores(folder, str(subject))
