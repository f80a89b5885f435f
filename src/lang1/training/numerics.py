"""Threads and number format of a run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch


def prepare_torch(threads: int, precision: str) -> torch.dtype:
    """Threads and number format; returns the dtype of the matrix products.

    `threads` 0: one a core, the cores shared out among torchrun's processes on this machine.
    `auto` takes bf16 where the hardware multiplies it (2.5 times fp32's rate on an AMD EPYC with avx512_bf16), fp32
    elsewhere.
    """
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, cores))
    torch.set_flush_denormal(True)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_fast_bf16() -> bool:
    """True when this machine multiplies bf16 in hardware."""
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_fast_bf16()


def cpu_has_fast_bf16() -> bool:
    """True when this machine's processor multiplies bf16 in hardware."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False
