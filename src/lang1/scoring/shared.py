"""Prompts that begin alike (few-shot): the keys and values of what they share are computed once.

transformers' own cache holds them, so any causal LM is read as its class computes it, a sliding window included. A
batch is the rest of each prompt, padded on the right; equal to one plain forward a whole prompt to 1e-5
(tests/scoring/test_shared.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

SHARED_PREFIX = 32
"""tokens that all prompts must begin with before they are worth computing apart: shots, not a few words that notes
happen to share"""


class Prefix:
    """The first `length` tokens as `model` has read them; to be used without gradients, in evaluation mode."""

    def __init__(self, model: Any, length: int, cache: Any) -> None:
        self.model, self.length, self.cache = model, length, cache

    def logits(
        self,
        rest: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        pad_id: int,
        positions_BT: Any = None,
        mask_B1TT: Any = None,
    ) -> Any:
        """Logits (B, R, V) at the positions `answers` (B, R), counted in `rest`, of the prompts prefix + `rest`.

        Mask and positions, of `rest` alone and counted from the whole prompt's start, where it is not plain causal:
        all see the prefix.
        """
        import torch

        from lang1.scoring.options import padded, width_multiple

        cache = copy.deepcopy(self.cache)  # a forward adds its own keys to the cache that it is given
        cache.batch_repeat_interleave(len(rest))
        answers_BR = torch.tensor([list(row) for row in answers], device=self.model.device)
        if mask_B1TT is not None:
            before = torch.ones((*mask_B1TT.shape[:-1], self.length), dtype=torch.bool, device=self.model.device)
            mask_B1TT = torch.cat([before, mask_B1TT], dim=-1)
        logits_BRV = self.model(
            input_ids=padded(rest, pad_id, self.model.device, width_multiple(self.model)),
            position_ids=positions_BT,
            attention_mask=mask_B1TT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=answers_BR,
        ).logits
        if logits_BRV.shape[:2] != answers_BR.shape:  # an unknown keyword is swallowed and ignored
            logits_BRV = logits_BRV.gather(1, answers_BR[:, :, None].expand(-1, -1, logits_BRV.shape[-1]))
        return logits_BRV


def read_prefix(model: Any, prompts: Sequence[list[int]]) -> Prefix | None:
    """What all `prompts` begin with, read once; None where it is not worth it, or the model keeps more than keys.

    A recurrent or hybrid model's state cannot be given to every row of a batch, so it reads every prompt whole.
    """
    import torch
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    from lang1.scoring.options import common_prefix

    length = common_prefix(prompts)
    if length < SHARED_PREFIX or len(prompts) < 2:
        return None
    tokens_1P = torch.tensor([prompts[0][:length]], device=model.device)
    cache = getattr(model(input_ids=tokens_1P, use_cache=True, logits_to_keep=1), "past_key_values", None)
    layers = getattr(cache, "layers", [])
    # by their exact class: a subclass inherits the method that repeats its keys, and leaves its other state as it is
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return Prefix(model, length, cache)
