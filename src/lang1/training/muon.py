"""Muon for hidden matrices, on one process or on parameters that FSDP2 shards.

The update of a matrix is its Nesterov momentum made orthogonal by a Newton-Schulz iteration (Jordan et al. 2024), times
0.2 sqrt(max(rows, columns)), which brings its size to AdamW's so that both take one rate (Liu et al. 2025,
arXiv:2502.16982): torch.optim.Muon's numbers, to the byte where a matrix is whole (tests/training/test_muon.py).

The iteration needs the whole matrix. torch.optim.Muon on DTensors gives right numbers, but each of its products gathers
again, and every process orthogonalises every matrix. Here matrices are taken as many at a time as there are processes:

    momentum, on shards -> all-to-all: process r holds the whole of matrix r -> orthogonal -> all-to-all back -> shards

so that each matrix crosses the wire once in each direction and is orthogonalised once. Momentum and parameters stay
sharded. Cost: the process with the largest of the matrices is waited for, so that matrices of one size go together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""of the quintic iteration (Jordan et al. 2024)"""
EPS = 1e-7
SIZE = 0.2
"""root mean square of an AdamW update, about (Liu et al. 2025)"""


def orthogonalised(matrix: Tensor, iterations: int, dtype: torch.dtype) -> Tensor:
    """The matrix (2-D) with all singular values near 1 (0.7 to 1.2), in `dtype`, which the products use."""
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype, copy=True)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x.div_(x.norm().clamp(min=EPS))
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(torch.optim.Muon):
    """torch.optim.Muon with its state, whose step knows sharded parameters and takes the iteration's number format."""

    def __init__(self, groups: Any, lr: float, momentum: float, iterations: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        super().__init__(groups, lr=lr, momentum=momentum, ns_steps=iterations, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; the same on every process."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            directions = [self._momentum(p, group["momentum"]) for p in parameters]
            updates = _orthogonalise_all(parameters, directions, group["ns_steps"], self.dtype)
            for parameter, update in zip(parameters, updates, strict=True):
                local = _local(parameter)
                local.mul_(1 - group["lr"] * group["weight_decay"])
                local.add_(update, alpha=-group["lr"] * SIZE * math.sqrt(max(parameter.shape)))

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's direction, on this process's shard."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad, memory_format=torch.preserve_format)
        grad, mean = _local(parameter.grad), _local(state["momentum_buffer"])
        mean.lerp_(grad, 1 - momentum)
        return grad.lerp(mean, momentum)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some parameters and AdamW for the others, as one optimizer: one list of groups, one state."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW) -> None:
        self.muon, self.adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also what load_state_dict ends with: it makes new groups and a new state."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """The two parts work on this optimizer's own groups and state."""
        self.muon.state = self.adamw.state = self.state
        muon_groups = len(self.muon.param_groups)
        self.muon.param_groups = self.param_groups[:muon_groups]
        self.adamw.param_groups = self.param_groups[muon_groups:]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of both."""
        self.muon.step()
        self.adamw.step()


# --- sharded matrices ------------------------------------------------------------------------------------------


def _local(tensor: Tensor) -> Tensor:
    """This process's shard, or the whole where nothing is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _orthogonalise_all(
    parameters: Sequence[Tensor], directions: Sequence[Tensor], iterations: int, dtype: torch.dtype
) -> list[Tensor]:
    """The orthogonal update of each parameter, as this process's shard of it."""
    updates: list[Tensor] = list(directions)
    by_group: dict[Any, list[int]] = {}
    for i, parameter in enumerate(parameters):
        if (group := _shard_group(parameter)) is None:
            updates[i] = orthogonalised(directions[i], iterations, dtype)
        else:
            by_group.setdefault(group, []).append(i)
    for group, members in by_group.items():
        world = torch.distributed.get_world_size(group)
        members.sort(key=lambda i: (-parameters[i].numel(), i))  # the same on every process
        for first in range(0, len(members), world):
            together = members[first : first + world]
            shapes = [parameters[i].shape for i in together]
            found = _orthogonalise_together([directions[i] for i in together], shapes, group, iterations, dtype)
            for i, update in zip(together, found, strict=True):
                updates[i] = update
    return updates


def _shard_group(parameter: Tensor) -> Any:
    """The processes that share the parameter's rows out among them; None where each has the whole."""
    if not isinstance(parameter, DTensor):
        return None
    dims = [dim for dim, placement in enumerate(parameter.placements) if not isinstance(placement, Replicate)]
    if not dims:
        return None
    if len(dims) > 1 or parameter.placements[dims[0]] != Shard(0):
        raise NotImplementedError(f"muon: parameters sharded by rows over one mesh dimension: {parameter.placements}")
    return parameter.device_mesh.get_group(dims[0])


def _orthogonalise_together(
    shards: Sequence[Tensor], shapes: Sequence[torch.Size], group: Any, iterations: int, dtype: torch.dtype
) -> list[Tensor]:
    """At most as many matrices as processes: process r makes the r-th orthogonal. Takes and gives each one's shard."""
    rank, world = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    sent = [shard.numel() for shard in shards] + [0] * (world - len(shards))
    is_owner = rank < len(shards)
    rows = _rows_by_rank(shapes[rank][0], world) if is_owner else [0] * world
    got = [count * shapes[rank][1] for count in rows] if is_owner else [0] * world
    whole = _all_to_all(torch.cat([shard.flatten() for shard in shards]).to(dtype), sent, got, group)
    if is_owner:
        whole = orthogonalised(whole.view(shapes[rank]), iterations, dtype).contiguous().flatten()
    back = _all_to_all(whole, got, sent, group).split(sent[: len(shards)])
    return [part.view(shard.shape) for part, shard in zip(back, shards, strict=True)]


def _all_to_all(values: Tensor, sent: list[int], got: list[int], group: Any) -> Tensor:
    received = values.new_empty(sum(got))
    torch.distributed.all_to_all_single(received, values, got, sent, group=group)
    return received


def _rows_by_rank(rows: int, world: int) -> list[int]:
    """How FSDP2 shares rows out: like torch.chunk, the last processes may get fewer or none."""
    each = -(-rows // world)
    return [max(0, min(each, rows - rank * each)) for rank in range(world)]
