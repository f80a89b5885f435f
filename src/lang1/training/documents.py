"""Attention that stops at the documents of a block (`pretrain.document_mask`): what a packed batch tells the model.

A separator ends a document and opens the next: as a target it belongs to the text before it, as an input to the text
after it, whose first token is predicted from it. So every id stays a target, as without the mask, and a document in a
block gives the losses that it gives alone behind a separator (tests/training/test_documents.py). A block may begin
within a document: that piece has positions from 0 as well.

Two forms of the same. Dense: rows as they are and a mask (B, 1, T, T), for sdpa, which looks at every pair all the
same. Flat: one row of B x T tokens with the bounds of its documents, for flash attention's variable-length kernel,
which skips the pairs that are masked (not run by us on a GPU). Both need `use_cache=False`: with a cache transformers
attends across documents and does not say so. Left: sorting documents into rows so that none is cut (the order would no
longer be the shards').
"""

from __future__ import annotations

from typing import Any

import torch


def document_inputs(model: Any, tokens_BT: torch.Tensor, separator: int) -> dict[str, Any]:
    """Keywords of the model's forward for these inputs, in the form that its attention takes."""
    starts = document_starts(tokens_BT, separator)
    if "flash" in str(model.config._attn_implementation):
        return flat_inputs(tokens_BT, starts)
    return dense_inputs(tokens_BT, starts)


def document_starts(tokens_BT: torch.Tensor, separator: int) -> torch.Tensor:
    """Where the document of each input begins in its row (B, T): at the last separator up to it, or 0."""
    places = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    return torch.where(tokens_BT == separator, places, 0).cummax(dim=1).values


def dense_inputs(tokens_BT: torch.Tensor, starts_BT: torch.Tensor) -> dict[str, Any]:
    """Rows as they are: positions within documents (B, T), and what each position sees (B, 1, T, T), true: seen."""
    places = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    seen_BTT = (places <= places[:, None]) & (places >= starts_BT[:, :, None])
    return {
        "input_ids": tokens_BT,
        "position_ids": places - starts_BT,
        "attention_mask": seen_BTT[:, None],
    }


def flat_inputs(tokens_BT: torch.Tensor, starts_BT: torch.Tensor) -> dict[str, Any]:
    """One row of B x T tokens: positions within documents, and the bounds that flash attention's kernel asks for."""
    positions_1N = (torch.arange(tokens_BT.shape[1], device=tokens_BT.device) - starts_BT).reshape(1, -1)
    begins = torch.nonzero(positions_1N[0] == 0)[:, 0]
    bounds = torch.cat((begins, begins.new_tensor([positions_1N.shape[1]]))).to(torch.int32)
    longest = int(bounds.diff().max())
    return {
        "input_ids": tokens_BT.reshape(1, -1),
        "position_ids": positions_1N,
        "attention_mask": None,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
