"""The report's decision curves (Vickers & Elkin 2006): what acting on a model is worth, by where it is acted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lang1 import figures
from lang1.report import words
from lang1.report.plots import PANEL, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGINS = figures.Margins(left=0.82, right=0.08, bottom=0.45, top=0.28)
DASHED = (0, (4, 2))
TOLD = (0.05, 0.1, 0.2)
"""thresholds whose net benefit the alt text gives"""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit a row of one model on one binary task, by threshold; None where it has no value."""

    task: str
    model: str
    """of a recalibrated model, the one that it was made of"""
    recalibration: str | None
    """how the probabilities were recalibrated; None for the model as it is"""
    thresholds: list[float]
    net_benefit: list[float | None]
    low: list[float | None]
    high: list[float | None]
    treat_all: list[float | None]

    @property
    def label(self) -> str:
        """The model's name, and that it was recalibrated."""
        label = figures.look(self.model).label
        return label if self.recalibration is None else f"{label}, recalibrated ({self.recalibration})"


def decision_panels(curves: list[DecisionCurve]) -> list[Panel]:
    """A panel a binary task: net benefit by threshold with its interval, of each model, of flagging all and nobody."""
    panels = []
    for task in dict.fromkeys(curve.task for curve in curves):
        here = [curve for curve in curves if curve.task == task]
        order = figures.order_models({curve.model for curve in here})
        here.sort(key=lambda curve: (order.index(curve.model), curve.recalibration or ""))
        with figures.style():
            figure = figures.new_figure(PANEL, 2.6, MARGINS)
            axes = figure.add_subplot()
            last = _limit(axes, here)
            _references(axes, here[0], last)
            for curve in here:
                _line(axes, curve, last)
            axes.set_xlabel("threshold probability")
            axes.set_ylabel("net benefit a row")
            axes.set_title(words.task(task))
            title = f"Net benefit by threshold, {words.task(task)}"
            svg = figures.inline_svg(figure, f"decision-{task}", title, _tell(here))
        panels.append(Panel(svg, words.task(task)))
    return panels


def _references(axes: Axes, curve: DecisionCurve, last: float) -> None:
    axes.axhline(0, color=figures.INK, linewidth=1.0)
    columns = zip(curve.thresholds, curve.treat_all, strict=True)
    points = [(t, value) for t, value in columns if value is not None and t <= last]
    axes.plot([t for t, _ in points], [value for _, value in points], color=figures.MUTED, linewidth=1.2, linestyle=":")


def _line(axes: Axes, curve: DecisionCurve, last: float) -> None:
    look = figures.look(curve.model)
    columns = zip(curve.thresholds, curve.net_benefit, curve.low, curve.high, strict=True)
    points = [(t, value, low, high) for t, value, low, high in columns if value is not None and t <= last]
    x = [t for t, *_ in points]
    style = "-" if curve.recalibration is None else DASHED
    axes.plot(x, [value for _, value, *_ in points], color=look.colour, linewidth=1.3, linestyle=style)
    if curve.recalibration is None:
        bounded = [(t, low, high) for t, _, low, high in points if low is not None and high is not None]
        ends = [low for _, low, _ in bounded], [high for *_, high in bounded]
        axes.fill_between([t for t, *_ in bounded], *ends, color=look.colour, alpha=0.13, linewidth=0)


def _limit(axes: Axes, curves: list[DecisionCurve]) -> float:
    """From a little below nobody's 0 to the highest value; up to the last threshold where a model is worth more.

    Returns that threshold: what is drawn beyond would be cut off, yet be as wide as before to a browser.
    """
    values = [(t, v) for c in curves for t, v in zip(c.thresholds, c.net_benefit, strict=True) if v is not None]
    everyone = [value for value in curves[0].treat_all if value is not None]
    top = max([0.005, *(value for _, value in values), *everyone])
    last = max([0.1, *(t for t, value in values if value > 0.02 * top)])
    axes.set_ylim(-0.25 * top, 1.08 * top)
    last = min(last + 0.05, max(curves[0].thresholds))
    axes.set_xlim(0, last)
    return last


def _tell(curves: list[DecisionCurve]) -> str:
    parts = []
    for curve in curves:
        value = dict(zip(curve.thresholds, curve.net_benefit, strict=True))
        said = [f"{words.auroc(value[t])} at {words.percent(t)}" for t in TOLD if t in value]
        parts.append(f"{curve.label}: {words.join(said)}")
    return "; ".join(parts) + "."
