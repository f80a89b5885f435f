"""Bytes on one GPU through an optimizer step: the peak, and what it is made of.

A step is walked through: loss, start of the backward, backward of each layer from the last to the first, embeddings,
update. At each moment the live tensors are added up; the largest sum is the peak. What a layer keeps for its backward
is that of transformers' Llama with fused attention (scaled_dot_product_attention): no T x T matrix; or, in fp32 on a
CPU, that of models/kernels.py, a third to a half. Both are tested in fp32 on one device against every allocation of two
real steps; in bf16 the kept tensors are tested. FSDP2's buffers are counted from its code; with two gloo processes on a
CPU the figure was 0.8 to 1.05 of what was measured there, gloo's own copies included, and as little as 0.6 where every
micro-batch reduces its gradients (docs/plan.md). On a GPU nothing was measured.

    none       weights, gradients, AdamW's two moments whole on each GPU, 16 bytes a parameter; bf16 is autocast
    gradients  FSDP2 with reshard_after_forward=False: fp32 weights, gradients and moments in slices, compute weights
               whole from the forward to the backward
    full       FSDP2 with reshard_after_forward=True: compute weights of two units at a time, the root's throughout

Left out: the CUDA context and NCCL's buffers (some 1 to 3 GiB), fragmentation: `usable` of the plan leaves room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Literal

from lang1.models import kernels
from lang1.training.loss import CHUNK_LOGITS
from lang1.training.planning.shape import ModelShape

Sharding = Literal["none", "gradients", "full"]
SHARDINGS: tuple[Sharding, ...] = ("none", "gradients", "full")
Precision = Literal["fp32", "bf16"]
Loss = Literal["chunked", "plain"]
Optimizer = Literal["adamw", "muon"]
Layers = Literal["transformers", "kernels"]
FP32, BF16 = 4, 2
IDS = 24
"""bytes a position of ids: inputs and targets as int64, and a copy"""


@dataclass(frozen=True)
class StepSetting:
    """How a step is run on one GPU of several."""

    micro_batch: int
    """sequences a forward on this GPU"""
    context: int
    accumulation: int = 1
    """micro-batches a step on this GPU"""
    gpus: int = 1
    sharding: Sharding = "none"
    checkpointing: bool = False
    """activations of a layer are kept no more than its input, and made again in the backward"""
    precision: Precision = "fp32"
    loss: Loss = "chunked"
    """chunked: ours (training/loss.py); plain: cross-entropy of all logits at once, as most trainers do it"""
    optimizer: Optimizer = "adamw"
    """adamw: two moments; muon: one momentum for the layers' matrices, AdamW for the rest"""
    layers: Layers = "transformers"
    """kernels: models/kernels.py, which a Llama's layers take in fp32 on a CPU"""

    @property
    def positions(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_batch * self.context

    @property
    def sharded(self) -> bool:
        """True where FSDP holds slices."""
        return self.sharding != "none"


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the moment of the peak."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    """kept for the backward, being recomputed, and the working set of a layer"""
    logits: float
    """of the loss: logits, their gradient, and the gradients that the chunked loss makes at once"""
    moment: str

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return sum(astuple(self)[:-1])


def step_memory(shape: ModelShape, setting: StepSetting) -> Memory:
    """The peak of a step after the first one, when the optimizer's moments are there."""
    return max(_moments(shape, setting), key=lambda memory: memory.total)


def _moments(shape: ModelShape, s: StepSetting) -> Iterator[Memory]:
    share = s.gpus if s.sharded else 1
    optimizer = _optimizer_state(shape, s) / share
    held, reduced = _held_gradients(shape, s), FP32 * shape.parameters / share
    layer_kept = kept_by_layer(shape, s)
    boundary = s.positions * shape.hidden * _residual_bytes(s)
    each = boundary if s.checkpointing else layer_kept
    around = s.positions * (_last_norm_bytes(shape, s) + IDS) + 2 * s.context * shape.head_dim * _residual_bytes(s)
    last_hidden = s.positions * shape.hidden * _residual_bytes(s)
    forward_logits, backward_logits = _loss_bytes(shape, s)
    weights = FP32 * shape.parameters / share
    at_loss = Memory(
        parameters=weights + _compute_weights(shape, s, layers_left=shape.layers),
        gradients=held,
        optimizer=optimizer,
        activations=shape.layers * each + around + last_hidden,
        logits=forward_logits,
        moment="loss",
    )
    yield at_loss
    yield replace(
        at_loss, activations=shape.layers * each + around, logits=backward_logits, moment="start of the backward"
    )
    yield from _layers_backward(shape, s, at_loss, each, around, layer_kept)
    made = reduced if s.sharded else FP32 * shape.parameters
    root = _unit_gradients(shape, s, shape.root_parameters)
    if not s.sharded:  # the embedding's gradient is dense; a tied one is added to the head's
        root = FP32 * shape.vocab * shape.hidden if held or shape.tied else 0
    yield replace(
        at_loss,
        parameters=weights + _compute_weights(shape, s, layers_left=0),
        gradients=max(made, held) + root,
        activations=s.positions * (2 * _residual_bytes(s) * shape.hidden + IDS),
        logits=0.0,
        moment="backward of the embeddings",
    )
    yield Memory(weights, made, optimizer, 0.0, 0.0, "update")


def _layers_backward(
    shape: ModelShape, s: StepSetting, at_loss: Memory, each: float, around: float, layer_kept: float
) -> Iterator[Memory]:
    """From the last layer to the first: what is kept shrinks, gradients grow unless they are there already."""
    share = s.gpus if s.sharded else 1
    working = s.positions * (2 * shape.ffn + 2 * shape.hidden) * _compute_bytes(s)
    again = layer_kept if s.checkpointing else 0.0
    weights = FP32 * shape.parameters / share
    for left in range(shape.layers, 0, -1):
        done = shape.parameters - shape.root_parameters - left * shape.layer_parameters
        # The head's gradient waits whole in its unit until the end.
        grown = done * FP32 / share + shape.head_parameters * (_compute_bytes(s) if s.sharded else FP32)
        now = _unit_gradients(shape, s, shape.layer_parameters)
        if not s.sharded:
            at_once = 3 if s.layers == "kernels" else 1  # matrices of the feed-forward in one step of autograd
            now = FP32 * (at_once * shape.ffn * shape.hidden if at_loss.gradients else shape.layer_parameters)
        yield replace(
            at_loss,
            parameters=weights + _compute_weights(shape, s, layers_left=left),
            gradients=(at_loss.gradients or grown) + now,
            activations=left * each + around + working + again,
            logits=0.0,
            moment=f"backward of layer {left}",
        )


def kept_by_layer(shape: ModelShape, s: StepSetting) -> float:
    """Bytes that one layer keeps for its backward: transformers' LlamaDecoderLayer with fused attention.

    Two norms (input, normalised, output as the linear layers take it, and a number a position), queries, keys, values,
    attention's output and its log-sum-exp a head, and gate, its SiLU, up, and their product. The kernels keep of a norm
    its input and the number, and of the feed-forward up, and gate where it is small
    (torch.compile keeps none, which is not counted).
    """
    query, key_value, ffn, hidden = shape.query, shape.key_value, shape.ffn, shape.hidden
    if s.layers == "kernels":
        factors = 2 if s.positions * ffn <= kernels.KEPT else 1
        return float(FP32 * s.positions * (2 * hidden + 2 * query + 2 * key_value + factors * ffn + shape.heads + 2))
    projections = 2 * query + 2 * key_value + 4 * ffn
    if s.precision == "fp32":
        norms = 2 * 3 * FP32 * hidden
    elif s.sharded:  # everything bf16, but the norm works on an fp32 copy of its input
        norms = 2 * (FP32 + 2 * BF16) * hidden
    else:  # autocast: an fp32 stream, and a bf16 copy of a norm's output for each of q, k, v and of gate, up
        norms = 2 * 2 * FP32 * hidden + 5 * BF16 * hidden
    return float(s.positions * (norms + projections * _compute_bytes(s) + FP32 * (shape.heads + 2)))


def logits_bytes(shape: ModelShape, s: StepSetting) -> float:
    """What the loss holds at most: see `Loss`."""
    return max(_loss_bytes(shape, s))


def _optimizer_state(shape: ModelShape, s: StepSetting) -> int:
    matrices = shape.matmul_parameters - shape.head_parameters if s.optimizer == "muon" else 0
    return FP32 * (2 * shape.parameters - matrices)


def _compute_bytes(s: StepSetting) -> int:
    return BF16 if s.precision == "bf16" else FP32


def _residual_bytes(s: StepSetting) -> int:
    """Of the stream between layers: autocast leaves it in fp32."""
    return BF16 if s.precision == "bf16" and s.sharded else FP32


def _last_norm_bytes(shape: ModelShape, s: StepSetting) -> int:
    """Bytes a position that the norm before the head keeps: its fp32 input and the normalised one."""
    return (FP32 + _residual_bytes(s)) * shape.hidden + FP32


def _compute_weights(shape: ModelShape, s: StepSetting, layers_left: int) -> float:
    """Weights in the form that products take, beside the fp32 ones."""
    if s.sharding == "gradients":
        return float(_compute_bytes(s) * (shape.root_parameters + layers_left * shape.layer_parameters))
    if s.sharding == "full":  # this layer, the next one that is being gathered, and the buffer it arrives in
        return float(_compute_bytes(s) * (shape.root_parameters + min(3, layers_left + 1) * shape.layer_parameters))
    if s.precision == "bf16":  # autocast's copies, kept by the backward
        kept = 0 if s.checkpointing else layers_left
        return float(BF16 * kept * shape.layer_parameters)
    return 0.0


def _held_gradients(shape: ModelShape, s: StepSetting) -> float:
    """Gradients that earlier micro-batches of the step left: whole until the last one reduces them; with `full` every
    micro-batch reduces its own, and a slice is left."""
    if s.accumulation == 1:
        return 0.0
    return float(FP32 * shape.parameters / (s.gpus if s.sharding == "full" else 1))


def _unit_gradients(shape: ModelShape, s: StepSetting, parameters: int) -> float:
    """A unit's gradient as the backward makes it, two fp32 buffers on the way into the reduction, and its slice."""
    return float((_compute_bytes(s) + 2 * FP32 + FP32 / s.gpus) * parameters)


def _loss_bytes(shape: ModelShape, s: StepSetting) -> tuple[float, float]:
    """Bytes of the loss while it is computed, and when its backward begins."""
    if s.loss == "plain":  # log-softmax is kept; its gradient and the logits' join it
        whole = FP32 * s.positions * shape.vocab
        return 2.0 * whole, 3.0 * whole
    chunk = min(s.positions, max(1, CHUNK_LOGITS // shape.vocab))
    logits = FP32 * chunk * shape.vocab
    grad_weight = FP32 * shape.head_parameters
    grad_hidden = s.positions * shape.hidden * _residual_bytes(s)
    earlier = grad_weight if chunk < s.positions else 0  # of the chunks before
    mixed = s.precision == "bf16"
    cast = BF16 * shape.head_parameters if mixed and not s.sharded else 0
    log_softmax = 0 if s.layers == "kernels" else logits  # on a CPU it is made row block by row block
    of_chunk = grad_weight + (BF16 * (chunk * shape.vocab + shape.head_parameters) if mixed else 0)
    return (
        float(grad_hidden + cast + max(earlier + logits + max(log_softmax, of_chunk), 2 * grad_weight)),
        float(2 * grad_hidden + 2 * grad_weight),
    )
