"""The loop of pretraining and finetuning: fetch, accumulate, clip, step, log, validate, save.

What differs is passed in as an Objective. The loss of a step is a sum divided by the step's own count (real tokens,
or rows), never a mean of means, so micro-batches change nothing but memory. Everything that must be equal after a
kill goes to curve.jsonl; clocks go to speed.jsonl. A run that is resumed cuts both files back to its checkpoint.

Bytes repeat on one machine with the same number of threads; another CPU or thread count sums in another order.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from lang1 import runs
from lang1.config import OptimizerConfig
from lang1.errors import Stopped, TrainingGaveUp
from lang1.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from lang1.training.optimizer import learning_rate, set_rate

Batch = TypeVar("Batch")
CURVE = "curve.jsonl"
SPEED = "speed.jsonl"
SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class Fetched(Generic[Batch]):
    """The data of one optimizer step."""

    micro_batches: list[Batch]
    divisor: float
    """what the summed loss is divided by: real targets, or rows"""
    tokens: int
    """real tokens that go through the model"""
    counts: dict[str, int]
    """tokens by source, or rows by task"""


@dataclass
class Progress:
    """All that a run knows of itself; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    best_step: int | None = None
    best_value: float | None = None
    finished: bool = False
    """an early stop ended the run"""


@dataclass(frozen=True)
class Objective(Generic[Batch]):
    """What differs between pretraining and finetuning."""

    fetch: Callable[[int], Fetched[Batch]]
    """the data of a step: a pure function of it"""
    loss: Callable[[Any, Batch], torch.Tensor]
    """summed loss of a micro-batch"""
    validate: Callable[[Any, Progress], dict[str, Any]]
    """validation facts for the curve; may set `best_step`, `best_value` and `finished`"""
    facts: dict[str, Any]
    """what the model card of a checkpoint says"""


@dataclass(frozen=True)
class LoopConfig:
    """The numbers of a loop."""

    steps: int
    optimizer: OptimizerConfig
    val_every: int
    checkpoint_every: int
    keep_checkpoints: int
    dtype: torch.dtype


def train(
    config: LoopConfig,
    model: Any,
    optimizer: torch.optim.Optimizer,
    objective: Objective[Batch],
    *,
    out: Path,
    checkpoints: Path,
    scratch: Path,
) -> Progress:
    """Train from the newest checkpoint in `checkpoints`, or from the start, to the end or an early stop.

    Raises TrainingGaveUp at a loss or gradient that is not finite, Stopped after SIGTERM or SIGINT (saved first).
    """
    progress = _resume(model, optimizer, out, checkpoints)
    clock = _Clock(config.steps)
    with (
        _stop_signals() as asked_to_stop,
        runs.append_lines(out / CURVE) as log,
        runs.append_lines(out / SPEED) as log_speed,
    ):
        while progress.step < config.steps and not progress.finished:
            fetched = objective.fetch(progress.step)
            clock.fetched()
            rate = learning_rate(config.optimizer, progress.step, config.steps)
            loss = _accumulate(model, objective.loss, fetched, config.dtype)
            grad_norm = _clip(model, config.optimizer.clip)
            _check_finite(progress.step, loss, grad_norm)
            _update(optimizer, rate)
            _advance(progress, fetched)
            line: dict[str, Any] = {
                "step": progress.step,
                "tokens": progress.tokens,
                "loss": loss,
                "lr": rate,
                "grad_norm": grad_norm,
            }
            log_speed(clock.stepped(progress.step, fetched.tokens, loss))
            ends = progress.step == config.steps
            if ends or progress.step % config.val_every == 0:
                with torch.no_grad():
                    line["val"] = objective.validate(model, progress)
                clock.skip()
            log(line)
            if ends or progress.finished or asked_to_stop() or progress.step % config.checkpoint_every == 0:
                save_checkpoint(
                    checkpoints,
                    progress.step,
                    model,
                    optimizer,
                    asdict(progress),
                    objective.facts | {"steps": progress.step, "tokens": progress.tokens},
                    scratch,
                    config.keep_checkpoints,
                )
                clock.skip()
            if asked_to_stop() and not ends:
                raise Stopped(f"stopped by a signal at step {progress.step}; saved: the same command goes on")
    return progress


def prepare_torch(threads: int, precision: str) -> torch.dtype:
    """Threads and number format for a CPU run; returns the dtype of the matrix products.

    `auto` takes bf16 where the CPU multiplies it in hardware (2.5 times fp32's rate here), fp32 elsewhere.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    if precision == "auto":
        precision = "bf16" if has_fast_bf16() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_fast_bf16() -> bool:
    """True when this machine multiplies bf16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def _resume(model: Any, optimizer: torch.optim.Optimizer, out: Path, checkpoints: Path) -> Progress:
    found = latest_checkpoint(checkpoints)
    progress = Progress()
    if found is not None:
        progress = Progress(**load_checkpoint(found, model, optimizer))
        runs.say(f"resuming at step {progress.step}")
    for name in (CURVE, SPEED):
        if (out / name).exists():
            kept = [row for row in runs.read_lines(out / name) if row["step"] <= progress.step]
            runs.write_text(out / name, "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))
    return progress


def _accumulate(
    model: Any, loss_of: Callable[[Any, Batch], torch.Tensor], fetched: Fetched[Batch], dtype: torch.dtype
) -> float:
    model.train()
    total = 0.0
    for batch in fetched.micro_batches:
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = loss_of(model, batch) / fetched.divisor
        loss.backward()
        total += loss.item()
    return total


def _clip(model: Any, clip: float | None) -> float:
    """Clip the gradient's norm, and return it as it was before."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip)
    return float(norm)


def _check_finite(step: int, loss: float, grad_norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise TrainingGaveUp(
            f"step {step + 1}: the loss ({loss}) or its gradient ({grad_norm}) is not finite; "
            "lower optimizer.lr or set optimizer.clip, then run again with --force"
        )


def _update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    set_rate(optimizer, rate)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _advance(progress: Progress, fetched: Fetched[Any]) -> None:
    progress.step += 1
    progress.tokens += fetched.tokens
    for name, count in fetched.counts.items():
        progress.counts[name] = progress.counts.get(name, 0) + count


class _Clock:
    """Tokens per second and the share of time spent waiting for data; a progress line every few seconds."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.mark = self.said = time.monotonic()
        self.waited = 0.0

    def fetched(self) -> None:
        self.waited = time.monotonic() - self.mark

    def stepped(self, step: int, tokens: int, loss: float) -> dict[str, float]:
        now = time.monotonic()
        seconds = max(now - self.mark, 1e-9)
        if now - self.said > SAY_EVERY_S or step == self.steps:
            self.said = now
            runs.say(f"step {step}/{self.steps}: loss {loss:.4f}, {tokens / seconds:,.0f} tokens/s")
        share = self.waited / seconds
        self.mark = now
        return {"step": step, "tokens_per_second": round(tokens / seconds, 1), "data_wait_share": round(share, 4)}

    def skip(self) -> None:
        """Leave validation and saving out of the next step's time."""
        self.mark = time.monotonic()


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """True once SIGTERM or SIGINT came; the step in progress ends first. In another thread than the main: never."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda number, _frame: seen.append(number)) for name in names}
    try:
        yield lambda: bool(seen)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
