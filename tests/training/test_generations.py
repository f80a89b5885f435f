"""Generations: the model's own likeliest or drawn tokens, fixed by seed and step, and faults that are seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lang1.config import GenerationConfig
from lang1.errors import InputError
from lang1.models.load import load_model, load_tokenizer
from lang1.training.generations import Generation, Prompt, as_line, generate, read_prompts, repeated_share

PROMPTS = [Prompt("short", "patient"), Prompt("long", "patient admitted with chest pain denies fever")]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    torch.set_num_threads(1)
    return load_model(model_folder)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    return load_tokenizer(model_folder)


def written(model: Any, tokenizer: Any, config: GenerationConfig, **options: int) -> list[Generation]:
    options = {"context_length": 256, "seed": 1, "step": 10, **options}
    return generate(model, tokenizer, PROMPTS, config, **options)


def test_greedy_texts_are_those_of_transformers_own_generate(model: Any, tokenizer: Any) -> None:
    found = written(model, tokenizer, GenerationConfig(max_new_tokens=12, temperature=0.0))
    for prompt, generation in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
        wanted = model.generate(ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
        assert generation.text == tokenizer.decode(wanted[0, ids.shape[1] :], skip_special_tokens=True)


def test_drawn_texts_are_fixed_by_seed_and_step_and_leave_torchs_state_alone(model: Any, tokenizer: Any) -> None:
    config = GenerationConfig(max_new_tokens=16, temperature=1.0)
    before = torch.get_rng_state()
    first, again = (written(model, tokenizer, config) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert written(model, tokenizer, config, step=20) != first
    assert written(model, tokenizer, config, seed=2) != first


def test_draws_follow_the_models_probabilities(model: Any, tokenizer: Any) -> None:
    ids = torch.tensor([tokenizer(PROMPTS[0].text)["input_ids"]])
    likely = set((model(ids).logits[0, -1] / 0.05).softmax(-1).topk(40).indices.tolist())
    config = GenerationConfig(max_new_tokens=8, temperature=0.05)
    firsts = {tokenizer(written(model, tokenizer, config, step=step)[0].text)["input_ids"][0] for step in range(30)}
    assert len(firsts) > 1
    assert firsts <= likely


def test_a_prompt_longer_than_the_context_keeps_its_end(model: Any, tokenizer: Any) -> None:
    config = GenerationConfig(max_new_tokens=8, temperature=0.0)
    long = [Prompt("long", "cough " * 400 + PROMPTS[1].text)]
    (cut,) = generate(model, tokenizer, long, config, context_length=32, seed=1, step=1)
    ids = tokenizer(long[0].text)["input_ids"][-24:]
    (same,) = generate(
        model, tokenizer, [Prompt("end", tokenizer.decode(ids))], config, context_length=64, seed=1, step=1
    )
    assert cut.text == same.text


def test_the_models_mode_is_given_back_and_no_gradient_is_left(model: Any, tokenizer: Any) -> None:
    model.train()
    written(model, tokenizer, GenerationConfig(max_new_tokens=8))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


# --- degenerate texts


class Stuck(torch.nn.Module):
    """A model that always says one token."""

    device = torch.device("cpu")

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def forward(self, input_ids: torch.Tensor, use_cache: bool, logits_to_keep: torch.Tensor) -> Any:
        logits = torch.zeros(*input_ids.shape, 600)
        logits[..., self.token] = 1e4

        class Output:
            pass

        output = Output()
        output.logits = logits  # type: ignore[attr-defined]
        return output


def test_a_model_that_repeats_itself_or_says_nothing_is_seen(tokenizer: Any) -> None:
    config = GenerationConfig(max_new_tokens=32)
    word = tokenizer(" fever", add_special_tokens=False)["input_ids"][0]
    assert [g.fault for g in written(Stuck(word), tokenizer, config)] == ["repetition"] * 2
    silent = written(Stuck(tokenizer.eos_token_id), tokenizer, config)
    assert [(g.fault, g.tokens, g.text) for g in silent] == [("empty", 0, "")] * 2


def test_repetition_is_the_share_of_pieces_that_stood_before() -> None:
    assert repeated_share(range(64)) == 0
    assert repeated_share([1, 2, 3] * 20) > 0.9
    assert repeated_share([*range(30), *range(30)]) == pytest.approx(27 / 57)
    assert repeated_share([1, 1, 1]) == 0
    assert Generation(PROMPTS[0], "some words", 20, 0.2).fault is None


def test_a_line_of_the_file_holds_prompt_and_text() -> None:
    line = as_line(Generation(PROMPTS[0], "went home", 2, 0.0), 500)
    assert json.loads(json.dumps(line)) == {
        "step": 500, "prompt_id": "short", "prompt": "patient", "text": "went home", "tokens": 2, "repeated": 0.0,
        "fault": None,
    }  # fmt: skip


# --- prompts


def test_the_packages_own_prompts_say_where_they_are_from() -> None:
    found = read_prompts(GenerationConfig(every=10))
    assert len(found) >= 4
    raw = json.loads((Path(__file__).parents[2] / "src/lang1/training/prompts.json").read_text())
    assert all(row["origin"] for row in raw)
    assert [prompt.id for prompt in found] == [row["id"] for row in raw]


def test_prompts_of_ones_own_are_refused_unless_phi_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--allow-phi"):
        GenerationConfig(prompts="mine.json")
    path = tmp_path / "mine.json"
    path.write_text('[{"id": "a", "text": "seen today"}]')
    assert read_prompts(GenerationConfig(prompts=str(path), allow_phi=True)) == [Prompt("a", "seen today")]


TWICE = '[{"id": 1, "text": "x"}, {"id": 1, "text": "y"}]'


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '[{"id": "a"}]', '[{"id": "a", "text": " "}]', '["secret of a patient"]', TWICE]
)
def test_a_prompt_file_that_is_none_is_refused_without_showing_it(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InputError, match="must be a JSON list") as caught:
        read_prompts(GenerationConfig(prompts=str(path), allow_phi=True))
    assert "secret" not in str(caught.value)


def test_a_prompt_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: not a readable"):
        read_prompts(GenerationConfig(prompts=str(tmp_path / "none.json"), allow_phi=True))
