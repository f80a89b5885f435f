"""One process or many: `torchrun` starts a process a GPU, and every one runs the same command.

FSDP2 (`fully_shard`) in the paper's two modes: `gradients` shards gradients and optimizer state and keeps whole
weights between forward and backward, `full` shards the weights too (5.3). Gradients are reduced in fp32. The loss of a
step is a sum over all ranks divided by the step's own count, so one process and many train the same model. NCCL on
GPUs, gloo on CPUs, where the tests run it. Without torchrun's environment nothing here touches torch.distributed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch

from lang1 import runs
from lang1.errors import ConfigError, LangError, LostRank

Sharding = Literal["gradients", "full"]
WAIT = timedelta(minutes=10)
"""for a rank that says nothing in a step: it may compile. With gloo one that dies closes its connections, which is seen
at once; NCCL sees it by this limit, or when the launcher ends the others"""
LONGEST_WAIT = timedelta(days=1)
"""while rank 0 checks, exports or hashes what is there"""


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    rank: int
    size: int
    device: torch.device
    control: Any = None
    """the group over which rank 0 tells: it may hash for hours, so it waits longer than gradients do"""

    @property
    def is_main(self) -> bool:
        """Rank 0 prints and writes what is not sharded."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the ranks. Raises LostRank."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with contact():
            dist.all_reduce(tensor)
            return [float(value) for value in tensor.tolist()]  # where a GPU's fault shows

    def any(self, *flags: bool) -> list[bool]:
        """Whether a flag is up on some rank: every rank then does the same. Raises LostRank."""
        return [value > 0 for value in self.sum([float(flag) for flag in flags])]

    def told(self, value: Any) -> Any:
        """Rank 0's `value` (numbers, strings, lists of them), on every rank. Raises LostRank."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        with contact():
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def wait(self) -> None:
        """Until every rank is here. Raises LostRank."""
        self.sum([0.0])


@contextlib.contextmanager
def contact() -> Iterator[None]:
    """What a collective raises when a rank is gone, as LostRank; nothing changes where there is one process."""
    try:
        yield
    except RuntimeError as error:  # torch.distributed's own errors are RuntimeErrors, with several names
        text = str(error).lower()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(word in text for word in _GONE):
            raise LostRank(GONE) from None
        raise


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun describes in the environment, joined for the block; alone without it.

    Ranks other than 0 print nothing but errors. Raises ConfigError for an environment that does not fit.
    """
    size, rank, local = (int(os.environ.get(name, default)) for name, default in _NAMES)
    device = _device(local)
    if size == 1:
        yield World(0, 1, device)
        return
    import torch.distributed as dist

    if device.type == "cuda":
        torch.cuda.set_device(device)
    with contact():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
    if rank != 0:
        runs.set_quiet(True)
    try:
        control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        yield World(rank, size, device, control)
        with contact():
            dist.barrier(group=control)
    finally:
        with contextlib.suppress(RuntimeError):  # a rank that is gone already was said
            dist.destroy_process_group()


GONE = (
    "another rank of this run is gone (killed, out of memory, or its node went down; its own log says why); the same "
    "command goes on from the newest checkpoint"
)
_GONE = ("connection", "peer", "timed out", "timeout", "broken pipe", "aborted")
_NAMES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"torchrun: local rank {local_rank} has no GPU of its own ({torch.cuda.device_count()} on this node); "
            "--nproc-per-node is the number of GPUs"
        )
    return torch.device("cuda", local_rank)


def run_stage(
    world: World,
    out: Path,
    name: str,
    config: dict[str, Any],
    seed: int,
    inputs: dict[str, Path | str],
    work: Callable[[runs.Stage], None],
    force: bool = False,
    read_checked: dict[str, str] | None = None,
    only: dict[str, tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """runs.run_stage by rank 0; the others do the same work when it begins, and nothing when there is none to do."""
    if world.is_main:
        begun = False

        def lead(stage: runs.Stage) -> None:
            nonlocal begun
            begun = True
            world.told(True)
            work(stage)

        outcome = 0
        try:
            return runs.run_stage(out, name, config, seed, inputs, lead, force, read_checked, only)
        except LangError as error:
            outcome = error.exit_code
            raise
        finally:
            if not begun:
                with contextlib.suppress(LostRank):
                    world.told(outcome)
    told = world.told(None)
    if told is True:
        work(runs.Stage(out))
    elif told:
        raise SystemExit(told)  # rank 0 says why
    return {}


def shard(model: Any, world: World, sharding: Sharding, dtype: torch.dtype, entry: str | None) -> None:
    """Shard `model` in place, a group a decoder layer and one for the rest; alone, it only moves to the device.

    `dtype` of weights and activations in the products; the weights that are kept and the reductions are fp32. `entry`:
    the method of the model that a step calls in place of `forward`; None: it calls the model.
    """
    if world.size == 1:
        model.to(world.device)
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    again = sharding == "full"
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, mp_policy=policy)
    fully_shard(model, mesh=mesh, reshard_after_forward=again, mp_policy=policy)
    if entry is not None:
        register_fsdp_forward_method(model, entry)


def decoder_layers(model: Any) -> Any:
    """The list of decoder layers of a Hugging Face causal LM: the longest ModuleList in it."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    return max(lists, key=len) if lists else []


def synchronise(model: Any, world: World, last: bool) -> None:
    """Before the backward of a micro-batch: only the `last` one of a step reduces the gradients over the ranks."""
    if world.size > 1:
        model.set_requires_gradient_sync(last)


def share_out_again(model: Any, world: World) -> None:
    """After forwards without a backward: weights that were put together for them stay so until a backward, else."""
    if world.size > 1:
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together, on every rank; another one as it is. Raises LostRank."""
    if hasattr(tensor, "full_tensor"):
        with contact():
            return tensor.full_tensor()
    return tensor
