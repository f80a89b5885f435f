"""Continued pretraining (init_from): models that are no Llama, their own tokenizers, and folders that do not match."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from training_data import write_tokens

from lang1 import runs
from lang1.config import OptimizerConfig, PretrainConfig
from lang1.corpus.shards import open_shards
from lang1.errors import InputError
from lang1.models.build import build_from_config
from lang1.models.export import export_checkpoint, read_checkpoint
from lang1.models.head import has_linear_head
from lang1.models.load import load_model
from lang1.models.origin import read_pretraining
from lang1.training import pretrain
from lang1.training.next_token import next_token_loss
from lang1.training.starting import start_model

ENTRIES = 400


def small(kind: str, **changed: Any) -> Any:
    """A Hugging Face configuration of a few thousand weights."""
    import transformers

    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=ENTRIES, n_positions=48, n_embd=32, n_layer=2, n_head=2)
    elif kind == "gptj":
        config = transformers.GPTJConfig(
            vocab_size=ENTRIES, n_positions=48, n_embd=32, n_layer=2, n_head=2, rotary_dim=8
        )
    else:
        name = {"qwen2": "Qwen2Config", "gemma2": "Gemma2Config", "granite": "GraniteConfig", "cohere": "CohereConfig"}
        config = getattr(transformers, name[kind])(
            vocab_size=ENTRIES,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    for key, value in {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **changed}.items():
        setattr(config, key, value)
    return config


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as transformers writes GPT-2's kind: no lang1 in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - 40,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["patient admitted with chest pain denies fever cough septic insulin"] * 9, trainer)
    folder = tmp_path_factory.mktemp("foreign")
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def foreign_tokens(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens", {"clinical": 200}, foreign)


def saved(kind: str, foreign: Path, folder: Path) -> Path:
    """A model folder as a hub holds it: weights, configuration, tokenizer."""
    build_from_config(small(kind), 1).save_pretrained(folder)
    for file in foreign.iterdir():
        shutil.copy(file, folder)
    return folder


def config_for(model: Path, **changed: Any) -> PretrainConfig:
    rates = OptimizerConfig(lr=3e-3, min_lr=1e-4, warmup_steps=2)
    cfg = PretrainConfig(context_length=24, global_batch=4, micro_batch=2, steps=6, val_batches=2, checkpoint_every=3)
    return replace(cfg, init_from=str(model), threads=1, optimizer=rates, **changed)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2"])
def test_a_model_of_another_kind_is_trained_to_the_end_and_reloads_to_equal_logits(
    kind: str, foreign: Path, foreign_tokens: Path, tmp_path: Path
) -> None:
    model = saved(kind, foreign, tmp_path / "model")
    out = tmp_path / "checkpoints"
    pretrain(config_for(model), tokens=foreign_tokens, out=out, seed=1)
    curve = runs.read_lines(out / "curve.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"]
    before, after = load_model(model), load_model(out / "export")
    assert type(after) is type(before)
    ids = torch.arange(1, 25)[None]
    trained = read_checkpoint(out / "step-00000006").eval()
    with torch.no_grad():
        logits = [one(input_ids=ids, use_cache=False).logits for one in (before, after, trained)]
    assert torch.equal(logits[1], logits[2])
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert "it continues model" in str(read_pretraining(out / "export").unknown)


def test_dropout_is_off_so_that_a_run_repeats_its_bytes(foreign: Path, foreign_tokens: Path, tmp_path: Path) -> None:
    model = saved("gpt2", foreign, tmp_path / "model")
    assert load_model(model).config.resid_pdrop == 0.1
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        pretrain(config_for(model), tokens=foreign_tokens, out=tmp_path / name, seed=1)
    weights = [(tmp_path / name / "export" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("kind", "is_linear"),
    [("gpt2", True), ("qwen2", True), ("gemma2", False), ("granite", False), ("cohere", False), ("gptj", False)],
)
def test_the_loss_is_that_of_the_models_own_logits(kind: str, is_linear: bool) -> None:
    changed = {"logits_scaling": 8.0} if kind == "granite" else {}
    model = build_from_config(small(kind, **changed), 1).eval()
    assert has_linear_head(model) is is_linear
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.mul_(200)  # trained models have such logits; a cap of 30 shows
        tokens = torch.randint(1, ENTRIES, (2, 17), generator=torch.Generator().manual_seed(0))
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        wanted = functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        found = next_token_loss(model, tokens, torch.float32, has_linear_head(model))
        unlike = next_token_loss(model, tokens, torch.float32, True)
    assert torch.allclose(found, wanted, rtol=1e-4)
    if kind in {"gemma2", "granite", "cohere"}:
        assert not torch.allclose(unlike, wanted, rtol=1e-2)


def test_asking_for_the_head_changes_nothing() -> None:
    model = build_from_config(small("qwen2"), 1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.arange(8)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    assert has_linear_head(model)
    assert model.training
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def told(cfg: PretrainConfig, tokens: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        pretrain(cfg, tokens=tokens, out=out, seed=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tokens_of_another_tokenizer_are_refused(
    foreign: Path, tokens: Path, foreign_tokens: Path, tmp_path: Path
) -> None:
    model = saved("gpt2", foreign, tmp_path / "model")
    message = told(config_for(model), tokens, tmp_path / "out")
    assert f"has embeddings of 400 tokens, the shards use {open_shards(tokens).vocab_size}" in message
    assert "lang1 tokenize tokenize.tokenizer=" in message
    facts = json.loads((model / "tokenizer.json").read_text())
    vocab = facts["model"]["vocab"]
    vocab["A"], vocab["B"] = vocab["B"], vocab["A"]
    (model / "tokenizer.json").write_text(json.dumps(facts))
    message = told(config_for(model), foreign_tokens, tmp_path / "out")
    assert f"the tokens were not made with the tokenizer of {model}: 2 of" in message


def test_a_tokenizer_that_does_not_match_the_shards_is_refused(
    foreign_tokens: Path, tokens: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tokens"
    shutil.copytree(foreign_tokens, copy)
    shutil.copytree(tokens / "tokenizer", copy / "tokenizer", dirs_exist_ok=True)
    cfg = PretrainConfig(context_length=24, steps=1, global_batch=1, micro_batch=1)
    assert "tokenizer.json: is not the one that manifest.json lists" in told_by_start(cfg, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"]["tokenizer/tokenizer.json"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert f"its vocab_size is {open_shards(tokens).vocab_size}, the shards' " in told_by_start(cfg, copy)


def told_by_start(cfg: PretrainConfig, tokens: Path) -> str:
    with pytest.raises(InputError) as caught:
        start_model(cfg, open_shards(tokens), 1, torch.float32)
    return str(caught.value)


def test_folders_that_are_no_whole_model_are_refused(foreign: Path, foreign_tokens: Path, tmp_path: Path) -> None:
    model = saved("qwen2", foreign, tmp_path / "model")
    long = replace(config_for(model), context_length=65)
    assert f"65 is more than the 64 positions of {model}" in told(long, foreign_tokens, tmp_path / "out")
    weights = model / "model.safetensors"
    from safetensors.torch import load_file, save_file

    kept = load_file(weights)
    save_file({k: v for k, v in kept.items() if "layers.1.mlp" not in k}, weights, {"format": "pt"})
    assert "weights lack model.layers.1.mlp" in told(config_for(model), foreign_tokens, tmp_path / "out")
    weights.unlink()
    torch.save(kept, model / "pytorch_model.bin")
    assert "its weights are a pickle (pytorch_model.bin)" in told(config_for(model), foreign_tokens, tmp_path / "out")
    assert "not found" in told(config_for(tmp_path / "none"), foreign_tokens, tmp_path / "out")


def test_a_checkpoint_is_to_be_exported_before_it_is_gone_on_from(
    foreign: Path, foreign_tokens: Path, tmp_path: Path
) -> None:
    first, rest = tmp_path / "first", tmp_path / "rest"
    pretrain(config_for(saved("qwen2", foreign, tmp_path / "model")), tokens=foreign_tokens, out=first, seed=1)
    assert "export it first" in told(config_for(first / "step-00000003"), foreign_tokens, rest)
    export_checkpoint(checkpoint=first / "step-00000003", out=tmp_path / "exported")
    pretrain(replace(config_for(tmp_path / "exported"), steps=1), tokens=foreign_tokens, out=rest, seed=1)
