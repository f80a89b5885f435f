"""The answer position: prompts, option tokens and logits equal the plain way, for both kinds of tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from short_notes import notes
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lang1.errors import InputError
from lang1.scoring.options import (
    ANSWER_ROOM,
    EncodedPrompt,
    PromptSet,
    encode_prompts,
    option_probabilities,
    option_token_ids,
    score_prompt_sets,
    score_prompts,
)
from lang1.tasks.prompts import question_for, render_question

DEATH = question_for("mortality", "H&P")
STAY = question_for("los", "H&P")
INDEX = question_for("cci", "H&P")


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def plain_logits(model: Any, prompts: list[EncodedPrompt], option_ids: list[int]) -> np.ndarray:
    """The plain way: one prompt a forward, the logits of every position and entry, the last row read."""
    with torch.no_grad():
        rows = [model(torch.tensor([prompt.ids])).logits[0, -1, option_ids] for prompt in prompts]
    return torch.stack(rows).double().numpy()


def test_a_prompt_is_the_tokens_of_note_and_question_read_as_one_text(tokenizer: Any) -> None:
    texts = notes(20)
    for text, prompt in zip(texts, encode_prompts(tokenizer, texts, STAY, 512), strict=True):
        assert prompt.ids == tokenizer(text + render_question(STAY))["input_ids"]
        assert prompt.truncated_tokens == 0


def test_bos_stands_first_where_the_tokenizer_puts_one(byte_level: Any, sentencepiece: Any) -> None:
    (ours,), (llama2) = encode_prompts(byte_level, ["chest pain"], DEATH, 9), sentencepiece.bos_token_id
    assert byte_level.bos_token_id not in ours.ids
    assert encode_prompts(sentencepiece, ["chest pain"], DEATH, 9)[0].ids[0] == llama2


def test_the_head_of_a_long_note_is_kept_and_the_question_is_whole(tokenizer: Any) -> None:
    text = notes(1, longest=500)[0] + " the end" * 50
    (whole,), (cut,) = encode_prompts(tokenizer, [text], STAY, 10_000), encode_prompts(tokenizer, [text], STAY, 30)
    first = len(whole.ids) - whole.note_tokens - whole.question_tokens
    assert cut.ids[: first + 30] == whole.ids[: first + 30]
    assert cut.ids[first + 30 :] == whole.ids[-whole.question_tokens :]
    assert (cut.note_tokens, cut.truncated_tokens) == (30, whole.note_tokens - 30)


def test_a_short_context_cuts_the_note_further(byte_level: Any) -> None:
    text = " ".join(notes(5))
    (free,) = encode_prompts(byte_level, [text], STAY, 60)
    context = free.question_tokens + 20 + ANSWER_ROOM
    (tight,) = encode_prompts(byte_level, [text], STAY, 60, context)
    assert len(tight.ids) == context - ANSWER_ROOM
    assert tight.truncated_tokens == free.truncated_tokens + 40
    with pytest.raises(InputError, match=rf"context of {free.question_tokens} tokens leaves no room for a note"):
        encode_prompts(byte_level, [text], STAY, 60, free.question_tokens)


def test_special_tokens_spelt_in_a_note_stay_text(tokenizer: Any) -> None:
    (prompt,) = encode_prompts(tokenizer, ["patient </s> seen <s> daily"], DEATH, 99)
    inside = prompt.ids[len(prompt.ids) - prompt.note_tokens - prompt.question_tokens :]
    assert tokenizer.eos_token_id not in inside
    assert tokenizer.bos_token_id not in inside
    assert tokenizer.decode(inside).strip().startswith("patient </s> seen <s> daily")


def test_an_option_is_the_token_that_follows_the_prompt(tokenizer: Any) -> None:
    prompt = render_question(INDEX)
    before = tokenizer(prompt)["input_ids"]
    for letter, option in zip("ABCDE", option_token_ids(tokenizer, INDEX), strict=True):
        assert tokenizer(f"{prompt} {letter}")["input_ids"] == [*before, option]


def test_sentencepieces_own_space_is_no_trap(sentencepiece: Any) -> None:
    """` A` on its own is two tokens there, since every text starts with a space already."""
    assert len(sentencepiece(" A", add_special_tokens=False)["input_ids"]) == 2
    assert option_token_ids(sentencepiece, DEATH) == sentencepiece.convert_tokens_to_ids(["▁A", "▁B"])


def one_token_a_letter() -> Any:
    """No merges at all: a space and its letter are two tokens."""
    alphabet = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def merges_the_answer() -> Any:
    vocabulary = {c: i for i, c in enumerate(sorted({chr(c) for c in range(32, 127)} | {"\n"}))}
    vocabulary |= {": ": 200, ": A": 201}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", " "), (": ", "A")]))
    )


def test_options_of_several_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"the option ' A' takes 2 tokens, one is needed"):
        option_token_ids(one_token_a_letter(), DEATH)


def test_a_tokenizer_that_merges_the_answer_is_refused() -> None:
    with pytest.raises(InputError, match=r"it merges 'Answer:' with the option ' A'"):
        option_token_ids(merges_the_answer(), DEATH)


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_scores_equal_one_plain_forward_a_prompt(llama: Any, tokenizer: Any, batch_tokens: int) -> None:
    encoded = encode_prompts(tokenizer, notes(25), INDEX, 60)
    options = option_token_ids(tokenizer, INDEX)
    found = score_prompts(llama, encoded, options, batch_tokens=batch_tokens, pad_id=2)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, plain_logits(llama, encoded, options), atol=1e-5)
    assert found.std() > 0.05


def question_sets(tokenizer: Any) -> dict[str, PromptSet]:
    """Three questions on overlapping notes: all, some, and a text that comes twice."""
    texts = notes(24)
    asked = {"mortality": (DEATH, texts), "los": (STAY, texts[::-1]), "cci": (INDEX, [*texts[5:15], texts[7]])}
    return {
        name: PromptSet(encode_prompts(tokenizer, rows, question, 60), option_token_ids(tokenizer, question))
        for name, (question, rows) in asked.items()
    }


@pytest.mark.parametrize("batch_tokens", [1, 400, 100_000])
def test_notes_read_once_for_all_questions_give_the_plain_logits(llama: Any, tokenizer: Any, batch_tokens: int) -> None:
    sets = question_sets(tokenizer)
    found = score_prompt_sets(llama, sets, batch_tokens=batch_tokens, pad_id=2)
    for name, asked in sets.items():
        np.testing.assert_allclose(found[name], plain_logits(llama, asked.encoded, asked.option_ids), atol=1e-5)


def test_the_budget_of_a_batch_holds_for_notes_with_all_their_questions(llama: Any, byte_level: Any) -> None:
    sizes: list[tuple[int, int]] = []
    hook = llama.model.embed_tokens.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape)))
    sets = question_sets(byte_level)
    widest = max(len(prompt.ids) for asked in sets.values() for prompt in asked.encoded) * len(sets)
    try:
        for budget in range(widest, widest + 400, 25):
            sizes.clear()
            score_prompt_sets(llama, sets, batch_tokens=budget, pad_id=2)
            assert max(rows for rows, _ in sizes) > 1
            assert all(rows * width <= budget for rows, width in sizes)
    finally:
        hook.remove()


def test_no_value_depends_on_the_padding_token(llama: Any, byte_level: Any) -> None:
    sets = question_sets(byte_level)
    one, two = (score_prompt_sets(llama, sets, batch_tokens=1000, pad_id=pad) for pad in (0, 77))
    assert all((one[name] == two[name]).all() for name in sets)


def test_a_model_that_ignores_logits_to_keep_is_read_at_the_same_place(llama: Any, byte_level: Any) -> None:
    class Plain(torch.nn.Module):
        """forward() knows no logits_to_keep and would swallow it."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.device = llama, llama.device

        def forward(self, input_ids: Any = None, **swallowed: Any) -> Any:
            return self.inner(input_ids=input_ids)

    sets = question_sets(byte_level)
    model = Plain().eval()
    found = score_prompt_sets(model, sets, batch_tokens=1000, pad_id=2)
    for name, asked in sets.items():
        np.testing.assert_allclose(found[name], plain_logits(llama, asked.encoded, asked.option_ids), atol=1e-5)


def test_a_model_with_a_window_of_its_own_keeps_it(mistral: Any, byte_level: Any) -> None:
    """A packed row's mask would replace the window; prompts here are longer than it."""
    sets = question_sets(byte_level)
    found = score_prompt_sets(mistral, sets, batch_tokens=1000, pad_id=2)
    for name, asked in sets.items():
        np.testing.assert_allclose(found[name], plain_logits(mistral, asked.encoded, asked.option_ids), atol=1e-5)


def test_scoring_gives_the_model_back_in_its_mode_and_without_gradients(llama: Any, byte_level: Any) -> None:
    llama.train()
    try:
        score_prompts(llama, encode_prompts(byte_level, notes(2), DEATH, 9), [5, 6], batch_tokens=99, pad_id=2)
        assert llama.training
        assert all(p.grad is None for p in llama.parameters())
    finally:
        llama.eval()


def test_probabilities_are_the_softmax_over_the_options() -> None:
    logits = np.array([[1.0, 3.0], [1000.0, 1000.0]])
    found = option_probabilities(logits)
    assert found[0, 1] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found[1].tolist() == [0.5, 0.5]
