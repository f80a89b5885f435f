"""Masked language modelling (BERT): what an encoder learns from the same blocks as the decoders.

A sequence is [CLS] block [SEP]; documents in a block are set apart by [SEP]. Of its tokens a share is asked for
(0.15): 80 % of these are replaced by the mask, 10 % by another token, 10 % are left as they are. As many in each
sequence, not one by one by chance: then all ranks know how many targets a step has. Which ones is a function of seed
and number of the sample, so the masks of a block change from epoch to epoch, a resumed run has those of one that was
not stopped, and nothing is stored. Validation blocks keep their masks through the whole run.

Left out, as in NYUTron: the prediction of the next sentence. Logits are made at the targets only, in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lang1.models.encoder import SpecialIds
from lang1.training.feeding import Fetched
from lang1.training.loss import CHUNK_LOGITS, IGNORE_INDEX
from lang1.training.next_token import ENTRY, with_targets

Ids = npt.NDArray[np.int64]
MASKED, OTHER = 0.8, 0.9
"""below the first number a target is masked, below the second another token, else left"""
_TRAIN, _VALIDATION = 0x6D61736B, 0x76616C  # "mask", "val"


@dataclass(frozen=True)
class Masking:
    """What is asked of a sequence."""

    ids: SpecialIds
    separator: int
    """the token between documents, which is never asked for"""
    share: float
    seed: int

    @cached_property
    def ordinary(self) -> Ids:
        """The tokens that a target may be replaced by."""
        special = [self.ids.cls, self.ids.sep, self.ids.pad, self.ids.mask, self.separator]
        return np.setdiff1d(np.arange(self.ids.entries), special)

    def targets(self, length: int) -> int:
        """Targets of a block of `length` tokens."""
        return max(1, round(self.share * length))

    def apply(self, block: Ids, sample: int, purpose: int = _TRAIN) -> Ids:
        """Inputs and targets (2, T + 2) of a block (T,): a function of seed, sample and block."""
        key = np.array([(self.seed ^ purpose << 32) & (2**64 - 1), sample], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        wanted = self.targets(len(block))
        places = np.flatnonzero(block != self.separator)
        if len(places) < wanted:  # a block of separators: as many targets all the same
            places = np.arange(len(block))
        chosen = np.sort(random.choice(places, wanted, replace=False))
        fate = random.random(wanted)
        replaced = np.where(fate < MASKED, self.ids.mask, random.choice(self.ordinary, wanted))
        inputs = np.concatenate([[self.ids.cls], block, [self.ids.sep]])
        targets = np.full(len(inputs), IGNORE_INDEX, dtype=np.int64)
        targets[chosen + 1] = block[chosen]
        inputs[chosen + 1] = np.where(fate < OTHER, replaced, block[chosen])
        return np.stack([inputs, targets])


def with_masks(
    fetched: Fetched[torch.Tensor], masking: Masking | None, rank: int = 0, ranks: int = 1
) -> Fetched[torch.Tensor]:
    """A rank's data of a step with masks (B, 2, T + 2); as it is where `masking` is None."""
    if masking is None:
        return fetched
    first, last = fetched.samples
    sample, batches = first + rank, []
    for blocks_BT in fetched.micro_batches:
        rows = []
        for block in blocks_BT[:, :-1].numpy():
            rows.append(masking.apply(block, sample))
            sample += ranks
        batches.append(torch.from_numpy(np.stack(rows)))
    length = fetched.micro_batches[0].shape[1] - 1
    divisor = (last - first) * masking.targets(length)
    return Fetched(batches, divisor, fetched.tokens, fetched.counts, fetched.samples)


def preparing(masking: Masking | None) -> Callable[[torch.Tensor, Sequence[int]], tuple[torch.Tensor, int]]:
    """What a validation makes of its blocks (next_token.validate): with masks, the same in every validation."""
    if masking is None:
        return with_targets

    def prepare(blocks_BT: torch.Tensor, numbers: Sequence[int]) -> tuple[torch.Tensor, int]:
        blocks = blocks_BT[:, :-1].numpy()
        rows = [masking.apply(block, number, _VALIDATION) for block, number in zip(blocks, numbers, strict=True)]
        return torch.from_numpy(np.stack(rows)), len(rows) * masking.targets(blocks.shape[1])

    return prepare


def attach_loss(model: Any) -> None:
    """Give a masked LM the method ENTRY: batches (B, 2, T) of inputs and targets to their summed loss."""
    setattr(model, ENTRY, MethodType(masked_loss, model))


def masked_loss(model: Any, batch_B2T: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy of the targets; logits (chunk, V) are made again in the backward, never all at once."""
    inputs, targets = batch_B2T[:, 0], batch_B2T[:, 1]
    hidden_BTH = model.base_model(input_ids=inputs).last_hidden_state
    asked = targets != IGNORE_INDEX
    hidden_NH, targets_N = hidden_BTH[asked], targets[asked]
    chunk = max(1, CHUNK_LOGITS // model.config.vocab_size)
    parts = list(zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        losses = [_loss_of(model, *part) for part in parts]
    else:
        losses = [checkpoint(_loss_of, model, *part, use_reentrant=False) for part in parts]
    return torch.stack(losses).sum()


def _loss_of(model: Any, hidden_NH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model.cls(hidden_NH).float(), targets_N, reduction="sum")
