"""Packs through the model: several questions behind one note in one sequence, logits at the answer positions only.

    tokens     [BOS note ......][question 1 ... Answer:][question 2 ... Answer:]
    positions   0 1 ... n-1      n ...                   n ...

A question sees the note and itself, so each answer is what the plain prompt gives (tests/training/test_packs.py).
Sequences are right-padded: under causal attention nothing that is read depends on the padding. A batch of packs with
one question each needs no mask and takes the causal path. A Llama on a CPU reads them without the padding
(models/ragged.py).

Several processes share a step's packs out, longest first in turn. Each makes the same number of forwards, since
sharded weights are put together by all: one with fewer batches runs its first again, and does not count it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from lang1.models.fast import answer_logits, ragged_answer_logits
from lang1.models.ragged import lay_out
from lang1.scoring.options import WIDTHS, round_up
from lang1.training.asked import AskedTask, Pack, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORWARD = 384
"""padding that costs about as much as one more forward, in tokens"""
ENOUGH = 2048
"""tokens of a forward without padding, for its memory: twice as many were 6 to 7 % faster on two cores"""


@dataclass(frozen=True, kw_only=True)
class PackBatch:
    """B packs in tensors of T tokens, R the most questions a pack; M answers in all. An encoder's packs are notes
    alone, without questions behind them."""

    tokens: torch.Tensor
    lengths: torch.Tensor
    """(B) real tokens"""
    positions: torch.Tensor
    segments: torch.Tensor | None
    """0 the note, i its i-th question, -1 padding; None when every pack has one question"""
    answers: torch.Tensor
    """(B, R) answer positions, a pack's last one repeated"""
    answer_rows: torch.Tensor
    """(M) index of each answer in the flattened (B, R)"""
    tasks: list[int]
    """of the M answers"""
    labels: torch.Tensor
    row_ids: list[str]
    is_ragged: bool = False
    """the model reads it without the padding"""
    is_counted: bool = True
    """false: run only because another process has a batch more"""
    key: int = 0
    """seed of what is drawn in its forward: LoRA's dropout"""

    def to(self, device: torch.device) -> PackBatch:
        """The batch with its tensors on a device."""
        moved: dict[str, Any] = {
            f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


LogitsOf = Callable[[Any, PackBatch, list[AskedTask]], torch.Tensor]
"""(M, K) logits of the options of a batch's answers, in fp32; -inf where a task has fewer options than another"""


def make_batches(
    rows: Rows, packs: Sequence[Pack], batch_tokens: int, rank: int = 0, ranks: int = 1
) -> list[PackBatch]:
    """Packs of similar length together, at most `batch_tokens` tokens a batch, padding included where it is read (a
    longer pack is a batch of its own); of several processes this one's share, as many batches in each.
    """
    notes = rows.notes(packs)
    lengths = [
        round_up(len(note) + sum(len(rows.tasks[t].ids) for t, _ in pack.asked), rows.width_multiple)
        for note, pack in zip(notes, packs, strict=True)
    ]
    order = sorted(range(len(packs)), key=lambda i: (-lengths[i], i))
    if rows.is_ragged:
        shares = [_fill(order[r::ranks], lengths, min(batch_tokens, ENOUGH)) for r in range(ranks)]
    else:
        shares = [_cut(order[r::ranks], lengths, batch_tokens) for r in range(ranks)]
    made = [pack_tensors(rows, [packs[i] for i in batch], [notes[i] for i in batch]) for batch in shares[rank]]
    missing = max(map(len, shares)) - len(made)
    if missing:
        last = order[-1]
        filler = made[0] if made else pack_tensors(rows, [packs[last]], [notes[last]])
        made += [replace(filler, is_counted=False)] * missing
    return made


def _cut(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """An order of falling lengths cut where padding and forwards cost the least together."""
    cost, first = [0.0], [0]  # of the cheapest way to cut what stands before `end`, and where its last batch begins
    for end in range(1, len(order) + 1):
        cost.append(math.inf)
        first.append(end - 1)
        for start in range(end - 1, -1, -1):
            padded = (end - start) * lengths[order[start]]
            if padded > batch_tokens and start < end - 1:
                break
            if cost[start] + padded + FORWARD < cost[end]:
                cost[end], first[end] = cost[start] + padded + FORWARD, start
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(list(order[first[end] : end]))
        end = first[end]
    return batches[::-1]


def _fill(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """An order cut into as few batches as hold its tokens, of these the cut whose fullest batch has the fewest."""

    def cut(room: int) -> list[list[int]]:
        batches: list[list[int]] = []
        filled = room
        for i in order:
            if filled + lengths[i] > room:
                batches.append([])
                filled = 0
            batches[-1].append(i)
            filled += lengths[i]
        return batches

    fewest = len(cut(batch_tokens))
    rooms = range(1, batch_tokens + 1)
    return cut(rooms[bisect_left(rooms, True, key=lambda room: len(cut(room)) <= fewest)])


def pack_tensors(rows: Rows, packs: list[Pack], notes: list[NDArray[np.int64]]) -> PackBatch:
    """Notes with their questions behind them, right-padded to a multiple."""
    tasks = rows.tasks
    width = max(len(note) + sum(len(tasks[t].ids) for t, _ in p.asked) for p, note in zip(packs, notes, strict=True))
    width = round_up(width, rows.width_multiple)
    most = max(len(pack.asked) for pack in packs)
    tokens = np.full((len(packs), width), rows.pad, dtype=np.int64)
    positions = np.zeros((len(packs), width), dtype=np.int64)
    segments = np.full((len(packs), width), -1, dtype=np.int64)
    answers = np.zeros((len(packs), most), dtype=np.int64)
    kept, lengths = [], []
    for b, (pack, note) in enumerate(zip(packs, notes, strict=True)):
        end = len(note)
        tokens[b, :end], positions[b, :end], segments[b, :end] = note, np.arange(end), 0
        for r, (task, _) in enumerate(pack.asked):
            ids = tasks[task].ids
            part = slice(end, end + len(ids))
            tokens[b, part], segments[b, part] = ids, r + 1
            positions[b, part] = np.arange(len(note), len(note) + len(ids))
            end += len(ids)
            answers[b, r:] = end - 1
            kept.append(b * most + r)
        lengths.append(end)
    asked = [(task, label) for pack in packs for task, label in pack.asked]
    return PackBatch(
        tokens=torch.from_numpy(tokens),
        lengths=torch.tensor(lengths),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(segments) if most > 1 else None,
        answers=torch.from_numpy(answers),
        answer_rows=torch.tensor(kept),
        tasks=[task for task, _ in asked],
        labels=torch.tensor([label for _, label in asked]),
        row_ids=[row for pack in packs for row in pack.rows],
        is_ragged=rows.is_ragged,
    )


def option_logits(model: Any, batch: PackBatch, tasks: list[AskedTask]) -> torch.Tensor:
    """LogitsOf a causal LM: at the answer positions."""
    if batch.is_ragged:
        lengths = batch.lengths.tolist()
        ragged = lay_out(lengths, round_up(sum(lengths), WIDTHS), lambda rows, longest: _mask_of(batch, rows, longest))
        logits_BRV = ragged_answer_logits(model, batch.tokens, batch.positions, ragged, batch.answers)
    elif batch.segments is None:
        logits_BRV = answer_logits(model, batch.tokens, None, None, batch.answers)
    else:
        logits_BRV = answer_logits(model, batch.tokens, batch.positions, _sees(batch.segments), batch.answers)
    return of_options(logits_BRV.flatten(0, 1)[batch.answer_rows], batch.tasks, tasks)


def _mask_of(batch: PackBatch, rows: slice, longest: int) -> torch.Tensor | None:
    """Of some packs, (B, 1, T, T); None where each has one question: causal."""
    segments = None if batch.segments is None else batch.segments[rows, :longest]
    return None if segments is None or segments.max() == 1 else _sees(segments)


def of_options(logits_MV: torch.Tensor, asked: list[int], tasks: list[AskedTask]) -> torch.Tensor:
    """(M, K) of the options of each row's task, in fp32; -inf where a task has fewer than another."""
    most = max(len(task.option_ids) for task in tasks)
    options = [[*tasks[t].option_ids, *[0] * (most - len(tasks[t].option_ids))] for t in asked]
    real = [[k < len(tasks[t].option_ids) for k in range(most)] for t in asked]
    options_MK, real_MK = (torch.tensor(values, device=logits_MV.device) for values in (options, real))
    return logits_MV.float().gather(1, options_MK).masked_fill(~real_MK, -torch.inf)


def answer_loss(
    model: Any, batch: PackBatch, tasks: list[AskedTask], weights: list[float], logits_of: LogitsOf = option_logits
) -> torch.Tensor:
    """Summed weighted cross-entropy of the true options among the options, corrected for balanced draws."""
    logits_MK = logits_of(model, batch, tasks)
    most, device = logits_MK.shape[1], logits_MK.device
    factors = [[*tasks[t].log_factors, *[0.0] * (most - len(tasks[t].log_factors))] for t in batch.tasks]
    corrected_MK = logits_MK + torch.tensor(factors, device=device)
    losses_M = functional.cross_entropy(corrected_MK, batch.labels, reduction="none")
    weights_M = torch.tensor([weights[t] * batch.is_counted for t in batch.tasks], device=device)
    return (losses_M * weights_M).sum()  # a product of vectors would be rounded to bf16 by autocast


def _sees(segments_BT: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T), true where the row's token may look at the column's: causal, the note or the same question."""
    length = segments_BT.shape[1]
    mine, other = segments_BT[:, :, None], segments_BT[:, None, :]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=segments_BT.device).tril()
    return ((other == 0) | (mine == other))[:, None] & causal_TT
