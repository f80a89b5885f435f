"""The loop of pretraining and finetuning: fetch, accumulate, judge, step, log, validate, save.

What differs is passed in as an Objective. The loss of a step is a sum divided by the step's own count (real tokens,
or rows), never a mean of means, so micro-batches and ranks change nothing but memory and time. Every decision is taken
from numbers that are summed over the ranks, so all of them take the same one. Everything that must be equal after a
kill goes to curve.jsonl; clocks go to speed.jsonl. A run that is resumed cuts both files back to its checkpoint.

Bytes repeat on one machine with the same number of threads and ranks; another CPU or count sums in another order.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from lang1 import runs
from lang1.config import OptimizerConfig
from lang1.config.monitoring import SpikeConfig
from lang1.errors import Stopped, TrainingGaveUp, Unfinished
from lang1.training.checkpoint import Checkpoints
from lang1.training.clock import Clock
from lang1.training.distributed import World, contact, share_out_again, synchronise, whole
from lang1.training.events import keep_whole_lines
from lang1.training.feeding import Feed, Fetched
from lang1.training.optimizer import learning_rate, set_rate
from lang1.training.signals import stop_signals
from lang1.training.spikes import accept, judge

Batch = TypeVar("Batch")
CURVE = "curve.jsonl"
SPEED = "speed.jsonl"
LOGS = (CURVE, SPEED)
"""cut back to the checkpoint that a run goes on from"""
MOST_SKIPPED = 100
"""batches left out of a run before it gives up"""


@dataclass
class Progress:
    """All that a run knows of itself; saved with every checkpoint."""

    step: int = 0
    data_step: int = 0
    """the next batch: ahead of `step` by what was skipped or rolled back over"""
    tokens: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    finished: bool = False
    """an early stop ended the run"""
    losses: list[float] = field(default_factory=list)
    """accepted losses, for the next step to be judged by (spikes.py)"""
    skipped: int = 0
    rollbacks: int = 0


@dataclass(frozen=True)
class Objective(Generic[Batch]):
    """What differs between pretraining and finetuning."""

    fetch: Callable[[int], Fetched[Batch]]
    """this rank's data of a step: a pure function of it"""
    loss: Callable[[Any, Batch], torch.Tensor]
    """summed loss of a micro-batch"""
    validate: Callable[[Any, Progress], dict[str, Any]]
    """validation facts for the curve, the same on all ranks; may set `best_step`, `best_value` and `finished`"""
    facts: dict[str, Any]
    """what the model card of a checkpoint says"""
    stepped: Callable[[dict[str, Any]], None] = lambda line: None
    """told the numbers of every step: curve and speed"""
    event: Callable[..., None] = lambda kind, **facts: None
    """told what went wrong: kind, and facts without any text"""
    observe: Callable[[Any, int], None] = lambda model, step: None
    """looks at the model after a step, on all ranks: generations, evaluations"""
    rewound: Callable[[int], None] = lambda step: None
    """told the step that a rollback went back to"""
    worth: Callable[[float], str] = lambda tokens_per_second: ""
    """words on a rate, for the progress line"""


@dataclass(frozen=True)
class LoopConfig:
    """The numbers of a loop."""

    steps: int
    optimizer: OptimizerConfig
    val_every: int
    checkpoint_every: int
    dtype: torch.dtype
    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    sharded_weights: bool = False
    """gradients of every micro-batch are reduced at once: whole ones would fill the memory that sharding saves"""
    schedule_steps: int | None = None
    """steps over which the rate falls; null: `steps`. A trial of a search walks the first ones of a longer schedule"""


def resume(model: Any, optimizer: Any, out: Path, checkpoints: Checkpoints, world: World) -> Progress:
    """Where the newest checkpoint left the run, loaded into `model` and `optimizer`; the start when there is none."""
    saved = checkpoints.resume(model, optimizer)
    progress = Progress() if saved is None else Progress(**saved)
    if saved is not None:
        runs.say(f"resuming at step {progress.step}")
    if world.is_main:
        for name in LOGS:
            keep_whole_lines(out / name, progress.step)
    return progress


def train(
    config: LoopConfig,
    model: Any,
    optimizer: Any,
    objective: Objective[Batch],
    progress: Progress,
    *,
    out: Path,
    checkpoints: Checkpoints,
    world: World,
) -> Progress:
    """Train from `progress`, which `resume` gave, to the end or an early stop.

    Raises TrainingGaveUp at a loss or gradient that is not finite or after too many spikes, Stopped after SIGTERM,
    SIGINT or SIGUSR1 (saved first), LostRank when another rank is gone, Unfinished when the last save fails.
    """
    clock, feed = Clock(config.steps, objective.worth), Feed(objective.fetch)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.callback(feed.close)
        stack.enter_context(contact())
        asked_to_stop = stack.enter_context(stop_signals())
        logs = _Logs(out, world, stack)
        while progress.step < config.steps and not progress.finished:
            left = config.steps - progress.step
            fetched = feed.take(progress.data_step, progress.data_step + left)
            clock.fetched(feed.waited)
            rate = learning_rate(config.optimizer, progress.step, config.schedule_steps or config.steps)
            local = _accumulate(model, objective.loss, fetched, config, world)
            loss, stopping = world.sum([local, float(asked_to_stop())])
            grad_norm = _clip(model, config.optimizer.clip)
            if not _accepted(config, progress, objective, fetched, world, (loss, local, grad_norm)):
                optimizer.zero_grad(set_to_none=True)
                if config.spikes.action == "rollback":
                    progress = _roll_back(progress, model, optimizer, checkpoints, logs, objective)
                continue
            _update(optimizer, rate)
            _advance(progress, fetched)
            line: dict[str, Any] = {
                "step": progress.step,
                "tokens": progress.tokens,
                "loss": loss,
                "lr": rate,
                "grad_norm": grad_norm,
            }
            speed = clock.stepped(progress.step, fetched.tokens, loss)
            ends = progress.step == config.steps
            best = progress.best_step
            if ends or progress.step % config.val_every == 0:
                with torch.no_grad():
                    line["val"] = objective.validate(model, progress)
            objective.observe(model, progress.step)
            share_out_again(model, world)
            logs.write(line, speed)
            objective.stepped(line | speed)
            last = ends or progress.finished or stopping > 0
            if last or progress.best_step != best or progress.step % config.checkpoint_every == 0:
                _save(checkpoints, progress, model, optimizer, objective, world, last)
            clock.skip()
            if stopping and not ends:
                raise Stopped(
                    f"stopped by a signal at step {progress.step}; saved: the same command goes on from there"
                )
    return progress


class _Logs:
    """The curve and the clocks, a line a step; on rank 0."""

    def __init__(self, out: Path, world: World, stack: contextlib.ExitStack) -> None:
        self._out, self._main = out, world.is_main
        self._stack = stack.enter_context(contextlib.ExitStack())
        self._open()

    def _open(self) -> None:
        if self._main:
            self._curve = self._stack.enter_context(runs.append_lines(self._out / CURVE))
            self._speed = self._stack.enter_context(runs.append_lines(self._out / SPEED))

    def write(self, line: dict[str, Any], speed: dict[str, Any]) -> None:
        if self._main:
            self._curve(line)
            self._speed(speed)

    def cut(self, step: int) -> None:
        """Forget what came after `step`."""
        self._stack.close()
        if self._main:
            for name in LOGS:
                keep_whole_lines(self._out / name, step)
        self._open()


def _accumulate(
    model: Any,
    loss_of: Callable[[Any, Batch], torch.Tensor],
    fetched: Fetched[Batch],
    config: LoopConfig,
    world: World,
) -> float:
    """This rank's part of the step's loss; its gradients are reduced over the ranks with the last micro-batch."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    # FSDP takes the mean over the ranks of what is a sum over them
    share = world.size / fetched.divisor
    mixed = config.dtype != torch.float32 and world.size == 1
    for number, batch in enumerate(fetched.micro_batches, 1):
        synchronise(model, world, config.sharded_weights or number == len(fetched.micro_batches))
        with torch.autocast(world.device.type, dtype=config.dtype, enabled=mixed):
            loss = loss_of(model, batch) * share
        loss.backward()
        total += loss.detach()
    return float(total) / world.size


def _clip(model: Any, clip: float | None) -> float:
    """Clip the norm of the gradient of all ranks, and return it as it was before."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip)
    return float(whole(norm))


def _accepted(
    config: LoopConfig,
    progress: Progress,
    objective: Objective[Batch],
    fetched: Fetched[Batch],
    world: World,
    seen: tuple[float, float, float],
) -> bool:
    """Whether the step is taken; if not, its data are passed over. All ranks judge by the same numbers.

    Raises TrainingGaveUp for a loss that is not finite unless the batch may be skipped, and after too many skipped
    batches or rollbacks.
    """
    loss, local, grad_norm = seen
    verdict = judge(progress.losses, loss, grad_norm, config.spikes)
    if verdict == "ok":
        accept(progress.losses, loss, config.spikes)
        return True
    by_rank = world.sum([local if rank == world.rank else 0.0 for rank in range(world.size)])
    facts: dict[str, Any] = {
        "step": progress.step + 1,
        "loss": loss,
        "loss_by_rank": by_rank,
        "grad_norm": grad_norm,
        "batch": list(fetched.samples),
        "action": config.spikes.action,
    }
    objective.event(verdict, **facts)
    where = f"step {progress.step + 1}: the loss ({loss:.4g})"
    if config.spikes.action == "alert":
        if verdict == "non_finite":
            objective.event("gave_up", step=progress.step + 1)
            raise TrainingGaveUp(
                f"{where} or its gradient ({grad_norm:.4g}) is not finite; "
                "lower optimizer.lr or set optimizer.clip, then run again with --force"
            )
        return True  # not into the window: the next ones are judged by what was normal
    progress.data_step += 1
    if config.spikes.action == "skip":
        progress.skipped += 1
        if progress.skipped > MOST_SKIPPED:
            objective.event("gave_up", step=progress.step + 1)
            raise TrainingGaveUp(
                f"{where} is the {progress.skipped}th that was skipped; look at events.jsonl, lower optimizer.lr"
            )
        objective.event("skip", step=progress.step + 1, batch=list(fetched.samples))
        return False
    progress.rollbacks += 1
    if progress.rollbacks > config.spikes.max_rollbacks:
        objective.event("gave_up", step=progress.step + 1)
        raise TrainingGaveUp(
            f"{where} is {'not finite' if verdict == 'non_finite' else 'a spike'} after "
            f"{config.spikes.max_rollbacks} rollbacks (monitor.spikes.max_rollbacks); look at events.jsonl, "
            "lower optimizer.lr, then run again with --force"
        )
    return False


def _roll_back(
    progress: Progress,
    model: Any,
    optimizer: Any,
    checkpoints: Checkpoints,
    logs: _Logs,
    objective: Objective[Any],
) -> Progress:
    """The newest checkpoint, with the data after the batch that spiked: what led to it is not read again.

    Raises TrainingGaveUp when there is none yet.
    """
    saved = checkpoints.resume(model, optimizer)
    if saved is None:
        raise TrainingGaveUp(
            f"step {progress.step + 1}: a spike before the first checkpoint; lower optimizer.lr, raise its "
            "warmup_steps, or lower pretrain.checkpoint_every"
        )
    stable = Progress(**saved)
    objective.event("rollback", step=progress.step + 1, to_step=stable.step)
    stable.data_step, stable.rollbacks, stable.skipped = progress.data_step, progress.rollbacks, progress.skipped
    logs.cut(stable.step)
    objective.rewound(stable.step)
    return stable


def _update(optimizer: Any, rate: float) -> None:
    set_rate(optimizer, rate)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _advance(progress: Progress, fetched: Fetched[Any]) -> None:
    progress.step += 1
    progress.data_step += 1
    progress.tokens += fetched.tokens
    for name, count in fetched.counts.items():
        progress.counts[name] = progress.counts.get(name, 0) + count


def _save(
    checkpoints: Checkpoints,
    progress: Progress,
    model: Any,
    optimizer: Any,
    objective: Objective[Any],
    world: World,
    last: bool,
) -> None:
    """Begin to save; with the `last` one of a run, wait until it is whole. Raises Unfinished when that one fails."""
    facts = objective.facts | {"steps": progress.step, "tokens": progress.tokens}
    before = checkpoints.save(progress.step, model, optimizer, asdict(progress), facts)
    failed = [before, checkpoints.finish() if last else None]
    for error in failed:
        if error is not None:
            objective.event("checkpoint_failed", step=progress.step, error=error.__class__.__name__)
            runs.say(f"checkpoint not saved, the one before it stays: {error}")
    if last and world.any(failed[1] is not None)[0]:
        raise failed[1] or Unfinished("the last checkpoint could not be saved on rank 0; see its log")
