"""The shapes are the published ones."""

import pytest
import torch

from lang1.config import Preset
from lang1.models.build import build_model, llama_config, parameter_count

PUBLISHED = {"100m": 101_066_496, "1b": 1_100_048_384, "7b": 6_738_415_616}
"""smol_llama-101M-GQA's shape, TinyLlama-1.1B's model card, Llama-2-7B's"""


@pytest.mark.parametrize("preset", ["100m", "1b", "7b"])
def test_parameters_are_those_published(preset: Preset) -> None:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(llama_config(preset, 32_000))
    assert parameter_count(model) == PUBLISHED[preset]


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    first = build_model("tiny", 500, seed=1).state_dict()
    torch.rand(17)
    second = build_model("tiny", 500, seed=1).state_dict()
    other = build_model("tiny", 500, seed=2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_building_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    build_model("tiny", 500, seed=1)
    assert torch.equal(torch.rand(3), wanted)
