"""Next-token cross-entropy in chunks over positions: never the logits of a whole batch.

Each chunk makes its logits, takes loss and gradients from them at once and lets them go, so memory is
chunk x vocabulary instead of batch x positions x vocabulary, and the backward makes no second pass over the
vocabulary. Equal to `F.cross_entropy` (tests/training/test_loss.py). Cost: gradients are made in the forward, so a
loss whose gradient is not wanted belongs under `torch.no_grad`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

IGNORE_INDEX = -100
"""target of a position without loss"""
CHUNK_LOGITS = 1 << 21
"""logits made at a time: 8 MiB in fp32, which stays in a CPU's last-level cache"""


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        targets_N: torch.Tensor,
        dtype: torch.dtype,
        with_gradient: bool,
    ) -> torch.Tensor:
        weight = weight_VH.to(dtype)
        total = torch.zeros((), dtype=torch.float64, device=hidden_NH.device)
        grad_hidden = torch.empty_like(hidden_NH) if with_gradient else None
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if with_gradient else None
        chunk = max(1, CHUNK_LOGITS // len(weight_VH))
        for start in range(0, len(hidden_NH), chunk):
            hidden = hidden_NH[start : start + chunk].to(dtype)
            targets = targets_N[start : start + chunk]
            logits_CV = (hidden @ weight.T).float()
            total += functional.cross_entropy(logits_CV, targets, ignore_index=IGNORE_INDEX, reduction="sum")
            if grad_hidden is None or grad_weight is None:
                continue
            grad_CV = logits_CV.softmax(-1)
            real = targets != IGNORE_INDEX
            grad_CV[torch.arange(len(targets), device=targets.device), targets.clamp_min(0)] -= 1.0
            grad_CV = (grad_CV * real[:, None]).to(dtype)
            grad_hidden[start : start + chunk] = grad_CV @ weight
            grad_weight += grad_CV.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad[0], grad_weight * grad[0], None, None, None


def chunked_cross_entropy(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Sum of the cross-entropy of `hidden @ weight.T` against `targets`, IGNORE_INDEX left out; logits in fp32.

    `dtype` is that of the matrix products.
    """
    with torch.autocast(hidden_NH.device.type, enabled=False):
        loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden_NH, weight_VH, targets_N, dtype, torch.is_grad_enabled())
    return loss
