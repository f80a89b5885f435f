"""Next-token pretraining on a weighted mix of sources (5.3): `lang1 pretrain`.

Blocks of consecutive tokens are drawn by the mixture of batches.py; attention runs across the documents of a block,
as in the paper's recipe. The folder holds the newest resumable checkpoints, curve.jsonl, speed.jsonl, the tokenizer
and `export/`, the Hugging Face folder of the final weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch

from lang1 import config as configuration
from lang1 import runs
from lang1.config import PretrainConfig
from lang1.corpus.shards import open_shards
from lang1.errors import ConfigError, InputError
from lang1.models.build import build_model, parameter_count
from lang1.models.export import copy_tokenizer, export_model, read_checkpoint
from lang1.models.fast import use_fast_attention
from lang1.models.load import load_tokenizer
from lang1.models.origin import pretrained_on
from lang1.models.presets import PRESETS
from lang1.training.batches import Mixture, make_mixture
from lang1.training.checkpoint import Checkpoints, Retention, latest_checkpoint
from lang1.training.distributed import World, joined, run_stage, shard
from lang1.training.feeding import Fetched
from lang1.training.loop import LoopConfig, Objective, Progress, resume, train
from lang1.training.monitor import Monitor, open_monitor
from lang1.training.loss import chunked_cross_entropy
from lang1.training.numerics import prepare_torch
from lang1.training.optimizer import make_optimizer

ENTRY = "lang1_loss"
"""the method of a model that a step calls: FSDP puts sharded weights together around it, as around `forward`"""
HOW = {"sharding", "activation_checkpointing", "compile", "micro_batch", "threads", "checkpoint_every",
       "keep_checkpoints", "keep_every", "monitor"}  # fmt: skip
"""settings that change how a run is computed and kept, not what it computes: they may change when it goes on"""


@dataclass(frozen=True)
class Corpus:
    """The training and validation blocks of the sources in the mix, memory-mapped."""

    mixture: Mixture
    train: dict[str, Any]
    val: dict[str, Any]
    weights: dict[str, float]
    """of the sources that are there, rescaled to 1"""
    dropped: list[str]
    """sources of the mix that the tokens folder lacks"""


def pretrain(cfg: PretrainConfig, *, tokens: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Pretrain a model on `tokens`; returns the manifest. Interrupted, the same command goes on from a checkpoint."""
    runs.read_manifest(tokens)
    with joined() as world:
        return run_stage(
            world,
            out,
            "pretrain",
            {key: value for key, value in configuration.dump(cfg).items() if key not in HOW},
            seed,
            {"tokens": tokens},
            lambda stage: _work(cfg, tokens, stage, seed, world),
            force,
        )


def _work(cfg: PretrainConfig, tokens: Path, stage: runs.Stage, seed: int, world: World) -> None:
    dtype = prepare_torch(cfg.threads, cfg.precision)
    shards = open_shards(tokens)
    length = cfg.context_length or PRESETS[cfg.preset].context_length
    corpus = open_corpus(cfg, shards, length, seed)
    _refuse_other_ranks(cfg, world)
    model = build_model(cfg.preset, shards.vocab_size, seed, length, shards.bos_id, shards.eos_id)
    use_fast_attention(model, dtype)
    facts = _facts(cfg, model, corpus, length, seed)
    facts |= {"kind": "pretrained", "pretraining": pretrained_on(tokens, tuple(corpus.weights)).as_facts()}
    if cfg.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    setattr(model, ENTRY, MethodType(next_token_loss, model))
    shard(model, world, cfg.sharding, dtype, ENTRY)
    if world.is_main:
        copy_tokenizer(tokens / "tokenizer", stage.out / "tokenizer")
    full = cfg.sharding == "full" and world.size > 1
    loop = LoopConfig(
        cfg.steps, cfg.optimizer, cfg.val_every, cfg.checkpoint_every, dtype, cfg.monitor.spikes, sharded_weights=full
    )
    retention = Retention(cfg.keep_checkpoints, cfg.keep_every)
    checkpoints = Checkpoints(stage.out, stage.scratch(), world, retention)
    optimizer = make_optimizer(model, cfg.optimizer)
    progress = resume(model, optimizer, stage.out, checkpoints, world)
    with open_monitor(
        cfg.monitor,
        stage.out,
        tokenizer=load_tokenizer(tokens / "tokenizer"),
        context_length=length,
        seed=seed,
        rank=world.rank,
        step=progress.step,
    ) as monitor:
        objective = Objective(
            fetch=lambda step: fetch(cfg, corpus, step, world.rank, world.size),
            loss=lambda m, batch: getattr(m, ENTRY)(batch.to(world.device), dtype),
            validate=lambda m, progress: select(cfg, corpus, progress, validate(cfg, m, corpus, dtype, world)),
            facts=facts,
            stepped=monitor.step,
            event=monitor.event,
            observe=lambda m, step: _observe(monitor, m, step, dtype, world),
        )
        progress = train(
            loop, model, optimizer, objective, progress, out=stage.out, checkpoints=checkpoints, world=world
        )
    if world.is_main:
        last = latest_checkpoint(stage.out)
        assert last is not None  # train saved it
        done = facts | {"steps": progress.step, "tokens": progress.tokens}
        export_model(read_checkpoint(last), tokens / "tokenizer", stage.out / "export", done)
        _report(stage, cfg, corpus, progress, length, dtype, world)


def _observe(monitor: Monitor, model: Any, step: int, dtype: torch.dtype, world: World) -> None:
    if monitor.is_due(step):
        mixed = dtype != torch.float32 and world.size == 1
        with torch.no_grad(), torch.autocast(world.device.type, dtype=dtype, enabled=mixed):
            monitor.observe(model, step)


def _refuse_other_ranks(cfg: PretrainConfig, world: World) -> None:
    if cfg.global_batch % (cfg.micro_batch * world.size):
        raise ConfigError(
            f"pretrain.global_batch: {cfg.global_batch} is no multiple of micro_batch ({cfg.micro_batch}) times "
            f"{world.size} processes"
        )


def open_corpus(cfg: PretrainConfig, shards: Any, length: int, seed: int) -> Corpus:
    """The blocks of every source of the mix that the tokens folder has; the rest is dropped, said once."""
    found = set(shards.sources())
    train_blocks = {name: shards.blocks(name, "train", length) for name in cfg.mix if name in found}
    usable = {
        name: weight
        for name, weight in cfg.mix.items()
        if weight > 0 and name in train_blocks and len(train_blocks[name]) > 0
    }
    dropped = sorted(name for name, weight in cfg.mix.items() if weight > 0 and name not in usable)
    if not usable:
        raise InputError(
            f"no source of pretrain.mix ({', '.join(cfg.mix)}) has a block of {length + 1} tokens; "
            f"the tokens folder has {', '.join(sorted(found)) or 'none'}"
        )
    if dropped:
        runs.say(
            f"pretrain.mix: {', '.join(dropped)} has no tokens here; the other weights are rescaled (the tokens folder "
            f"has {', '.join(sorted(found))})"
        )
    total = sum(usable.values())
    return Corpus(
        mixture=make_mixture(seed, usable, {name: len(train_blocks[name]) for name in usable}),
        train={name: train_blocks[name] for name in usable},
        val={name: shards.blocks(name, "val", length) for name in usable},
        weights={name: weight / total for name, weight in usable.items()},
        dropped=dropped,
    )


def fetch(cfg: PretrainConfig, corpus: Corpus, step: int, rank: int = 0, ranks: int = 1) -> Fetched[torch.Tensor]:
    """A rank's micro-batches (B, T + 1) of a step; the step's samples are a function of seed and step alone."""
    first = step * cfg.global_batch
    places = [corpus.mixture.locate(sample) for sample in range(first, first + cfg.global_batch)]
    mine = places[rank::ranks]
    blocks = np.stack([np.asarray(corpus.train[name][block], dtype=np.int64) for name, block in mine])
    per_block = blocks.shape[1] - 1
    counts = {name: per_block * sum(1 for source, _ in places if source == name) for name in corpus.train}
    return Fetched(
        list(torch.from_numpy(blocks).split(cfg.micro_batch)),
        len(places) * per_block,
        len(places) * per_block,
        counts,
        (first, first + cfg.global_batch),
    )


def next_token_loss(model: Any, tokens_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Summed cross-entropy of each token after the first, given those before it."""
    inputs, targets = tokens_BT[:, :-1], tokens_BT[:, 1:]
    hidden_BTH = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    return chunked_cross_entropy(
        hidden_BTH.flatten(0, 1), model.get_output_embeddings().weight, targets.flatten(), dtype
    )


def validate(
    cfg: PretrainConfig, model: Any, corpus: Corpus, dtype: torch.dtype, world: World
) -> dict[str, dict[str, Any]]:
    """Loss and perplexity a source on its first validation blocks; null where it has none.

    Ranks take turns at the micro-batches. All make the same number of forwards, as sharded weights must be put together
    by all: a rank without a micro-batch of its own runs the first one, and does not count it.
    """
    model.eval()
    result: dict[str, Any] = {}
    mixed = dtype != torch.float32 and world.size == 1
    for name, blocks in corpus.val.items():
        wanted = min(len(blocks), cfg.val_batches * cfg.micro_batch)
        starts = list(range(0, wanted, cfg.micro_batch))
        total, targets = 0.0, 0.0
        for turn in range(0, len(starts), world.size):
            counted = turn + world.rank < len(starts)
            start = starts[turn + world.rank] if counted else 0
            rows = [np.asarray(blocks[i], dtype=np.int64) for i in range(start, min(start + cfg.micro_batch, wanted))]
            batch = torch.from_numpy(np.stack(rows)).to(world.device)
            with torch.autocast(world.device.type, dtype=dtype, enabled=mixed):
                loss = getattr(model, ENTRY)(batch, dtype).item()
            if counted:
                total += loss
                targets += batch[:, 1:].numel()
        total, targets = world.sum([total, targets])
        mean = total / targets if targets else None
        perplexity = math.exp(mean) if mean is not None and mean < 700 else None
        result[name] = {"loss": mean, "perplexity": perplexity, "tokens": int(targets)}
    return result


def select(
    cfg: PretrainConfig, corpus: Corpus, progress: Progress, result: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Take the step as the best when its validation loss, weighed as the sources are, is the lowest so far; decide the
    early stop."""
    losses = {name: found["loss"] for name, found in result.items() if found["loss"] is not None}
    if losses:
        weight = sum(corpus.weights[name] for name in losses)
        value = sum(corpus.weights[name] * loss for name, loss in losses.items()) / weight
        if math.isfinite(value) and (progress.best_value is None or value < progress.best_value):
            progress.best_step, progress.best_value = progress.step, value
        since = (progress.step - (progress.best_step or 0)) // cfg.val_every
        progress.finished = cfg.patience > 0 and since >= cfg.patience
        if progress.finished:
            runs.say(
                f"step {progress.step}: no lower validation loss in {since} validations; best: {progress.best_step}"
            )
    return result


def _facts(cfg: PretrainConfig, model: Any, corpus: Corpus, length: int, seed: int) -> dict[str, Any]:
    return {
        "preset": cfg.preset,
        "shape": PRESETS[cfg.preset].source,
        "parameters": f"{parameter_count(model):,}",
        "sources": {name: round(weight, 6) for name, weight in corpus.weights.items()},
        "context": length,
        "seed": seed,
        "global_batch": cfg.global_batch,
        "optimizer": configuration.dump(cfg.optimizer),
    }


def _report(
    stage: runs.Stage,
    cfg: PretrainConfig,
    corpus: Corpus,
    progress: Progress,
    length: int,
    dtype: torch.dtype,
    world: World,
) -> None:
    held = {name: len(blocks) * length for name, blocks in corpus.train.items()}
    last = runs.read_lines(stage.out / "curve.jsonl")[-1]
    speeds = [row["tokens_per_second"] for row in runs.read_lines(stage.out / "speed.jsonl")]
    stage.count(steps=progress.step, tokens=progress.tokens)
    stage.record(
        weights=corpus.weights,
        dropped_sources=corpus.dropped,
        tokens_by_source=progress.counts,
        epochs_by_source={name: round(progress.counts.get(name, 0) / held[name], 4) for name in held},
        loss=last["loss"],
        val=last.get("val"),
        tokens_per_second=round(float(np.median(speeds)), 1),
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        threads=torch.get_num_threads(),
        processes=world.size,
        how={key: value for key, value in configuration.dump(cfg).items() if key in HOW},
        best_step=progress.best_step,
        best_value=progress.best_value,
        stopped_early=progress.finished,
        skipped_batches=progress.skipped,
        rollbacks=progress.rollbacks,
    )
    if cfg.steps and not any((last.get("val") or {}).get(name, {}).get("tokens") for name in held):
        runs.say("pretrain: no validation block; raise tokenize.validation_fraction to see a validation loss")
