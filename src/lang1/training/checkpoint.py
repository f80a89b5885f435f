"""Resumable checkpoints: `step-XXXXXXXX/` with weights, optimizer moments and progress; safetensors and JSON only.

A checkpoint is written under a scratch name, flushed, then renamed; `hashes.json`, written last, makes it whole.
The newest whole one is found by listing, so no pointer can go stale. There is no random state to keep: data order
is a function of seed and step (batches.py), and nothing in training draws from torch's generator (no dropout).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lang1 import runs
from lang1.errors import InputError
from lang1.models.export import FACTS, HASHES, WEIGHTS, check_hashes, load_weights

OPTIMIZER = "optimizer.safetensors"
PROGRESS = "progress.json"
CONFIG = "config.json"
PREFIX = "step-"


def save_checkpoint(
    folder: Path,
    step: int,
    model: Any,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
    facts: dict[str, Any],
    scratch: Path,
    keep: int,
) -> Path:
    """Write `folder/step-XXXXXXXX`, whole or not at all, and remove all but the newest `keep`."""
    target = folder / f"{PREFIX}{step:08d}"
    temporary = scratch / target.name
    shutil.rmtree(temporary, ignore_errors=True)
    save_weights(temporary / WEIGHTS, dict(model.named_parameters()))
    save_weights(temporary / OPTIMIZER, _moments(model, optimizer))
    runs.write_text(temporary / CONFIG, model.config.to_json_string(use_diff=True))
    runs.write_json(temporary / PROGRESS, progress)
    runs.write_json(temporary / FACTS, facts)
    runs.write_json(temporary / HASHES, {p.name: runs.sha256_file(p) for p in sorted(temporary.iterdir())})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(target)
        _sync(folder)
    except OSError as error:
        raise runs.disk_error(target, error) from None
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def save_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Named tensors as one safetensors file, atomically, with the configured mode."""
    with runs.atomic_path(path) as temporary:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, temporary, {"format": "pt"})


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders with a hash file, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / HASHES).is_file())


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; a damaged one is passed over and said."""
    for path in reversed(list_checkpoints(folder)):
        try:
            check_hashes(path)
        except InputError as error:
            runs.say(f"checkpoint passed over: {error}")
        else:
            return path
    return None


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put weights and moments of a checkpoint into `model` and `optimizer`; returns the saved progress."""
    load_weights(model, load_file(folder / WEIGHTS))
    saved = load_file(folder / OPTIMIZER)
    for name, parameter in model.named_parameters():
        moments = {key.rpartition(":")[2]: value for key, value in saved.items() if key.rpartition(":")[0] == name}
        if moments:
            optimizer.state[parameter] = moments
    progress: dict[str, Any] = runs.read_json(folder / PROGRESS)
    return progress


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}:{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
