"""The report's figures, one small panel a task, so that a page lays them out in one column or three.

Every function takes plain rows and returns an <svg> with its alt text; none reads a file or makes up a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lang1 import figures
from lang1.report import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_ORDER = ("val", "test", "temporal_1", "temporal_2")
PANEL = 3.55
"""width of a panel, inches: a phone's width at its natural size"""
LINES = figures.Margins(left=0.64, right=0.08, bottom=0.45, top=0.28)
DOTS = figures.Margins(left=1.22, right=0.42, bottom=0.45, top=0.26)


@dataclass(frozen=True)
class Panel:
    """One figure of the page and what it shows."""

    svg: str
    caption: str


def auroc_panels(results: list[dict[str, Any]], split: str) -> list[Panel]:
    """A panel a task: a dot and its interval for each model, chance and ceiling as lines, the same scale in all."""
    here = [row for row in results if row["split"] == split and row.get("value") is not None]
    lowest = min([row["ci_low"] for row in here if row.get("ci_low") is not None] + [0.5])
    left = max(0.0, 0.05 * int(lowest / 0.05))
    panels = []
    for task in dict.fromkeys(row["task"] for row in here):
        rows = [row for row in here if row["task"] == task]
        order = figures.order_models({row["model"] for row in rows})
        rows.sort(key=lambda row: order.index(row["model"]))
        with figures.style():
            figure = figures.new_figure(PANEL, 0.98 + 0.27 * len(rows), DOTS)
            axes = figure.add_subplot()
            _dots(axes, rows, left)
            axes.set_title(words.task(task))
            panels.append(
                Panel(
                    figures.inline_svg(
                        figure, f"auroc-{task}", f"AUROC, {words.task(task)}, {words.split(split)}", _tell(rows)
                    ),
                    words.task(task),
                )
            )
    return panels


def _dots(axes: Axes, rows: list[dict[str, Any]], left: float) -> None:
    for height, row in enumerate(rows):
        look = figures.look(row["model"])
        if row.get("ci_low") is not None:
            axes.plot(
                [row["ci_low"], row["ci_high"]],
                [height, height],
                color=look.colour,
                linewidth=2.4,
                alpha=0.55,
                solid_capstyle="butt",
            )
        axes.plot([row["value"]], [height], look.marker, color=look.colour, markersize=6)
        axes.text(
            1.01,
            height,
            words.auroc(row["value"]),
            va="center",
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            color=figures.INK,
        )
    _reference_lines(axes, next((row["ceiling"] for row in rows if row.get("ceiling") is not None), None))
    axes.set_yticks(range(len(rows)), [figures.look(row["model"]).short for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.9)
    axes.set_xlim(left, 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AUROC, 95 % interval")


def _reference_lines(axes: Axes, ceiling: float | None) -> None:
    close = ceiling is not None and abs(ceiling - 0.5) < 0.15
    axes.axvline(0.5, color=figures.MUTED, linewidth=0.8)
    axes.text(
        0.5,
        1.0,
        "chance ",
        transform=axes.get_xaxis_transform(),
        ha="right" if close else "center",
        va="top",
        fontsize=7,
        color=figures.MUTED,
        backgroundcolor="white",
    )
    if ceiling is not None:
        axes.axvline(ceiling, color=figures.INK, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.text(
            ceiling,
            1.0,
            " ceiling",
            transform=axes.get_xaxis_transform(),
            ha="left" if close else "center",
            va="top",
            fontsize=7,
            color=figures.INK,
            backgroundcolor="white",
        )


def _tell(rows: list[dict[str, Any]]) -> str:
    parts = [
        f"{figures.look(row['model']).label} {words.auroc(row['value'])} {words.auroc_interval(row)}".strip()
        for row in rows
    ]
    ceiling = next((row["ceiling"] for row in rows if row.get("ceiling") is not None), None)
    return "; ".join(parts) + ("" if ceiling is None else f"; ceiling {words.auroc(ceiling)}") + "."


def decay_panels(results: list[dict[str, Any]], splits: list[str], names: dict[str, list[str]]) -> list[Panel]:
    """A panel a task: AUROC of each model from `test` to the later windows, with intervals. `names` are by task."""
    panels = []
    rows = [row for row in results if row["split"] in splits and row.get("value") is not None]
    for task in dict.fromkeys(row["task"] for row in rows):
        here = [row for row in rows if row["task"] == task]
        models = figures.order_models({row["model"] for row in here})
        told = []
        with figures.style():
            figure = figures.new_figure(PANEL, 2.35, LINES)
            axes = figure.add_subplot()
            for index, model in enumerate(models):
                line = sorted((row for row in here if row["model"] == model), key=lambda r: splits.index(r["split"]))
                _decay_line(axes, line, splits, model, (index - (len(models) - 1) / 2) * min(0.07, 0.6 / len(models)))
                told.append(
                    f"{figures.look(model).label}: "
                    + ", ".join(f"{words.split(r['split'])} {words.auroc(r['value'])}" for r in line)
                )
            _decay_ceiling(axes, here, splits)
            axes.set_xticks(range(len(splits)), names[task])
            axes.set_xlim(-0.35, len(splits) - 0.65)
            axes.grid(axis="x", visible=False)
            axes.set_ylabel("AUROC")
            axes.set_title(words.task(task))
            panels.append(
                Panel(
                    figures.inline_svg(
                        figure, f"decay-{task}", f"AUROC by split, {words.task(task)}", "; ".join(told) + "."
                    ),
                    words.task(task),
                )
            )
    return panels


def _decay_line(axes: Axes, line: list[dict[str, Any]], splits: list[str], model: str, shift: float) -> None:
    look = figures.look(model)
    x = [splits.index(row["split"]) + shift for row in line]
    for place, row in zip(x, line, strict=True):
        if row.get("ci_low") is not None:
            axes.plot([place, place], [row["ci_low"], row["ci_high"]], color=look.colour, linewidth=1.6, alpha=0.5)
    axes.plot(x, [row["value"] for row in line], color=look.colour, marker=look.marker, linewidth=1.2, markersize=4.5)


def _decay_ceiling(axes: Axes, rows: list[dict[str, Any]], splits: list[str]) -> None:
    ceilings = {row["split"]: row["ceiling"] for row in rows if row.get("ceiling") is not None}
    for name, ceiling in ceilings.items():
        place = splits.index(name)
        axes.plot(
            [place - 0.3, place + 0.3], [ceiling, ceiling], color=figures.INK, linewidth=1.0, linestyle=(0, (4, 2))
        )


@dataclass(frozen=True)
class CalibrationCurve:
    """Fifteen bins of one model on one task: mean predicted probability, observed rate, rows; and the ECE."""

    task: str
    model: str
    predicted: list[float]
    observed: list[float]
    rows: list[int]
    ece: float | None
    of: str
    """whose probability: `option 1`, or `most likely option`"""
    options: list[str] | None = None
    """the question's own words, for a task that the report has none for"""


def calibration_panels(curves: list[CalibrationCurve]) -> list[Panel]:
    """A panel a task: observed rate against predicted probability; a dot's area is its share of the rows."""
    from matplotlib.ticker import MaxNLocator

    panels = []
    for task in dict.fromkeys(curve.task for curve in curves):
        here = [curve for curve in curves if curve.task == task]
        order = figures.order_models({curve.model for curve in here})
        here.sort(key=lambda curve: order.index(curve.model))
        top = max(
            [0.02] + [max(p, o) for c in here for p, o, n in zip(c.predicted, c.observed, c.rows, strict=True) if n]
        )
        with figures.style():
            figure = figures.new_figure(PANEL, 3.0, LINES)
            axes = figure.add_subplot()
            axes.plot([0, 1], [0, 1], color=figures.MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
            for curve in here:
                _calibration_line(axes, curve)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.set_xlim(0, min(1.0, 1.05 * top))
            axes.set_ylim(0, min(1.0, 1.05 * top))
            axes.set_xlabel(f"probability given to {_whose(here[0])}")
            axes.set_ylabel("observed rate")
            axes.set_title(words.task(task))
            told = [
                f"{figures.look(c.model).label}: expected calibration error "
                f"{NO_VALUE if c.ece is None else format(c.ece, '.3f')}"
                for c in here
            ]
            panels.append(
                Panel(
                    figures.inline_svg(
                        figure, f"calibration-{task}", f"Calibration, {words.task(task)}", "; ".join(told) + "."
                    ),
                    words.task(task),
                )
            )
    return panels


NO_VALUE = "not given"
JOINED_ROWS = 10
"""bins with fewer rows keep their dot and are not joined: the line would be noise"""


def _whose(curve: CalibrationCurve) -> str:
    return f'"{words.option(curve.task, 1, curve.options)}"' if curve.of == "option 1" else "the likeliest option"


def _calibration_line(axes: Axes, curve: CalibrationCurve) -> None:
    look = figures.look(curve.model)
    kept = [(p, o, n) for p, o, n in zip(curve.predicted, curve.observed, curve.rows, strict=True) if n > 0]
    if not kept:
        return
    total = sum(n for _, _, n in kept)
    joined = [(p, o) for p, o, n in kept if n >= JOINED_ROWS]
    axes.plot([p for p, _ in joined], [o for _, o in joined], color=look.colour, linewidth=1.0, alpha=0.8)
    axes.scatter(
        [p for p, _, _ in kept],
        [o for _, o, _ in kept],
        s=[8 + 90 * n / total for _, _, n in kept],
        color=look.colour,
        marker=look.marker,
        alpha=0.75,
        linewidths=0,
        clip_on=False,
    )


SOURCE_LOOKS = {"clinical": ("#0072B2", "o"), "web": ("#D55E00", "s")}


def pretraining_panels(curve: list[dict[str, Any]]) -> list[Panel]:
    """Training loss with validation loss by source, and validation perplexity on a log scale."""
    train = [(row["step"], row["loss"]) for row in curve if row.get("loss") is not None]
    val: dict[str, list[tuple[int, float, float]]] = {}
    for row in curve:
        for source, found in (row.get("val") or {}).items():
            if found.get("loss") is not None:
                val.setdefault(source, []).append((row["step"], found["loss"], found["perplexity"]))
    if not train:
        return []
    panels = [_loss_panel(train, val)]
    return [*panels, _perplexity_panel(val)] if val else panels


def _loss_panel(train: list[tuple[int, float]], val: dict[str, list[tuple[int, float, float]]]) -> Panel:
    with figures.style():
        figure = figures.new_figure(PANEL, 2.6, LINES)
        axes = figure.add_subplot()
        thin = thin_out(train, 400)
        axes.plot([s for s, _ in thin], [v for _, v in thin], color=figures.MUTED, linewidth=0.9, label="train")
        for source, found in val.items():
            colour, marker = SOURCE_LOOKS.get(source, ("#117733", "^"))
            axes.plot(
                [s for s, _, _ in found],
                [v for _, v, _ in found],
                color=colour,
                marker=marker,
                markersize=4,
                label=f"validation, {source}",
            )
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss, nats a token")
        axes.set_title("Loss")
        axes.legend()
        told = [
            f"training loss from {train[0][1]:.2f} at step {train[0][0]} to {train[-1][1]:.2f} at step {train[-1][0]}"
        ]
        told += [f"validation loss on {source} ends at {found[-1][1]:.2f}" for source, found in val.items()]
        svg = figures.inline_svg(figure, "pretraining-loss", "Pretraining loss", "; ".join(told) + ".")
    return Panel(svg, "Loss by optimizer step.")


def _perplexity_panel(val: dict[str, list[tuple[int, float, float]]]) -> Panel:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    with figures.style():
        figure = figures.new_figure(PANEL, 2.6, LINES)
        axes = figure.add_subplot()
        for source, found in val.items():
            colour, marker = SOURCE_LOOKS.get(source, ("#117733", "^"))
            axes.plot(
                [s for s, _, _ in found],
                [p for _, _, p in found],
                color=colour,
                marker=marker,
                markersize=4,
                label=f"validation, {source}",
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("perplexity, log scale")
        axes.set_title("Perplexity")
        axes.legend()
        told = [f"{source}: from {found[0][2]:.1f} to {found[-1][2]:.1f}" for source, found in val.items()]
        svg = figures.inline_svg(figure, "pretraining-perplexity", "Validation perplexity", "; ".join(told) + ".")
    return Panel(svg, "Validation perplexity by optimizer step.")


def thin_out(line: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most about `most` points, each the mean of a run of neighbours; the figure stays small, nothing is hidden."""
    width = -(-len(line) // most)
    groups = [line[i : i + width] for i in range(0, len(line), width)]
    return [(group[-1][0], sum(v for _, v in group) / len(group)) for group in groups]


def finetuning_panels(
    curves: dict[str, list[tuple[str, int, float]]], losses: dict[str, list[tuple[int, float]]], best: dict[str, int]
) -> list[Panel]:
    """Validation AUROC by step, a panel a task, a line a model; then the training loss. `curves` and `losses` are by
    model: (task, step, AUROC) and (step, loss); `best` is the step whose weights were kept.
    """
    tasks = list(dict.fromkeys(task for points in curves.values() for task, _, _ in points))
    panels = []
    for task in tasks:
        told = []
        with figures.style():
            figure = figures.new_figure(PANEL, 2.2, LINES)
            axes = figure.add_subplot()
            for model, points in curves.items():
                line = [(step, value) for name, step, value in points if name == task]
                if not line:
                    continue
                look = figures.look(model)
                axes.plot(
                    [s for s, _ in line],
                    [v for _, v in line],
                    color=look.colour,
                    marker=look.marker,
                    markersize=3.5,
                    linewidth=1.2,
                )
                if model in best:
                    axes.axvline(best[model], color=look.colour, linewidth=0.8, linestyle=(0, (2, 2)))
                told.append(
                    f"{look.label}: from {words.auroc(line[0][1])} at step {line[0][0]} to "
                    f"{words.auroc(line[-1][1])} at step {line[-1][0]}"
                )
            axes.set_xlabel("optimizer step")
            axes.set_ylabel("validation AUROC")
            axes.set_title(words.task(task))
            svg = figures.inline_svg(
                figure, f"finetuning-{task}", f"Finetuning, {words.task(task)}", "; ".join(told) + "."
            )
        panels.append(Panel(svg, words.task(task)))
    loss = _finetuning_loss(losses)
    return [*panels, loss] if loss else panels


def _finetuning_loss(losses: dict[str, list[tuple[int, float]]]) -> Panel | None:
    if not any(losses.values()):
        return None
    told = []
    with figures.style():
        figure = figures.new_figure(PANEL, 2.2, LINES)
        axes = figure.add_subplot()
        for model, line in losses.items():
            if line:
                thin = thin_out(line, 120)
                axes.plot([s for s, _ in thin], [v for _, v in thin], color=figures.look(model).colour, linewidth=1.1)
                told.append(f"{figures.look(model).label}: from {thin[0][1]:.3f} to {thin[-1][1]:.3f}")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("training loss")
        axes.set_title("Training loss")
        svg = figures.inline_svg(figure, "finetuning-loss", "Finetuning loss", "; ".join(told) + ".")
    return Panel(svg, "Training loss")
