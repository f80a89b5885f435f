"""The loss of next-token prediction, measured on training and validation blocks, and what a validation decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lang1 import runs
from lang1.config import PretrainConfig
from lang1.training.blocks import Corpus
from lang1.training.distributed import World
from lang1.training.documents import document_inputs
from lang1.training.loop import Progress
from lang1.training.loss import chunked_cross_entropy

ENTRY = "lang1_loss"
"""the method of a model that a step calls: FSDP puts sharded weights together around it, as around `forward`"""


def attach_loss(model: Any, dtype: torch.dtype, is_linear_head: bool, separator: int | None) -> None:
    """Give `model` the method ENTRY: token blocks (B, T + 1) to their summed loss."""

    def entry(self: Any, tokens_BT: torch.Tensor) -> torch.Tensor:
        return next_token_loss(self, tokens_BT, dtype, is_linear_head, separator)

    setattr(model, ENTRY, MethodType(entry, model))


def next_token_loss(
    model: Any,
    tokens_BT: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    is_linear_head: bool = True,
    separator: int | None = None,
) -> torch.Tensor:
    """Summed cross-entropy of each token after the first, given those before it; of whole logits (B, T, V) where the
    head is more than one product (models/head.py). With a separator: given those of its own document alone
    (documents.py)."""
    inputs, targets = tokens_BT[:, :-1], tokens_BT[:, 1:]
    told = {"input_ids": inputs} if separator is None else document_inputs(model, inputs, separator)
    if not is_linear_head:
        logits_BTV = model(**told, use_cache=False).logits
        return functional.cross_entropy(logits_BTV.float().flatten(0, -2), targets.flatten(), reduction="sum")
    hidden_BTH = model.base_model(**told, use_cache=False).last_hidden_state
    return chunked_cross_entropy(
        hidden_BTH.flatten(0, 1), model.get_output_embeddings().weight, targets.flatten(), dtype
    )


def with_targets(blocks_BT: torch.Tensor, numbers: Sequence[int]) -> tuple[torch.Tensor, int]:
    """What ENTRY takes of blocks, and how many targets are in it; `numbers` are the blocks' own, of no use here."""
    return blocks_BT, blocks_BT[:, 1:].numel()


def validate(
    cfg: PretrainConfig,
    model: Any,
    corpus: Corpus,
    dtype: torch.dtype,
    world: World,
    prepare: Callable[[torch.Tensor, Sequence[int]], tuple[torch.Tensor, int]] = with_targets,
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
            numbers = range(start, min(start + cfg.micro_batch, wanted))
            rows = [np.asarray(blocks[i], dtype=np.int64) for i in numbers]
            batch, asked = prepare(torch.from_numpy(np.stack(rows)), numbers)
            batch = batch.to(world.device)
            with torch.autocast(world.device.type, dtype=dtype, enabled=mixed):
                loss = getattr(model, ENTRY)(batch).item()
            if counted:
                total += loss
                targets += asked
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
