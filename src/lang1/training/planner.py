"""`lang1 plan`: what a pretraining run takes, before anything is spent. Nothing is allocated, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from lang1.config import PretrainConfig, RunConfig
from lang1.errors import InputError
from lang1.models.build import llama_config
from lang1.models.encoder import decoder_preset
from lang1.models.presets import PRESETS
from lang1.training.hardware import this_cpu
from lang1.training.numerics import cpu_has_fast_bf16
from lang1.training.planning.cost import DAY, Expense, expense, implied_mfu
from lang1.training.planning.flops import TokenFlops, token_flops
from lang1.training.planning.memory import (
    SHARDINGS,
    Layers,
    Loss,
    Precision,
    StepSetting,
    logits_bytes,
    step_memory,
)
from lang1.training.planning.shape import ModelShape, meta_model, shape_of
from lang1.training.planning.tables import Gpu, Price, Runs, find_gpu, read_gpus, read_prices, read_runs

GIB = 2.0**30
CPU = "cpu"
USABLE = 0.9
"""share of a GPU's memory that the plan fills: ours; CUDA's context, NCCL and fragmentation take the rest"""


def plan(
    config: RunConfig,
    *,
    gpus: int,
    gpu: str,
    tokens: Path | None = None,
    mfu: float | None = None,
    prices: Path | None = None,
    gpus_file: Path | None = None,
    loss: Loss = "chunked",
) -> dict[str, Any]:
    """The plan of the recipe's pretraining on `gpus` GPUs of kind `gpu`, as JSON values.

    `gpu` "cpu" is this machine, shared by `gpus` processes. `tokens` is a tokens folder: its vocabulary and its token
    counts are used (index.json and headers are read, no token is); without it the vocabulary is tokenize.vocab_size.
    `mfu`: the share of the peak to reckon with. Raises
    InputError or ConfigError for a GPU or a table that is not known, and a batch that the GPUs cannot share.
    """
    pretrain = config.pretrain
    table, offers, runs = read_gpus(gpus_file), read_prices(prices), read_runs()
    if gpus < 1:
        raise InputError(f"--gpus {gpus}: at least 1")
    if mfu is not None and not 0 < mfu <= 1:
        raise InputError(f"--mfu {mfu}: a share of the peak above 0 and at most 1, such as 0.4")
    is_here = gpu == CPU and CPU not in table
    precision = _precision(pretrain, is_here)
    board = this_cpu(gpus, precision) if is_here else find_gpu(gpu, table)
    shards = _open(tokens)
    model = _model_config(config, shards.vocab_size if shards else config.tokenize.vocab_size)
    shape, length = shape_of(meta_model(model)), pretrain.context_length or int(model.max_position_embeddings)
    kernels = gpu == CPU and precision == "fp32" and model.model_type == "llama"
    setting = _setting(pretrain, gpus, length, precision, loss, "kernels" if kernels else "transformers")
    total = pretrain.steps * pretrain.global_batch * length
    full, causal = (
        token_flops(shape, length, attention=attention, checkpointing=pretrain.activation_checkpointing)
        for attention in ("full", "causal")
    )
    spend = partial(expense, total, full, board, gpus, precision=precision)
    return {
        "model": {
            "name": pretrain.init_from or pretrain.preset,
            **asdict(shape),
            "context": length,
            "vocab_from": f"{tokens}" if shards else "tokenize.vocab_size",
        },
        "flops_per_token": _flops(full, causal),
        "run": {
            "steps": pretrain.steps,
            "global_batch": pretrain.global_batch,
            "tokens": total,
            "flops": full.model * total,
            "sources": _sources(config, total, length, shards),
        },
        "device": _device(board, gpu, gpus, precision),
        "memory": _memory(shape, setting, pretrain.global_batch // gpus, board),
        "recipe": {
            "micro_batch": setting.micro_batch,
            "sharding": pretrain.sharding,
            "activation_checkpointing": pretrain.activation_checkpointing,
            "loss": loss,
            "optimizer": setting.optimizer,
        },
        **_time_and_prices(spend, mfu, gpu, runs, offers),
        "paper": _paper(runs, table, shape),
    }


def _precision(pretrain: PretrainConfig, is_here: bool) -> Precision:
    """What `auto` comes to: bf16 on every GPU of the table, and here where the processor multiplies it."""
    if pretrain.precision == "auto":
        return "bf16" if not is_here or cpu_has_fast_bf16() else "fp32"
    return pretrain.precision


def _flops(full: TokenFlops, causal: TokenFlops) -> dict[str, float]:
    return {
        "forward": full.forward,
        "backward": full.backward,
        "recompute": full.recompute,
        "model": full.model,
        "model_causal": causal.model,
    }


def _device(board: Gpu, gpu: str, gpus: int, precision: Precision) -> dict[str, Any]:
    return {
        "gpu": gpu,
        "gpus": gpus,
        "precision": precision,
        "peak": board.peak(precision),
        "usable_share": USABLE,
        **asdict(board),
    }


def _time_and_prices(
    spend: Callable[[float], Expense], mfu: float | None, gpu: str, runs: Runs, offers: Sequence[Price]
) -> dict[str, Any]:
    """Time at `mfu` or the assumed one and in the range of the public runs, and what each offer asks for it."""
    share, public = mfu or runs.assumed.mfu, runs.on(gpu)
    bounds = min(run.low for run in public), max(run.high for run in public)
    spent, low, high = (spend(at) for at in (share, *bounds))
    return {
        "time": {
            "assumed_mfu": share,
            "why": "--mfu" if mfu else runs.assumed.why,
            **_expense(spent),
            "public_mfu": bounds,
            "at_lowest_public": _expense(low),
            "at_highest_public": _expense(high),
        },
        "public_runs": [asdict(run) for run in runs.runs],
        "prices": [
            asdict(price)
            | {"read": price.read.isoformat(), "total_usd": spent.usd(price)}
            | {"range_usd": [high.usd(price), low.usd(price)]}
            for price in offers
            if price.gpu == gpu
        ],
    }


def _setting(
    pretrain: PretrainConfig, gpus: int, length: int, precision: Precision, loss: Loss, layers: Layers
) -> StepSetting:
    """The recipe's step on one GPU. Raises ConfigError where the GPUs cannot share the global batch."""
    pretrain.accumulation(gpus)
    return StepSetting(
        pretrain.micro_batch, length, gpus=gpus, precision=precision, loss=loss, optimizer=pretrain.optimizer.name,
        layers=layers,
    )  # fmt: skip


def _open(tokens: Path | None) -> Any:
    if tokens is None:
        return None
    from lang1.corpus.shards import open_shards

    return open_shards(tokens)


def _model_config(config: RunConfig, vocab: int) -> Any:
    """Configuration of the model that the recipe trains."""
    pretrain = config.pretrain
    if pretrain.init_from is None:
        preset = decoder_preset(pretrain.preset)
        length = pretrain.context_length or PRESETS[preset].context_length
        return llama_config(preset, vocab, length, overrides=pretrain.shape)
    from lang1.models.load import load_config

    return load_config(Path(pretrain.init_from))


def _sources(config: RunConfig, total: int, length: int, shards: Any) -> dict[str, Any]:
    """Tokens and epochs by source; a source that the folder lacks is left out and the rest rescaled, as in training."""
    mix = {name: weight for name, weight in config.pretrain.mix.items() if weight > 0}
    held = {name: shards.tokens(name, "train") for name in shards.sources()} if shards else {}
    if shards:
        mix = {
            name: weight for name, weight in mix.items() if name in held and len(shards.blocks(name, "train", length))
        }
        if not mix:
            raise InputError(
                f"{shards.folder}: has no tokens of pretrain.mix ({', '.join(config.pretrain.mix)}); "
                f"it holds {', '.join(held) or 'none'}"
            )
    whole = sum(mix.values())
    return {
        name: {
            "share": weight / whole,
            "tokens": round(total * weight / whole),
            "held": held.get(name),
            "epochs": total * weight / whole / held[name] if name in held else None,
        }
        for name, weight in mix.items()
    }


def _memory(shape: ModelShape, setting: StepSetting, per_gpu: int, board: Gpu) -> list[dict[str, Any]]:
    """Each sharding mode, without and with activation checkpointing, at the recipe's micro-batch."""
    room = board.memory_gib * GIB * USABLE
    rows = []
    for sharding in SHARDINGS if setting.gpus > 1 else SHARDINGS[:1]:
        for checkpointing in (False, True):
            now = replace(setting, sharding=sharding, checkpointing=checkpointing)
            now = replace(now, accumulation=per_gpu // now.micro_batch)
            memory = step_memory(shape, now)
            rows.append(
                {
                    "sharding": sharding,
                    "activation_checkpointing": checkpointing,
                    "accumulation": now.accumulation,
                    **asdict(memory),
                    "total": memory.total,
                    "loss_holds": logits_bytes(shape, now),
                    "plain_loss_holds": logits_bytes(shape, replace(now, loss="plain")),
                    "fits": memory.total <= room,
                    "largest_micro_batch": largest_micro_batch(shape, now, per_gpu, room),
                }
            )
    return rows


def largest_micro_batch(shape: ModelShape, setting: StepSetting, per_gpu: int, room: float) -> int | None:
    """The largest divisor of a GPU's share of the global batch whose step stays within `room` bytes; None: not one."""
    for micro in sorted((m for m in range(1, per_gpu + 1) if per_gpu % m == 0), reverse=True):
        if step_memory(shape, replace(setting, micro_batch=micro, accumulation=per_gpu // micro)).total <= room:
            return micro
    return None


def _expense(spent: Expense) -> dict[str, float]:
    return asdict(spent) | {"days": spent.seconds / DAY}


def _paper(runs: Runs, table: dict[str, Gpu], planned: ModelShape) -> dict[str, Any] | None:
    """The MFU that the paper's own figures imply, by both counts; None for another shape than its, and where the user's
    table lacks its GPU."""
    paper = runs.paper
    if paper.gpu not in table:
        return None
    shape = shape_of(meta_model(llama_config("1b", paper.vocab, paper.context)))
    if (shape.hidden, shape.layers, shape.ffn) != (planned.hidden, planned.layers, planned.ffn):
        return None
    full, causal = (token_flops(shape, paper.context, attention=attention) for attention in ("full", "causal"))
    seconds, hours = paper.days * DAY, paper.days * 24 * paper.gpus
    return asdict(paper) | {
        "gpu_hours": hours,
        "usd_per_gpu_hour": paper.usd / hours,
        "mfu": implied_mfu(paper.tokens, full, table[paper.gpu], paper.gpus, seconds, "bf16"),
        "mfu_causal": implied_mfu(paper.tokens, causal, table[paper.gpu], paper.gpus, seconds, "bf16"),
    }
