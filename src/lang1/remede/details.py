"""What stands beside the headline AUROC of a model: every other score of a task and split, and how it is resampled.

A score has a name, its value on the rows, and its values on the same resamples as the AUROC, so it has an interval
too. What the rows cannot give (one class only, no finite slope) is null, and `undefined` names it with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lang1.metrics import agreement, calibration, operating
from lang1.metrics.additive import Additive, as_number, resampled
from lang1.metrics.bootstrap import Statistic, interval
from lang1.metrics.proportion import wilson_interval
from lang1.metrics.ranking import Floats, Ints
from lang1.metrics.slope import slope_and_intercept
from lang1.metrics.smooth import resampled_smooth_calibration, smooth_calibration_error

UNDEFINED = {
    "calibration_slope": "no finite slope: the probabilities part the classes, or are all alike",
    "calibration_intercept": "no finite intercept",
    "quadratic_kappa": "labels and answers are all one option",
    "sensitivity": "no row of option 1",
    "specificity": "no row of option 0",
    "ppv": "no row is flagged",
    "npv": "every row is flagged",
    "delong": "an option has rows of one patient only",
}
"""why a score is null although the rows are of several classes"""
ONE_CLASS = "the rows are all of one class"
ABSENT = "no row of this option"
WILSON = "wilson"


@dataclass(frozen=True)
class Point:
    """Where a binary task is cut in two: at a probability, or so that a share of the rows is flagged."""

    at: str
    """probability or alert_rate"""
    level: float


@dataclass(frozen=True)
class Wanted:
    """The operating points that are asked for."""

    probabilities: tuple[float, ...] = (0.5,)
    alert_rates: tuple[float, ...] = ()

    def points(self) -> list[Point]:
        """Probabilities first, then alert rates."""
        return [Point("probability", level) for level in self.probabilities] + [
            Point("alert_rate", level) for level in self.alert_rates
        ]


@dataclass(frozen=True)
class Scored:
    """A score of a model on a group: its value and its resamples."""

    value: float | None
    draws: Floats
    of: int | None = None
    """of a share: the patients (rows, where they are resampled) that it is a share of"""

    def fields(self, name: str) -> dict[str, Any]:
        """`name`, `name_ci_low` and `name_ci_high`: percentile.

        A share of 0 or 1, which leaves resampling without a spread, has Wilson's, and `name_interval` says so.
        """
        found = interval(self.value, self.draws)
        has_width = found.low is None or found.high is None or found.high - found.low > 1e-9
        if self.of and self.value is not None and not has_width and min(self.value, 1 - self.value) < 1e-9:
            low, high = wilson_interval(round(self.value * self.of), self.of)
            return {name: self.value, f"{name}_ci_low": low, f"{name}_ci_high": high, f"{name}_interval": WILSON}
        return {name: self.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high}


def centred(value: float | None, draws: Floats) -> Scored:
    """A score that noise can only raise, such as ECE: its resamples, moved so that their mean is its value.

    Those that would fall below 0, which no such score does, are 0.

    A resample repeats the noise of the sample and adds its own, so its ECE is larger in the mean; unmoved, the
    interval of a well calibrated model would lie above its value.
    """
    if value is None:
        return Scored(None, draws)
    return Scored(value, np.maximum(draws - np.nanmean(draws) + value, 0.0))


def additive_scores(task: str, labels: Ints, p_NK: Floats) -> dict[str, Additive]:
    """The scores that are sums over rows, by name, a number each."""
    options = p_NK.shape[1]
    scores = {
        "accuracy": agreement.accuracy(labels, p_NK),
        "brier": calibration.brier(labels, p_NK),
        "log_loss": calibration.surprise(labels, p_NK),
        "ece": calibration.calibration_error(*calibration.spoken_of(labels, p_NK)),
    }
    if options == 2:
        line = slope_and_intercept(labels == 1, p_NK[:, 1])
        scores |= {"calibration_slope": line[0], "calibration_intercept": line[1]}
    if task in agreement.ORDERED:
        scores["quadratic_kappa"] = agreement.quadratic_kappa(labels, p_NK.argmax(axis=1), options)
    return scores


def class_lines(labels: Ints, p_NK: Floats) -> dict[str, Additive]:
    """Calibration slope and intercept of each class against the rest, for a task with more than two options."""
    named: dict[str, Additive] = {}
    for k in range(p_NK.shape[1]) if p_NK.shape[1] > 2 else ():
        slope, intercept = slope_and_intercept(labels == k, p_NK[:, k])
        named |= {f"{k} calibration_slope": slope, f"{k} calibration_intercept": intercept}
    return named


def flags(p_NK: Floats, wanted: Wanted) -> list[tuple[Point, Floats, float | None]]:
    """Of a binary task: each operating point, how far it flags each row, and the lowest probability that it flags."""
    if p_NK.shape[1] != 2:
        return []
    scores = p_NK[:, 1]
    return [
        (point, operating.flag_at(scores, point.level), point.level)
        if point.at == "probability"
        else (point, operating.flag_share(scores, point.level), operating.cut_at(scores, point.level))
        for point in wanted.points()
    ]


@dataclass(frozen=True)
class Plan:
    """The statistics of one model that are resampled together, and how their columns are read."""

    scores: dict[str, Additive]
    operating: list[tuple[Point, Floats, float | None]]
    at_points: list[Additive]
    statistics: list[Statistic]
    smooth: float | None
    options: int
    independent: list[list[int]]
    """of each operating point: what its rates are shares of"""
    clusters: int

    def read(self, draws: list[Floats]) -> Details:
        """From the resamples of `statistics`, in their order."""
        columns = iter(draws[0].T)
        found = {name: Scored(as_number(score.value()), next(columns)) for name, score in self.scores.items()}
        found["accuracy"] = replace(found["accuracy"], of=self.clusters)
        found["ece"] = centred(found["ece"].value, found["ece"].draws)
        points = []
        for (point, flagged, threshold), score, of in zip(
            self.operating, self.at_points, self.independent, strict=True
        ):
            rates = {
                name: Scored(as_number(value), next(columns), n)
                for name, value, n in zip(operating.RATES, score.value(), of, strict=True)
            }
            points.append(OperatingPoint(point, float(flagged.mean()), threshold, rates))
        rows_BK = np.stack([next(columns) for _ in range(self.options)], axis=1)
        found["smece"] = centred(self.smooth, draws[1])
        return Details(found, points, rows_BK)


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does."""

    point: Point
    flagged: float
    """share of the rows"""
    threshold: float | None
    """lowest probability that is flagged"""
    rates: dict[str, Scored]

    def fields(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        row: dict[str, Any] = {
            "at": self.point.at,
            "level": self.point.level,
            "threshold": self.threshold,
            "flagged": self.flagged,
        }
        for name, rate in self.rates.items():
            row |= rate.fields(name)
        return row


@dataclass(frozen=True)
class Details:
    """Every score of a model beside its AUROC."""

    scores: dict[str, Scored]
    points: list[OperatingPoint]
    class_rows: Floats
    """rows of each class in each resample, (resamples, options)"""


def plan(task: str, labels: Ints, p_NK: Floats, clusters: Ints, wanted: Wanted) -> Plan:
    """What is to be resampled for one model."""
    scores = additive_scores(task, labels, p_NK) | class_lines(labels, p_NK)
    at = flags(p_NK, wanted)
    at_points = [operating.at_flags(labels == 1, flagged) for _, flagged, _ in at]
    options = p_NK.shape[1]
    class_rows = Additive((labels[:, None] == np.arange(options)).astype(np.float64), lambda s: s)
    hit, confidence = calibration.spoken_of(labels, p_NK)
    statistics = [
        resampled([*scores.values(), *at_points, class_rows], clusters),
        resampled_smooth_calibration(hit, confidence, clusters),
    ]
    smooth = smooth_calibration_error(hit, confidence)
    independent = [operating.independent(labels == 1, flagged, clusters) for _, flagged, _ in at]
    return Plan(scores, at, at_points, statistics, smooth, options, independent, int(clusters.max()) + 1)


def undefined(row: dict[str, Any], names: list[str], one_class: bool) -> dict[str, str]:
    """Every score of a row of metrics.json that is null, with the reason: `names` of it, of classes, of points.

    Those of a class are named `per_class.2.auprc`, those of a threshold `operating.alert_rate=0.1.ppv`.
    """
    found = {name: ONE_CLASS if one_class else UNDEFINED.get(name, ONE_CLASS) for name in names if row[name] is None}
    if row["delong"]["se"] is None:
        found["delong"] = ONE_CLASS if one_class else UNDEFINED["delong"]
    for k, part in row["per_class"].items():
        for name in ("auroc", "auprc", "calibration_slope", "calibration_intercept"):
            if name in part and part[name] is None:
                otherwise = ONE_CLASS if one_class else UNDEFINED.get(name, ONE_CLASS)
                found[f"per_class.{k}.{name}"] = otherwise if part["events"] else ABSENT
    for point in row["operating"]:
        where = f"operating.{point['at']}={point['level']:g}"
        found |= {f"{where}.{name}": UNDEFINED[name] for name in UNDEFINED if name in point and point[name] is None}
    return found
