"""AdamW and its learning rate, as in the paper: linear warm-up, cosine down to min_lr (5.3); no warm-up in 5.4.

Weight decay falls on matrices, embeddings included, and not on norms and biases: our choice; the paper
says only 0.1.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lang1.config import OptimizerConfig


def make_optimizer(model: Any, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW over the trainable parameters, in the model's order."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def optimizer_state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of every parameter as `<name>:<key>`, for checkpoints."""
    return {
        f"{name}:{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def prepare_state(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Give every trainable parameter the state that it has before the first step, for a checkpoint to be read into."""
    for _, parameter in model.named_parameters():
        if parameter.requires_grad and not optimizer.state.get(parameter):
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Rate of the step counted from 0: linear from lr / (warmup + 1), then cosine to min_lr at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
