"""How far probabilities can be taken at their word: calibration curve, ECE, Brier score, log-loss.

15 bins of equal width (Appendix E). Two options: the probability of option 1 against whether it came true. More:
ECE takes the most likely option of a row against whether it was the label, and each class has its own curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.ranking import Floats, Ints

BINS = 15
_SMALLEST = 1e-15


@dataclass(frozen=True)
class CalibrationBin:
    """Rows whose probability fell into one bin; empty bins are left out."""

    low: float
    high: float
    predicted: float
    """mean probability"""
    observed: float
    """share that came true"""
    n: int


def calibration_curve(positive: NDArray[np.bool_], probabilities: Floats, bins: int = BINS) -> list[CalibrationBin]:
    """Mean probability and observed share by bins of equal width over [0, 1]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, probabilities, "right") - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    predicted = np.bincount(place, weights=probabilities, minlength=bins)
    observed = np.bincount(place, weights=positive.astype(np.float64), minlength=bins)
    return [
        CalibrationBin(
            float(edges[b]), float(edges[b + 1]), float(predicted[b] / n[b]), float(observed[b] / n[b]), int(n[b])
        )
        for b in range(bins)
        if n[b]
    ]


def expected_calibration_error(labels: Ints, p_NK: Floats, bins: int = BINS) -> float | None:
    """ECE: distance between probability and observed share, averaged over rows by bin. None without rows."""
    if not len(labels):
        return None
    if p_NK.shape[1] == 2:
        curve = calibration_curve(labels == 1, p_NK[:, 1], bins)
    else:
        top = p_NK.argmax(axis=1)
        curve = calibration_curve(labels == top, p_NK.max(axis=1), bins)
    return float(sum(part.n * abs(part.predicted - part.observed) for part in curve) / len(labels))


def brier_score(labels: Ints, p_NK: Floats) -> float | None:
    """Mean squared error of the probability of option 1; for more options, summed over them (0 to 2)."""
    if not len(labels):
        return None
    if p_NK.shape[1] == 2:
        return float(np.mean((p_NK[:, 1] - (labels == 1)) ** 2))
    return float(np.mean(np.sum((p_NK - np.eye(p_NK.shape[1])[labels]) ** 2, axis=1)))


def log_loss(labels: Ints, p_NK: Floats) -> float | None:
    """Mean negative log-probability of the label, nats; probabilities are kept above 1e-15."""
    if not len(labels):
        return None
    return float(-np.mean(np.log(np.maximum(p_NK[np.arange(len(labels)), labels], _SMALLEST))))
