"""`lang1 watch RUN`: loss, throughput, events and evaluations of a pretraining folder, in the terminal and as a PNG.

Reads curve.jsonl, speed.jsonl, events.jsonl and evaluations.jsonl as they grow, and writes nothing into the run folder:
the picture lies beside it. Plain characters, no library: the same page works on a terminal, in a log and over a slow
line. A run has ended when its manifest is there, or when no process holds its lock any more.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from lang1 import figures, runs
from lang1.errors import InputError
from lang1.training.events import read_events

CURVE = "curve.jsonl"
SPEED = "speed.jsonl"
EVALUATIONS = "evaluations.jsonl"
WIDTH = 72
HEIGHT = 12
RECENT_EVENTS = 6
MARKS = {"spike": "!", "non_finite": "X", "skip": "s", "rollback": "<"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*%#"


@dataclass(frozen=True)
class Watched:
    """What a run folder says of itself, rows in the order of steps; of a step that was done twice, the last."""

    name: str
    state: str
    """running, complete, or stopped: the same command goes on"""
    curve: list[dict[str, Any]]
    speed: list[dict[str, Any]]
    events: list[dict[str, Any]]
    evaluations: dict[str, list[dict[str, Any]]]
    """by task and metric"""
    steps: int | None
    """optimizer steps that the run is to make"""


def watch(
    run: Path, *, out: Path, follow: bool = False, every: float = 30.0, show: Callable[[str], None] | None = None
) -> Watched:
    """Show the page of the pretraining folder `run` and write its picture to `out`; with `follow`, until the run ends.

    Returns what was shown last. Raises InputError when `run` holds no curve.
    """
    show = show or _to_terminal(follow)
    can_draw = importlib.util.find_spec("matplotlib") is not None
    if not can_draw:
        runs.say("no picture is written: it needs matplotlib: pip install 'lang1[report]'")
    while True:
        found = read_run(run)
        show(page(found, unicode=_speaks_unicode()))
        if can_draw:
            draw(found, out)
        if not follow or found.state != "running":
            return found
        time.sleep(every)


def read_run(run: Path) -> Watched:
    """The files of a pretraining folder as they are now. Raises InputError when it is none."""
    locked = runs.is_locked(run)  # asked first: the manifest is written under the lock
    if not (run / CURVE).is_file() and not locked:
        raise InputError(f"{run}: no {CURVE} here; give the folder that lang1 pretrain writes")
    state = "complete" if runs.is_complete(run) else "running" if locked else "stopped"
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for row in _by_step(runs.read_lines(run / EVALUATIONS), "task", "metric"):
        evaluations.setdefault(f"{row['task']} {row['metric']}", []).append(row)
    started = run / (runs.MANIFEST if state == "complete" else runs.STARTED)
    config = runs.read_json(started).get("config", {}) if started.exists() else {}
    return Watched(
        name=str(run),
        state=state,
        curve=_by_step(runs.read_lines(run / CURVE)),
        speed=_by_step(runs.read_lines(run / SPEED)),
        events=read_events(run),
        evaluations=evaluations,
        steps=config.get("steps"),
    )


def page(found: Watched, *, unicode: bool = True, width: int = WIDTH) -> str:
    """The page as plain text, lines of at most `width` + 12 characters."""
    blocks = _BLOCKS if unicode else _ASCII_BLOCKS
    lines = [_headline(found), ""]
    if found.curve:
        lines += _loss_plot(found, width)
    speeds = [float(row["tokens_per_second"]) for row in found.speed]
    if speeds:
        waits = [float(row.get("data_wait_share", 0.0)) for row in found.speed]
        drawn = sparkline(binned(speeds, width - 28), blocks)
        lines += ["", f"tokens/s  {drawn}  last {speeds[-1]:,.0f}, median {median(speeds):,.0f}"]
        lines += [f"          waiting for data: {median(waits):.1%} of the time"]
    if found.evaluations:
        lines += ["", "evaluations"]
        lines += [_evaluation_line(name, rows, width, blocks) for name, rows in found.evaluations.items()]
    lines += ["", *_event_lines(found.events)]
    return "\n".join(lines)


def sparkline(values: Sequence[float], blocks: str = _BLOCKS) -> str:
    """A character a value, low to high; a value that is not finite is a space."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(blocks) - 1) or 1.0
    return "".join(blocks[round((value - low) / step)] if math.isfinite(value) else " " for value in values)


def binned(values: Sequence[float], width: int) -> list[float]:
    """At most `width` medians of neighbouring values, in order; NaN for a bin without a finite value."""
    count = min(width, len(values))
    cuts = [round(i * len(values) / count) for i in range(count + 1)] if count else [0]
    return [_median(values[a:b]) for a, b in pairwise(cuts)]


def draw(found: Watched, path: Path) -> Path:
    """Write the picture: loss with validation and events, throughput, evaluations with their intervals."""
    with figures.style():
        panels = 2 + bool(found.evaluations)
        fig = figures.new_figure(7.2, 2.4 * panels)
        axes = fig.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
        _draw_loss(axes[0], found)
        _draw_speed(axes[1], found)
        if found.evaluations:
            _draw_evaluations(axes[2], found)
        axes[-1].set_xlabel(f"step ({found.name})")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return figures.save_png(fig, path)


def _headline(found: Watched) -> str:
    if not found.curve:
        return f"{found.name}: {found.state}, no step yet"
    last = found.curve[-1]
    of = f"/{found.steps:,}" if found.steps else ""
    state = "stopped: the same command goes on" if found.state == "stopped" else found.state
    seconds = _seconds_left(found)
    left = f", {seconds / 3600:.1f} h to go" if seconds is not None and found.state == "running" else ""
    return f"{found.name}: {state}, step {last['step']:,}{of}, {last['tokens']:,} tokens, loss {last['loss']:.4f}{left}"


def _seconds_left(found: Watched) -> float | None:
    """By the median speed of the last steps; None before there is one."""
    recent = [row["tokens_per_second"] for row in found.speed[-100:] if row["tokens_per_second"] > 0]
    if not recent or not found.steps or len(found.curve) < 2:
        return None
    done = found.curve[-1]["step"]
    return float((found.steps - done) * found.curve[-1]["tokens"] / done / median(recent))


def _loss_plot(found: Watched, width: int) -> list[str]:
    """Training loss as `*`, validation loss (mean over sources) as `o`, and a line of marks for events.

    The scale is that of all but the first tenth, where the loss falls from its start; what lies above it is a `^`.
    """
    first, last = found.curve[0]["step"], found.curve[-1]["step"]

    def column(step: int) -> int:
        return min(width - 1, int((step - first) * width / max(1, last - first + 1)))

    train = _columns(((column(row["step"]), float(row["loss"])) for row in found.curve), width)
    val = _columns(((column(step), loss) for step, loss in validation(found.curve)), width)
    later = [value for value in (*train[width // 10 :], *val[width // 10 :]) if math.isfinite(value)]
    known = later or [value for value in (*train, *val) if math.isfinite(value)]
    if not known:
        return ["no finite loss"]
    low, high = min(known), max(known)
    grid = [[" "] * width for _ in range(HEIGHT)]
    for values, mark in ((train, "*"), (val, "o")):
        for place, value in enumerate(values):
            if math.isfinite(value):
                row = round((high - value) / ((high - low) or 1.0) * (HEIGHT - 1))
                grid[min(max(row, 0), HEIGHT - 1)][place] = "^" if row < 0 else mark
    lines = [f"{high - (high - low) * i / (HEIGHT - 1):9.4f} |{''.join(row)}".rstrip() for i, row in enumerate(grid)]
    marks = [" "] * width
    for event in found.events:
        if first <= event["step"] <= last:
            marks[column(event["step"])] = MARKS.get(event["kind"], ".")
    axis = f"{first:<{width // 2},}{last:>{width - width // 2},}"
    lines += [f"          +{'-' * width}", f"           {axis}"]
    if any(mark != " " for mark in marks):
        lines.append(f"   events  {''.join(marks)}".rstrip())
    val_loss = f", o validation {validation(found.curve)[-1][1]:.4f}" if validation(found.curve) else ""
    return [f"loss (* training{val_loss})", *lines]


def validation(curve: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, validation loss, mean over the sources that have one)."""
    found = []
    for row in curve:
        losses = [facts["loss"] for facts in (row.get("val") or {}).values() if _has_loss(facts)]
        if losses:
            found.append((int(row["step"]), sum(losses) / len(losses)))
    return found


def _has_loss(facts: Any) -> bool:
    return isinstance(facts, dict) and facts.get("loss") is not None


def _evaluation_line(name: str, rows: Sequence[dict[str, Any]], width: int, blocks: str) -> str:
    last = rows[-1]
    drawn = sparkline(binned([_number(row["value"]) for row in rows], width - 50), blocks)
    if last["value"] is None:
        return f"  {name:<28} no value at step {last['step']:,} (n {last['n']})  {drawn}"
    bounds = f" ({last['ci_low']:.3f} to {last['ci_high']:.3f})" if last["ci_low"] is not None else ""
    return f"  {name:<28} {last['value']:.3f}{bounds}, n {last['n']}, {last['shots']} shots  {drawn}"


def _event_lines(events: Sequence[dict[str, Any]]) -> list[str]:
    if not events:
        return ["no events"]
    counts: dict[str, int] = {}
    for event in events:
        counts[event["kind"]] = counts.get(event["kind"], 0) + 1
    lines = ["events: " + ", ".join(f"{kind} {count}" for kind, count in counts.items())]
    for event in events[-RECENT_EVENTS:]:
        where = "" if event.get("rank") is None else f", rank {event['rank']}"
        loss = "" if event.get("loss") is None else f", loss {event['loss']}"
        lines.append(f"  {event['time']}  step {event['step']:,}  {event['kind']}{where}{loss}")
    return lines


def _draw_loss(axes: Any, found: Watched) -> None:
    axes.plot([row["step"] for row in found.curve], [row["loss"] for row in found.curve], color="#0072B2", lw=0.9)
    points = validation(found.curve)
    if points:
        axes.plot(*zip(*points, strict=True), color="#D55E00", marker="o", ms=3, label="validation")
        axes.legend()
    for event in found.events:
        if event["kind"] in MARKS:
            axes.axvline(event["step"], color="#AA4499", lw=0.8, ls=":")
    later = [row["loss"] for row in found.curve[len(found.curve) // 10 :] if math.isfinite(row["loss"])]
    if later:  # the start would leave the rest no room
        axes.set_ylim(min(later) - 0.05, max(later) + 0.1 * (max(later) - min(later)) + 0.05)
    axes.set_title("Loss, nats a token (dotted: spikes, skips, rollbacks)")


def _draw_speed(axes: Any, found: Watched) -> None:
    axes.plot(
        [row["step"] for row in found.speed], [row["tokens_per_second"] for row in found.speed], color="#117733", lw=0.7
    )
    axes.set_title("Tokens a second")
    axes.set_ylim(bottom=0)


def _draw_evaluations(axes: Any, found: Watched) -> None:
    for number, (name, rows) in enumerate(found.evaluations.items()):
        known = [row for row in rows if row["value"] is not None]
        colour = figures.SPARE_COLOURS[number % len(figures.SPARE_COLOURS)]
        steps = [row["step"] for row in known]
        axes.plot(steps, [row["value"] for row in known], color=colour, marker="o", ms=3, label=name)
        bounded = [row for row in known if row["ci_low"] is not None]
        # bars, not a band: a run has one evaluation before it has two
        axes.vlines(
            [row["step"] for row in bounded], [row["ci_low"] for row in bounded], [row["ci_high"] for row in bounded],
            color=colour, alpha=0.6, lw=1,
        )  # fmt: skip
    axes.set_title("Few-shot, 95 % intervals")
    axes.legend(ncols=4, fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.99))


def _by_step(rows: Iterable[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The last row of every step (and names), in the order of steps."""
    last = {(row["step"], *(row[name] for name in names)): row for row in rows}
    return sorted(last.values(), key=lambda row: int(row["step"]))


def _columns(points: Iterable[tuple[int, float]], width: int) -> list[float]:
    held: list[list[float]] = [[] for _ in range(width)]
    for place, value in points:
        held[place].append(value)
    return [_median(values) for values in held]


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return median(known) if known else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _to_terminal(follow: bool) -> Callable[[str], None]:
    """Print the page; following on a terminal, in place of the page before."""
    clear = "\x1b[H\x1b[2J" if follow and sys.stdout.isatty() else ""
    return lambda text: print(f"{clear}{text}", flush=True)
