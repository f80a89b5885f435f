"""Answers of more than one token: the log-likelihood of an answer's tokens after the prompt, summed, as in lm-eval.

    prompt  answer 1  answer 2  ...          a row, in a Llama: each answer sees the prompt and itself

The prompt runs once for all its answers, and where each answer is one token there is nothing but the prompt. What all
prompts begin with, their shots, runs once for all of them (shared.py).
Log-probabilities are over the whole vocabulary, at the answers' positions only. Other classes than Llama read a row an
answer of several tokens, since a mask of ours would replace their own. Checked against one plain forward an answer
(tests/scoring/test_likelihood.py), and against lm-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.scoring.options import (
    EncodedPrompt,
    batches,
    evaluating,
    longest_first,
    padded,
    round_up,
    width_multiple,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lang1.scoring.shared import Prefix

METHOD = "log-likelihood"
"""how the probabilities of a score file were read: an answer's tokens one after the other, logarithms summed"""
LOGIT_COST = 8
"""what a row of logits over the vocabulary counts for in the token budget of a batch: it is held in fp32"""


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt with the tokens of each answer that might follow it, at least one token each."""

    prompt: EncodedPrompt
    answers: list[list[int]]


@dataclass(frozen=True)
class _Row:
    """A row of a forward: the prompt, past a shared prefix, then all but the last token of each answer it holds."""

    ids: list[int]
    positions: list[int]
    """counted from the whole prompt's start"""
    owner: list[int]
    """-1: the prompt, seen by all; k: answer k"""
    places: list[int]
    """of each answer's token in turn: where its logits stand"""
    tokens: list[int]
    """which token that is"""
    parts: list[tuple[int, int, int]]
    """(prompt, answer, number of tokens) in the order of `places`"""


def score_answers(
    model: Any, asked: Sequence[AnsweredPrompt], *, batch_tokens: int, pad_id: int
) -> list[NDArray[np.float64]]:
    """Log-likelihood (nats) of each answer of each prompt, in the order given.

    `batch_tokens` bounds a forward: its tokens, padding and a shared prefix included, and eight for every row of
    logits.
    """
    import torch

    from lang1.scoring.shared import read_prefix

    packed = type(model).__name__ == "LlamaForCausalLM"
    multiple = width_multiple(model)
    sums = [np.zeros(len(item.answers), dtype=np.float64) for item in asked]
    with evaluating(model):
        prefix = read_prefix(model, [item.prompt.ids for item in asked])
        shared = 0 if prefix is None else prefix.length
        rows = [row for number, item in enumerate(asked) for row in _rows(number, item, shared, together=packed)]
        costs = [shared + round_up(len(row.ids), multiple) + LOGIT_COST * len(row.tokens) for row in rows]
        for batch in batches(longest_first(costs), costs, batch_tokens):
            mine = [rows[i] for i in batch]
            logits_BRV = _logits(model, prefix, mine, pad_id)
            for row, logits_RV in zip(mine, logits_BRV, strict=True):
                wanted = torch.tensor(row.tokens, device=logits_RV.device)[:, None]
                found = logits_RV[: len(row.tokens)].float().log_softmax(-1).gather(1, wanted)[:, 0].double().cpu()
                for (prompt, answer, _), part in zip(row.parts, found.split([n for _, _, n in row.parts]), strict=True):
                    sums[prompt][answer] = float(part.sum())
    return sums


def _rows(number: int, item: AnsweredPrompt, shared: int, *, together: bool) -> list[_Row]:
    wanted = list(enumerate(item.answers))
    together = together or all(len(answer) == 1 for answer in item.answers)
    groups = [wanted] if together else [[one] for one in wanted]
    return [_row(number, item.prompt.ids, shared, group) for group in groups]


def _row(number: int, prompt: list[int], shared: int, answers: list[tuple[int, list[int]]]) -> _Row:
    rest, end = prompt[shared:], len(prompt)
    row = _Row(list(rest), list(range(shared, end)), [-1] * len(rest), [], [], [])
    for k, answer in answers:
        start, inputs = len(row.ids), answer[:-1]
        row.places.extend([len(rest) - 1, *range(start, start + len(inputs))])
        row.tokens.extend(answer)
        row.parts.append((number, k, len(answer)))
        row.ids.extend(inputs)
        row.positions.extend(range(end, end + len(inputs)))
        row.owner.extend([k] * len(inputs))
    return row


def _logits(model: Any, prefix: Prefix | None, rows: list[_Row], pad_id: int) -> Any:
    """(B, R, V) at the places of each row; places past a row's own are filled up with its first."""
    import torch

    from lang1.models.fast import answer_logits

    most, multiple = max(len(row.places) for row in rows), width_multiple(model)
    places = [row.places + row.places[:1] * (most - len(row.places)) for row in rows]
    positions_BT = mask_B1TT = None
    if any(max(row.owner) >= 0 for row in rows if len(row.parts) > 1):  # else causal as it stands
        positions_BT = padded([row.positions for row in rows], 0, model.device, multiple)
        mask_B1TT = _mask(padded([row.owner for row in rows], -2, model.device, multiple))
    if prefix is not None:
        return prefix.logits([row.ids for row in rows], places, pad_id, positions_BT, mask_B1TT)
    tokens_BT = padded([row.ids for row in rows], pad_id, model.device, multiple)
    return answer_logits(model, tokens_BT, positions_BT, mask_B1TT, torch.tensor(places).to(model.device))


def _mask(owner_BT: Any) -> Any:
    """(B, 1, T, T): a position sees what stands before it of the prompt and of its own answer; padding sees itself."""
    import torch

    mine = owner_BT[:, :, None] == owner_BT[:, None, :]
    prompt = (owner_BT == -1)[:, None, :]
    itself_TT = torch.eye(owner_BT.shape[1], dtype=torch.bool, device=owner_BT.device)
    return ((mine | prompt).tril() | itself_TT)[:, None]
