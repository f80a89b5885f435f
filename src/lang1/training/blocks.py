"""The blocks of a tokens folder that a run learns from, and those of each step: a function of seed and step alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lang1 import runs
from lang1.config import PretrainConfig
from lang1.errors import InputError
from lang1.training.batches import Mixture, make_mixture
from lang1.training.feeding import Fetched


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
