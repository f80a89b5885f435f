"""Floating-point operations a token, a multiplication and an addition being two.

    forward   = 2 N + 4 L q s        N  weights that a token is multiplied by: every linear layer and the output
    backward  = 2 x forward             embedding; not the input embedding, which is a look-up, and not the norms
    recompute = the layers' forward  L  layers,  q  heads x head size,  s  positions that a token attends to

s = T, the context length, counts attention in full, as PaLM (Chowdhery et al. 2022, Appendix B: 6N + 12LHQT),
torchtitan and nanochat do: MFU here means that, so that it stands beside theirs. s = (T + 1) / 2 is what a causal mask
leaves to do. Recomputing activations is work that no MFU counts. torch's FLOP counter agrees
(tests/training/test_planner.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lang1.training.planning.shape import ModelShape

Attention = Literal["full", "causal"]


@dataclass(frozen=True)
class TokenFlops:
    """FLOPs a token of context."""

    forward: float
    backward: float
    recompute: float
    """the second forward under activation checkpointing, 0 without"""

    @property
    def model(self) -> float:
        """What MFU counts: forward and backward."""
        return self.forward + self.backward

    @property
    def hardware(self) -> float:
        """What the device does: recomputation included."""
        return self.model + self.recompute


def token_flops(
    shape: ModelShape, context: int, *, attention: Attention = "full", checkpointing: bool = False, asked: float = 1.0
) -> TokenFlops:
    """FLOPs a token at `context` positions; `asked`: the share of them that logits are made for (masked models)."""
    seen = float(context) if attention == "full" else (context + 1) / 2
    mixing = 4 * shape.layers * shape.query * seen
    in_layers = shape.matmul_parameters - shape.head_parameters
    forward = 2 * (in_layers + asked * shape.head_parameters) + mixing
    # The recomputation stops at the last tensor that the backward wants, the input of down_proj (torch's early stop).
    again = 2 * (in_layers - shape.layers * shape.ffn * shape.hidden) + mixing
    return TokenFlops(forward, 2 * forward, again if checkpointing else 0.0)
