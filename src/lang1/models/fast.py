"""A faster attention for CPU training in bf16, put under a Hugging Face model without touching its class or names.

torch's fused attention on CPU gains nothing from bf16; two batched products around a softmax take half its time up to
about 512 positions (docs/decisions/0003). Same result within bf16's rounding. Only training uses it: exports name no
attention, so a reader gets transformers' own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

NAME = "lang1_matmul"


def use_fast_attention(model: Any, dtype: torch.dtype) -> None:
    """Switch `model` to the matrix-product attention where it is the faster one: bf16 on a CPU."""
    if dtype != torch.bfloat16 or model.device.type != "cpu":
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def logits_at(
    model: Any, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, mask: torch.Tensor | None, answers_BR: torch.Tensor
) -> torch.Tensor:
    """Logits (B, R, V) at the positions `answers_BR` of each row. `mask` is (B, 1, T, T), or None for causal."""
    if mask is None:  # positions that restart would be taken for packed documents
        positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    logits: torch.Tensor = model(
        input_ids=tokens_BT, position_ids=positions_BT, attention_mask=mask, use_cache=False, logits_to_keep=answers_BR
    ).logits
    if logits.shape[:2] != answers_BR.shape:  # an unknown keyword is swallowed and ignored
        logits = logits.gather(1, answers_BR[:, :, None].expand(-1, -1, logits.shape[-1]))
    return logits


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_unused: Any,
) -> tuple[torch.Tensor, None]:
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary embedding leaves them in fp32
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if attention_mask is None:
        bias = _causal_bias(query.shape[2], key.shape[2], query.dtype)
    elif attention_mask.dtype == torch.bool:
        bias = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(~attention_mask, -torch.inf)
    else:
        bias = attention_mask.to(query.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        scores = torch.matmul(query * scale, key.transpose(-1, -2)) + bias
        mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.transpose(1, 2).contiguous(), None


@lru_cache(maxsize=8)
def _causal_bias(queries: int, keys: int, dtype: torch.dtype) -> torch.Tensor:
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    return torch.zeros(queries, keys, dtype=dtype).masked_fill_(~seen, -torch.inf)
