"""The two curves of a model on a task and split: calibration, and net benefit by threshold (decision curve)."""

from __future__ import annotations

from typing import Any

from lang1.metrics.additive import Additive, resampled
from lang1.metrics.bootstrap import bootstrap
from lang1.metrics.calibration import BINS, calibration_curve, expected_calibration_error, spoken_of
from lang1.metrics.operating import net_benefit
from lang1.metrics.ranking import Floats
from lang1.remede.details import Scored
from lang1.remede.measure import By, Group, clusters_of

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""of decision curves"""


def calibration_of(group: Group, model: str) -> dict[str, Any]:
    """15-bin curve: of option 1 for two options, of the most likely option for more."""
    labels, p_NK = group.labels, group.p[model]
    curve, of = calibration_curve(*spoken_of(labels, p_NK)), "option 1" if group.options == 2 else "most likely option"
    return {
        "task": group.task,
        "model": model,
        "split": group.split,
        "of": of,
        "width": 1 / BINS,
        "bins": [
            {"low": b.low, "high": b.high, "predicted": b.predicted, "observed": b.observed, "n": b.n} for b in curve
        ],
        "ece": expected_calibration_error(labels, p_NK),
    }


def decisions_of(group: Group, resamples: int, seed: int, by: By) -> dict[str, dict[str, Any]]:
    """The decision curve of every model of a binary task, with its interval at each threshold; none for more options.

    All models share the resamples, those of `measure.resample`.
    """
    if group.options > 2:
        return {}
    clusters = clusters_of(group, by)
    curves = {model: net_benefit(group.labels == 1, p_NK[:, 1], THRESHOLDS) for model, p_NK in group.p.items()}
    draws = bootstrap(
        [resampled([curve], clusters) for curve in curves.values()],
        int(clusters.max()) + 1,
        resamples=resamples,
        seed=seed,
        name=f"{group.task}/{group.split}",
    )
    return {model: _decision(group, model, curves[model], draws[i]) for i, model in enumerate(curves)}


def _decision(group: Group, model: str, curve: Additive, draws: Floats) -> dict[str, Any]:
    points = []
    values, k = curve.value(), len(THRESHOLDS)
    for i, threshold in enumerate(THRESHOLDS):
        net = Scored(float(values[i]), draws[:, i])
        points.append({"threshold": threshold, **net.fields("net_benefit"), "treat_all": float(values[k + i])})
    return {"task": group.task, "model": model, "split": group.split, "n": len(group.labels), "points": points}
