"""ReMedE: language models and baselines on the same task rows, metrics with intervals, paired comparisons (5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lang1.config import EvaluateConfig
from lang1.remede.backends import Server, is_server, parse_server
from lang1.remede.entrants import Entrant

__all__ = ["Entrant", "Server", "evaluate", "is_server", "parse_server"]


def evaluate(
    cfg: EvaluateConfig,
    *,
    models: Mapping[str, Path | Server | Entrant],
    tasks: Path,
    out: Path,
    seed: int,
    tokens: Path | None = None,
    records: Path | None = None,
    truth: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Score `models` (name -> Hugging Face folder, server or entrant) and baselines on `tasks`; returns the manifest.

    `out` gets a score file a model, task and split, metrics.json, summary.json and calibration.json. `tokens` tells
    which notes were seen in pretraining, `records` holds the columns of `columns+xgboost`, `truth` gives the ceiling;
    without them those values are null. Raises InputError for folders that cannot be evaluated.
    """
    from lang1.remede.evaluating import evaluate as run

    return run(
        cfg, models=models, tasks=tasks, out=out, seed=seed, tokens=tokens, records=records, truth=truth, force=force
    )


def predict(
    cfg: EvaluateConfig,
    *,
    model: Path,
    notes: Path,
    task: str,
    out: Path,
    id_column: str = "note_id",
    text_column: str = "text",
    question: Path | None = None,
    max_note_tokens: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Probabilities of the options of `task` for the file `notes` into the file `out` (`remede/prediction.py`)."""
    from lang1.remede.note_files import NoteFile
    from lang1.remede.prediction import predict as run

    return run(
        cfg,
        model=model,
        notes=NoteFile(notes, id_column, text_column),
        task=task,
        out=out,
        question=question,
        max_note_tokens=max_note_tokens,
        force=force,
    )
