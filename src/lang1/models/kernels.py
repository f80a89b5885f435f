"""The parts of a Llama layer as single steps of autograd, for fp32 on a CPU: fewer passes, less kept for the backward.

- Matrix products go to oneDNN. torch sends fp32 products to MKL, which on processors that are not Intel's runs its
  AVX2 code: 110 GFLOP/s a core against oneDNN's 180 to 250 on a Zen 5 (docs/decisions/0015-fast-step.md). No copies: a
  transposed view is taken as it is. A processor that has no more than AVX2 stays with torch's choice, which is as fast
  there and faster at the gradients of weights.
- A norm and the products that read it are one step: kept is the norm's input with one number a row, and the norm is
  made again in the backward. So is SwiGLU's product, and its gate where that is large.
- Passes over elements go row block by row block, so that they stay in the processor's cache; under torch.compile they
  are written whole, and the compiler fuses them.

Equal to the plain modules to rounding (tests/models/test_kernels.py). A second derivative is not supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

CACHED = 1 << 17
"""numbers of a row block: 512 KiB in fp32, with the blocks of the other operands within a core's second-level cache"""
WIDE = 1 << 20
"""numbers of a feed-forward part's inner rows that are held at once where nothing is kept for a backward: 4 MiB"""
KEPT = 1 << 22
"""numbers of a gate that is kept for the backward, 16 MiB; a larger one is made again: a ninth more products"""
FEW_ROWS = 16
"""below so many rows a product is read from memory once, and MKL's matrix-vector code is the faster"""


def _faster_product() -> Any:
    """oneDNN's product where it is the faster and this build of torch has it, else None."""
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX2":
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _faster_product()


def takes(*tensors: torch.Tensor) -> bool:
    """True where these kernels may stand in for the plain ones: whole fp32 tensors on a CPU, outside autocast."""
    return not torch.is_autocast_enabled("cpu") and all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)  # not a DTensor
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        for tensor in tensors
    )


# --- products ---------------------------------------------------------------------------------------------------


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a @ b.T` of fp32 matrices (M, K) and (N, K), each contiguous or the transpose of a contiguous one."""
    if torch.compiler.is_compiling():
        made: torch.Tensor = _opaque_product(a, b)
        return made
    return _product(a, b)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if _ONEDNN is None or a.shape[0] < FEW_ROWS:
        return a @ b.t()
    made: torch.Tensor = _ONEDNN(_dense(a), _dense(b), None, "none", [], "")
    return made


def _dense(x: torch.Tensor) -> torch.Tensor:
    """oneDNN takes a slice with gaps between its rows to its slow reference code."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


@torch.library.custom_op("lang1::product", mutates_args=())
def _opaque_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _product(a, b)


@_opaque_product.register_fake
def _(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def weight_gradient(grad_NO: torch.Tensor, x_NI: torch.Tensor) -> torch.Tensor:
    """`grad.T @ x` (O, I). oneDNN copies a transposed first operand: the narrower one goes first."""
    if _ONEDNN is None:
        return product(grad_NO.t(), x_NI.t())
    (rows, wide), narrow = grad_NO.shape, x_NI.shape[1]
    if rows * wide <= rows * narrow + wide * narrow:
        return product(grad_NO.t(), x_NI.t())
    return product(x_NI.t(), grad_NO.t()).t().contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x_NH, weight)
        return product(x_NH, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NH, weight = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        return (
            product(grads[0], weight.t()) if wants_x else None,
            weight_gradient(grads[0], x_NH) if wants_weight else None,
        )


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`F.linear(x, weight)` for x (..., H) and weight (O, H)."""
    made: torch.Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight)
    return made.view(*x.shape[:-1], weight.shape[0])


# --- norm -------------------------------------------------------------------------------------------------------


def _blocks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Views of the same rows of matrices, few enough for the cache; under a compiler all rows at once."""
    if torch.compiler.is_compiling():
        yield tensors
        return
    rows = max(1, CACHED // max(tensor.shape[-1] for tensor in tensors))
    yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _norm(x_NH: torch.Tensor, weight_H: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm and the factor (N, 1) that each row was multiplied by."""
    if torch.compiler.is_compiling():
        scale_N1 = torch.rsqrt(x_NH.pow(2).mean(-1, keepdim=True) + eps)
        return x_NH * scale_N1 * weight_H, scale_N1
    made, scale_N1 = torch.empty_like(x_NH), x_NH.new_empty(len(x_NH), 1)
    for x, out, scale in _blocks(x_NH, made, scale_N1):
        torch.mul(x, x, out=out)
        torch.mean(out, -1, keepdim=True, out=scale)
        scale.add_(eps).rsqrt_()
        torch.mul(x, scale, out=out)
        out.mul_(weight_H)
    return made, scale_N1


def _normed(x_NH: torch.Tensor, weight_H: torch.Tensor, scale_N1: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_compiling():
        return x_NH * scale_N1 * weight_H
    made = torch.empty_like(x_NH)
    for x, scale, out in _blocks(x_NH, scale_N1, made):
        torch.mul(x, scale, out=out)
        out.mul_(weight_H)
    return made


def _norm_backward(
    grad_NH: torch.Tensor, x_NH: torch.Tensor, weight_H: torch.Tensor, scale_N1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of input and weight; `grad_NH` is ours to overwrite.

    y = s x w with s = (mean(x^2) + eps)^-1/2, so dx = s (g w) - x s^3 mean(g w x), dw = sum of g s x over the rows.
    """
    width = x_NH.shape[-1]
    if torch.compiler.is_compiling():
        scaled = x_NH * scale_N1
        weighted = grad_NH * weight_H
        inner = (weighted * scaled).mean(-1, keepdim=True)
        return scale_N1 * (weighted - scaled * inner), (grad_NH * scaled).sum(0)
    grad_weight = torch.zeros_like(weight_H)
    for grad, x, scale in _blocks(grad_NH, x_NH, scale_N1):
        scaled = x * scale
        grad_weight += (grad * scaled).sum(0)
        grad.mul_(weight_H)
        inner = (grad * scaled).sum(-1, keepdim=True).div_(-width)
        grad.addcmul_(scaled, inner).mul_(scale)
    return grad_NH, grad_weight


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NH: torch.Tensor, weight_H: torch.Tensor, eps: float) -> torch.Tensor:
        normed, scale_N1 = _norm(x_NH, weight_H, eps)
        ctx.save_for_backward(x_NH, weight_H, scale_N1)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *_norm_backward(grads[0].clone(), *ctx.saved_tensors), None


def rms_norm(x: torch.Tensor, weight_H: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square norm over the last dimension (arXiv 1910.07467), as transformers' LlamaRMSNorm."""
    made: torch.Tensor = _RmsNorm.apply(x.reshape(-1, x.shape[-1]), weight_H, eps)
    return made.view(x.shape)


# --- attention's projections ------------------------------------------------------------------------------------


def _rotated(x_NHD: torch.Tensor, cos_RTD: torch.Tensor, sin_RTD: torch.Tensor) -> torch.Tensor:
    """Rotary embedding: the pairs (i, i + D/2) turned by the position's angles; -sin turns them back. The angles of one
    row of T positions (R = 1) or of each stand for all N = B x T."""
    length, dim = cos_RTD.shape[1:]
    half = dim // 2
    cos, sin = cos_RTD[:, :, None, :half], sin_RTD[:, :, None, :half]
    x_BTHD = x_NHD.unflatten(0, (-1, length))
    first, second = x_BTHD[..., :half], x_BTHD[..., half:]
    if torch.compiler.is_compiling():
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).flatten(0, 1)
    made = torch.empty_like(x_BTHD)
    torch.mul(first, cos, out=made[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=made[..., half:]).addcmul_(first, sin)
    return made.flatten(0, 1)


class _NormQkv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NH: torch.Tensor,
        norm_H: torch.Tensor,
        eps: float,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cos_RTD: torch.Tensor,
        sin_RTD: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed, scale_N1 = _norm(x_NH, norm_H, eps)
        ctx.save_for_backward(x_NH, norm_H, scale_N1, query, key, value, cos_RTD, sin_RTD)
        head = cos_RTD.shape[-1]
        q, k, v = (product(normed, weight).unflatten(-1, (-1, head)) for weight in (query, key, value))
        return _rotated(q, cos_RTD, sin_RTD), _rotated(k, cos_RTD, sin_RTD), v

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NH, norm_H, scale_N1, query, key, value, cos_RTD, sin_RTD = ctx.saved_tensors
        normed = _normed(x_NH, norm_H, scale_N1)
        back = -sin_RTD
        turned = (_rotated(grads[0], cos_RTD, back), _rotated(grads[1], cos_RTD, back), grads[2])
        flat = [grad.flatten(1) for grad in turned]
        grad_weights = [weight_gradient(grad, normed) for grad in flat]
        grad_normed = product(flat[0], query.t())
        grad_normed += product(flat[1], key.t())
        grad_normed += product(flat[2], value.t())
        grad_x, grad_norm = _norm_backward(grad_normed, x_NH, norm_H, scale_N1)
        return grad_x, grad_norm, None, *grad_weights, None, None


def norm_qkv(
    x_BTH: torch.Tensor,
    norm_H: torch.Tensor,
    eps: float,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    cos_RTD: torch.Tensor,
    sin_RTD: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys (both turned by their positions) and values (B, heads, T, D) of a layer's input before its norm.

    The angles: one row for all (R = 1), or a row each (R = B).
    """
    batch, length = x_BTH.shape[:2]
    q, k, v = _NormQkv.apply(x_BTH.reshape(batch * length, -1), norm_H, eps, *weights, cos_RTD, sin_RTD)
    return tuple(part.view(batch, length, *part.shape[1:]).transpose(1, 2) for part in (q, k, v))


# --- feed-forward -----------------------------------------------------------------------------------------------


class _NormSwiglu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_NH: torch.Tensor,
        norm_H: torch.Tensor,
        eps: float,
        gate: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
    ) -> torch.Tensor:
        normed, scale_N1 = _norm(x_NH, norm_H, eps)
        gated_NF, upped_NF = product(normed, gate), product(normed, up)
        is_small = not torch.compiler.is_compiling() and gated_NF.numel() <= KEPT
        kept_NF = gated_NF if is_small else None
        ctx.save_for_backward(x_NH, norm_H, scale_N1, kept_NF, upped_NF, gate, up, down)
        return product(_swiglu(gated_NF, upped_NF), down).add_(x_NH)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NH, norm_H, scale_N1, gated_NF, upped_NF, gate, up, down = ctx.saved_tensors
        normed = _normed(x_NH, norm_H, scale_N1)
        if gated_NF is None:
            gated_NF = product(normed, gate)
        hidden, grad_gated, grad_upped = _swiglu_backward(product(grads[0], down.t()), gated_NF, upped_NF)
        grad_down = weight_gradient(grads[0], hidden)
        del hidden
        grad_gate, grad_up = weight_gradient(grad_gated, normed), weight_gradient(grad_upped, normed)
        grad_normed = product(grad_gated, gate.t())
        grad_normed += product(grad_upped, up.t())
        grad_x, grad_norm = _norm_backward(grad_normed, x_NH, norm_H, scale_N1)
        return grad_x + grads[0], grad_norm, None, grad_gate, grad_up, grad_down


def _swiglu(gated_NF: torch.Tensor, upped_NF: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_compiling():
        return functional.silu(gated_NF) * upped_NF
    made = torch.empty_like(gated_NF)
    for gated, upped, out in _blocks(gated_NF, upped_NF, made):
        torch.mul(functional.silu(gated), upped, out=out)
    return made


def _swiglu_backward(
    grad_NF: torch.Tensor, gated_NF: torch.Tensor, upped_NF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """silu(gated) * upped, and the gradients of gated and upped, in the place of all three arguments.

    Kept tensors that were overwritten are refused by autograd in a second backward.
    """
    if torch.compiler.is_compiling():
        sigmoid = torch.sigmoid(gated_NF)
        silu = gated_NF * sigmoid
        return silu * upped_NF, grad_NF * upped_NF * (sigmoid + silu * (1 - sigmoid)), grad_NF * silu
    for grad, gated, upped in _blocks(grad_NF, gated_NF, upped_NF):
        silu, inner = functional.silu(gated), grad * upped
        upped.mul_(silu)
        torch.ops.aten.silu_backward.grad_input(inner, gated, grad_input=gated)
        grad.mul_(silu)
    return upped_NF, gated_NF, grad_NF


def _norm_swiglu_in_blocks(
    x_BTH: torch.Tensor, norm_H: torch.Tensor, eps: float, weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """`norm_swiglu` without gradients: the wide tensors are never whole, row block after row block has its own."""
    gate, up, down = weights
    x_NH = x_BTH.reshape(-1, x_BTH.shape[-1])
    made, rows = torch.empty_like(x_NH), max(FEW_ROWS, WIDE // gate.shape[0])
    for x, out in zip(x_NH.split(rows), made.split(rows), strict=True):
        normed, _ = _norm(x, norm_H, eps)
        hidden = functional.silu(product(normed, gate), inplace=True).mul_(product(normed, up))
        torch.add(product(hidden, down), x, out=out)
    return made.view(x_BTH.shape)


def norm_swiglu(
    x_BTH: torch.Tensor,
    norm_H: torch.Tensor,
    eps: float,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """`x + down(silu(gate(norm(x))) * up(norm(x)))` (B, T, H); weights: gate, up, down."""
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _norm_swiglu_in_blocks(x_BTH, norm_H, eps, weights)
    made: torch.Tensor = _NormSwiglu.apply(x_BTH.reshape(-1, x_BTH.shape[-1]), norm_H, eps, *weights)
    return made.view(x_BTH.shape)
