"""Resumable checkpoints: `step-XXXXXXXX/` with weights, optimizer state and progress; safetensors and JSON only.

torch.distributed.checkpoint writes a file a rank, each with the shards that it holds, and puts them together again at
any world size and in any sharding mode. Its own format has pickle in it; its Hugging Face storage has not. Each is
written under a scratch name and renamed when `hashes.json` has made it whole, in the background if wanted: training
waits for a copy of the state alone. The newest whole one is found by listing, so no pointer can go stale; `last` and
`best` are links for people. There is no random state to keep: data order is a function of seed and step
(batches.py), and nothing in training draws from torch's generator (no dropout).
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lang1 import runs
from lang1.errors import InputError, LostRank
from lang1.models.export import FACTS, HASHES, MODEL, check_hashes, saved_shapes
from lang1.training.distributed import GONE, World, contact
from lang1.training.optimizer import optimizer_state, prepare_state

# torch says so of every process that is alone, which is no fault here
warnings.filterwarnings("ignore", message="torch.distributed is disabled")

PROGRESS = "progress.json"
CONFIG = "config.json"
PREFIX = "step-"
LAST, BEST = "last", "best"
OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay: the newest `keep`, the best one, and those of every `every` steps (0: none)."""

    keep: int
    every: int = 0

    def leaves(self, steps: list[int], best: int | None) -> list[int]:
        """Of these steps, in order, those that may go."""
        newest = steps[-self.keep :]
        return [s for s in steps if s not in newest and s != best and not (self.every and s % self.every == 0)]


@dataclass
class Checkpoints:
    """The checkpoints of a run: saved by all ranks, made whole by rank 0."""

    folder: Path
    scratch: Path
    world: World
    retention: Retention
    background: bool = True
    _saving: list[Future[Any]] = field(default_factory=list)
    _finishing: Future[None] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _group: Any = None

    def save(
        self, step: int, model: Any, optimizer: Any, progress: dict[str, Any], facts: dict[str, Any]
    ) -> OSError | InputError | None:
        """Begin to write `folder/step-XXXXXXXX`, whole or not at all; returns what the save before it came to.

        In the background only the copy of the state is waited for. Raises LostRank.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import async_save
        from torch.distributed.checkpoint.state_dict_saver import save as save_now

        before = self.finish()
        temporary = self.scratch / f"{PREFIX}{step:08d}"
        if self.world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True, exist_ok=True)
        self.world.wait()
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        state = {MODEL + name: parameter.detach() for name, parameter in trained(model)}
        state |= {OPTIMIZER + name: value for name, value in optimizer_state(model, optimizer).items()}
        alone = self.world.size == 1
        if not self.background:
            saved: Future[Any] = Future()
            try:
                with contact():
                    save_now(state, storage_writer=writer, no_dist=alone)
                saved.set_result(None)
            except (OSError, CheckpointException) as error:
                saved.set_exception(error)
        else:
            if self._group is None and not alone:
                import torch.distributed as dist

                self._group = dist.new_group(backend="gloo")  # its messages never wait behind the gradients'
            with contact():
                found = async_save(state, storage_writer=writer, process_group=self._group, no_dist=alone)
            assert isinstance(found, Future)
            saved = found
        self._saving = [saved]
        if self.world.is_main:
            config = model.config.to_json_string(use_diff=True)
            best = progress.get("best_step")
            self._finishing = self._thread.submit(self._make_whole, saved, temporary, config, progress, facts, best)
        return before

    def finish(self) -> OSError | InputError | None:
        """Until the save under way is whole or has failed; its fault on rank 0, None elsewhere and without one."""
        for saved in self._saving:
            saved.exception()
        self._saving = []
        done, self._finishing = self._finishing, None
        if done is None:
            return None
        error = done.exception()
        if error is not None and not isinstance(error, OSError | InputError):
            if self.world.size > 1:  # torch's CheckpointException, which is no Exception: a rank that writes is gone
                raise LostRank(GONE) from None
            raise error
        return error

    def close(self) -> None:
        """Leave no thread behind."""
        self.finish()
        self._thread.shutdown()

    def _make_whole(
        self,
        saved: Future[Any],
        temporary: Path,
        config: str,
        progress: dict[str, Any],
        facts: dict[str, Any],
        best: int | None,
    ) -> None:
        target = self.folder / temporary.name
        try:
            error = saved.exception()
            if error is not None:
                raise _disk_error(target, error)
            runs.write_text(temporary / CONFIG, config)
            runs.write_json(temporary / PROGRESS, progress)
            runs.write_json(temporary / FACTS, facts)
            for shard in temporary.glob("*.safetensors"):
                shard.chmod(runs.file_mode())
                _order_header(shard)
            runs.write_json(temporary / HASHES, {p.name: runs.sha256_file(p) for p in sorted(temporary.iterdir())})
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
                temporary.rename(target)
                runs.link(self.folder / LAST, target.name)
                if best is not None and (self.folder / f"{PREFIX}{best:08d}").is_dir():
                    runs.link(self.folder / BEST, f"{PREFIX}{best:08d}")
            except OSError as fault:
                raise runs.disk_error(target, fault) from None
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk needs the room
            raise
        steps = {int(path.name.removeprefix(PREFIX)): path for path in list_checkpoints(self.folder)}
        kept = best if best in steps else _linked(self.folder / BEST)  # its own save may have failed
        for step in self.retention.leaves(sorted(steps), kept):
            shutil.rmtree(steps[step], ignore_errors=True)

    def resume(self, model: Any, optimizer: Any) -> dict[str, Any] | None:
        """Load the newest whole checkpoint, the same on all ranks; returns its progress, None when there is none.

        Raises InputError for a checkpoint of another model or optimizer, LostRank.
        """
        fault = self.finish()
        if fault is not None:
            runs.say(f"checkpoint not saved: {fault}")
        found = latest_checkpoint(self.folder) if self.world.is_main else None
        name = self.world.told(None if found is None else found.name)
        return None if name is None else load_checkpoint(self.folder / name, model, optimizer, self.world)


def _linked(link: Path) -> int | None:
    """The step that a link shows; None without one."""
    return int(link.readlink().name.removeprefix(PREFIX)) if link.is_symlink() else None


def _disk_error(target: Path, error: BaseException) -> BaseException:
    """What a rank met while it wrote: an OSError inside torch's own exception is the disk's."""
    failures = getattr(error, "failures", None)
    for inner in [error, *(fault[0] for fault in (failures or {}).values())]:
        if isinstance(inner, OSError):
            return runs.disk_error(target, inner)
        if inner.__class__.__name__ == "SafetensorError" and "os error 28" in str(inner):
            return runs.disk_error(target, OSError(28, os.strerror(28)))
    return error


def _order_header(shard: Path) -> None:
    """safetensors writes the metadata of its header in the order of a hash table, another one in each process: the same
    tensors then have other bytes. Put it in one order, at the same length."""
    with shard.open("rb") as source:
        (length,) = struct.unpack("<Q", source.read(8))
        header = json.loads(source.read(length))
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(ordered) <= length:
        runs.overwrite(shard, 8, ordered.ljust(length))


def save_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Named tensors as one safetensors file, atomically, with the configured mode."""
    with runs.atomic_path(path) as temporary:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, temporary, {"format": "pt"})


def trained(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters that training changes, by name: what is frozen (LoRA) is not kept again in every checkpoint."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders with a hash file, oldest first."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if (p / HASHES).is_file())


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; a damaged one is passed over and said."""
    for path in reversed(list_checkpoints(folder)):
        try:
            check_hashes(path)
        except InputError as error:
            runs.say(f"checkpoint passed over: {error}")
        else:
            return path
    return None


def load_checkpoint(folder: Path, model: Any, optimizer: Any, world: World) -> dict[str, Any]:
    """Put weights and optimizer state of a checkpoint into `model` and `optimizer`; returns the saved progress.

    Raises InputError when they are of another model or optimizer.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    prepare_state(model, optimizer)
    state = {MODEL + name: parameter.detach() for name, parameter in trained(model)}
    state |= {OPTIMIZER + name: value for name, value in optimizer_state(model, optimizer).items()}
    reader = HuggingFaceStorageReader(str(folder))
    there = saved_shapes(folder)
    wrong = sorted(state.keys() ^ there.keys()) or [n for n, tensor in state.items() if tensor.shape != there[n]]
    if wrong:
        raise InputError(
            f"{folder}: does not fit the model or the optimizer ({', '.join(wrong[:3])}); "
            "it belongs to another configuration: choose another --out"
        )
    with contact():
        load(state, storage_reader=reader, no_dist=world.size == 1)
    progress: dict[str, Any] = runs.read_json(folder / PROGRESS)
    return progress
