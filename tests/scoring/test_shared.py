"""A few-shot prefix computed once gives the logits of whole prompts, also beside a sliding window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from short_notes import notes
from test_likelihood import by_brute_force
from test_options import plain_logits
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from lang1.models.fast import use_fast_layers
from lang1.scoring.likelihood import AnsweredPrompt, score_answers
from lang1.scoring.options import (
    WIDTHS,
    answer_ids,
    common_prefix,
    encode_prompts,
    option_token_ids,
    round_up,
    score_prompts,
)
from lang1.scoring.shared import SHARED_PREFIX
from lang1.tasks.prompts import Question, question_for, render_question

STAY = question_for("los", "H&P")
EXAMPLES = "".join(f"{note}{render_question(STAY)} B\n\n" for note in notes(2, seed=4))


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def score(model: Any, tokenizer: Any, batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    encoded = encode_prompts(tokenizer, notes(14), STAY, 40, None, EXAMPLES)
    ids = option_token_ids(tokenizer, STAY)
    found = score_prompts(model, encoded, ids, batch_tokens=batch_tokens, pad_id=2, share_prefix=True)
    return found, plain_logits(model, encoded, ids)


@pytest.mark.parametrize("batch_tokens", [1, 500, 100_000])
def test_logits_after_a_shared_prefix_equal_the_plain_forward(llama: Any, tokenizer: Any, batch_tokens: int) -> None:
    found, plain = score(llama, tokenizer, batch_tokens)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_a_sliding_window_sees_past_the_prefix(mistral: Any, byte_level: Any) -> None:
    found, plain = score(mistral, byte_level, 500)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_fast_layers_give_the_same(llama: Any, byte_level: Any) -> None:
    import copy

    fast = copy.deepcopy(llama)
    use_fast_layers(fast)
    found, _ = score(fast, byte_level, 500)
    _, plain = score(llama, byte_level, 500)
    np.testing.assert_allclose(found, plain, atol=1e-4)


def test_the_prefix_runs_through_the_model_once(llama: Any, byte_level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    plain = type(llama).forward

    def counting(self: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        widths.append(input_ids.numel())
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(llama), "forward", counting)
    encoded = encode_prompts(byte_level, notes(14), STAY, 40, None, EXAMPLES)
    shared = common_prefix([prompt.ids for prompt in encoded])
    score_prompts(llama, encoded, [5, 6], batch_tokens=1, pad_id=2, share_prefix=True)
    assert shared > SHARED_PREFIX
    assert widths[0] == shared
    assert sum(widths) == shared + sum(round_up(len(prompt.ids) - shared, WIDTHS) for prompt in encoded)


def test_the_budget_of_a_batch_counts_the_prefix_of_each_row(
    llama: Any, byte_level: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys and values are copied for each."""
    sizes: list[tuple[int, int]] = []
    plain = type(llama).forward

    def counting(self: Any, input_ids: torch.Tensor, **rest: Any) -> Any:
        sizes.append(tuple(input_ids.shape))
        return plain(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(llama), "forward", counting)
    encoded = encode_prompts(byte_level, notes(14), STAY, 40, None, EXAMPLES)
    score_prompts(llama, encoded, [5, 6], batch_tokens=1200, pad_id=2, share_prefix=True)
    (_, shared), *batches = sizes
    assert max(rows for rows, _ in batches) > 1
    assert all(rows * (shared + width) <= 1200 for rows, width in batches)


def _mamba() -> Any:
    return MambaForCausalLM(MambaConfig(vocab_size=900, hidden_size=32, num_hidden_layers=2, initializer_range=0.2))


def _mamba2() -> Any:
    shape = Mamba2Config(
        vocab_size=900, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=16, n_groups=2,
        chunk_size=16, initializer_range=0.2,
    )  # fmt: skip
    return Mamba2ForCausalLM(shape)


def _hybrid() -> Any:
    shape = Lfm2Config(
        vocab_size=900, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, layer_types=["conv", "full_attention"], initializer_range=0.2,
    )  # fmt: skip
    return Lfm2ForCausalLM(shape)


@pytest.mark.parametrize("make", [_mamba, _mamba2, _hybrid])
def test_recurrent_and_hybrid_models_read_every_prompt_whole(make: Callable[[], Any], byte_level: Any) -> None:
    torch.manual_seed(2)
    model = make().eval()
    found, plain = score(model, byte_level, 900)
    np.testing.assert_allclose(found, plain, atol=1e-4)
    assert found.std() > 1e-3
    question = Question("What is seen?", ())
    answers = answer_ids(byte_level, question, ["chest pain", "fever"])
    items = [AnsweredPrompt(p, answers) for p in encode_prompts(byte_level, notes(4), question, 40, None, EXAMPLES)]
    sums = score_answers(model, items, batch_tokens=900, pad_id=2)
    np.testing.assert_allclose(sums, [by_brute_force(model, item) for item in items], atol=1e-3)


def test_the_common_prefix_leaves_a_token_to_read() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2], [1, 2, 4]]) == 1
    assert common_prefix([[5], [6, 7]]) == 0
    assert common_prefix([]) == 0


def test_examples_and_note_are_read_as_one_text(tokenizer: Any) -> None:
    for text, prompt in zip(notes(9), encode_prompts(tokenizer, notes(9), STAY, 512, None, EXAMPLES), strict=True):
        assert prompt.ids == tokenizer(EXAMPLES + text + render_question(STAY))["input_ids"]
        assert prompt.truncated_tokens == 0
