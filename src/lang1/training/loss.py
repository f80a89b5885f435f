"""Next-token cross-entropy in chunks over positions: never the logits of a whole batch.

Each chunk makes its logits, takes loss and gradients from them at once and lets them go, so memory is
chunk x vocabulary instead of batch x positions x vocabulary, and the backward makes no second pass over the
vocabulary. A chunk is large, since each adds once to the gradient of the whole output matrix; softmax and gradient walk
it in row blocks that stay in the cache, in place. Equal to `F.cross_entropy` (tests/training/test_loss.py).

Cost: gradients are made in the forward, so a loss whose gradient is not wanted belongs under `torch.no_grad`; they are
scaled in place in the backward, so that can run once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from lang1.models import kernels

IGNORE_INDEX = -100
"""target of a position without loss"""
CHUNK_LOGITS = 1 << 24
"""logits made at a time: 64 MiB in fp32, 524 positions of a vocabulary of 32,000"""
CACHED_LOGITS = 1 << 19
"""logits of a row block of the softmax: 2 MiB in fp32, in a CPU's cache"""


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
        grad_HV: torch.Tensor | None = None
        chunk = max(1, CHUNK_LOGITS // len(weight_VH))
        for start in range(0, len(hidden_NH), chunk):
            hidden = hidden_NH[start : start + chunk].to(dtype)
            logits_CV = _product(hidden, weight).float()
            total += _loss_of_chunk(logits_CV, targets_N[start : start + chunk], with_gradient)
            if grad_hidden is None:
                continue
            grad_CV = logits_CV.to(dtype)
            grad_hidden[start : start + chunk] = _product(grad_CV, weight.T)
            of_chunk = _product(hidden.T, grad_CV.T).float()  # transposed: hidden is the narrower to lay anew
            grad_HV = of_chunk if grad_HV is None else grad_HV.add_(of_chunk)
            del logits_CV, grad_CV, of_chunk  # before the next chunk makes its own
        if grad_hidden is not None:
            grad_weight = torch.zeros_like(weight_VH) if grad_HV is None else grad_HV.T.to(weight_VH.dtype).contiguous()
            ctx.gradients = [grad_hidden, grad_weight]
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.gradients:
            raise RuntimeError("the chunked loss was differentiated before; its gradients are gone")
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = []
        return grad_hidden.mul_(grad[0]), grad_weight.mul_(grad[0]), None, None, None


def _loss_of_chunk(logits_CV: torch.Tensor, targets_C: torch.Tensor, with_gradient: bool) -> torch.Tensor:
    """Summed loss; with a gradient, the logits are overwritten by it: softmax less one at the target."""
    total = torch.zeros((), dtype=torch.float64, device=logits_CV.device)
    rows = max(1, CACHED_LOGITS // logits_CV.shape[1]) if logits_CV.device.type == "cpu" else len(logits_CV)
    for logits, targets in zip(logits_CV.split(rows), targets_C.split(rows), strict=True):
        log_softmax = torch.log_softmax(logits, -1)
        total += functional.nll_loss(log_softmax, targets, ignore_index=IGNORE_INDEX, reduction="sum")
        if with_gradient:
            real = targets != IGNORE_INDEX
            torch.exp(log_softmax, out=logits)
            logits.scatter_add_(1, targets.clamp_min(0)[:, None], logits.new_full((len(targets), 1), -1.0))
            if logits.device.type != "cpu" or not real.all():  # elsewhere asking would wait for the device
                logits.mul_(real[:, None])
    return total


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return kernels.product(a, b) if kernels.takes(a, b) else a @ b.T


def chunked_cross_entropy(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Sum of the cross-entropy of `hidden @ weight.T` against `targets`, IGNORE_INDEX left out; logits in fp32.

    `dtype` is that of the matrix products.
    """
    with torch.autocast(hidden_NH.device.type, enabled=False):
        loss: torch.Tensor = _ChunkedCrossEntropy.apply(hidden_NH, weight_VH, targets_N, dtype, torch.is_grad_enabled())
    return loss
