"""The two curves of a model on a task and split: calibration, and net benefit by threshold (decision curve)."""

from __future__ import annotations

from typing import Any

from lang1.metrics.additive import resampled
from lang1.metrics.bootstrap import bootstrap
from lang1.metrics.calibration import BINS, calibration_curve, expected_calibration_error
from lang1.metrics.operating import net_benefit
from lang1.remede.details import Scored
from lang1.remede.measure import By, Group, clusters_of

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""of decision curves"""


def calibration_of(group: Group, model: str) -> dict[str, Any]:
    """15-bin curve: of option 1 for two options, of the most likely option for more."""
    labels, p_NK = group.labels, group.p[model]
    if group.options == 2:
        curve, of = calibration_curve(labels == 1, p_NK[:, 1]), "option 1"
    else:
        curve, of = calibration_curve(labels == p_NK.argmax(axis=1), p_NK.max(axis=1)), "most likely option"
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


def decision_of(group: Group, model: str, resamples: int, seed: int, by: By) -> dict[str, Any] | None:
    """The decision curve of a binary task with its interval at each threshold; None for more options."""
    if group.options > 2:
        return None
    curve = net_benefit(group.labels == 1, group.p[model][:, 1], THRESHOLDS)
    clusters = clusters_of(group, by)
    name = f"{group.task}/{group.split}"
    statistic = resampled([curve], clusters)
    draws = bootstrap([statistic], int(clusters.max()) + 1, resamples=resamples, seed=seed, name=name)[0]
    points = []
    values, k = curve.value(), len(THRESHOLDS)
    for i, threshold in enumerate(THRESHOLDS):
        net = Scored(float(values[i]), draws[:, i])
        points.append({"threshold": threshold, **net.fields("net_benefit"), "treat_all": float(values[k + i])})
    return {"task": group.task, "model": model, "split": group.split, "n": len(group.labels), "points": points}
