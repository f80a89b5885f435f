"""A model that one process read, in the parts that every process holds: the node's memory holds it whole once.

Rank 0 reads the weights; the others make the same modules without any. FSDP2 shares both out alike, and then every
parameter is scattered from rank 0, one at a time, into the parts; buffers are sent whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from lang1.errors import LangError
from lang1.training.distributed import World, contact

Built = TypeVar("Built")


def build_on_main(build: Callable[[bool], Built], world: World) -> Built:
    """`build(False)` on rank 0, `build(True)`, which makes it without weights, on the others.

    Where rank 0 is refused its model, the others end with its exit code. Raises what `build` does.
    """
    if not world.is_main:
        code = world.told(None)
        if code:
            raise SystemExit(code)  # rank 0 says why
        return build(True)
    code = 0
    try:
        return build(False)
    except LangError as error:
        code = error.exit_code
        raise
    finally:
        world.told(code)


def weights_of(model: Any, world: World) -> dict[str, torch.Tensor]:
    """What `spread` will want of `model` before it is sharded: the whole parameters, on rank 0 of several."""
    if world.size == 1 or not world.is_main:
        return {}
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def spread(model: Any, weights: dict[str, torch.Tensor], world: World) -> None:
    """Fill every process's part of the sharded `model` with rank 0's `weights` and buffers. Nothing to do alone."""
    if world.size == 1:
        return
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not world.is_main:
        model.to_empty(device=world.device)
    with contact(), torch.no_grad():
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            whole = weights.pop(name).to(world.device) if world.is_main else _empty(parameter, world)
            part = distribute_tensor(whole, parameter.device_mesh, parameter.placements)  # scattered from rank 0
            parameter.to_local().copy_(part.to_local())
        for buffer in model.buffers():
            sent = buffer.to(world.device)
            dist.broadcast(sent, 0)
            buffer.copy_(sent)


def _empty(parameter: Any, world: World) -> torch.Tensor:
    return torch.empty(parameter.shape, dtype=parameter.dtype, device=world.device)
