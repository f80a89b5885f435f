"""Finetuning of an encoder on one task or several: a classifier on [CLS] (NYUTron). `lang1 finetune` with an encoder.

The same rows, draws, balance, even mix, optimizer, validation and early stop as a decoder's (finetuning.py, asked.py):
what differs is that the model reads the note alone, without a question, and that each task has a head of its own. The
heads are one linear map behind each other, so the folder is a plain `BertForSequenceClassification`; `heads` in
lang1.json gives the outputs of each task. A note that several tasks ask about runs through the model once.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig
from lang1.errors import ConfigError
from lang1.metrics.ranking import auroc, micro_auroc
from lang1.models.encoder import (
    SpecialIds,
    draw_head,
    load_classifier,
    positions_of,
    special_ids,
    switch_dropout_off,
)
from lang1.models.export import WEIGHTS, export_model, load_weights
from lang1.models.fast import use_fast_attention
from lang1.models.load import load_config, load_tokenizer
from lang1.models.origin import NO_PRETRAINING, read_pretraining
from lang1.scoring.encoder import EncodedNote, batch_by_length, class_logits, encode_notes
from lang1.tasks import prompts
from lang1.training.asked import AskedTask, Group, Pack, Rows, balance_factors, make_groups, read_rows
from lang1.training.checkpoint import Checkpoints, Retention, save_weights
from lang1.training.distributed import World
from lang1.training.feeding import Fetched
from lang1.training.finetuning import usable_tasks, write_seen
from lang1.training.loop import LoopConfig, Objective, Progress, resume, train
from lang1.training.numerics import prepare_torch
from lang1.training.optimizer import make_optimizer

Heads = dict[str, tuple[int, int]]
"""first and end output of each task"""


@dataclass
class Notes:
    """The notes of some rows in tokens, encoded when first needed and kept."""

    rows: Rows
    special: SpecialIds
    room: int
    positions: int
    _encoded: dict[int, EncodedNote]

    def of(self, packs: Sequence[Pack]) -> list[list[int]]:
        """Tokens of the packs' notes."""
        missing = sorted({pack.note for pack in packs} - self._encoded.keys())
        texts = [self.rows.texts[i] for i in missing]
        found = encode_notes(self.rows.tokenizer, texts, self.special, self.room, self.positions)
        self._encoded.update(zip(missing, found, strict=True))
        return [self._encoded[pack.note].ids for pack in packs]


@dataclass(frozen=True)
class Batch:
    """Notes of like length, and what is asked of each."""

    ids: list[list[int]]
    asked: list[tuple[int, int, int]]
    """(place in the batch, index of the task, label)"""


@dataclass(frozen=True)
class Data:
    """Training and validation rows of the tasks that have any."""

    train: Notes
    val: Notes
    groups: list[Group]
    weights: list[float]
    """loss weight of a row of each task, which makes the mix even"""
    heads: Heads


def finetune(
    cfg: FinetuneConfig, *, tasks: Path, model: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Finetune the encoder folder `model` on the task sets `tasks`; returns the manifest.

    With `init: random` only configuration and tokenizer come from `model`. A task without rows is skipped and named.
    """
    _check(cfg)
    runs.read_manifest(tasks)
    inputs = {"tasks": tasks, "model": model.parent if runs.is_complete(model.parent) else model}

    def work(stage: runs.Stage) -> None:
        dtype = prepare_torch(cfg.threads, cfg.precision)
        names, skipped = usable_tasks(tasks, cfg.tasks)
        questions = prompts.read_questions(tasks)
        heads, first = Heads(), 0
        for name in names:
            heads[name] = first, first + len(questions[name].options)
            first = heads[name][1]
        net = _start(cfg, model, first, seed)
        net.config.id2label = {
            start + k: f"{name}: {option}" for name, (start, _) in heads.items()
            for k, option in enumerate(questions[name].options)
        }  # fmt: skip
        net.config.label2id = {label: index for index, label in net.config.id2label.items()}
        use_fast_attention(net, dtype)
        data = read_data(cfg, tasks, names, heads, model, positions_of(net.config), seed)
        origin = NO_PRETRAINING if cfg.init == "random" else read_pretraining(model)
        facts: dict[str, Any] = {
            "kind": "finetuned",
            "init": cfg.init,
            "tasks": names,
            "heads": {name: list(place) for name, place in heads.items()},
            "balance": cfg.balance,
            "seed": seed,
            "pretraining": origin.as_facts(),
        }
        best = stage.scratch() / "best"
        objective = Objective(
            fetch=lambda step: fetch(cfg, data, seed, step),
            loss=lambda m, batch: head_loss(m, batch, data),
            validate=lambda m, progress: validate(cfg, m, data, progress, best, dtype),
            facts=facts,
        )
        loop = LoopConfig(cfg.max_steps_per_task * len(names), cfg.optimizer, cfg.val_every, cfg.val_every, dtype)
        world = World(0, 1, net.device)
        checkpoints = Checkpoints(stage.scratch() / "checkpoints", stage.scratch(), world, Retention(1))
        optimizer = make_optimizer(net, cfg.optimizer)
        progress = resume(net, optimizer, stage.out, checkpoints, world)
        progress = train(loop, net, optimizer, objective, progress, out=stage.out, checkpoints=checkpoints, world=world)
        _finish(stage, cfg, net, model, data, progress, facts, skipped, best, dtype)

    return runs.run_stage(out, "finetune", configuration.dump(cfg), seed, inputs, work, force)


def _check(cfg: FinetuneConfig) -> None:
    """Raises ConfigError for what a decoder's finetuning can and this cannot."""
    for key, wanted in (("method", "full"), ("activation_checkpointing", False)):
        if getattr(cfg, key) != wanted:
            raise ConfigError(f"finetune.{key}: {getattr(cfg, key)}: an encoder is finetuned with {wanted} only")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("an encoder is finetuned in one process: start lang1 finetune without torchrun")


def _start(cfg: FinetuneConfig, folder: Path, labels: int, seed: int) -> Any:
    """The encoder's body with fresh heads; with `init: random` a fresh body too. No dropout: see models/encoder.py."""
    if cfg.init == "random":
        from transformers import AutoModelForSequenceClassification

        from lang1.models.build import draw_weights

        config = load_config(folder)
        config.num_labels = labels
        switch_dropout_off(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        draw_weights(net, seed)
    else:
        net = load_classifier(folder, labels)
    draw_head(net, seed)
    net.config.problem_type = None
    return net


def read_data(
    cfg: FinetuneConfig, folder: Path, names: list[str], heads: Heads, model: Path, positions: int, seed: int
) -> Data:
    """Rows, draws and balance factors. Raises ConfigError when a batch cannot hold a row of each task."""
    if cfg.batch_size < len(names):
        raise ConfigError(f"finetune.batch_size: {cfg.batch_size} is less than a row of each of {len(names)} tasks")
    tokenizer, special, questions = load_tokenizer(model), special_ids(model), prompts.read_questions(folder)
    asked = [
        AskedTask(name, questions[name], np.zeros(0, np.int64), list(range(end - first)), [0.0] * (end - first))
        for name, (first, end) in heads.items()
    ]
    rows = read_rows(folder, "train", asked, tokenizer, cfg, positions, seed=seed)
    factors = balance_factors(rows, cfg.balance)
    rows = replace(rows, tasks=[replace(task, log_factors=f) for task, f in zip(asked, factors, strict=True)])
    groups, weights = make_groups(rows, cfg.batch_size)
    val = read_rows(folder, "val", asked, tokenizer, cfg, positions, seed=seed)
    train, held = (Notes(part, special, cfg.max_note_tokens, positions, {}) for part in (rows, val))
    return Data(train, held, groups, weights, heads)


def fetch(cfg: FinetuneConfig, data: Data, seed: int, step: int) -> Fetched[Batch]:
    """The micro-batches of a step; a function of seed and step alone."""
    packs = [pack for group in data.groups for pack in group.drawn(seed, step)]
    batches = make_batches(data.train, packs, cfg.batch_tokens)
    rows = Counter(task for batch in batches for _, task, _ in batch.asked)
    divisor = sum(data.weights[task] * count for task, count in rows.items())
    counts = {data.train.rows.tasks[task].task: count for task, count in sorted(rows.items())}
    return Fetched(batches, divisor, sum(len(ids) for batch in batches for ids in batch.ids), counts)


def make_batches(notes: Notes, packs: Sequence[Pack], batch_tokens: int) -> list[Batch]:
    """Packs in batches of like length."""
    ids = notes.of(packs)
    return [
        Batch(
            [ids[i] for i in places],
            [(place, task, label) for place, i in enumerate(places) for task, label in packs[i].asked],
        )
        for places in batch_by_length([len(one) for one in ids], batch_tokens)
    ]


def head_loss(model: Any, batch: Batch, data: Data) -> torch.Tensor:
    """Summed, weighted cross-entropy of the true options; the balance's log factors are added to the logits."""
    logits_BS = class_logits(model, batch.ids, data.train.special.pad).float()
    total = torch.zeros((), device=logits_BS.device)
    for index, task in enumerate(data.train.rows.tasks):
        here = [(place, label) for place, asked, label in batch.asked if asked == index]
        if here:
            places, labels = (torch.tensor(values, device=logits_BS.device) for values in zip(*here, strict=True))
            first, end = data.heads[task.task]
            logits_NK = logits_BS[places, first:end] + torch.tensor(task.log_factors, device=logits_BS.device)
            total = total + data.weights[index] * functional.cross_entropy(logits_NK, labels, reduction="sum")
    return total


def validate(
    cfg: FinetuneConfig, model: Any, data: Data, progress: Progress, best: Path, dtype: torch.dtype
) -> dict[str, Any]:
    """AUROC and loss by task; keeps the weights when the mean AUROC is the best so far; decides the early stop."""
    result = measure(model, data, cfg.batch_tokens, dtype)
    values = [facts["auroc"] for facts in result.values() if facts["auroc"] is not None]
    mean = sum(values) / len(values) if values else None
    if mean is not None and (progress.best_value is None or mean > progress.best_value):
        for old in best.glob("step-*"):
            if old.name != f"step-{progress.best_step}":
                shutil.rmtree(old)
        progress.best_step, progress.best_value = progress.step, mean
        save_weights(best / f"step-{progress.step}" / WEIGHTS, dict(model.named_parameters()))
    progress.finished = progress.step - (progress.best_step or 0) >= cfg.patience_steps
    known = (f"{task} {facts['auroc']:.3f}" for task, facts in result.items() if facts["auroc"] is not None)
    runs.say(f"step {progress.step}: validation AUROC " + ", ".join(known))
    return result


def measure(model: Any, data: Data, batch_tokens: int, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """By task: AUROC (micro for more than two options), loss and number of rows. A class that is absent: null."""
    model.eval()
    rows = data.val.rows
    logits: list[list[Any]] = [[] for _ in rows.tasks]
    labels: list[list[int]] = [[] for _ in rows.tasks]
    for batch in make_batches(data.val, rows.packs, batch_tokens):
        with torch.no_grad(), torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            found_BS = class_logits(model, batch.ids, data.val.special.pad).double().cpu()
        for place, index, label in batch.asked:
            first, end = data.heads[rows.tasks[index].task]
            logits[index].append(found_BS[place, first:end])
            labels[index].append(label)
    result: dict[str, dict[str, Any]] = {}
    for task, found, truths in zip(rows.tasks, logits, labels, strict=True):
        logits_NK, truth = torch.stack(found), np.array(truths, dtype=np.int64)
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
    rows = data.train.rows
    facts = facts | {
        "steps": progress.step,
        "best_step": progress.best_step,
        "best_value": progress.best_value,
        "rows_seen": progress.counts,
        "skipped": skipped,
        "row_weights": {task.task: round(w, 6) for task, w in zip(rows.tasks, data.weights, strict=True)},
        "max_note_tokens": min(cfg.max_note_tokens, data.train.positions - 2),
    }
    export_model(net, source, stage.out, facts)
    earlier = source / "seen.parquet"
    write_seen(
        stage.out / "seen.parquet", rows.hashes, earlier if cfg.init == "pretrained" and earlier.exists() else None
    )
    speeds = [row["tokens_per_second"] for row in runs.read_lines(stage.out / "speed.jsonl")]
    stage.count(steps=progress.step, tokens=progress.tokens, **progress.counts)
    stage.record(
        skipped=skipped,
        best_step=progress.best_step,
        best_value=progress.best_value,
        tokens_per_second=round(float(np.median(speeds)), 1),
        threads=torch.get_num_threads(),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        epochs=round(progress.step * sum(g.per_step for g in data.groups) / len(rows.packs), 4),
    )
