"""Prompts that begin alike (few-shot): the keys and values of what they share are computed once.

transformers' own cache holds them, so any causal LM is read as its class computes it, a sliding window included. A
batch is the rest of each prompt, padded on the right; equal to one plain forward a whole prompt to 1e-5
(tests/scoring/test_shared.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any


class Prefix:
    """The tokens `ids` as `model` has read them; to be used without gradients, in evaluation mode."""

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        import torch

        self.model = model
        tokens_1P = torch.tensor([list(ids)], device=model.device)
        read = model(input_ids=tokens_1P, use_cache=True, logits_to_keep=1)
        self.cache = read.past_key_values

    def logits(self, rest: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int) -> Any:
        """Logits (B, R, V) at the positions `answers` (B, R), counted in `rest`, of the prompts prefix + `rest`."""
        import torch

        from lang1.scoring.options import padded

        cache = copy.deepcopy(self.cache)  # a forward adds its own keys to the cache that it is given
        cache.batch_repeat_interleave(len(rest))
        answers_BR = torch.tensor([list(row) for row in answers], device=self.model.device)
        logits_BRV = self.model(
            input_ids=padded(rest, pad_id, self.model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=answers_BR,
        ).logits
        if logits_BRV.shape[:2] != answers_BR.shape:  # an unknown keyword is swallowed and ignored
            logits_BRV = logits_BRV.gather(1, answers_BR[:, :, None].expand(-1, -1, logits_BRV.shape[-1]))
        return logits_BRV
