"""The plan is what happens: memory beside two real steps, FLOPs beside torch's counter, figures beside public runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from measured_step import configuration, plain_loss
from torch.utils.flop_counter import FlopCounterMode

from lang1 import training
from lang1.cli.training import plan as plan_command
from lang1.config import PretrainConfig, RunConfig, load_config
from lang1.corpus.shards import open_shards
from lang1.errors import ConfigError, InputError
from lang1.models import kernels
from lang1.models.build import build_from_config, llama_config
from lang1.models.fast import use_fast_layers
from lang1.training import hardware
from lang1.training.efficiency import efficiency_of
from lang1.training.next_token import next_token_loss
from lang1.training.numerics import prepare_torch
from lang1.training.planning.cost import expense, planned_tokens_per_second, run_cost
from lang1.training.planning.flops import token_flops
from lang1.training.planning.memory import Layers, Precision, Sharding, StepSetting, kept_by_layer, step_memory
from lang1.training.planning.page import page
from lang1.training.planning.shape import ModelShape, meta_model, shape_of
from lang1.training.planning.tables import TERA, read_gpus, read_prices, read_runs, recognise

MODELS: dict[str, dict[str, Any]] = {
    "logits": {
        "hidden": 32, "ffn": 96, "layers": 2, "heads": 2, "kv_heads": 1, "vocab": 16_000, "tied": True,
        "context": 128, "micro_batch": 4, "accumulation": 1, "loss": "plain",
    },
    "activations": {
        "hidden": 128, "ffn": 512, "layers": 8, "heads": 4, "kv_heads": 2, "vocab": 1000, "tied": False,
        "context": 512, "micro_batch": 3, "accumulation": 1, "loss": "chunked",
    },
    "weights": {
        "hidden": 256, "ffn": 1024, "layers": 8, "heads": 4, "kv_heads": 4, "vocab": 4000, "tied": False,
        "context": 32, "micro_batch": 2, "accumulation": 2, "loss": "chunked",
    },
}  # fmt: skip
"""each at least four times the next in parameters or context, named for what fills its memory"""
SMALL = {"hidden": 64, "ffn": 160, "layers": 3, "heads": 4, "kv_heads": 2, "vocab": 300, "context": 64, "tied": False}


def planned(spec: dict[str, Any]) -> tuple[ModelShape, StepSetting]:
    setting = StepSetting(
        spec["micro_batch"],
        spec["context"],
        spec["accumulation"],
        loss=spec["loss"],
        layers=spec["layers_by"],
    )
    return shape_of(meta_model(configuration(spec))), setting


# --- memory


@dataclass(frozen=True)
class Measured:
    """Two real steps of each model of MODELS, in fresh processes (measured_step.py)."""

    layers: str
    found: dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Measured:
    steps = {name: spec | {"layers_by": request.param} for name, spec in MODELS.items()}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measured_step.py")), json.dumps(steps)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return Measured(request.param, json.loads(done.stdout.splitlines()[-1]))


# What a run on a CPU takes, and the layers of transformers: of these CI counts what a layer keeps, below.
@pytest.mark.parametrize("measured", ["kernels", pytest.param("transformers", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("name", MODELS)
def test_planned_memory_is_the_peak_of_two_real_steps(name: str, measured: Measured) -> None:
    shape, setting = planned(MODELS[name] | {"layers_by": measured.layers})
    total, found = step_memory(shape, setting).total, measured.found[name]
    assert shape.parameters == found["parameters"]
    assert total == pytest.approx(found["allocated"], rel=0.15)
    assert total == pytest.approx(found["resident"], rel=0.15)


def test_the_measured_models_differ_and_are_filled_by_what_their_names_say() -> None:
    parts = {name: step_memory(*planned(spec | {"layers_by": "transformers"})) for name, spec in MODELS.items()}
    assert parts["logits"].logits > 0.6 * parts["logits"].total
    assert parts["activations"].activations > 0.6 * parts["activations"].total
    weights = parts["weights"]
    assert weights.parameters + weights.gradients + weights.optimizer > 0.8 * weights.total
    sizes = sorted(planned(spec | {"layers_by": "kernels"})[0].parameters for spec in MODELS.values())
    lengths = sorted(spec["context"] for spec in MODELS.values())
    assert all(large >= 4 * small for small, large in pairwise(sizes))
    assert all(long >= 4 * short for short, long in pairwise(lengths))


@pytest.mark.parametrize(
    ("precision", "sharding", "by"),
    [
        ("fp32", "none", "transformers"),
        ("fp32", "none", "kernels"),
        ("bf16", "none", "transformers"),
        ("bf16", "full", "transformers"),
    ],
    ids=["fp32", "kernels", "autocast", "fsdp"],
)
def test_a_layer_keeps_exactly_the_bytes_that_autograd_saves(
    precision: Precision, sharding: Sharding, by: Layers
) -> None:
    kept = [saved_bytes({**SMALL, "layers": layers}, precision, sharding, by) for layers in (2, 3)]
    shape = shape_of(meta_model(configuration(SMALL)))
    setting = StepSetting(2, SMALL["context"], gpus=2, sharding=sharding, precision=precision, layers=by)
    assert kept[1] - kept[0] == kept_by_layer(shape, setting)


def test_a_layer_whose_gate_is_large_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> tuple[int, float]:
        two, three = (saved_bytes({**SMALL, "layers": layers}, "fp32", "none", "kernels") for layers in (2, 3))
        setting = StepSetting(2, SMALL["context"], layers="kernels")
        return three - two, kept_by_layer(shape_of(meta_model(configuration(SMALL))), setting)

    small = kept()
    monkeypatch.setattr(kernels, "KEPT", 0)
    large = kept()
    assert small[0] == small[1]
    assert large[0] == large[1]
    assert large[0] < small[0]


def saved_bytes(spec: dict[str, Any], precision: Precision, sharding: Sharding, by: Layers) -> int:
    """Bytes of the storages that the forward keeps, weights and autocast's copies of weights left out."""
    model = build_from_config(configuration(spec), seed=1)
    if precision == "bf16" and sharding != "none":
        model = model.to(torch.bfloat16)  # what FSDP's policy computes with
    if by == "kernels":
        use_fast_layers(model)
    weights = {tuple(p.shape[::-1]) for p in model.parameters()} | {tuple(p.shape) for p in model.parameters()}
    held, sizes = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in weights:
            held.append(tensor)  # alive, so that no address comes twice
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.zeros(2, spec["context"] + 1, dtype=torch.long)[:, :-1]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        enabled = precision == "bf16" and sharding == "none"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            model.base_model(input_ids=tokens, use_cache=False)
    return sum(sizes.values())


def test_sharding_and_recomputation_save_what_they_promise() -> None:
    shape = shape_of(meta_model(llama_config("1b", 32_000)))
    one = StepSetting(8, 2048, gpus=64, precision="bf16")
    none, gradients, full = (step_memory(shape, replace(one, sharding=s)) for s in ("none", "gradients", "full"))
    assert none.optimizer == 8 * shape.parameters
    assert gradients.optimizer == full.optimizer == 8 * shape.parameters / 64
    assert none.parameters > gradients.parameters > full.parameters
    again = step_memory(shape, replace(one, sharding="full", checkpointing=True))
    assert again.activations < 0.2 * full.activations
    whole = step_memory(shape, replace(one, sharding="gradients", accumulation=2))
    assert whole.gradients - gradients.gradients == pytest.approx(4 * shape.parameters, rel=0.05)
    sliced = step_memory(shape, replace(one, sharding="full", accumulation=2))
    assert sliced.gradients < whole.gradients / 4
    muon = step_memory(shape, replace(one, optimizer="muon"))
    assert none.optimizer - muon.optimizer == 4 * (shape.matmul_parameters - shape.head_parameters)


# --- FLOPs


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("loss", [next_token_loss, plain_loss])
def test_flops_are_those_that_torch_counts(tied: bool, loss: Callable[..., torch.Tensor]) -> None:
    spec = {**SMALL, "tied": tied}
    model = build_from_config(configuration(spec), seed=1)
    model.set_attn_implementation("eager")  # the counter does not know the fused kernel of a CPU
    counted = count_flops(model, spec["context"], loss)
    flops = token_flops(shape_of(model), spec["context"])
    assert flops.model == pytest.approx(counted, rel=1e-6)
    assert flops.backward == 2 * flops.forward


def test_recomputed_flops_are_those_that_torch_counts() -> None:
    model = build_from_config(configuration(SMALL), seed=1).train()
    model.set_attn_implementation("eager")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    flops = token_flops(shape_of(model), SMALL["context"], checkpointing=True)
    assert flops.hardware == pytest.approx(count_flops(model, SMALL["context"], next_token_loss), rel=0.01)
    assert flops.recompute > 0.5 * flops.forward


def count_flops(model: Any, context: int, loss: Callable[..., torch.Tensor]) -> float:
    tokens = torch.zeros(2, context + 1, dtype=torch.long)
    # oneDNN's product, which the fast step calls (models/kernels.py), is not in torch's list
    known = {torch.ops.mkldnn._linear_pointwise: onednn_flops}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        (loss(model, tokens) if loss is plain_loss else loss(model, tokens, torch.float32)).backward()
    return counter.get_total_flops() / (2 * context)


def onednn_flops(rows: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * int(torch.Size(rows).numel()) * int(weight[0])


def test_a_causal_mask_leaves_half_of_attention() -> None:
    shape = shape_of(meta_model(llama_config("1b", 32_000)))
    full, causal = (token_flops(shape, 2048, attention=a).model for a in ("full", "causal"))
    weights = 6 * shape.matmul_parameters
    assert (causal - weights) / (full - weights) == pytest.approx(2049 / 4096)


def test_our_count_gives_the_mfu_that_public_runs_state() -> None:
    gpus = read_gpus()
    tinyllama = token_flops(shape_of(meta_model(llama_config("1b", 32_000))), 2048)
    assert hardware.mfu(24_000, tinyllama.model, gpus["a100-40"].peak("bf16")) == pytest.approx(0.56, abs=0.005)
    # nanochat d32: 1,879,048,192 parameters less the input embedding; "Estimated FLOPs per token: 1.207960e+10"
    shape = ModelShape(2048, 32, 16, 16, 128, 8192, 65_536, False, 1_879_048_192, 50_331_648, 1_744_830_464)
    nanochat = token_flops(shape, 2048)
    assert nanochat.model == pytest.approx(1.207960e10, rel=1e-6)
    reached = hardware.mfu(524_288 / 1.57188, nanochat.model, 8 * gpus["h100"].peak("bf16"))
    assert reached == pytest.approx(0.5092, abs=0.001)


def test_a_masked_model_recomputes_all_its_layers_and_makes_the_logits_asked_for() -> None:
    shape, context = shape_of(meta_model(configuration(SMALL))), 64
    every, some = (token_flops(shape, context, checkpointing=True, asked=share) for share in (1.0, 0.15))
    assert some.recompute == every.recompute > 0  # the head is not among the layers
    assert every.forward - some.forward == pytest.approx(2 * 0.85 * shape.head_parameters)
    assert some.backward == 2 * some.forward


def test_the_flops_of_a_masked_run_are_those_of_the_logits_it_makes() -> None:
    model = meta_model(configuration(SMALL))
    made = efficiency_of(model, 64, True, torch.device("cpu"), 1, torch.float32, asked=0.15).flops
    assert made == token_flops(shape_of(model), 64, checkpointing=True, asked=0.15)


# --- time, price, energy


@pytest.mark.parametrize("has_bf16", [False, True])
def test_auto_is_planned_as_it_runs_on_this_cpu(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    flags = "flags : avx2 avx512_bf16" if has_bf16 else "flags : avx2"
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: flags if path == Path("/proc/cpuinfo") else read(path, **how)
    )
    wanted = "bf16" if has_bf16 else "fp32"
    made = training.plan(recipe(preset="tiny", precision="auto"), gpus=1, gpu="cpu")
    assert made["device"]["precision"] == wanted
    if not torch.cuda.is_available():
        assert prepare_torch(torch.get_num_threads(), "auto") is (torch.bfloat16 if has_bf16 else torch.float32)


def test_auto_is_bf16_on_the_gpus_of_the_table() -> None:
    assert training.plan(recipe(preset="1b", precision="auto"), gpus=64, gpu="h100")["device"]["precision"] == "bf16"


def test_the_example_of_the_docs_is_what_the_command_prints() -> None:
    text = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
    example = text.partition("```text\n")[2].partition("```")[0]
    printed = page(training.plan(recipe(preset="1b", precision="bf16"), gpus=64, gpu="h100")).splitlines()
    shown = [line for line in example.splitlines() if line.strip() not in ("", "...")]
    assert len(shown) > 15
    assert [line for line in shown if line not in printed] == []


def test_the_papers_run_reached_little_more_than_one_per_cent() -> None:
    made = training.plan(recipe(preset="1b", precision="bf16"), gpus=64, gpu="h100")
    assert made["model"]["parameters"] == 1_100_048_384
    assert made["run"]["tokens"] == pytest.approx(314.5e9, rel=1e-3)
    assert made["paper"]["gpu_hours"] == 46_080
    assert made["paper"]["mfu_causal"] == pytest.approx(0.013, abs=0.0005)
    assert made["paper"]["mfu"] == pytest.approx(0.014, abs=0.0005)


def test_time_price_and_energy_follow_from_the_flops() -> None:
    made = training.plan(recipe(preset="1b", precision="bf16"), gpus=64, gpu="h100", mfu=0.5)
    board, spent = read_gpus()["h100"], made["time"]
    seconds = made["run"]["flops"] / (64 * board.bf16 * 1e12 * 0.5)
    assert spent["seconds"] == pytest.approx(seconds)
    assert spent["gpu_hours"] == pytest.approx(64 * seconds / 3600)
    assert spent["kilowatt_hours"] == pytest.approx(spent["gpu_hours"] * 0.7)
    assert spent["at_highest_public"]["seconds"] < spent["at_lowest_public"]["seconds"]
    for price in made["prices"]:
        assert price["total_usd"] == pytest.approx(price["usd"] * spent["gpu_hours"])
        assert date.fromisoformat(price["read"]) and price["source"]
    assert len(made["prices"]) == sum(1 for price in read_prices() if price.gpu == "h100") > 0


def test_every_figure_of_the_tables_names_its_source() -> None:
    runs = read_runs()
    assert {run.name.split()[0] for run in runs.runs} == {"TinyLlama", "torchtitan", "nanochat"}
    assert all(entry.source for entry in [*read_gpus().values(), *read_prices(), *runs.runs])
    assert {price.gpu for price in read_prices()} <= set(read_gpus())


def test_the_cost_of_a_run_on_a_known_gpu_and_on_a_cpu() -> None:
    flops = token_flops(shape_of(meta_model(configuration(SMALL))), 64, checkpointing=True)
    known = run_cost(
        tokens=10**9, seconds=7200.0, flops=flops, device="NVIDIA H100 80GB HBM3", devices=8, precision="bf16",
        peak=989.4e12,
    )  # fmt: skip
    assert known["device_hours"] == 16
    assert known["kwh_at_board_limit"] == pytest.approx(16 * 0.7)
    assert known["mfu"] == pytest.approx(10**9 * flops.model / 7200 / (8 * 989.4e12), abs=1e-6)
    assert known["flops_with_recompute"] > known["flops"]
    assert {offer["offer"]: offer["usd"] for offer in known["usd"]}["Lambda 8x H100 SXM on demand"] == 63.84
    cpu = run_cost(tokens=1000, seconds=2.0, flops=flops, device="cpu", devices=1, precision="fp32", peak=1e11)
    assert cpu["usd"] is None and cpu["kwh_at_board_limit"] is None
    assert cpu["mfu"] == pytest.approx(500 * flops.model / 1e11, abs=1e-6)
    json.dumps([known, cpu], allow_nan=False)


def test_the_plans_speed_and_its_time_are_one_figure() -> None:
    flops, board = token_flops(shape_of(meta_model(configuration(SMALL))), 64), read_gpus()["h200"]
    spent = expense(10**9, flops, board, 4, 0.3, "fp32")
    assert planned_tokens_per_second(flops, board.peak("fp32"), 4, 0.3) * spent.seconds == pytest.approx(10**9)
    assumed = read_runs().assumed.mfu
    assert planned_tokens_per_second(flops, 1e12) == pytest.approx(assumed * 1e12 / flops.model)


# --- the device's peak


@pytest.mark.parametrize(("rate", "sizes"), [(1e8, [512]), (1e12, [512, 1024, 2048])])
def test_a_processor_without_bf16_is_not_asked_for_products_of_minutes(
    rate: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(hardware, "_fastest", lambda way, size, dtype, budget_s: asked.append(size) or rate)
    assert hardware.gemm_peak.__wrapped__(torch.bfloat16, 1) == rate
    assert asked == sizes


@pytest.mark.parametrize("rate", [2e9, 2e10, 5e10, 2e11, 5e12])
def test_gemm_peak_takes_two_seconds_on_a_slow_processor_and_on_a_fast_one(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only the products move."""
    now = [0.0]

    def multiply(left: torch.Tensor, right: torch.Tensor) -> None:
        now[0] += 2 * left.shape[0] ** 3 / rate

    def clock() -> float:
        return now[0]

    monkeypatch.setattr(hardware, "time", SimpleNamespace(monotonic=clock, perf_counter=clock))
    monkeypatch.setattr(torch, "mm", multiply)
    monkeypatch.setattr(kernels, "product", multiply)
    assert hardware.gemm_peak.__wrapped__(torch.float32, 1) == pytest.approx(rate)
    assert now[0] < 2


def test_gemm_peak_is_measured_once() -> None:
    hardware.gemm_peak.cache_clear()
    threads = torch.get_num_threads()
    peak = hardware.gemm_peak(torch.float32, 1)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    left = torch.randn(512, 512)
    began = time.perf_counter()
    torch.mm(left, left)
    one = 2 * 512**3 / (time.perf_counter() - began)
    torch.set_num_threads(threads)
    assert peak > 0.5 * one
    assert hardware.gemm_peak(torch.float32, 1) == peak
    assert hardware.gemm_peak.cache_info().hits == 1


def test_gpus_are_known_by_the_names_that_drivers_give(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = read_gpus()
    for reported, name in {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA A100-SXM4-40GB": "a100-40",
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA H200": "h200",
        "NVIDIA GeForce RTX 3060": None,
    }.items():
        assert recognise(reported, gpus) == name
        monkeypatch.setattr(hardware, "device_name", lambda _device, reported=reported: reported)
        peak = hardware.device_peak(torch.device("cuda"), torch.bfloat16)
        assert peak == (gpus[name].bf16 * 1e12 if name else None)


# --- the command


def recipe(**options: Any) -> RunConfig:
    return replace(load_config(None, [], "pretrain"), pretrain=PretrainConfig(**options))


def test_plan_says_epochs_by_source_from_a_tokens_folder(tokens: Path) -> None:
    small = recipe(preset="tiny", context_length=64, steps=100, global_batch=16, micro_batch=4)
    made = training.plan(small, gpus=2, gpu="a100", tokens=tokens)
    shards = open_shards(tokens)
    assert made["model"]["vocab"] == shards.vocab_size
    assert list(made["run"]["sources"]) == ["clinical"]  # there is no web: the other weights are rescaled
    clinical = made["run"]["sources"]["clinical"]
    assert clinical["tokens"] == 100 * 16 * 64
    assert clinical["epochs"] == pytest.approx(100 * 16 * 64 / shards.tokens("clinical", "train"))


def test_largest_micro_batch_fits_and_the_next_does_not() -> None:
    for row in training.plan(recipe(preset="7b", precision="bf16"), gpus=64, gpu="h100")["memory"]:
        shape = shape_of(meta_model(llama_config("7b", 32_000)))
        room = 0.9 * read_gpus()["h100"].memory_gib * 2**30
        most = row["largest_micro_batch"]
        setting = StepSetting(
            1, 4096, 16, 64, row["sharding"], row["activation_checkpointing"], precision="bf16"
        )  # 16 sequences a GPU
        fitting = [
            m
            for m in (1, 2, 4, 8, 16)
            if step_memory(shape, replace(setting, micro_batch=m, accumulation=16 // m)).total <= room
        ]
        assert most == (max(fitting) if fitting else None)
        assert row["fits"] == (row["total"] <= room)


def test_command_prints_a_page_with_the_users_own_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("prices:\n- {gpu: h200, offer: our own rack, usd: 1.5, read: 2026-11-01, source: the invoice}\n")
    plan_command(["pretrain.preset=tiny", "pretrain.steps=10"], gpus=2, gpu="h200", prices=own)
    shown = capsys.readouterr().out
    for words in ("FLOPs a token", "Memory a GPU", "gradients", "MFU", "our own rack", "2026-11-01", "nanochat"):
        assert words in shown
    assert "Lambda" not in shown


def test_plan_for_this_machine_has_its_memory_and_its_measured_peak(capsys: pytest.CaptureFixture[str]) -> None:
    whole, half = (training.plan(recipe(preset="tiny"), gpus=count, gpu="cpu") for count in (1, 2))
    assert whole["device"]["memory_gib"] == 2 * half["device"]["memory_gib"]
    peak = hardware.gemm_peak(torch.float32, len(os.sched_getaffinity(0)))
    assert whole["device"]["peak"] == peak / TERA * TERA  # the table holds TFLOP/s
    assert whole["time"]["kilowatt_hours"] is None
    on_gpu = training.plan(recipe(preset="tiny"), gpus=1, gpu="h100")
    assert whole["memory"][0]["activations"] < 0.6 * on_gpu["memory"][0]["activations"]
    plan_command(["pretrain.preset=tiny"], gpus=1, gpu="cpu")
    assert "Memory a process" in capsys.readouterr().out


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    plan_command(["pretrain.preset=tiny"], gpus=1, as_json=True)
    made = json.loads(capsys.readouterr().out)
    assert [row["sharding"] for row in made["memory"]] == ["none", "none"]
    with pytest.raises(ConfigError, match="--loss whole: chunked or plain"):
        plan_command([], loss="whole")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": "h1000"}, "--gpu h1000: not in the table of GPUs; it has h100-pcie, h100"),
        ({"gpus": 48}, "pretrain.global_batch: 1024 is no multiple of micro_batch (8) times 48 processes"),
        ({"gpus": 0}, "--gpus 0"),
        ({"mfu": 40.0}, "--mfu 40.0: a share of the peak"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as raised:
        training.plan(recipe(), **({"gpus": 8, "gpu": "h100"} | options))
    assert said in str(raised.value)


def test_a_table_of_prices_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such table of prices; copy .*tables/prices\.yaml"):
        read_prices(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("prices:\n- {gpu: h100, offer: x, usd: -1, read: 2026-01-01, source: y}\n", "0: usd: must be 0 or more"),
        ("prices:\n- {gpu: h100, offer: x, usd: 1, source: y}\n", "0.read: Field required"),
        ("offers: []\n", "has the key prices and no other; found offers"),
    ],
)
def test_a_table_of_prices_that_cannot_be_used_is_named(table: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(table)
    with pytest.raises(ConfigError) as raised:
        read_prices(path)
    assert str(raised.value).startswith(str(path)) and said in str(raised.value)
