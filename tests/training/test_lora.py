"""Adapters: only they learn, merged and beside the base they give the same logits, a killed run ends as another."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_data import start, wait_for_steps, write_tasks

from lang1 import runs
from lang1.config import FinetuneConfig, LoraConfig, OptimizerConfig
from lang1.errors import InputError
from lang1.models.load import load_model
from lang1.training import finetune

RATES = OptimizerConfig(lr=5e-3, min_lr=0.0, warmup_steps=0, beta2=0.999, eps=1e-5, weight_decay=0.02, clip=None)
LORA = FinetuneConfig(
    tasks=("mortality", "los"),
    method="lora",
    optimizer=RATES,
    batch_size=8,
    max_steps_per_task=6,
    val_every=4,
    val_rows=20,
    max_note_tokens=20,
    threads=1,
)


@pytest.fixture(scope="module")
def adapted(tasks: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "model"
    finetune(LORA, tasks=tasks, model=model_folder, out=out, seed=1)
    return out


def test_merged_logits_equal_those_of_base_and_adapter(adapted: Path, model_folder: Path) -> None:
    from peft import PeftModel

    tokens = torch.randint(0, 500, (3, 40), generator=torch.Generator().manual_seed(1))
    merged, base = load_model(adapted), load_model(model_folder)
    with torch.no_grad():
        plain = base(input_ids=tokens).logits
        beside = PeftModel.from_pretrained(base, adapted / "adapter")(input_ids=tokens).logits
        whole = merged(input_ids=tokens).logits
    assert type(merged).__name__ == "LlamaForCausalLM"
    assert torch.allclose(whole, beside, atol=1e-5)
    assert not torch.allclose(whole, plain, atol=1e-3), "the adapter has learned nothing"


def test_everything_but_q_and_v_is_as_it_was(adapted: Path, model_folder: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folder, adapted))
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "v_proj"}
    ours = load_file(adapted / "adapter" / "adapter_model.safetensors")
    assert {len(t) for name, t in ours.items() if "lora_A" in name} == {8}
    said = runs.read_json(adapted / "adapter" / "adapter_config.json")
    assert (said["r"], said["lora_alpha"], said["lora_dropout"]) == (8, 16, 0.05)
    assert sorted(said["target_modules"]) == ["q_proj", "v_proj"]
    assert runs.read_json(adapted / "lang1.json")["lora"]["r"] == 8


@pytest.mark.long
def test_a_planted_signal_is_learned_by_adapters(model_folder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", 300, ("mortality",), rare=0.3, loud=6)
    cfg = replace(
        LORA,
        tasks=("mortality",),
        batch_size=16,
        max_steps_per_task=60,
        val_every=20,
        val_rows=100,
        optimizer=replace(RATES, lr=2e-2),
        lora=LoraConfig(targets=("q_proj", "v_proj", "o_proj")),
    )
    assert finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "m", seed=1)["facts"]["best_value"] > 0.8


def test_dropout_and_a_kill_leave_the_bytes_of_an_undisturbed_run(
    adapted: Path, tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    process = start("finetune", LORA, {"tasks": tasks, "model": model_folder}, out)
    wait_for_steps(process, out / "curve.jsonl", random.SystemRandom().randint(5, 9))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(out)
    finetune(LORA, tasks=tasks, model=model_folder, out=out, seed=1)
    for name in ("curve.jsonl", "model.safetensors", "adapter/adapter_model.safetensors", "lang1.json"):
        assert (out / name).read_bytes() == (adapted / name).read_bytes(), name


def test_recomputed_activations_change_no_byte_of_the_curve(
    adapted: Path, tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    again = replace(LORA, activation_checkpointing=True)
    finetune(again, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)
    for mine, theirs in zip(*(runs.read_lines(f / "curve.jsonl") for f in (tmp_path / "model", adapted)), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)


def test_targets_that_the_model_lacks_are_named_with_those_that_it_has(
    tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    cfg = replace(LORA, lora=LoraConfig(targets=("q_proj", "c_attn")))
    has = "down_proj, gate_proj, k_proj, o_proj, q_proj"
    with pytest.raises(InputError, match=rf"lora\.targets: c_attn: no such module in LlamaForCausalLM; .* are {has}"):
        finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)
