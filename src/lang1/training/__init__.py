"""Training: pretraining and finetuning, one loop. Importing this room stays light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import FinetuneConfig, PretrainConfig, RunConfig, SweepConfig


def pretrain(cfg: PretrainConfig, *, tokens: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Pretrain on the shards of `tokens` into `out`; returns the manifest (`training/pretraining.py`)."""
    from lang1.training.pretraining import pretrain as run

    return run(cfg, tokens=tokens, out=out, seed=seed, force=force)


def finetune(
    cfg: FinetuneConfig, *, tasks: Path, model: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Finetune `model` on the rows of `tasks` into `out`; returns the manifest (`training/finetuning.py`)."""
    from lang1.training.finetuning import finetune as run

    return run(cfg, tasks=tasks, model=model, out=out, seed=seed, force=force)


def sweep(
    cfg: SweepConfig,
    finetune: FinetuneConfig,
    *,
    tasks: Path,
    model: Path,
    out: Path,
    seed: int,
    workers: int = 1,
    force: bool = False,
) -> dict[str, Any]:
    """Search the rate of the finetuning `finetune` into `out`; returns the manifest (`training/searching.py`)."""
    from lang1.training.searching import sweep as run

    return run(cfg, finetune, tasks=tasks, model=model, out=out, seed=seed, workers=workers, force=force)


def watch(run: Path, *, out: Path, follow: bool = False, every: float = 30.0) -> None:
    """Show a pretraining folder's curves in the terminal and draw them to `out` (`training/watching.py`)."""
    from lang1.training.watching import watch as show

    show(run, out=out, follow=follow, every=every)


def plan(config: RunConfig, *, gpus: int, gpu: str, **options: Any) -> dict[str, Any]:
    """What pretraining by this recipe takes on so many GPUs of that kind (`training/planner.py`)."""
    from lang1.training.planner import plan as make

    return make(config, gpus=gpus, gpu=gpu, **options)
