"""What a validation of finetuning measures, keeps and decides: AUROC, the best weights, the early stop (5.4).

The value is the micro-AUROC that the paper stops on: over every (row, class) cell of a task with more than two
options. For two options it is the AUROC of option B, which is what scikit-learn's `roc_auc_score(average="micro")`
gives for them; cells of both options would only repeat how rare the outcome is. Several tasks count alike: their mean.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lang1 import runs
from lang1.config import FinetuneConfig
from lang1.errors import TrainingGaveUp
from lang1.metrics.ranking import auroc, micro_auroc
from lang1.models.export import WEIGHTS
from lang1.training.asked import Rows
from lang1.training.checkpoint import save_weights, trained
from lang1.training.distributed import World, share_out_again, whole
from lang1.training.loop import Progress
from lang1.training.packs import LogitsOf, make_batches, option_logits


def validate(
    cfg: FinetuneConfig,
    model: Any,
    rows: Rows,
    progress: Progress,
    best: Path,
    dtype: torch.dtype,
    world: World,
    logits_of: LogitsOf = option_logits,
) -> dict[str, Any]:
    """AUROC and loss by task; keeps the weights when the mean AUROC is the best so far; decides the early stop."""
    result = measure(model, rows, cfg.batch_tokens, dtype, world, logits_of)
    share_out_again(model, world)
    mean = mean_auroc(result)
    if mean is not None and (progress.best_value is None or mean > progress.best_value):
        if world.is_main:
            for old in best.glob("step-*"):
                if old.name != f"step-{progress.best_step}":
                    shutil.rmtree(old)
        progress.best_step, progress.best_value = progress.step, mean
        keep_weights(best / f"step-{progress.step}" / WEIGHTS, model, world)
    since = progress.step - (progress.best_step or 0)
    progress.finished = since >= cfg.patience_steps
    micro = {task.task: " (micro)" * (len(task.option_ids) > 2) for task in rows.tasks}  # of a constant far above 0.5
    told = [f"{task}{micro[task]} {facts['auroc']:.3f}" for task, facts in result.items() if facts["auroc"] is not None]
    runs.say(f"step {progress.step}: validation AUROC {', '.join(told)}")
    return result


def mean_auroc(result: dict[str, dict[str, Any]]) -> float | None:
    """Over the tasks that have one."""
    values = [facts["auroc"] for facts in result.values() if facts["auroc"] is not None]
    return sum(values) / len(values) if values else None


def mean_loss(result: dict[str, dict[str, Any]]) -> float:
    """Nats a row, over the tasks."""
    return float(sum(facts["loss"] for facts in result.values()) / len(result))


def keep_weights(path: Path, model: Any, world: World) -> None:
    """The trained weights, put together from all ranks, as one file that rank 0 writes."""
    tensors = {}
    for name, parameter in trained(model):
        full = whole(parameter.detach())
        if world.is_main:
            tensors[name] = full.cpu()
    if world.is_main:
        save_weights(path, tensors)


def measure(
    model: Any,
    rows: Rows,
    batch_tokens: int,
    dtype: torch.dtype,
    world: World,
    logits_of: LogitsOf = option_logits,
) -> dict[str, dict[str, Any]]:
    """By task: AUROC (micro for more than two options), loss and number of rows. A class that is absent: null.

    Ranks take turns at the batches, and all see the whole result. Raises TrainingGaveUp for logits that are not finite.
    """
    model.eval()
    batches = make_batches(rows, rows.packs, batch_tokens)
    most = max(len(task.option_ids) for task in rows.tasks)
    first_row = np.cumsum([0, *(len(batch.tasks) for batch in batches)])
    logits_NK = np.zeros((int(first_row[-1]), most))
    mixed = dtype != torch.float32 and world.size == 1
    for turn in range(0, len(batches), world.size):
        mine = turn + world.rank
        batch = batches[mine if mine < len(batches) else 0].to(world.device)
        with torch.no_grad(), torch.autocast(world.device.type, dtype=dtype, enabled=mixed):
            found = logits_of(model, batch, rows.tasks).double().cpu().numpy()
        if mine < len(batches):
            has_MK = np.arange(most) < np.array([len(rows.tasks[task].option_ids) for task in batch.tasks])[:, None]
            logits_NK[first_row[mine] : first_row[mine + 1]] = np.where(has_MK, found, 0.0)  # summed over the ranks
    if world.size > 1:
        logits_NK = np.array(world.sum(logits_NK.ravel().tolist())).reshape(logits_NK.shape)
    tasks = np.array([task for batch in batches for task in batch.tasks])
    labels = np.array([label for batch in batches for label in batch.labels.tolist()], dtype=np.int64)
    result: dict[str, dict[str, Any]] = {}
    for index, task in enumerate(rows.tasks):
        mine_NK = torch.from_numpy(logits_NK[tasks == index][:, : len(task.option_ids)])
        truth = labels[tasks == index]
        if not mine_NK.isfinite().all():
            raise TrainingGaveUp(f"{task.task}: validation gives logits that are not finite; lower optimizer.lr")
        p_NK = mine_NK.softmax(-1).numpy()
        value = auroc(truth == 1, p_NK[:, 1]) if p_NK.shape[1] == 2 else micro_auroc(truth, p_NK)
        loss = functional.cross_entropy(mine_NK, torch.from_numpy(truth)).item()
        result[task.task] = {"auroc": value, "loss": loss, "rows": len(truth)}
    return result
