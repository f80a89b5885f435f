"""What finetuning starts from: checkpoints of a trajectory, other classes of model, and folders that are refused."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import SMALL
from safetensors.torch import load_file, save_file
from training_data import WORDS, write_tasks, write_tokens

from lang1 import runs
from lang1.config import FinetuneConfig, LoraConfig, OptimizerConfig, SweepConfig
from lang1.errors import InputError
from lang1.models.load import load_model, load_scorer, load_tokenizer
from lang1.remede.provenance import describe_model
from lang1.training import finetune, pretrain, sweep
from lang1.training.base_model import BaseModel

CFG = FinetuneConfig(
    tasks=("mortality",),
    optimizer=OptimizerConfig(lr=1e-3, min_lr=0.0, warmup_steps=0),
    batch_size=4,
    max_steps_per_task=2,
    val_every=2,
    val_rows=20,
    max_note_tokens=20,
    threads=1,
)
LORA = replace(CFG, method="lora")


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining run with checkpoints at steps 5, 10 and 15."""
    root = tmp_path_factory.mktemp("trajectory")
    cfg = replace(SMALL, context_length=128, steps=15, val_every=15)
    pretrain(cfg, tokens=write_tokens(root / "tokens", {"clinical": 300}), out=root / "run", seed=1)
    return root / "run"


def first_loss(out: Path) -> float:
    return float(runs.read_lines(out / "curve.jsonl")[0]["loss"])


def test_any_checkpoint_of_the_trajectory_or_its_export_is_a_start(
    trajectory: Path, tasks: Path, tmp_path: Path
) -> None:
    for name in ("step-00000005", "step-00000015", "last", "export"):
        finetune(CFG, tasks=tasks, model=trajectory / name, out=tmp_path / name, seed=1)
    losses = {name: first_loss(tmp_path / name) for name in ("step-00000005", "step-00000015", "last", "export")}
    assert losses["step-00000015"] == losses["last"] == losses["export"]
    assert losses["step-00000005"] != losses["step-00000015"]
    tokens = runs.read_manifest(trajectory)["inputs"]["tokens"]
    for name in losses:
        assert runs.read_json(tmp_path / name / "lang1.json")["pretraining"]["tokens"] == tokens
        assert len(load_tokenizer(tmp_path / name)) == len(load_tokenizer(trajectory / "tokenizer"))
    with pytest.raises(InputError, match="made with other settings or inputs"):
        finetune(CFG, tasks=tasks, model=trajectory / "step-00000010", out=tmp_path / "step-00000005", seed=1)


def test_random_weights_take_the_shape_of_a_checkpoint(trajectory: Path, tasks: Path, tmp_path: Path) -> None:
    cfg = replace(CFG, init="random")
    finetune(cfg, tasks=tasks, model=trajectory / "step-00000005", out=tmp_path / "model", seed=2)
    ours, theirs = (load_model(folder) for folder in (tmp_path / "model", trajectory / "export"))
    assert ours.config.hidden_size == theirs.config.hidden_size
    assert not torch.allclose(ours.model.layers[0].mlp.up_proj.weight, theirs.model.layers[0].mlp.up_proj.weight)


def other_class(folder: Path, name: str, tokenizer: Path) -> Path:
    """A tiny GPT-2 or Qwen2, as its makers would save it."""
    import transformers

    torch.manual_seed(0)
    shapes: dict[str, Any] = {
        "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
        "Qwen2": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "num_key_value_heads": 1, "max_position_embeddings": 256},
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(vocab_size=600, **shapes[name])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize(("name", "targets"), [("GPT2", ("c_attn",)), ("Qwen2", ("q_proj", "v_proj"))])
def test_other_classes_are_finetuned_whole_and_by_adapters(
    name: str, targets: tuple[str, ...], tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    model = other_class(tmp_path / "start", name, model_folder.parent / "tokenizer")
    tokens = torch.arange(30)[None]
    before = load_model(model)(input_ids=tokens).logits
    joint = replace(CFG, tasks=("mortality", "los"))
    for out, cfg in (
        ("full", joint),
        ("again", joint),
        ("lora", replace(joint, method="lora", lora=LoraConfig(targets=targets))),
    ):
        finetune(cfg, tasks=tasks, model=model, out=tmp_path / out, seed=1)
        after = load_model(tmp_path / out)
        assert type(after).__name__.startswith(name)
        assert not torch.allclose(before, after(input_ids=tokens).logits, atol=1e-4)
    full, again = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("full", "again"))
    assert full == again, "something draws without the seed, such as GPT-2's own dropout"


def with_vocabulary(start: Path, model: Path, name: str, kind: str) -> Path:
    """The folder with a tokenizer that is one file of words, as BERT's has been from the first."""
    shutil.copytree(start, model)
    for path in model.glob("tokenizer*"):
        path.unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Answer", ":", *"ABCDE", *WORDS]
    (model / name).write_text("".join(f"{word}\n" for word in words))
    runs.write_json(model / "tokenizer_config.json", {"tokenizer_class": kind, "do_lower_case": False})
    return model


@pytest.mark.parametrize("start", ["model_folder", "encoder"])
def test_a_vocabulary_in_a_file_of_its_own_goes_with_the_model(
    start: str, tasks: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = with_vocabulary(request.getfixturevalue(start), tmp_path / "start", "vocab.txt", "BertTokenizer")
    ids = load_tokenizer(model)("patient denies fever")["input_ids"]
    assert 1 not in ids
    finetune(CFG, tasks=tasks, model=model, out=tmp_path / "model", seed=1)
    assert load_tokenizer(tmp_path / "model")("patient denies fever")["input_ids"] == ids
    before = describe_model(tmp_path / "model")["tokenizer_sha256"]
    (tmp_path / "model" / "vocab.txt").write_text("another\n")
    assert describe_model(tmp_path / "model")["tokenizer_sha256"] != before


@pytest.mark.parametrize("start", ["model_folder", "encoder"])
def test_a_vocabulary_that_would_be_left_behind_is_told_before_training(
    start: str, tasks: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = with_vocabulary(
        request.getfixturevalue(start), tmp_path / "start", "prophetnet.tokenizer", "ProphetNetTokenizer"
    )
    with pytest.raises(InputError, match=r"start: its vocabulary is in a file that lang1 does not know"):
        finetune(CFG, tasks=tasks, model=model, out=tmp_path / "model", seed=1)
    assert not (tmp_path / "model" / "curve.jsonl").exists()


@pytest.mark.parametrize(("package", "cfg"), [("peft", LORA), ("optuna", CFG)])
def test_a_package_that_is_missing_is_named_with_the_line_to_type(
    package: str, cfg: FinetuneConfig, tasks: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else found(name, *more)
    )
    with pytest.raises(InputError, match=rf"needs {package}: pip install 'lang1\[tune\]'"):
        sweep(SweepConfig(trials=1, steps=1), cfg, tasks=tasks, model=model_folder, out=tmp_path / "sweep", seed=1)
    if package == "peft":
        with pytest.raises(InputError, match=r"finetune\.method: lora: needs peft"):
            finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)


def test_an_encoder_is_no_causal_language_model(encoder: Path) -> None:
    """transformers would read it as a decoder that lacks nothing, and answer by it."""
    for read in (load_model, lambda folder: load_scorer(folder, torch.float32), lambda f: BaseModel(f, False).load(0)):
        with pytest.raises(InputError, match=r"an encoder, not a causal language model"):
            read(encoder)


def test_pickled_weights_are_named_and_not_read(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "start")
    weights = load_file(tmp_path / "start" / "model.safetensors")
    (tmp_path / "start" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "start" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"its weights are a pickle \(pytorch_model\.bin\), which can run code"):
        finetune(CFG, tasks=tasks, model=tmp_path / "start", out=tmp_path / "model", seed=1)


def test_weights_of_another_vocabulary_are_refused(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "start")
    weights = load_file(tmp_path / "start" / "model.safetensors")
    for name in [name for name in weights if "embed" in name or "lm_head" in name]:
        weights[name] = weights[name][:400].clone()
    save_file(weights, tmp_path / "start" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights have other sizes than its config\.json says"):
        finetune(CFG, tasks=tasks, model=tmp_path / "start", out=tmp_path / "model", seed=1)
    config = runs.read_json(tmp_path / "start" / "config.json") | {"vocab_size": 400}
    runs.write_json(tmp_path / "start" / "config.json", config)
    with pytest.raises(InputError, match=r"the tokenizer has \d+ entries and the model 400"):
        finetune(CFG, tasks=tasks, model=tmp_path / "start", out=tmp_path / "other", seed=1)


def test_a_task_of_which_one_split_is_missing_is_refused(model_folder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", 40, ("mortality",))
    (tasks / "mortality" / "val.parquet").unlink()
    with pytest.raises(InputError, match=r"val\.parquet: missing, though manifest\.json lists it"):
        finetune(CFG, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)
    manifest = runs.read_json(tasks / "manifest.json")
    del manifest["files"]["mortality/val.parquet"]
    runs.write_json(tasks / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"val\.parquet: missing, though the task's other split is there"):
        finetune(CFG, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)
