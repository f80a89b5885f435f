"""Figures A1 (when the rows of each split fall) and F6 (length of stay given death, death given length of stay)."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import figures
from lang1.tasks.tables import Conditional, Counted, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRETRAINING = "pretraining notes"
COLOURS = {PRETRAINING: "#117733", "train": "#6B7280", "temporal_1": "#D55E00", "temporal_2": "#0072B2"}
"""val and test lie in train's window"""
PAIR = ("#0072B2", "#D55E00")


def draw_timeline(counted: Counted, out: Path) -> list[Path]:
    """Figure A1: a line a task, a bar a window, the pretraining notes above. Nothing is drawn without times."""
    bars = _bars(counted)
    if not bars:
        return []
    tasks = list(dict.fromkeys(task for task, _, _, _ in bars))
    with figures.style():
        figure = figures.new_figure(7.2, 0.9 + 0.42 * len(tasks))
        axes = figure.add_subplot()
        for task, split, begin, end in bars:
            left, width = begin.toordinal(), max((end - begin).days, 1)
            axes.barh(tasks.index(task), width, left=left, height=0.5, color=COLOURS[split], label=split)
        _months(axes, min(b for _, _, b, _ in bars), max(e for _, _, _, e in bars))
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("day of discharge; of notes, of signing" if counted.windows else "prediction time")
        names = {**{name: name for name in COLOURS}, "train": "train, val, test"}
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(unique.values(), [names[label] for label in unique], ncols=4, loc="outside upper left")
        return figures.save_figure(figure, out / "A1")


def _bars(counted: Counted) -> list[tuple[str, str, date, date]]:
    """Task, window, first day, day after the last: as configured, else as the rows' prediction times lie."""
    bars = []
    if counted.pretraining is not None:
        first, last = (date.fromisoformat(day) for day in counted.pretraining)
        bars.append((PRETRAINING, PRETRAINING, first, last + timedelta(days=1)))
    for task in dict.fromkeys(size.task for size in counted.sizes):
        here = {size.split: size for size in counted.sizes if size.task == task}
        windows = counted.windows.get("denial_windows" if task == "denial" else "windows")
        for split in ("train", "temporal_1", "temporal_2"):
            members = [here[name] for name in (("train", "val", "test") if split == "train" else (split,))]
            if not any(size.notes for size in members):
                continue
            if windows is not None:
                window = windows[split]
                bars.append((task, split, date.fromisoformat(window["start"]), date.fromisoformat(window["end"])))
                continue
            days = [date.fromisoformat(day) for size in members for day in (size.first, size.last) if day is not None]
            if days:
                bars.append((task, split, min(days), max(days) + timedelta(days=1)))
    return bars


def _months(axes: Axes, first: date, last: date) -> None:
    """A tick a year; a tick a month where all lies within two years."""
    if (last - first).days > 730:
        days = [date(year, 1, 1) for year in range(first.year, last.year + 2)]
        labels = [str(day.year) for day in days]
    else:
        months = range(first.year * 12 + first.month - 1, last.year * 12 + last.month + 1)
        days = [date(month // 12, month % 12 + 1, 1) for month in months]
        labels = [f"{day.year}-{day.month:02d}" if day.month in (1, 7) else "" for day in days]
    axes.set_xticks([day.toordinal() for day in days], labels)
    axes.set_xlim(first.toordinal() - 30, last.toordinal() + 30)


def draw_conditionals(counted: Counted, out: Path) -> list[Path]:
    """Figures F6a and F6b over all splits, with 95 % intervals and the number of rows behind each share."""
    total = [c for c in counted.conditionals if c.split == "total"]
    if not any(c.n for c in total):
        return []
    saved = []
    with figures.style():
        for name, title in (("F6a", "Length of stay, given death"), ("F6b", "Death in hospital, given length of stay")):
            here = [c for c in total if c.figure == name]
            figure = figures.new_figure(4.6, 2.9)
            axes = figure.add_subplot()
            _columns(axes, here)
            axes.set_title(title)
            saved += figures.save_figure(figure, out / name)
    return saved


def _columns(axes: Axes, shares: list[Conditional]) -> None:
    """F6a: a group of columns an option, one colour a condition; F6b: one column a condition."""
    is_grouped = len({c.outcome for c in shares}) > 1
    groups = list(dict.fromkeys((c.outcome if is_grouped else c.given) for c in shares))
    series = list(dict.fromkeys(c.given for c in shares)) if is_grouped else [shares[0].outcome]
    width = 0.8 / len(series)
    for place, name in enumerate(series):
        mine = [c for c in shares if (c.given if is_grouped else c.outcome) == name and c.n]
        at = [
            groups.index(c.outcome if is_grouped else c.given) + (place - (len(series) - 1) / 2) * width for c in mine
        ]
        values = [c.rows / c.n for c in mine]
        bounds = [wilson(c.rows, c.n) for c in mine]
        low = [value - (bound[0] or 0.0) for value, bound in zip(values, bounds, strict=True)]
        high = [(bound[1] or 0.0) - value for value, bound in zip(values, bounds, strict=True)]
        n = f" (n = {mine[0].n:,})" if is_grouped and mine else ""
        axes.bar(at, values, width * 0.94, yerr=[low, high], color=PAIR[place], label=name + n, capsize=2)
    labels = groups if is_grouped else [f"{c.given}\nn = {c.n:,}" for c in shares]
    axes.set_xticks(range(len(groups)), labels)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("share, 95 % interval")
    if is_grouped:
        axes.legend(loc="upper left")
        axes.margins(y=0.25)
