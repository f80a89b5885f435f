"""Tasks: cohorts, labels, splits and prompts of ReMedE. Importing this room stays light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import AuditConfig, TasksConfig


def build_tasks(
    cfg: TasksConfig, *, records: Path, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the task sets of `records` and `corpus` to `out` (docs/tasks.md). Returns the manifest."""
    from lang1.tasks.build import build_tasks as build

    return build(cfg, records=records, corpus=corpus, out=out, seed=seed, force=force)


def build_comprehension(
    *,
    sciq: tuple[Path, ...] = (),
    pubmedqa: tuple[Path, ...] = (),
    pubmedqa_test: Path | None = None,
    out: Path,
    seed: int,
    force: bool = False,
) -> dict[str, Any]:
    """Write SciQ and PubMedQA as rows of the same kind to `out` (docs/comprehension.md). Returns the manifest."""
    from lang1.tasks.comprehension import build_comprehension as build

    return build(sciq=sciq, pubmedqa=pubmedqa, pubmedqa_test=pubmedqa_test, out=out, seed=seed, force=force)


def write_statistics(*, tasks: Path, out: Path, tokens: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Write Tables B1-B7 and Figures A1 and F6 of the task rows to `out` (docs/statistics.md). Returns the manifest."""
    from lang1.tasks.tables import write_statistics as write

    return write(tasks=tasks, out=out, tokens=tokens, force=force)


def audit_tasks(
    cfg: AuditConfig, *, tasks: Path, records: Path, corpus: Path | None, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Look for leakage in the task sets `tasks` (docs/audit.md). Returns the manifest.

    Raises InputError, after the audit is written, when a check fails that is not accepted.
    """
    from lang1.tasks.audit import audit_tasks as audit

    return audit(cfg, tasks=tasks, records=records, corpus=corpus, out=out, seed=seed, force=force)


def export_meds(
    *,
    records: Path,
    corpus: Path,
    tasks: Path | None,
    out: Path,
    seed: int,
    split_ratio: tuple[float, float, float] = (8.0, 1.0, 1.0),
    split_unit: str = "patient",
    force: bool = False,
) -> dict[str, Any]:
    """Write records, notes and labels as a MEDS 0.4 dataset (docs/meds.md). Returns the manifest.

    With `tasks`, seed, ratio and unit of the splits are those of that folder.
    """
    from lang1.tasks.meds_data import export_data

    return export_data(
        records=records, corpus=corpus, tasks=tasks, out=out, seed=seed, split_ratio=split_ratio,
        split_unit=split_unit, force=force,
    )  # fmt: skip
