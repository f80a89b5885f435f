"""From FLOPs to days, dollars and kilowatt-hours, before a run and after it.

Energy is GPUs x the board's limit x time: an upper bound of what the GPUs draw, without hosts, network and cooling.
Prices are a dated table's, every offer for that GPU; none is chosen for the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1.training.planning.flops import TokenFlops
from lang1.training.planning.tables import Gpu, Price, read_gpus, read_prices, read_runs, recognise

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Expense:
    """What a run takes at one MFU."""

    mfu: float
    tokens_per_second: float
    """all GPUs"""
    seconds: float
    gpu_hours: float
    kilowatt_hours: float | None
    """None where the device's power is not known"""

    def usd(self, price: Price) -> float:
        """At that price."""
        return self.gpu_hours * price.usd


def expense(tokens: float, flops: TokenFlops, gpu: Gpu, gpus: int, mfu: float, precision: str) -> Expense:
    """Time, GPU-hours and energy of `tokens` at a share `mfu` of the peak of `gpus` GPUs."""
    speed = planned_tokens_per_second(flops, gpu.peak(precision), gpus, mfu)
    seconds = tokens / speed
    hours = gpus * seconds / HOUR
    return Expense(mfu, speed, seconds, hours, gpu.watts and hours * gpu.watts / 1000)


def planned_tokens_per_second(flops: TokenFlops, peak: float, devices: int = 1, mfu: float | None = None) -> float:
    """Tokens a second of all devices at `mfu`, the plan's own when None; `peak` is one device's, FLOP/s."""
    return devices * peak * (mfu or read_runs().assumed.mfu) / flops.model


def implied_mfu(tokens: float, flops: TokenFlops, gpu: Gpu, gpus: int, seconds: float, precision: str) -> float:
    """Share of the peak that a run of so many seconds reached."""
    return tokens * flops.model / (seconds * gpus * gpu.peak(precision))


def run_cost(
    *,
    tokens: int,
    seconds: float,
    flops: TokenFlops,
    device: str,
    devices: int,
    precision: str,
    peak: float | None,
    prices: Path | None = None,
) -> dict[str, Any]:
    """What a run did cost, as JSON values for its manifest.

    `tokens` went through the model in `seconds` of training, on `devices` devices called `device` ("cpu", or the name
    that the driver gives). `peak` is one device's in FLOP/s (hardware.device_peak), None where nobody knows it; on a
    CPU the process is the device. Values that cannot be known are None: price and energy of what is not in the tables.
    """
    table = read_gpus()
    name = recognise(device, table)
    hours, watts = devices * seconds / HOUR, table[name].watts if name else None
    offers = [price for price in read_prices(prices) if price.gpu == name]
    return {
        "tokens": tokens,
        "flops": float(f"{tokens * flops.model:.6g}"),
        "flops_with_recompute": float(f"{tokens * flops.hardware:.6g}"),
        "flops_per_token": round(flops.model),
        "seconds": round(seconds, 3),
        "device": device,
        "devices": devices,
        "device_hours": round(hours, 6),
        "precision": precision,
        "peak_flops_per_device": peak,
        "mfu": round(tokens * flops.model / (seconds * devices * peak), 6) if peak and seconds > 0 else None,
        "kwh_at_board_limit": round(hours * watts / 1000, 6) if watts else None,
        "usd": [
            {"offer": price.offer, "read": price.read.isoformat(), "usd": round(hours * price.usd, 2)}
            for price in offers
        ]
        or None,
    }
