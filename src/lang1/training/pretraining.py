"""Next-token pretraining on a weighted mix of sources (5.3): `lang1 pretrain`.

Blocks of consecutive tokens are drawn by the mixture of batches.py; attention runs across the documents of a block, as
in the paper's recipe, unless `document_mask` stops it. An encoder's preset learns masked tokens of the same blocks
(masked.py). The folder holds the newest resumable checkpoints, curve.jsonl, speed.jsonl, the tokenizer and `export/`,
the Hugging Face folder of the final weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lang1 import config as configuration
from lang1 import runs
from lang1.config import PretrainConfig
from lang1.corpus.shards import SHARD_FILES, open_shards
from lang1.models.build import parameter_count
from lang1.models.encoder import name_special_tokens
from lang1.models.export import TOKENIZER, copy_tokenizer, export_model, read_checkpoint
from lang1.models.fast import compile_model
from lang1.models.load import load_tokenizer
from lang1.training import masked
from lang1.training.blocks import Corpus, fetch, open_corpus
from lang1.training.checkpoint import Checkpoints, Retention, latest_checkpoint
from lang1.training.distributed import World, joined, run_stage, shard
from lang1.training.efficiency import Efficiency, efficiency_of
from lang1.training.loop import LoopConfig, Objective, Progress, resume, train
from lang1.training.monitor import Monitor, open_monitor
from lang1.training.next_token import ENTRY, attach_loss, select, validate
from lang1.training.numerics import prepare_torch
from lang1.training.optimizer import make_optimizer
from lang1.training.starting import Start, origin_of, start_model

HOW = {"sharding", "activation_checkpointing", "compile", "micro_batch", "threads", "checkpoint_every",
       "keep_checkpoints", "keep_every", "monitor"}  # fmt: skip
"""settings that change how a run is computed and kept, not what it computes: they may change when it goes on"""


def pretrain(cfg: PretrainConfig, *, tokens: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Pretrain a model on `tokens`; returns the manifest. Interrupted, the same command goes on from a checkpoint.

    Under torchrun every rank calls it, and ranks other than 0 get an empty manifest.
    """
    runs.read_manifest(tokens)
    inputs: dict[str, Path | str] = {"tokens": tokens}
    if cfg.init_from is not None:
        init = Path(cfg.init_from)
        inputs["init_from"] = init.parent if runs.is_complete(init.parent) else init
    with joined() as world:

        def work(stage: runs.Stage) -> None:
            _work(cfg, tokens, stage, seed, world)

        return run_stage(world, out, "pretrain", _what(cfg), seed, inputs, work, force, {"tokens": SHARD_FILES})


def _what(cfg: PretrainConfig) -> dict[str, Any]:
    """The settings that make a run another run; an input is known by what it holds, since a folder may be moved."""
    resolved = {key: value for key, value in configuration.dump(cfg).items() if key not in HOW}
    return resolved | {"init_from": None if cfg.init_from is None else Path(cfg.init_from).resolve().name}


def _work(cfg: PretrainConfig, tokens: Path, stage: runs.Stage, seed: int, world: World) -> None:
    cfg.accumulation(world.size)  # raises where the processes cannot share a batch
    dtype = prepare_torch(cfg.threads, cfg.precision)
    shards = open_shards(tokens)
    start = start_model(cfg, shards, seed, dtype, world.device)
    model, length = start.model, start.length
    corpus = open_corpus(cfg, shards, start.block, seed)
    facts = _facts(cfg, start, corpus, seed)
    facts |= {"kind": "pretrained", "pretraining": origin_of(cfg, tokens, tuple(corpus.weights)).as_facts()}
    if cfg.activation_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    masking = start.masking
    asked = 1.0 if masking is None else masking.share
    efficiency = efficiency_of(model, length, cfg.activation_checkpointing, world.device, world.size, dtype, asked)
    if masking is None:
        attach_loss(model, dtype, start.is_linear_head, shards.separator_id if cfg.document_mask else None)
    else:
        masked.attach_loss(model)
    if cfg.compile:
        compile_model(model)
    shard(model, world, cfg.sharding, dtype, ENTRY)
    if world.is_main:
        copy_tokenizer(tokens / TOKENIZER, stage.out / TOKENIZER)
        if masking is not None:
            name_special_tokens(stage.out / TOKENIZER, tokens / TOKENIZER)
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
        tokenizer=load_tokenizer(tokens / TOKENIZER),
        context_length=length,
        seed=seed,
        rank=world.rank,
        step=progress.step,
    ) as monitor:
        objective = Objective(
            fetch=lambda step: masked.with_masks(
                fetch(cfg, corpus, step, world.rank, world.size), masking, world.rank, world.size
            ),
            loss=lambda m, batch: getattr(m, ENTRY)(batch.to(world.device)),
            validate=lambda m, progress: select(
                cfg, corpus, progress, validate(cfg, m, corpus, dtype, world, masked.preparing(masking))
            ),
            facts=facts,
            stepped=monitor.step,
            event=monitor.event,
            observe=lambda m, step: _observe(monitor, m, step, dtype, world),
            rewound=monitor.rewind,
            worth=efficiency.words,
        )
        progress = train(
            loop, model, optimizer, objective, progress, out=stage.out, checkpoints=checkpoints, world=world
        )
    if world.is_main:
        last = latest_checkpoint(stage.out)
        assert last is not None  # train saved it
        done = facts | {"steps": progress.step, "tokens": progress.tokens}
        export_model(read_checkpoint(last), stage.out / TOKENIZER, stage.out / "export", done)
        _report(stage, cfg, corpus, progress, dtype, world, efficiency)


def _observe(monitor: Monitor, model: Any, step: int, dtype: torch.dtype, world: World) -> None:
    if monitor.is_due(step):
        mixed = dtype != torch.float32 and world.size == 1
        with torch.no_grad(), torch.autocast(world.device.type, dtype=dtype, enabled=mixed):
            monitor.observe(model, step)


def _facts(cfg: PretrainConfig, start: Start, corpus: Corpus, seed: int) -> dict[str, Any]:
    return start.facts | {
        "parameters": f"{parameter_count(start.model):,}",
        "sources": {name: round(weight, 6) for name, weight in corpus.weights.items()},
        "context": start.length,
        "seed": seed,
        "global_batch": cfg.global_batch,
        "optimizer": configuration.dump(cfg.optimizer),
    }


def _report(
    stage: runs.Stage,
    cfg: PretrainConfig,
    corpus: Corpus,
    progress: Progress,
    dtype: torch.dtype,
    world: World,
    efficiency: Efficiency,
) -> None:
    held = {name: len(blocks) * blocks.context_length for name, blocks in corpus.train.items()}
    last = runs.read_lines(stage.out / "curve.jsonl")[-1]
    speeds = [row["tokens_per_second"] for row in runs.read_lines(stage.out / "speed.jsonl")]
    per_step = progress.tokens / max(1, progress.step)  # real ones: an encoder's rows are padded
    seconds = per_step * sum(1 / rate for rate in speeds if rate)
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
        cost=efficiency.cost(progress.tokens, seconds),
    )
    if cfg.steps and not any((last.get("val") or {}).get(name, {}).get("tokens") for name in held):
        runs.say("pretrain: no validation block; raise tokenize.validation_fraction to see a validation loss")
