"""What the device can do at most: the data sheet's peak on a GPU, the best of a few large products on a CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache

import torch

from lang1.models import kernels
from lang1.training.planning.tables import TERA, Gpu, read_gpus, recognise

SIZES = (512, 1024, 2048)
"""square products; the largest do not fit a small cache, the smallest do"""
BUDGET_S = 1.5
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@lru_cache(maxsize=8)
def gemm_peak(dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of the fastest of several large matrix products on this CPU; in about two seconds, once a process.

    By the faster of the libraries that torch brings: its own choice, and for fp32 oneDNN (models/kernels.py).
    `threads` is the number that torch uses for training; it is restored afterwards. Other work on the machine lowers
    what is measured, and raises the MFU that is counted against it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ways: list[Product] = [torch.mm, kernels.product] if dtype == torch.float32 else [torch.mm]
        return max(_best_rate(way, dtype, BUDGET_S / len(ways)) for way in ways)
    finally:
        torch.set_num_threads(before)


def _best_rate(way: Product, dtype: torch.dtype, budget_s: float) -> float:
    """Best rate over the sizes within the budget, up to one for which it has no room: a processor without bf16 needs
    minutes for a large product in it."""
    best, ends = 0.0, time.monotonic() + budget_s
    for place, size in enumerate(SIZES):
        left = ends - time.monotonic()
        if best and 2 * 2 * size**3 / best > left:
            break
        best = max(best, _fastest(way, size, dtype, left / (len(SIZES) - place)))
    return best


def _fastest(multiply: Product, size: int, dtype: torch.dtype, budget_s: float) -> float:
    """Best rate of a product of two size x size matrices within the budget, after one to warm up; two at least."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(dtype) for _ in range(2))
    started = time.monotonic()
    best, runs = float("inf"), 0
    while runs < 2 or time.monotonic() - started < budget_s:
        begun = time.perf_counter()
        multiply(left, right)
        took = time.perf_counter() - begun
        if runs:  # the first one makes room and picks kernels
            best = min(best, took)
        runs += 1
        if runs >= 2 and time.monotonic() - started + took > budget_s:
            break
    return 2 * size**3 / best


def this_cpu(processes: int, precision: str) -> Gpu:
    """One of `processes` processes that share this machine, as a line of the table: its part of memory and cores, its
    peak measured with the part's threads; power and bandwidth are not known."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    peak = gemm_peak(torch.bfloat16 if precision == "bf16" else torch.float32, threads) / TERA
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 / processes
    return Gpu(
        reports=("cpu",), memory_gib=memory, bf16=peak, tf32=peak, fp32=peak, bandwidth=None, watts=None,
        source=f"measured here, {threads} threads a process",
    )  # fmt: skip


def device_name(device: torch.device) -> str:
    """cpu, or the name that the driver gives: NVIDIA H100 80GB HBM3."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def device_peak(device: torch.device, dtype: torch.dtype, threads: int | None = None) -> float | None:
    """FLOP/s that one device reaches at most; None for a GPU that the table does not have.

    fp32 on a GPU is TF32 where `torch.set_float32_matmul_precision` allows it. On a CPU it is measured with `threads`
    (torch's number when None).
    """
    if device.type == "cpu":
        return gemm_peak(dtype, threads or torch.get_num_threads())
    table = read_gpus()
    name = recognise(device_name(device), table)
    if name is None:
        return None
    if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return table[name].tf32 * 1e12
    return table[name].peak("bf16" if dtype == torch.bfloat16 else "fp32")


def mfu(tokens_per_second: float, flops_per_token: float, peak: float) -> float:
    """Model FLOPs utilisation: share of `peak` (FLOP/s of all devices) that the model's own FLOPs take.

    `flops_per_token` is `TokenFlops.model` (planning/flops.py): recomputed activations do not count.
    """
    return tokens_per_second * flops_per_token / peak
