"""Tasks: cohorts, labels, splits and prompts of ReMedE. Importing this room stays light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import TasksConfig


def build_tasks(
    cfg: TasksConfig, *, records: Path, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the task sets of `records` and `corpus` to `out` (docs/tasks.md). Returns the manifest."""
    from lang1.tasks.build import build_tasks as build

    return build(cfg, records=records, corpus=corpus, out=out, seed=seed, force=force)


def write_statistics(*, tasks: Path, out: Path, tokens: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Write Tables B1-B7 and Figures A1 and F6 of the task rows to `out` (docs/statistics.md). Returns the manifest."""
    from lang1.tasks.tables import write_statistics as write

    return write(tasks=tasks, out=out, tokens=tokens, force=force)
