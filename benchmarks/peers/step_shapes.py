"""What both sides of pretrain_step.py share: shapes, weights, batch, clock. Needs torch and numpy alone."""

from __future__ import annotations

import json
import resource
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

VOCABULARY = 32_000


@dataclass(frozen=True)
class StepShape:
    """A Llama's dimensions and the batch of a step."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    tied: bool
    length: int
    rows: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.length * self.rows

    @property
    def flops(self) -> float:
        """Of a step: 6 a weight of a matrix product and token, and causal attention's, forward and backward."""
        head = self.hidden // self.heads
        layer = 2 * self.hidden**2 + 2 * self.hidden * self.kv_heads * head + 3 * self.hidden * self.ffn
        weights = self.layers * layer + VOCABULARY * self.hidden
        return self.tokens * (6.0 * weights + 6.0 * self.layers * self.length * self.hidden)


SHAPES = {
    "15M": StepShape(288, 6, 6, 6, 768, tied=True, length=256, rows=16),
    "100M": StepShape(768, 6, 24, 8, 3072, tied=False, length=1024, rows=4),
}
"""karpathy's stories15M, and smol_llama-101M-GQA (lang1's preset 100m)"""


def fill(name: str, parameter: torch.Tensor) -> None:
    """The same weights on both sides, by the name that Hugging Face gives them."""
    if parameter.ndim == 2:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape), np.float32) * 0.02))


def batch(shape: StepShape) -> torch.Tensor:
    """Tokens (rows, length + 1)."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, (shape.rows, shape.length + 1)))


def measure(step: Callable[[], float], steps: int, warm: int = 2) -> None:
    """Print the loss before the first step, the median seconds of `steps` after `warm` others, and the peak memory."""
    first, *_ = [step() for _ in range(warm)]
    seconds, used = [], time.process_time()
    for _ in range(steps):
        started = time.monotonic()
        step()
        seconds.append(time.monotonic() - started)
    found: dict[str, Any] = {
        "loss": first,
        "seconds": float(np.median(seconds)),
        "cpu_seconds": (time.process_time() - used) / steps,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))
