"""The self-contained HTML report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import ReportConfig

__all__ = ["build_report"]


def build_report(cfg: ReportConfig, *, run: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Read the stage folders of `run`, write `out/report.html`, return the manifest."""
    from lang1.report.build import build_report as build

    return build(cfg, run=run, out=out, seed=seed, force=force)
