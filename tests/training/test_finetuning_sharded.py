"""One process and two finetune the same model: all parameters in both sharding modes, and adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from finetune_ranks import finetuned, start
from ranks import ended
from safetensors.torch import load_file

from lang1 import runs
from lang1.config import FinetuneConfig, LoraConfig, OptimizerConfig, SweepConfig

RATES = OptimizerConfig(lr=1e-3, min_lr=0.0, warmup_steps=0, beta2=0.999, eps=1e-5, weight_decay=0.02, clip=None)
FULL = FinetuneConfig(
    tasks=("mortality", "los", "readmission"),
    optimizer=RATES,
    batch_size=15,
    max_steps_per_task=3,
    val_every=3,
    val_rows=25,
    batch_tokens=400,
    max_note_tokens=20,
    threads=1,
)
LORA = replace(FULL, method="lora", lora=LoraConfig(dropout=0.0))


@pytest.fixture(scope="module")
def alone(tasks: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("alone")

    @cache
    def of(method: str) -> Path:
        return finetuned(LORA if method == "lora" else FULL, tasks, model_folder, root / method, 1)

    return of


@pytest.mark.parametrize(
    ("method", "sharding", "checkpointing"),
    [
        ("full", "gradients", False),
        pytest.param("full", "full", True, marks=pytest.mark.long),
        pytest.param("lora", "full", False, marks=pytest.mark.long),
    ],
)
def test_two_processes_finetune_the_model_of_one(
    alone: Callable[[str], Path],
    tasks: Path,
    model_folder: Path,
    tmp_path: Path,
    method: str,
    sharding: str,
    checkpointing: bool,
) -> None:
    cfg = replace(
        LORA if method == "lora" else FULL,
        sharding=sharding,  # type: ignore[arg-type]
        activation_checkpointing=checkpointing,
    )
    two = finetuned(cfg, tasks, model_folder, tmp_path / "two", 2)
    assert runs.read_manifest(two)["facts"]["processes"] == 2
    for mine, theirs in zip(*(runs.read_lines(f / "curve.jsonl") for f in (two, alone(method))), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
        assert mine["tokens"] == theirs["tokens"]
        for task, facts in theirs.get("val", {}).items():
            assert mine["val"][task]["loss"] == pytest.approx(facts["loss"], abs=1e-5)
            assert mine["val"][task]["rows"] == facts["rows"]
    ours, other = (load_file(folder / "model.safetensors") for folder in (two, alone(method)))
    assert ours.keys() == other.keys()
    assert max(float((ours[name] - other[name]).abs().max()) for name in ours) < 1e-4


@pytest.mark.long
def test_two_processes_search_the_rates_of_one(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    search, cfg = SweepConfig(trials=2, steps=2), replace(FULL, tasks=("mortality",), val_every=2)
    one, two = (finetuned(cfg, tasks, model_folder, tmp_path / f"{n}", n, search) for n in (1, 2))
    for mine, theirs in zip(*(runs.read_json(out / "trials.json") for out in (one, two)), strict=True):
        assert mine["lr"] == theirs["lr"]
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    assert runs.read_json(one / "best.json")["trial"] == runs.read_json(two / "best.json")["trial"]


def test_a_model_that_is_refused_ends_all_processes_with_one_line(
    tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    cfg = replace(LORA, lora=LoraConfig(targets=("c_attn",)))
    (main, told), (other, silent) = ended(start(cfg, tasks, model_folder, tmp_path / "model", 2), 400)
    assert (main, other) == (2, 2)
    assert "finetune.lora.targets: c_attn: no such module" in told
    assert "Traceback" not in told + silent
