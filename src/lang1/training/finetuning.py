"""Multiple-choice finetuning on one task or several (5.4): `lang1 finetune`.

All parameters, cross-entropy of the true option among the options at the answer position. Prompts, answer position
and option tokens come from scoring/options.py, as in evaluation. Early stop on the validation rows: the AUROC of a
binary task, micro-AUROC over (row, class) cells otherwise, averaged over tasks. The folder is the Hugging Face model
of the best validation, with curve.jsonl, lang1.json and seen.parquet.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig, TaskId
from lang1.corpus.hashes import hash_id
from lang1.errors import ConfigError, InputError
from lang1.metrics.ranking import auroc, micro_auroc
from lang1.models.build import build_from_config
from lang1.models.export import WEIGHTS, export_model, load_weights
from lang1.models.fast import use_fast_attention
from lang1.models.load import load_config, load_model, load_tokenizer
from lang1.models.origin import NO_PRETRAINING, read_pretraining
from lang1.tasks import prompts
from lang1.tasks.prompts import require_known
from lang1.training.asked import Group, Rows, balance_factors, make_groups, read_questions, read_rows
from lang1.training.checkpoint import Checkpoints, Retention, save_weights
from lang1.training.distributed import World
from lang1.training.feeding import Fetched
from lang1.training.loop import LoopConfig, Objective, Progress, resume, train
from lang1.training.numerics import prepare_torch
from lang1.training.optimizer import make_optimizer
from lang1.training.packs import PackBatch, answer_loss, make_batches, option_logits


@dataclass(frozen=True)
class Data:
    """Training and validation rows of the tasks that have any."""

    train: Rows
    val: Rows
    groups: list[Group]
    weights: list[float]
    """loss weight of a row of each task, which makes the mix even"""


def finetune(
    cfg: FinetuneConfig, *, tasks: Path, model: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Finetune the Hugging Face folder `model` on the task sets `tasks`; returns the manifest.

    With `init: random` only configuration and tokenizer come from `model`. A task without rows is skipped and named.
    """
    runs.read_manifest(tasks)
    inputs = {"tasks": tasks, "model": model.parent if runs.is_complete(model.parent) else model}

    def work(stage: runs.Stage) -> None:
        dtype = prepare_torch(cfg.threads, cfg.precision)
        names, skipped = usable_tasks(tasks, cfg.tasks)
        net = build_from_config(load_config(model), seed) if cfg.init == "random" else load_model(model)
        use_fast_attention(net, dtype)
        data = read_data(cfg, tasks, names, load_tokenizer(model), net.config.max_position_embeddings, seed)
        steps = cfg.max_steps_per_task * len(names)
        origin = NO_PRETRAINING if cfg.init == "random" else read_pretraining(model)
        facts: dict[str, Any] = {"kind": "finetuned", "init": cfg.init, "tasks": names, "balance": cfg.balance}
        facts |= {"seed": seed, "pretraining": origin.as_facts()}
        best = stage.scratch() / "best"
        objective = Objective(
            fetch=lambda step: fetch(cfg, data, seed, step),
            loss=lambda m, batch: answer_loss(m, batch, data.train.tasks, data.weights),
            validate=lambda m, progress: validate(cfg, m, data.val, progress, best, dtype),
            facts=facts,
        )
        loop = LoopConfig(steps, cfg.optimizer, cfg.val_every, cfg.val_every, dtype)
        world = World(0, 1, net.device)
        checkpoints = Checkpoints(stage.scratch() / "checkpoints", stage.scratch(), world, Retention(1))
        optimizer = make_optimizer(net, cfg.optimizer)
        progress = resume(net, optimizer, stage.out, checkpoints, world)
        progress = train(loop, net, optimizer, objective, progress, out=stage.out, checkpoints=checkpoints, world=world)
        _finish(stage, cfg, net, model, data, progress, facts, skipped, best, dtype)

    return runs.run_stage(out, "finetune", configuration.dump(cfg), seed, inputs, work, force)


def usable_tasks(folder: Path, wanted: tuple[TaskId, ...]) -> tuple[list[str], dict[str, str]]:
    """The tasks with training and validation rows, and why the others are skipped."""
    import pyarrow.parquet as pq

    require_known(wanted, prompts.read_questions(folder), folder, "finetune.tasks")
    names: list[str] = []
    skipped: dict[str, str] = {}
    for task in wanted:
        empty = [
            split
            for split in ("train", "val")
            if not (folder / task / f"{split}.parquet").is_file()
            or pq.read_metadata(folder / task / f"{split}.parquet").num_rows == 0
        ]
        if empty:
            skipped[task] = f"no rows in {', '.join(empty)}"
            runs.say(f"finetune: {task} is skipped: {skipped[task]}")
        else:
            names.append(task)
    if not names:
        raise InputError(
            f"{folder}: no task of finetune.tasks has training and validation rows "
            f"({'; '.join(f'{task}: {why}' for task, why in skipped.items())})"
        )
    return names, skipped


def read_data(
    cfg: FinetuneConfig, folder: Path, names: list[str], tokenizer: Any, context_length: int, seed: int
) -> Data:
    """Rows, draws and balance factors. Raises ConfigError when a batch cannot hold a row of each task."""
    if cfg.batch_size < len(names):
        raise ConfigError(f"finetune.batch_size: {cfg.batch_size} is less than a row of each of {len(names)} tasks")
    asked = read_questions(folder, names, tokenizer)
    rows = read_rows(folder, "train", asked, tokenizer, cfg, context_length, seed=seed)
    factors = balance_factors(rows, cfg.balance)
    rows = replace(rows, tasks=[replace(task, log_factors=f) for task, f in zip(asked, factors, strict=True)])
    groups, weights = make_groups(rows, cfg.batch_size)
    val = read_rows(folder, "val", asked, tokenizer, cfg, context_length, seed=seed, most=cfg.val_rows)
    return Data(rows, val, groups, weights)


def fetch(cfg: FinetuneConfig, data: Data, seed: int, step: int) -> Fetched[PackBatch]:
    """The micro-batches of a step; a function of seed and step alone."""
    packs = [pack for group in data.groups for pack in group.drawn(seed, step)]
    batches = make_batches(data.train, packs, cfg.batch_tokens)
    rows = Counter(task for batch in batches for task in batch.tasks)
    divisor = sum(data.weights[task] * count for task, count in rows.items())
    counts = {data.train.tasks[task].task: count for task, count in sorted(rows.items())}
    return Fetched(batches, divisor, sum(batch.real_tokens for batch in batches), counts)


def validate(
    cfg: FinetuneConfig, model: Any, rows: Rows, progress: Progress, best: Path, dtype: torch.dtype
) -> dict[str, Any]:
    """AUROC and loss by task; keeps the weights when the mean AUROC is the best so far; decides the early stop."""
    result = measure(model, rows, cfg.batch_tokens, dtype)
    values = [facts["auroc"] for facts in result.values() if facts["auroc"] is not None]
    mean = sum(values) / len(values) if values else None
    if mean is not None and (progress.best_value is None or mean > progress.best_value):
        for old in best.glob("step-*"):
            if old.name != f"step-{progress.best_step}":
                shutil.rmtree(old)
        progress.best_step, progress.best_value = progress.step, mean
        save_weights(best / f"step-{progress.step}" / WEIGHTS, dict(model.named_parameters()))
    since = progress.step - (progress.best_step or 0)
    progress.finished = since >= cfg.patience_steps
    runs.say(
        f"step {progress.step}: validation AUROC "
        + ", ".join(f"{task} {facts['auroc']:.3f}" for task, facts in result.items() if facts["auroc"] is not None)
    )
    return result


def measure(model: Any, rows: Rows, batch_tokens: int, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """By task: AUROC (micro for more than two options), loss and number of rows. A class that is absent: null."""
    model.eval()
    logits: dict[int, list[Any]] = {index: [] for index in range(len(rows.tasks))}
    labels: dict[int, list[int]] = {index: [] for index in range(len(rows.tasks))}
    for batch in make_batches(rows, rows.packs, batch_tokens):
        with torch.no_grad(), torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = option_logits(model, batch, rows.tasks)
        for index, row, label in zip(batch.tasks, found, batch.labels.tolist(), strict=True):
            logits[index].append(row)
            labels[index].append(label)
    result: dict[str, dict[str, Any]] = {}
    for index, task in enumerate(rows.tasks):
        logits_NK = torch.stack(logits[index])[:, : len(task.option_ids)].double()
        truth = np.array(labels[index], dtype=np.int64)
        p_NK = logits_NK.softmax(-1).numpy()
        value = auroc(truth == 1, p_NK[:, 1]) if p_NK.shape[1] == 2 else micro_auroc(truth, p_NK)
        loss = functional.cross_entropy(logits_NK, torch.from_numpy(truth)).item()
        result[task.task] = {"auroc": value, "loss": loss, "rows": len(truth)}
    return result


def _finish(
    stage: runs.Stage,
    cfg: FinetuneConfig,
    net: Any,
    source: Path,
    data: Data,
    progress: Progress,
    facts: dict[str, Any],
    skipped: dict[str, str],
    best: Path,
    dtype: torch.dtype,
) -> None:
    from safetensors.torch import load_file

    if progress.best_step is not None:
        load_weights(net, load_file(best / f"step-{progress.best_step}" / WEIGHTS))
    facts = facts | {
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_value": progress.best_value,
        "rows_seen": progress.counts,
        "skipped": skipped,
        "row_weights": {t.task: round(w, 6) for t, w in zip(data.train.tasks, data.weights, strict=True)},
        "max_note_tokens": cfg.max_note_tokens,
    }
    export_model(net, source, stage.out, facts)
    earlier = source / "seen.parquet" if cfg.init == "pretrained" else None
    write_seen(stage.out / "seen.parquet", data.train.hashes, earlier)
    speeds = [row["tokens_per_second"] for row in runs.read_lines(stage.out / "speed.jsonl")]
    stage.count(steps=progress.step, tokens=progress.tokens, **progress.counts)
    stage.record(
        skipped=skipped,
        best_step=progress.best_step,
        best_value=progress.best_value,
        tokens_per_second=round(float(np.median(speeds)), 1),
        threads=torch.get_num_threads(),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        epochs=round(progress.step * sum(g.per_step for g in data.groups) / len(data.train.packs), 4),
    )


def write_seen(path: Path, hashes: list[tuple[str, str]], earlier: Path | None) -> None:
    """The training rows, and those of the finetuning that the model began from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {(note, hash_id(patient)) for note, patient in hashes}
    if earlier is not None and earlier.exists():
        before = pq.read_table(earlier, columns=["note_hash", "patient_hash"])
        known |= set(zip(before["note_hash"].to_pylist(), before["patient_hash"].to_pylist(), strict=True))
    rows = sorted(known)
    schema = pa.schema(
        [pa.field("note_hash", pa.string(), nullable=False), pa.field("patient_hash", pa.string(), nullable=False)]
    )
    runs.write_table(path, pa.Table.from_pylist([{"note_hash": n, "patient_hash": p} for n, p in rows], schema))
