"""Few-shot prompts: they read as one text, fit the context, and leave the answer position where it is."""

from __future__ import annotations

from typing import Any

import pytest

from lang1.scoring.options import encode_prompts, option_token_ids
from lang1.scoring.shots import LEAST_TEXT, Item, encode_with_shots
from lang1.tasks.prompts import Question, render_question

QUESTION = Question("Will the patient be readmitted?", ("no", "yes"))
SHOTS = [Item("the patient has a fever", QUESTION, 1), Item("the patient is well", QUESTION, 0)]


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def encode(tokenizer: Any, items: list[Item], shots: list[Item], **limits: int) -> tuple[list[Any], int]:
    limits = {"max_note_tokens": 512, "context_length": 2048, **limits}
    options = option_token_ids(tokenizer, items[0].question)
    return encode_with_shots(tokenizer, items, shots, options, **limits)


def test_a_prompt_reads_as_answered_examples_then_the_question(byte_level: Any) -> None:
    asked = Item("the patient coughs", QUESTION, 0)
    (prompt,), used = encode(byte_level, [asked], SHOTS)
    tail = render_question(QUESTION)
    assert used == 2
    assert byte_level.decode(prompt.ids, skip_special_tokens=True).strip() == (
        f"the patient has a fever{tail} B\n\nthe patient is well{tail} A\n\nthe patient coughs{tail}"
    )
    assert prompt.ids[-prompt.question_tokens :] == encode_prompts(byte_level, [asked.text], QUESTION, 512)[0].ids[
        -prompt.question_tokens :
    ]  # fmt: skip


def test_bos_stands_once_at_the_front(sentencepiece: Any) -> None:
    (prompt,), _ = encode(sentencepiece, [Item("the patient coughs", QUESTION, 0)], SHOTS)
    assert prompt.ids[0] == sentencepiece.bos_token_id
    assert prompt.ids.count(sentencepiece.bos_token_id) == 1


def test_without_examples_a_prompt_is_that_of_zero_shot_scoring(tokenizer: Any) -> None:
    items = [Item(text, QUESTION, 0) for text in ("the patient coughs", "a " * 700)]
    prompts, used = encode(tokenizer, items, [], max_note_tokens=100)
    assert used == 0
    assert prompts == encode_prompts(tokenizer, [item.text for item in items], QUESTION, 100, 2048)


def test_each_row_keeps_its_own_question(byte_level: Any) -> None:
    other = Question("Which way is up?", ("down", "up"))
    (prompt,), _ = encode(byte_level, [Item("a passage", other, 1)], SHOTS[:1])
    text = byte_level.decode(prompt.ids, skip_special_tokens=True)
    assert text.endswith(f"a passage{render_question(other)}")
    assert render_question(QUESTION) in text


@pytest.mark.parametrize("context", [700, 400, 260, 150])
def test_long_texts_share_the_context_and_examples_leave_before_texts_vanish(byte_level: Any, context: int) -> None:
    long = "the patient has a fever and is on insulin " * 60
    shots = [Item(long, QUESTION, 1), Item(long, QUESTION, 0)]
    (prompt,), used = encode(byte_level, [Item(long, QUESTION, 0)], shots, context_length=context)
    assert len(prompt.ids) <= context
    assert prompt.note_tokens >= (LEAST_TEXT if used else 1)
    whole = encode_prompts(byte_level, [long], QUESTION, 10_000)[0]
    assert prompt.note_tokens + prompt.truncated_tokens == whole.note_tokens
    assert byte_level.decode(prompt.ids, skip_special_tokens=True).endswith(render_question(QUESTION))
    question = prompt.question_tokens
    assert used == (2 if context >= 3 * (question + LEAST_TEXT + 3) else 1 if context >= 2 * (question + 35) else 0)
