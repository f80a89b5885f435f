"""Rows of different lengths through a Llama on a CPU in one row of tokens, without padding.

    rows      [a a a a][b b b][c c]
    tokens    a a a a b b b c c            embeddings, products, norms, feed-forward: of every token alone
    groups    [a a a a | b b b .] [c c]    attention: rows of similar length, padded to their longest

What is padded costs attention alone, and a batch is one forward whatever its lengths. Equal to the padded forward to
rounding (tests/models/test_ragged.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

SIMILAR = 0.8
"""of its longest row's length that a row of a group has at least"""


@dataclass(frozen=True)
class Group:
    """Rows `rows` of a batch, whose n tokens stand in the row of all from `start` on, padded to (B, T)."""

    rows: slice
    start: int
    index: torch.Tensor
    """(B, T), of each place among the n tokens; padding names some token"""
    real: torch.Tensor
    """(n), of each token among the flattened (B, T)"""
    mask: torch.Tensor | None
    """(B, 1, T, T), true where a token is seen; None: causal"""

    def padded(self, x_1HND: torch.Tensor) -> torch.Tensor:
        """Heads (1, H, N, D) of all tokens to (B, H, T, D) of these rows."""
        own_nHD = x_1HND[0, :, self.start : self.start + len(self.real)].transpose(0, 1)
        made: torch.Tensor = _Padded.apply(own_nHD, self.index, self.real)
        return made.transpose(1, 2)

    def tokens(self, x_BTHD: torch.Tensor) -> torch.Tensor:
        """(B, T, H, D) to (n, H, D)."""
        made: torch.Tensor = _Tokens.apply(x_BTHD, self.real)
        return made


@dataclass(frozen=True)
class Ragged:
    """Where the rows of a batch stand in one row of N tokens, the last of which may be of no row."""

    count: int
    """N"""
    lengths: list[int]
    groups: list[Group]

    @property
    def tokens(self) -> int:
        """Tokens of the rows."""
        return sum(self.lengths)

    @property
    def starts(self) -> list[int]:
        """Where each row begins."""
        return [0, *accumulate(self.lengths)][:-1]

    def real_of(self, longest: int) -> torch.Tensor:
        """(B, T), false at the padding of rows that are padded to `longest` tokens."""
        return torch.arange(longest) < torch.tensor(self.lengths)[:, None]

    def attend(self, attention: Any, module: Any, q: Any, k: Any, v: Any, **options: Any) -> torch.Tensor:
        """What `attention`, a function of transformers' interface, makes of each group: (1, N, H, D)."""
        made = []
        for group in self.groups:
            mixed_BTHD, _ = attention(module, *map(group.padded, (q, k, v)), group.mask, **options)
            made.append(group.tokens(mixed_BTHD))
        spare = self.count - sum(map(len, made))
        if spare:
            made.append(made[0].new_zeros(spare, *made[0].shape[1:]))
        return torch.cat(made)[None]


def lay_out(lengths: list[int], count: int, mask_of: Callable[[slice, int], torch.Tensor | None]) -> Ragged:
    """Rows of these lengths one behind the other in a row of `count` tokens; `mask_of(rows, longest)` is the mask of a
    group, None where it is causal."""
    groups, first, start = [], 0, 0
    while first < len(lengths):
        last, longest, shortest = first, 0, lengths[first]
        while last < len(lengths):
            most, least = max(longest, lengths[last]), min(shortest, lengths[last])
            if last > first and least < SIMILAR * most:
                break
            last, longest, shortest = last + 1, most, least
        rows, own = slice(first, last), torch.tensor(lengths[first:last])
        place_T = torch.arange(longest)
        real_BT = place_T < own[:, None]
        index_BT = ((own.cumsum(0) - own)[:, None] + place_T).clamp_(max=int(own.sum()) - 1)
        groups.append(Group(rows, start, index_BT, real_BT.flatten().nonzero().flatten(), mask_of(rows, longest)))
        first, start = last, start + int(own.sum())
    return Ragged(count, lengths, groups)


class _Padded(torch.autograd.Function):
    """x[index]; each token has one real place, and what is made of the others is never read."""

    @staticmethod
    def forward(ctx: Any, x_nHD: torch.Tensor, index_BT: torch.Tensor, real_n: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(real_n)
        return x_nHD[index_BT]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (real_n,) = ctx.saved_tensors
        return grads[0].flatten(0, 1)[real_n], None, None


class _Tokens(torch.autograd.Function):
    """The real places alone; padding gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x_BTHD: torch.Tensor, real_n: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(real_n)
        ctx.shape = x_BTHD.shape
        return x_BTHD.flatten(0, 1)[real_n]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (real_n,) = ctx.saved_tensors
        flat = grads[0].new_zeros(ctx.shape).flatten(0, 1)
        return flat.index_copy_(0, real_n, grads[0]).view(ctx.shape), None
