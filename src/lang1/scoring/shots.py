"""Few-shot prompts: answered examples before the row that is asked.

    BOS, text, question, answer, blank line, text, question, answer, blank line, text, question

Each part is tokenised as options.py does it, so the answer position and the options' tokens are the same as without
examples. The room of the context is shared evenly: every text, the examples' too, keeps its head, and where that would
leave less than LEAST_TEXT tokens a text, examples are left out from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lang1.scoring.options import EncodedPrompt, encode_prompts
from lang1.tasks.prompts import Question

LEAST_TEXT = 32
"""tokens of a text below which an example is not worth its room"""


@dataclass(frozen=True)
class Item:
    """A text with its question; `label` is read of examples only."""

    text: str
    question: Question
    label: int


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
