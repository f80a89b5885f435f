"""The optimizer and its learning rate: the paper's AdamW with warm-up and cosine (5.3; no warm-up in 5.4), or Muon.

Weight decay falls on matrices, embeddings included, and not on norms and biases: our choice; the paper says only 0.1.
Muon takes the hidden matrices, AdamW what is left: embeddings (positions too), norms, biases and the output head
(docs/decisions/0014-muon.md). All groups follow one schedule; `rate_factor` of a group is its share of the rate.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lang1.config import OptimizerConfig
from lang1.training.muon import Muon, MuonWithAdamW


def make_optimizer(model: Any, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Fused AdamW over the trainable parameters, in the model's order; with `name: muon` Muon for the hidden matrices.

    Where the model is sharded (`fully_shard`), it is sharded before.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    hidden = hidden_matrices(model) if config.name == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for p in trainable if id(p) not in taken]
    adamw = torch.optim.AdamW(
        _groups(rest, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    if not hidden:
        return adamw
    decay = config.weight_decay if config.muon_weight_decay is None else config.muon_weight_decay
    group = {"params": hidden, "weight_decay": decay, "rate_factor": (config.muon_lr or config.lr) / config.lr}
    dtype = torch.bfloat16 if config.muon_precision == "bf16" else torch.float32
    both = MuonWithAdamW(Muon([group], config.lr, config.muon_momentum, config.muon_iterations, dtype), adamw)
    set_rate(both, config.lr)
    return both


CLASSIFIERS = ("classifier.weight", "score.weight")
"""the output heads of encoders, which transformers does not count as output embeddings"""


def hidden_matrices(model: Any) -> list[torch.nn.Parameter]:
    """The trainable matrices between embedding and output head, a classifier's too, in the model's order."""
    ends = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    ends += [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    outer = {id(parameter) for module in ends for parameter in module.parameters()}
    outer |= {id(parameter) for name, parameter in model.named_parameters() if name in CLASSIFIERS}
    return [p for p in model.parameters() if p.requires_grad and p.ndim == 2 and id(p) not in outer]


def _groups(parameters: list[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group | {"rate_factor": 1.0} for group in groups if group["params"]]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]


def optimizer_state(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of every parameter as `<name>:<key>`, for checkpoints."""
    return {
        f"{name}:{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def prepare_state(model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Give every trainable parameter the state that it has before the first step, for a checkpoint to be read into."""
    muon = optimizer.muon.param_groups if isinstance(optimizer, MuonWithAdamW) else []
    by_muon = {id(parameter) for group in muon for parameter in group["params"]}
    for parameter in model.parameters():
        if not parameter.requires_grad or optimizer.state.get(parameter):
            continue
        if id(parameter) in by_muon:
            optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        else:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Rate of the step counted from 0: linear from lr / (warmup + 1), then down to min_lr at the last step.

    `cosine`: half a cosine from the end of the warm-up on. `wsd`: lr, then a line over the last `decay_share` of the
    steps (Hu et al. 2024, arXiv:2404.06395; its length after Hägele et al. 2024, arXiv:2405.18392).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    first, last = config.warmup_steps, steps - 1
    if config.schedule == "wsd":
        first = max(first, last - round(config.decay_share * steps))
    done = min(1.0, max(0, step - first) / max(1, last - first))
    left = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.min_lr + (config.lr - config.min_lr) * left
