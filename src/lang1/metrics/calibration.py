"""How far probabilities can be taken at their word: calibration curve, ECE, Brier score, log-loss.

15 bins of equal width (Appendix E). Two options: the probability of option 1 against whether it came true. More:
ECE takes the most likely option of a row against whether it was the label, and each class has its own curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.additive import Additive, as_number, mean_of, ratio
from lang1.metrics.ranking import Floats, Ints

BINS = 15
LOWER_IS_BETTER = ("brier", "log_loss", "ece", "smece")
"""names in metrics.json of the scores of which a right model has less; all others rise with it"""
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


def _bin_of(probabilities: Floats, bins: int) -> Ints:
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, probabilities, "right") - 1, 0, bins - 1)


def calibration_curve(positive: NDArray[np.bool_], probabilities: Floats, bins: int = BINS) -> list[CalibrationBin]:
    """Mean probability and observed share by bins of equal width over [0, 1]."""
    edges, place = np.linspace(0.0, 1.0, bins + 1), _bin_of(probabilities, bins)
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


def spoken_of(labels: Ints, p_NK: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """What calibration is asked of: (what came true, its probability) of option 1, or of the most likely option."""
    if p_NK.shape[1] == 2:
        return labels == 1, p_NK[:, 1]
    return labels == p_NK.argmax(axis=1), p_NK.max(axis=1)


def calibration_error(hit: NDArray[np.bool_], confidence: Floats, bins: int = BINS) -> Additive:
    """ECE: distance between probability and observed share, averaged over rows by bin."""
    inside = _bin_of(confidence, bins)[:, None] == np.arange(bins)
    columns = np.column_stack([inside * (confidence - hit)[:, None], np.ones(len(hit))])
    return Additive(columns, lambda s: ratio(np.abs(s[..., :-1]).sum(axis=-1), s[..., -1]))


def expected_calibration_error(labels: Ints, p_NK: Floats, bins: int = BINS) -> float | None:
    """`calibration_error` of a task's probabilities. None without rows."""
    return as_number(calibration_error(*spoken_of(labels, p_NK), bins).value())


def brier(labels: Ints, p_NK: Floats) -> Additive:
    """Mean squared error of the probability of option 1; for more options, summed over them (0 to 2)."""
    if p_NK.shape[1] == 2:
        return mean_of((p_NK[:, 1] - (labels == 1)) ** 2)
    return mean_of(np.sum((p_NK - np.eye(p_NK.shape[1])[labels]) ** 2, axis=1))


def brier_score(labels: Ints, p_NK: Floats) -> float | None:
    """`brier` as a number. None without rows."""
    return as_number(brier(labels, p_NK).value())


def surprise(labels: Ints, p_NK: Floats) -> Additive:
    """Log-loss: mean negative log-probability of the label, nats; probabilities are kept above 1e-15."""
    return mean_of(-np.log(np.maximum(p_NK[np.arange(len(labels)), labels], _SMALLEST)))


def log_loss(labels: Ints, p_NK: Floats) -> float | None:
    """`surprise` as a number. None without rows."""
    return as_number(surprise(labels, p_NK).value())
