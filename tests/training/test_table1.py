"""The seven models of Table 1: their recipes say what 5.3 says, have the published sizes, and run to the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
import torch
from training_data import write_tokens
from typer.testing import CliRunner

from lang1 import runs
from lang1.cli import app
from lang1.config import Preset, RunConfig, ShapeOverrides, load_config
from lang1.errors import ConfigError
from lang1.models.build import llama_config, parameter_count
from lang1.models.presets import PRESETS, shape_of

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True)
class Model:
    """A row of Table 1."""

    recipe: str
    preset: Preset
    parameters: int
    """with a vocabulary of 32,000"""
    version: str
    has_web: bool


SIZES: dict[Preset, int] = {"100m": 101_066_496, "1b": 1_100_048_384, "7b": 6_738_415_616}
"""TinyLlama's and Llama-2's cards publish the last two. smol_llama-101M-GQA's configuration says 32,128 entries; the
published count is that of 128 more rows of 768 in embedding and head (see the test)."""
ROWS = [
    *(Model(f"lang1-{size}-nyunotes", size, SIZES[size], "NYUNotes", False) for size in ("100m", "1b")),
    *(Model(f"lang1-{size}-nyunotes-plus", size, SIZES[size], "NYUNotes+", False) for size in ("100m", "1b")),
    *(Model(f"lang1-{size}", size, SIZES[size], "NYUNotes+", True) for size in ("100m", "1b", "7b")),
]
by_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.recipe)


def load(row: Model) -> RunConfig:
    return load_config(RECIPES / f"{row.recipe}.yaml", [])


def meta_parameters(preset: Preset, vocab_size: int) -> int:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return parameter_count(LlamaForCausalLM(llama_config(preset, vocab_size)))


@by_row
def test_recipe_builds_the_published_model(row: Model) -> None:
    config = load(row)
    assert config.pretrain.preset == row.preset
    assert config.pretrain.shape is None
    assert config.tokenize.vocab_size == 32_000
    assert meta_parameters(row.preset, config.tokenize.vocab_size) == row.parameters


def test_smol_llama_was_published_with_128_more_entries() -> None:
    assert meta_parameters("100m", 32_128) == SIZES["100m"] + 2 * 128 * 768 == 101_263_104


@by_row
def test_recipe_says_what_the_paper_says(row: Model) -> None:
    config = load(row)
    ours, rates = config.pretrain, config.pretrain.optimizer
    assert (rates.name, rates.beta1, rates.beta2, rates.eps) == ("adamw", 0.9, 0.95, 1e-8)
    assert (rates.schedule, rates.warmup_steps, rates.min_lr) == ("cosine", 2000, 4e-5)
    assert (rates.weight_decay, rates.clip, config.seed, ours.precision) == (0.1, 1.0, 3407, "bf16")
    assert rates.lr == {"100m": 6e-4, "1b": 4e-4, "7b": 3e-4}[row.preset]
    assert ours.global_batch == {"100m": 4096, "1b": 1024, "7b": 1024}[row.preset]
    assert ours.context_length is None
    assert PRESETS[row.preset].context_length == {"100m": 1024, "1b": 2048, "7b": 4096}[row.preset]
    assert ours.sharding == ("full" if row.preset == "7b" else "gradients")
    assert ours.mix == ({"clinical": 0.5, "web": 0.5} if row.has_web else {"clinical": 1.0})
    assert (config.tokenize.web is not None) is row.has_web
    assert config.tokenize.validation_fraction == 0.001
    tokens = ours.steps * ours.global_batch * PRESETS[row.preset].context_length
    assert 314.5e9 < tokens < 314.6e9


@by_row
def test_recipe_takes_its_corpus_version(row: Model) -> None:
    found = load(row).tokenize
    selection = load_config(RECIPES / f"nyu-notes{'-plus' if row.version == 'NYUNotes+' else ''}.yaml", []).tokenize
    assert found.version == row.version == selection.version
    for key in ("start", "end", "categories", "encounter_classes", "author_roles"):
        assert getattr(found, key) == getattr(selection, key), key
    assert found.end <= date(2024, 1, 1)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes and web text; of the vocabulary that the tokens bring."""
    return write_tokens(tmp_path_factory.mktemp("mixed") / "tokens", {"clinical": 200, "web": 200})


@by_row
def test_recipe_runs_to_the_end_when_only_its_sizes_are_overridden(row: Model, mixed: Path, tmp_path: Path) -> None:
    kv_heads = {"100m": 2, "1b": 1, "7b": 6}[row.preset]  # grouped, or not, as the published one
    shape = {"hidden": 48, "layers": 2, "heads": 6, "kv_heads": kv_heads, "ffn": 96}
    overrides = [f"pretrain.shape.{key}={value}" for key, value in shape.items()]
    overrides += [
        "tokenize.vocab_size=600",
        "pretrain.context_length=16",
        "pretrain.global_batch=32",
        "pretrain.steps=3",
    ]
    out = tmp_path / "checkpoints"
    arguments = ["pretrain", str(RECIPES / f"{row.recipe}.yaml"), *overrides, "--tokens", str(mixed), "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    curve = runs.read_lines(out / "curve.jsonl")
    assert [line["step"] for line in curve] == [1, 2, 3]
    assert curve[0]["lr"] == pytest.approx(load(row).pretrain.optimizer.lr / 2001)
    assert set(curve[-1]["val"]) == ({"clinical", "web"} if row.has_web else {"clinical"})
    assert all(found["loss"] > 0 for found in curve[-1]["val"].values())
    config = json.loads((out / "export" / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_key_value_heads"]) == (
        48,
        2,
        shape["kv_heads"],
    )
    assert runs.read_json(out / "export" / "lang1.json")["shape"].startswith(PRESETS[row.preset].source)


def test_an_override_changes_what_it_names_alone() -> None:
    changed = shape_of("1b", ShapeOverrides(layers=3, ffn=64))
    assert (changed.hidden, changed.layers, changed.heads, changed.kv_heads, changed.ffn) == (2048, 3, 32, 4, 64)
    assert changed.source == "TinyLlama/TinyLlama-1.1B, changed: layers, ffn"
    assert shape_of("1b", ShapeOverrides()) == PRESETS["1b"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (ShapeOverrides(hidden=100), "pretrain.shape.hidden: 100 is no multiple of twice 24 heads"),
        (ShapeOverrides(hidden=96, heads=12), "pretrain.shape.heads: 12 is no multiple of 8 key-value heads"),
    ],
)
def test_a_shape_that_no_llama_has_is_one_line(overrides: ShapeOverrides, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shape_of("100m", overrides)
    assert str(caught.value) == told
