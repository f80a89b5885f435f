"""What a run gets from its hardware while it trains, beside the plan's figure, and what it did cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lang1.training.hardware import device_name, device_peak, mfu
from lang1.training.planning.cost import planned_tokens_per_second, run_cost
from lang1.training.planning.flops import TokenFlops, token_flops
from lang1.training.planning.shape import shape_of

LEAST_S = 10.0
"""a shorter run is not worth the second and a half that measuring a CPU's peak takes"""


@dataclass
class Efficiency:
    """The FLOPs of a token, and the peak of the devices: measured on a CPU, of the data sheet on a GPU."""

    flops: TokenFlops
    device: torch.device
    devices: int
    dtype: torch.dtype

    @cached_property
    def peak(self) -> float | None:
        """FLOP/s of one device; measured when first asked for. None for a GPU that no table has."""
        return device_peak(self.device, self.dtype)

    def words(self, tokens_per_second: float) -> str:
        """For the progress line: the share of the peak, and what the plan reckons with."""
        if self.peak is None:
            return ""
        reached = mfu(tokens_per_second, self.flops.model, self.devices * self.peak)
        planned = planned_tokens_per_second(self.flops, self.peak, self.devices)
        whose = "measured peak" if self.device.type == "cpu" else "data sheet's peak"
        return f", {reached:.1%} of the {whose} (the plan's rate: {planned:,.0f} tokens/s)"

    def cost(self, tokens: int, seconds: float) -> dict[str, Any]:
        """For the manifest (planning/cost.py)."""
        return run_cost(
            tokens=tokens,
            seconds=seconds,
            flops=self.flops,
            device=device_name(self.device),
            devices=self.devices,
            precision="bf16" if self.dtype == torch.bfloat16 else "fp32",
            peak=self.peak if seconds >= LEAST_S or self.device.type == "cuda" else None,
        )


def efficiency_of(
    model: Any,
    context: int,
    checkpointing: bool,
    device: torch.device,
    devices: int,
    dtype: torch.dtype,
    asked: float = 1.0,
) -> Efficiency:
    """Of a model that trains on sequences of `context` tokens; `asked`: the share of them that logits are made for."""
    flops = token_flops(shape_of(model), context, checkpointing=checkpointing, asked=asked)
    return Efficiency(flops, device, devices, dtype)
