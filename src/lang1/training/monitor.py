"""The monitor of a pretraining run: what the loop calls, at every step and at fixed ones.

    with open_monitor(cfg.monitor, out, ...) as monitor:        on every rank, before the first step
        monitor.step(line)                                      every step: curve and speed, to the sinks
        monitor.event("spike", step=..., loss=..., batch=...)   when the ranks have agreed on it
        if monitor.is_due(step): monitor.observe(model, step)   generations, few-shot scores; on every rank
        monitor.rewind(step)                                    after a rollback to the checkpoint of `step`

The first rank writes files and feeds sinks; on the others `step` and `event` do nothing, and `observe` takes part in
the forwards. Files: events.jsonl (kept through resumes), generations.jsonl and evaluations.jsonl (cut back to the
checkpoint that a run resumes from, as curve.jsonl is, so that they end as those of an undisturbed run). When the disk
refuses a line of them, that is said, once a file, and training goes on.

Whether a step is a spike is judged in spikes.py; what is done about it is the loop's.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lang1 import runs
from lang1.config.monitoring import MonitorConfig
from lang1.errors import Unfinished
from lang1.training import evaluations, generations
from lang1.training.events import EVENTS, event_line, keep_whole_lines
from lang1.training.sinks import CLOSE_S, Alert, Rewind, Scalars, Sink, open_sinks

ALERTED = ("spike", "non_finite", "skip", "rollback", "gave_up", "degenerate_generation", "broken_evaluation")
"""kinds of events that a person is told of"""
ALERT_EVERY_S = 600.0
"""seconds between alerts of one kind: a run that diverges at night sends a few, not thousands"""


def open_monitor(
    config: MonitorConfig,
    out: Path,
    *,
    tokenizer: Any,
    context_length: int,
    seed: int,
    rank: int = 0,
    step: int = 0,
    name: str | None = None,
) -> Monitor:
    """The monitor of the run folder `out`, on the rank `rank`; `step` is the one that the run resumes from.

    Reads prompts and samples, and opens the sinks: raises InputError for what cannot be used, before training.
    """
    prompts = generations.read_prompts(config.generations) if config.generations.every else []
    samples = []
    if config.evaluations.every:
        samples = evaluations.open_samples(config.evaluations, tokenizer, context_length=context_length, seed=seed)
    sinks: list[Sink] = []
    if rank == 0:
        sinks = open_sinks(config.sinks, out, name=name or out.resolve().name, step=step)
        keep_whole_lines(out / EVENTS)
        _cut_back(out, step)
    return Monitor(config, out, tokenizer, context_length, seed, rank, prompts, samples, sinks)


class Monitor:
    """See the module."""

    def __init__(
        self,
        config: MonitorConfig,
        out: Path,
        tokenizer: Any,
        context_length: int,
        seed: int,
        rank: int,
        prompts: list[generations.Prompt],
        samples: list[evaluations.Sample],
        sinks: list[Sink],
    ) -> None:
        self.config = config
        self.out = out
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.seed = seed
        self.rank = rank
        self.prompts = prompts
        self.samples = samples
        self.sinks = sinks
        self._last_step = 0
        self._alerted: dict[str, tuple[float, int]] = {}
        self._refused: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, line: dict[str, Any]) -> None:
        """Give the numbers of a step's line to the sinks; nested ones by path, as val/clinical/loss. Never waits."""
        self._last_step = int(line["step"])
        if not self.sinks:
            return
        values = _numbers({key: value for key, value in line.items() if key != "step"})
        for sink in self.sinks:
            sink.put(Scalars(self._last_step, values))
        self._report_faults()

    def event(
        self,
        kind: str,
        *,
        step: int,
        rank: int | None = None,
        batch: list[int] | None = None,
        loss: float | None = None,
        **facts: Any,
    ) -> None:
        """Write an event, say it in the terminal, and alert where its kind is one of ALERTED.

        `rank`: where it was seen, null for all. Raises ValueError for facts that are text (events.py).
        """
        self._last_step = max(self._last_step, step)
        if self.rank != 0:
            return
        line = event_line(kind, step=step, rank=rank, batch=batch, loss=loss, **facts)
        self._append(EVENTS, [line])
        told = _told(line)
        runs.say(told)
        if kind in ALERTED:
            self._alert(kind, step, told)

    def is_due(self, step: int) -> bool:
        """True when `observe` has something to do at `step`."""
        return self._generates(step) or self._evaluates(step)

    def observe(self, model: Any, step: int) -> dict[str, Any]:
        """Generations and few-shot scores of this step, written and sent; returns value by "task/metric".

        On every rank of a sharded model, in the autocast of training. The model's mode is given back.
        """
        found: dict[str, Any] = {}
        if self._generates(step):
            written = generations.generate(
                model, self.tokenizer, self.prompts, self.config.generations,
                context_length=self.context_length, seed=self.seed, step=step,
            )  # fmt: skip
            self._keep_generations(written, step)
        if self._evaluates(step):
            results = evaluations.evaluate(model, self.tokenizer, self.samples, self.config.evaluations, seed=self.seed)
            self._keep_evaluations(results, step)
            found = {f"{row['task']}/{row['metric']}": row["value"] for row in results}
        return found

    def rewind(self, step: int) -> None:
        """After a rollback: cut generations and evaluations back to `step`; the sinks forget what came after."""
        if self.rank == 0:
            _cut_back(self.out, step)
            for sink in self.sinks:
                sink.put(Rewind(step))

    def close(self, seconds: float = CLOSE_S) -> None:
        """Let the sinks finish, all together within so many seconds, and write down which could not."""
        end = time.monotonic() + seconds
        for sink in self.sinks:
            sink.close(max(0.1, end - time.monotonic()))
        self._report_faults()
        self.sinks = []

    def _generates(self, step: int) -> bool:
        every = self.config.generations.every
        return every > 0 and step % every == 0

    def _evaluates(self, step: int) -> bool:
        every = self.config.evaluations.every
        return every > 0 and step % every == 0

    def _keep_generations(self, written: list[generations.Generation], step: int) -> None:
        if self.rank != 0:
            return
        self._append(generations.GENERATIONS, [generations.as_line(generation, step) for generation in written])
        broken = [generation for generation in written if generation.fault is not None]
        if broken:
            self.event(
                "degenerate_generation",
                step=step,
                prompts=[generation.prompt.id for generation in broken],
                faults=[generation.fault for generation in broken],
                of=len(written),
            )

    def _keep_evaluations(self, results: list[dict[str, Any]], step: int) -> None:
        if self.rank != 0:
            return
        self._append(evaluations.EVALUATIONS, [{"step": step, **row} for row in results])
        for row in results:
            if row["broken"]:
                self.event("broken_evaluation", step=step, task=row["task"], rows=row["broken"])
        values = {f"evaluation/{row['task']}/{row['metric']}": row["value"] for row in results}
        for sink in self.sinks:
            sink.put(Scalars(step, _numbers(values)))

    def _append(self, name: str, lines: list[dict[str, Any]]) -> None:
        try:
            with runs.append_lines(self.out / name) as append:
                for line in lines:
                    append(line)
        except Unfinished as error:
            if name not in self._refused:
                self._refused.add(name)
                runs.say(f"monitor: {error}; training goes on")

    def _alert(self, kind: str, step: int, told: str) -> None:
        sent, held = self._alerted.get(kind, (-math.inf, 0))
        if time.monotonic() - sent < ALERT_EVERY_S:
            self._alerted[kind] = (sent, held + 1)
            return
        self._alerted[kind] = (time.monotonic(), 0)
        more = f"; {held} more since the last alert of this kind" if held else ""
        for sink in self.sinks:
            sink.put(Alert(step, kind, told + more))

    def _report_faults(self) -> None:
        for sink in self.sinks:
            for fault in sink.faults():
                self.event(fault.kind, step=self._last_step, sink=fault.sink, error=fault.error)


def _cut_back(out: Path, step: int) -> None:
    for log in (generations.GENERATIONS, evaluations.EVALUATIONS):
        keep_whole_lines(out / log, step)


def _numbers(line: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a line, nested ones under their path."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[prefix + key] = float(value)
    return found


def _told(line: dict[str, Any]) -> str:
    """An event as one line: `spike at step 1200: loss 9.1, rank 3`."""
    facts = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in line.items()
        if name not in {"time", "step", "kind", "batch"} and value is not None
    ]
    return f"{line['kind']} at step {line['step']}" + (f": {', '.join(facts)}" if facts else "")
