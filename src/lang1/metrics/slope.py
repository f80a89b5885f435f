"""Calibration slope and intercept (Cox 1958; Van Calster et al. 2016): how outcomes follow the logit of a probability.

Slope: of a logistic regression of the outcome on the logit; 1 is right, below 1 the probabilities are too extreme.
Intercept: of the same with the slope held at 1, calibration in the large; 0 is right, below 0 they are too high.
Probabilities are kept 1e-6 from 0 and 1, as a model that answers by counts gives both. Resamples take one Newton step
from the sample's solution, with their own gradient and curvature: sums over rows, and within the noise of a refit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.additive import Additive
from lang1.metrics.ranking import Floats

_EDGE = 1e-6
_STEPS, _TOLERANCE = 50, 1e-10
_LARGEST = 1e3
"""a slope a standard deviation beyond it is that of classes which the values part without an error: none is finite"""


@dataclass(frozen=True)
class Line:
    """The logit of the outcome's probability, as intercept + slope times a value."""

    intercept: float
    slope: float


def logit(p: Floats, edge: float = _EDGE) -> Floats:
    """Log-odds of probabilities, kept `edge` from 0 and 1."""
    kept = np.clip(p, edge, 1 - edge)
    return np.log(kept) - np.log1p(-kept)


def sigmoid(x: Floats) -> Floats:
    """The probability of log-odds, without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def fit_line(x_N: Floats, target_N: Floats, *, with_slope: bool = True) -> Line | None:
    """Logistic regression of targets in [0, 1] on one value, unpenalised, by Newton's method with step halving.

    `with_slope` False holds the slope at 1. None where there is no finite solution (one class, or classes apart).
    Values that lie close together are fitted as well as any other: the search runs on standardised ones.
    """
    if not len(x_N) or (with_slope and np.ptp(x_N) == 0):
        return None
    if not with_slope:
        return _search(x_N, target_N, with_slope=False)
    middle, spread = float(x_N.mean()), float(x_N.std())
    found = _search((x_N - middle) / spread, target_N, with_slope=True)
    return None if found is None else Line(found.intercept - found.slope * middle / spread, found.slope / spread)


def _search(x_N: Floats, target_N: Floats, *, with_slope: bool) -> Line | None:
    """Newton's method on values of the size of 1."""
    # a flat line at the mean, where the curvature is largest: at slope 1 extreme probabilities leave none
    line = np.array([float(logit(target_N.mean(keepdims=True))[0]), 0.0]) if with_slope else np.array([0.0, 1.0])
    loss = _loss(line, x_N, target_N)
    for _ in range(_STEPS):
        step = _newton(*_derivatives(line, x_N, target_N).sum(axis=0), with_slope=with_slope)
        if not np.isfinite(step).all():  # no curvature is left: every fitted probability is 0 or 1
            return None
        scale = 1.0
        while (after := _loss(line + scale * step, x_N, target_N)) > loss + 1e-12 * abs(loss) and scale > 1e-6:
            scale /= 2
        line, loss = line + scale * step, after
        if not np.isfinite(line).all() or np.abs(line).max() > _LARGEST:
            return None
        if np.abs(scale * step).max() < _TOLERANCE:
            return Line(float(line[0]), float(line[1]))
    return None


def _loss(line: Floats, x_N: Floats, target_N: Floats) -> float:
    z = line[0] + line[1] * x_N
    return float(np.logaddexp(0.0, z).sum() - (target_N * z).sum())


def _derivatives(line: Floats, x_N: Floats, target_N: Floats) -> Floats:
    """Each row's gradient of the log-likelihood (2) and its curvature (3), (rows, 5)."""
    q = sigmoid(line[0] + line[1] * x_N)
    rest, weight = target_N - q, q * (1 - q)
    return np.column_stack([rest, rest * x_N, weight, weight * x_N, weight * x_N**2])


def _newton(g0: Floats, g1: Floats, h00: Floats, h01: Floats, h11: Floats, *, with_slope: bool) -> Floats:
    """The step to the summit of the quadratic, (2, ...); NaN where there is none."""
    g0, g1, h00, h01, h11 = (np.asarray(value) for value in (g0, g1, h00, h01, h11))
    if not with_slope:
        step = np.divide(g0, h00, out=np.full(g0.shape, np.nan), where=h00 > 0)
        return np.stack([step, np.zeros_like(step)])
    determinant = h00 * h11 - h01**2
    safe = np.where(determinant > 0, determinant, np.nan)
    return np.stack([(h11 * g0 - h01 * g1) / safe, (h00 * g1 - h01 * g0) / safe])


def slope_and_intercept(positive: NDArray[np.bool_], probabilities: Floats) -> tuple[Additive, Additive]:
    """Calibration slope, and intercept at slope 1. NaN in the sample, and so everywhere, where it has no finite one."""
    x_N, target_N = logit(probabilities), positive.astype(np.float64)
    return (_additive(x_N, target_N, with_slope=True, part=1), _additive(x_N, target_N, with_slope=False, part=0))


def _additive(x_N: Floats, target_N: Floats, *, with_slope: bool, part: int) -> Additive:
    line = fit_line(x_N, target_N, with_slope=with_slope) if 0 < target_N.sum() < len(target_N) else None
    if line is None:
        return Additive(np.zeros((len(x_N), 1)), lambda s: np.full(s.shape[:-1], np.nan))
    solution = np.array([line.intercept, line.slope])
    columns = np.column_stack([_derivatives(solution, x_N, target_N), target_N, 1 - target_N])

    def finish(s: Floats) -> Floats:
        step = _newton(*(s[..., i] for i in range(5)), with_slope=with_slope)[part]
        return np.where((s[..., 5] > 0) & (s[..., 6] > 0), solution[part] + step, np.nan)

    return Additive(columns, finish)
