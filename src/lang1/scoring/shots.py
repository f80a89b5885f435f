"""Few-shot prompts: answered examples before the row that is asked.

    BOS, text, question, answer, blank line, text, question, answer, blank line, text, question

Each part is tokenised as options.py does it, so the answer position and the options' tokens are the same as without
examples. The room of the context is shared evenly: every text, the examples' too, keeps its head, and where that would
leave less than LEAST_TEXT tokens a text, examples are left out from the end. So the monitor of pretraining asks, of
one model with a short context.

`lang1 evaluate` and the task pack compare models, so there the examples are one text, the same for each (`Examples`):
their notes share a budget of words, counted without any tokenizer, and what was cut is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from lang1.corpus.hashes import hash_fraction
from lang1.scoring.options import EncodedPrompt, encode_prompts
from lang1.tasks.prompts import Question, answer_for, render_question

LEAST_TEXT = 32
"""tokens of a text below which an example is not worth its room"""

WORD = re.compile(r"\w{1,8}|[^\w\s]")
"""a word of a budget: up to eight letters or digits, or one other sign; about 1.3 tokens of a tokenizer of 32,000"""


@dataclass(frozen=True)
class Item:
    """A text with its question; `label` is read of examples only."""

    text: str
    question: Question
    label: int
    answer: str | None = None
    """what answers an example; None: the letter of its label"""


@dataclass(frozen=True)
class Examples:
    """Answered examples as one text, which stands before every row of a task and is the same for every model."""

    row_ids: tuple[str, ...]
    labels: tuple[int, ...]
    kept_characters: tuple[int, ...]
    """of each example's note"""
    kept_words: tuple[int, ...]
    cut_words: tuple[int, ...]
    """left out at the end of each example's note"""
    text: str

    def facts(self) -> dict[str, Any]:
        """What is recorded: everything but the text."""
        return {
            "k": len(self.row_ids),
            "row_ids": list(self.row_ids),
            "labels": list(self.labels),
            "kept_words": list(self.kept_words),
            "cut_words": list(self.cut_words),
        }


NO_EXAMPLES = Examples((), (), (), (), (), "")


def in_turn(rows: Iterable[tuple[str, int]], count: int, seed: int) -> list[str]:
    """At most `count` row ids out of (row id, label): every label in its turn, drawn by hash of seed and row.

    Their order is drawn too, so that the labels of the examples make no pattern.
    """
    by_label: dict[int, list[str]] = {}
    for row_id, label in rows:
        by_label.setdefault(label, []).append(row_id)

    def drawn(ids: Iterable[str]) -> list[str]:
        return sorted(ids, key=lambda row_id: (hash_fraction(seed, f"shot:{row_id}"), row_id))

    queues = [drawn(ids) for _, ids in sorted(by_label.items())]
    return drawn([row_id for turn in zip_longest(*queues) for row_id in turn if row_id is not None][:count])


def render_examples(rows: Sequence[tuple[str, Item]], budget_words: int) -> Examples:
    """The examples (row id, item) as one text; each note keeps its first `budget_words` / number of examples words."""
    share = budget_words // len(rows) if rows else 0
    cut = [cut_words(item.text, share) for _, item in rows]
    return Examples(
        row_ids=tuple(row_id for row_id, _ in rows),
        labels=tuple(item.label for _, item in rows),
        kept_characters=tuple(len(text) for text, _, _ in cut),
        kept_words=tuple(kept for _, kept, _ in cut),
        cut_words=tuple(left for _, _, left in cut),
        text="".join(
            f"{text}{render_question(item.question)}{_answer(item)}\n\n"
            for (_, item), (text, _, _) in zip(rows, cut, strict=True)
        ),
    )


def _answer(item: Item) -> str:
    return answer_for(item.label) if item.answer is None else f" {item.answer}"


def cut_words(text: str, most: int) -> tuple[str, int, int]:
    """The head of a text that holds its first `most` words; how many it holds, and how many were left out."""
    ends = [match.end() for match in WORD.finditer(text)]
    if len(ends) <= most:
        return text, len(ends), 0
    return text[: ends[most - 1] if most else 0], most, len(ends) - most


def encode_with_shots(
    tokenizer: Any,
    items: Sequence[Item],
    shots: Sequence[Item],
    option_ids: Sequence[int],
    *,
    max_note_tokens: int,
    context_length: int,
) -> tuple[list[EncodedPrompt], int]:
    """Prompts for `items`, in their order, each after the same examples; and the least number of examples that fit.

    `option_ids` are the tokens of the letters. Raises InputError when a question leaves no room for a text at all.
    """
    gap = tokenizer("\n\n", add_special_tokens=False)["input_ids"]
    asked = [_encode(tokenizer, item, max_note_tokens, context_length) for item in items]
    answered = [_encode(tokenizer, shot, max_note_tokens, None) for shot in shots]
    prompts, fewest = [], len(shots)
    for prompt in asked:
        used, room = _fit(prompt, answered, len(gap), max_note_tokens, context_length)
        before = [
            token
            for shot, example in zip(shots[:used], answered, strict=False)
            for token in (*_cut(example, room), option_ids[shot.label], *gap)
        ]
        start = _start(prompt)
        body = _cut(prompt, room) if used else prompt.ids[len(start) :]
        kept = len(body) - prompt.question_tokens
        truncated = prompt.truncated_tokens + prompt.note_tokens - kept
        prompts.append(EncodedPrompt([*start, *before, *body], kept, truncated, prompt.question_tokens))
        fewest = min(fewest, used)
    return prompts, fewest


def _encode(tokenizer: Any, item: Item, max_note_tokens: int, context_length: int | None) -> EncodedPrompt:
    return encode_prompts(tokenizer, [item.text], item.question, max_note_tokens, context_length)[0]


def _fit(
    prompt: EncodedPrompt, answered: Sequence[EncodedPrompt], gap: int, max_note_tokens: int, context_length: int
) -> tuple[int, int]:
    """How many examples fit, and the tokens that each text then has."""
    for used in range(len(answered), 0, -1):
        fixed = len(_start(prompt)) + prompt.question_tokens
        fixed += sum(example.question_tokens + 1 + gap for example in answered[:used])
        room = min(max_note_tokens, (context_length - fixed) // (used + 1))
        if room >= LEAST_TEXT or room >= max(part.note_tokens for part in (prompt, *answered[:used])):
            return used, room
    return 0, max_note_tokens


def _start(prompt: EncodedPrompt) -> list[int]:
    """BOS, where there is one."""
    return prompt.ids[: len(prompt.ids) - prompt.note_tokens - prompt.question_tokens]


def _cut(prompt: EncodedPrompt, room: int) -> list[int]:
    """Head of the text and the whole question, without BOS."""
    body = prompt.ids[len(_start(prompt)) :]
    text, question = body[: prompt.note_tokens], body[prompt.note_tokens :]
    return [*text[:room], *question]
