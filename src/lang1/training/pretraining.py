"""Next-token pretraining on a weighted mix of sources (5.3): `lang1 pretrain`.

Blocks of consecutive tokens are drawn by the mixture of batches.py; attention runs across the documents of a block,
as in the paper's recipe, unless `document_mask` ends it at each. The folder holds the newest resumable checkpoints,
curve.jsonl, speed.jsonl, the tokenizer and `export/`, the Hugging Face folder of the final weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lang1 import config as configuration
from lang1 import runs
from lang1.config import PretrainConfig
from lang1.corpus.shards import SHARD_FILES, open_shards
from lang1.errors import InputError
from lang1.models.build import build_model, parameter_count
from lang1.models.export import copy_tokenizer, export_model
from lang1.models.fast import use_fast_attention
from lang1.models.origin import pretrained_on
from lang1.models.presets import PRESETS
from lang1.training.batches import Mixture, make_mixture
from lang1.training.documents import document_inputs
from lang1.training.loop import Fetched, LoopConfig, Objective, Progress, prepare_torch, train
from lang1.training.loss import chunked_cross_entropy
from lang1.training.optimizer import make_optimizer


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

    def work(stage: runs.Stage) -> None:
        dtype = prepare_torch(cfg.threads, cfg.precision)
        shards = open_shards(tokens)
        length = cfg.context_length or PRESETS[cfg.preset].context_length
        corpus = open_corpus(cfg, shards, length, seed)
        model = build_model(cfg.preset, shards.vocab_size, seed, length, shards.bos_id, shards.eos_id)
        use_fast_attention(model, dtype)
        copy_tokenizer(tokens / "tokenizer", stage.out / "tokenizer")
        facts = _facts(cfg, model, corpus, length, seed)
        facts |= {"kind": "pretrained", "pretraining": pretrained_on(tokens, tuple(corpus.weights)).as_facts()}
        separator = shards.separator_id if cfg.document_mask else None
        objective = Objective(
            fetch=lambda step: fetch(cfg, corpus, step),
            loss=lambda m, batch: next_token_loss(m, batch, dtype, separator),
            validate=lambda m, _progress: validate(cfg, m, corpus, dtype, separator),
            facts=facts,
        )
        loop = LoopConfig(cfg.steps, cfg.optimizer, cfg.val_every, cfg.checkpoint_every, cfg.keep_checkpoints, dtype)
        progress = train(
            loop,
            model,
            make_optimizer(model, cfg.optimizer),
            objective,
            out=stage.out,
            checkpoints=stage.out,
            scratch=stage.scratch(),
        )
        export_model(
            model,
            tokens / "tokenizer",
            stage.out / "export",
            facts | {"steps": progress.step, "tokens": progress.tokens},
        )
        _report(stage, cfg, corpus, progress, length, dtype)

    settings = configuration.dump(cfg)
    return runs.run_stage(out, "pretrain", settings, seed, {"tokens": tokens}, work, force, {"tokens": SHARD_FILES})


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
        runs.say(f"pretrain.mix: {', '.join(dropped)} has no tokens here; the other weights are rescaled")
    total = sum(usable.values())
    return Corpus(
        mixture=make_mixture(seed, usable, {name: len(train_blocks[name]) for name in usable}),
        train={name: train_blocks[name] for name in usable},
        val={name: shards.blocks(name, "val", length) for name in usable},
        weights={name: weight / total for name, weight in usable.items()},
        dropped=dropped,
    )


def fetch(cfg: PretrainConfig, corpus: Corpus, step: int) -> Fetched[torch.Tensor]:
    """The micro-batches (B, T + 1) of a step; a function of seed and step alone."""
    first = step * cfg.global_batch
    places = [corpus.mixture.locate(sample) for sample in range(first, first + cfg.global_batch)]
    blocks = np.stack([np.asarray(corpus.train[name][block], dtype=np.int64) for name, block in places])
    per_block = blocks.shape[1] - 1
    counts = {name: per_block * sum(1 for source, _ in places if source == name) for name in corpus.train}
    return Fetched(
        list(torch.from_numpy(blocks).split(cfg.micro_batch)),
        blocks.shape[0] * per_block,
        blocks.shape[0] * per_block,
        counts,
    )


def next_token_loss(
    model: Any, tokens_BT: torch.Tensor, dtype: torch.dtype, separator: int | None = None
) -> torch.Tensor:
    """Summed cross-entropy of each token after the first, given those before it.

    With a separator: given those of its own document alone (documents.py).
    """
    inputs, targets = tokens_BT[:, :-1], tokens_BT[:, 1:]
    told = {"input_ids": inputs} if separator is None else document_inputs(model, inputs, separator)
    hidden_BTH = model.base_model(**told, use_cache=False).last_hidden_state
    return chunked_cross_entropy(
        hidden_BTH.flatten(0, 1), model.get_output_embeddings().weight, targets.flatten(), dtype
    )


def validate(
    cfg: PretrainConfig, model: Any, corpus: Corpus, dtype: torch.dtype, separator: int | None = None
) -> dict[str, Any]:
    """Loss and perplexity a source on its first validation blocks; null where it has none."""
    model.eval()
    result: dict[str, Any] = {}
    for name, blocks in corpus.val.items():
        wanted = min(len(blocks), cfg.val_batches * cfg.micro_batch)
        total, targets = 0.0, 0
        for start in range(0, wanted, cfg.micro_batch):
            rows = [np.asarray(blocks[i], dtype=np.int64) for i in range(start, min(start + cfg.micro_batch, wanted))]
            batch = torch.from_numpy(np.stack(rows))
            with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
                total += next_token_loss(model, batch, dtype, separator).item()
            targets += batch[:, 1:].numel()
        loss = total / targets if targets else None
        result[name] = {"loss": loss, "perplexity": math.exp(loss) if loss is not None else None, "tokens": targets}
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
    stage: runs.Stage, cfg: PretrainConfig, corpus: Corpus, progress: Progress, length: int, dtype: torch.dtype
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
    )
    if cfg.steps and not any((last.get("val") or {}).get(name, {}).get("tokens") for name in held):
        runs.say("pretrain: no validation block; raise tokenize.validation_fraction to see a validation loss")
