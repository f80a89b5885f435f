"""A model on this machine as it takes part in an evaluation: its folder or folders, its shots, its own corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1.errors import InputError
from lang1.remede.backends import Server
from lang1.remede.provenance import describe_model


@dataclass(frozen=True)
class Entrant:
    """What a name in the results stands for, where that is more than one folder with the evaluation's settings."""

    folders: Mapping[str, Path]
    """by task: one folder under every task, or a model of its own for each (Appendix I: single-task finetuning)"""
    shots: int | None = None
    """examples before every question; None: evaluate.shots"""
    tokens: Path | None = None
    """the tokens folder of its own pretraining; None: the evaluation's"""

    def by_folder(self, tasks: Iterable[str]) -> dict[Path, tuple[str, ...]]:
        """Each folder once, with those of `tasks` that it answers, in their order."""
        found: dict[Path, tuple[str, ...]] = {}
        for task in tasks:
            if task in self.folders:
                found[self.folders[task]] = (*found.get(self.folders[task], ()), task)
        return found


def one_folder(folder: Path, tasks: Iterable[str]) -> Entrant:
    """A folder that answers every task."""
    return Entrant(dict.fromkeys(tasks, folder))


def model_inputs(models: Mapping[str, Path | Server | Entrant]) -> dict[str, Path | str]:
    """What a model is to a stage: folders and a corpus by their content, a server by address and tokenizer."""
    inputs: dict[str, Path | str] = {}
    for name, model in models.items():
        if isinstance(model, Entrant):
            inputs |= _entrant_inputs(name, model)
            continue
        inputs[f"model {name}"] = str(model) if isinstance(model, Server) else model
        if isinstance(model, Server) and model.tokenizer is not None:
            inputs[f"tokenizer of {name}"] = model.tokenizer
    return inputs


def _entrant_inputs(name: str, entrant: Entrant) -> dict[str, Path | str]:
    folders = entrant.by_folder(entrant.folders)
    one = len(folders) == 1
    inputs: dict[str, Path | str] = {
        f"model {name}" if one else f"model {name}, {', '.join(tasks)}": folder for folder, tasks in folders.items()
    }
    return inputs | ({f"tokens of {name}": entrant.tokens} if entrant.tokens is not None else {})


def describe_models(models: Mapping[str, Path | Server | Entrant]) -> dict[str, dict[str, Any]]:
    """Every model by its name; of one that is not here but behind a server, nobody can tell the weights."""
    return {name: _describe(model) for name, model in models.items()}


def _describe(model: Path | Server | Entrant) -> dict[str, Any]:
    """One folder as itself; several by one hash of their weights, each below its tasks."""
    if isinstance(model, Server):
        return {"kind": "served", "checkpoint": None, "weights_sha256": None}
    if not isinstance(model, Entrant):
        return describe_model(model)
    described = {", ".join(tasks): describe_model(folder) for folder, tasks in model.by_folder(model.folders).items()}
    if len(described) == 1:
        return next(iter(described.values()))
    weights = "\n".join(f"{tasks} {facts['weights_sha256']}" for tasks, facts in described.items())
    return {
        "kind": "one model a task",
        "checkpoint": "one model a task",
        "weights_sha256": hashlib.sha256(weights.encode()).hexdigest(),
        "by_task": described,
    }


def check_entrant(name: str, entrant: Entrant, tasks: Iterable[str]) -> None:
    """Refuse one that answers none of the tasks that are asked for. Raises InputError."""
    if not entrant.by_folder(tasks):
        raise InputError(
            f"{name}: answers {', '.join(entrant.folders)}, and none of them is in evaluate.tasks; leave the model out"
        )
