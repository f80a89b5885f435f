"""Summed log-likelihoods equal one plain forward an answer, for answers of any length and any class of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from short_notes import notes

from lang1.errors import InputError
from lang1.scoring.likelihood import AnsweredPrompt, score_answers
from lang1.scoring.options import answer_ids, common_prefix, encode_prompts, option_token_ids, score_prompts
from lang1.scoring.shared import SHARED_PREFIX
from lang1.tasks.prompts import Question, question_for, render_question

OPEN = Question("What is seen?", ())
ANSWERS = ["chest pain", "fever", "no known allergies takes aspirin", "84"]


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


EXAMPLES = "".join(f"{note}{render_question(OPEN)} no known allergies\n\n" for note in notes(2, seed=4))


def asked(tokenizer: Any, count: int = 12, examples: str = "") -> list[AnsweredPrompt]:
    tokens = answer_ids(tokenizer, OPEN, ANSWERS)
    prompts = encode_prompts(tokenizer, notes(count), OPEN, 50, None, examples)
    return [AnsweredPrompt(prompt, tokens) for prompt in prompts]


def by_brute_force(model: Any, item: AnsweredPrompt) -> list[float]:
    """Every token's probability from a forward of all that stands before it."""
    sums = []
    for answer in item.answers:
        total = 0.0
        for i, token in enumerate(answer):
            with torch.no_grad():
                logits = model(torch.tensor([item.prompt.ids + answer[:i]])).logits[0, -1]
            total += float(logits.double().log_softmax(-1)[token])
        sums.append(total)
    return sums


@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_a_llamas_answers_equal_brute_force(llama: Any, tokenizer: Any, batch_tokens: int) -> None:
    items = asked(tokenizer)
    assert {len(answer) for answer in items[0].answers} - {1}, "an answer of several tokens is there"
    found = score_answers(llama, items, batch_tokens=batch_tokens, pad_id=2)
    np.testing.assert_allclose(found, [by_brute_force(llama, item) for item in items], atol=1e-4)


def test_a_model_with_a_window_of_its_own_keeps_it(mistral: Any, byte_level: Any) -> None:
    items = asked(byte_level, 6)
    found = score_answers(mistral, items, batch_tokens=900, pad_id=2)
    np.testing.assert_allclose(found, [by_brute_force(mistral, item) for item in items], atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_examples_run_once_and_the_answers_equal_brute_force(
    kind: str, batch_tokens: int, byte_level: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, items = request.getfixturevalue(kind), asked(byte_level, 5, EXAMPLES)
    expected = [by_brute_force(model, item) for item in items]
    sizes: list[tuple[int, int]] = []
    plain = type(model).forward

    def counting(self: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        sizes.append(tuple(input_ids.shape))
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(model), "forward", counting)
    found = score_answers(model, items, batch_tokens=batch_tokens, pad_id=2)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    shared = common_prefix([item.prompt.ids for item in items])
    assert shared >= SHARED_PREFIX
    assert sizes[0] == (1, shared)
    assert all(rows == 1 or rows * (shared + width) <= batch_tokens for rows, width in sizes[1:])
    assert max(width for _, width in sizes[1:]) < shared, "no row holds the examples again"


def test_answers_are_the_tokens_that_stand_behind_the_prompt(tokenizer: Any) -> None:
    prompt = render_question(OPEN)
    before = tokenizer(prompt)["input_ids"]
    for answer, ids in zip(ANSWERS, answer_ids(tokenizer, OPEN, ANSWERS), strict=True):
        assert tokenizer(f"{prompt} {answer}")["input_ids"] == [*before, *ids]


def test_one_token_answers_give_the_softmax_of_the_options_logits(llama: Any, byte_level: Any) -> None:
    question = question_for("los", "H&P")
    encoded, options = encode_prompts(byte_level, notes(9), question, 50), option_token_ids(byte_level, question)
    logits = score_prompts(llama, encoded, options, batch_tokens=900, pad_id=2)
    sums = score_answers(
        llama, [AnsweredPrompt(p, [[o] for o in options]) for p in encoded], batch_tokens=900, pad_id=2
    )
    np.testing.assert_allclose(
        np.array(sums) - np.array(sums)[:, :1], logits - logits[:, :1], atol=1e-5
    )  # they differ by what is common to all options


def test_no_value_depends_on_the_padding_token(llama: Any, byte_level: Any) -> None:
    one, two = (score_answers(llama, asked(byte_level), batch_tokens=2000, pad_id=pad) for pad in (0, 77))
    assert (np.array(one) == np.array(two)).all()


def test_an_answer_that_merges_with_the_prompt_is_refused(byte_level: Any) -> None:
    from test_options import merges_the_answer

    with pytest.raises(InputError, match=r"it merges 'Answer:' with the option ' A'"):
        answer_ids(merges_the_answer(), Question("x", ()), ["A"])
