"""ReMedE: language models and baselines on the same task rows, metrics with intervals, paired comparisons (5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lang1.config import EvaluateConfig
from lang1.remede.backends import Server, is_server, parse_server

__all__ = ["Server", "evaluate", "is_server", "parse_server"]


def evaluate(
    cfg: EvaluateConfig,
    *,
    models: Mapping[str, Path | Server],
    tasks: Path,
    out: Path,
    seed: int,
    tokens: Path | None = None,
    records: Path | None = None,
    truth: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Score `models` (name -> Hugging Face folder, or server) and the baselines on `tasks`; returns the manifest.

    `out` gets a score file a model, task and split, metrics.json, summary.json and calibration.json. `tokens` tells
    which notes were seen in pretraining, `records` holds the columns of `columns+xgboost`, `truth` gives the ceiling;
    without them those values are null. Raises InputError for folders that cannot be evaluated.
    """
    from lang1.remede.evaluate import evaluate as run

    return run(
        cfg, models=models, tasks=tasks, out=out, seed=seed, tokens=tokens, records=records, truth=truth, force=force
    )
