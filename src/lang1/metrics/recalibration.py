"""Recalibration: a map from option probabilities to better ones, fitted on rows that are not reported.

| method | map | more than two options |
|---|---|---|
| temperature | softmax(log p / T) (Guo et al. 2017) | the same |
| platt | sigmoid(a + b logit p), targets smoothed as in Platt 1999 | each option against the rest, then normalised |
| isotonic | the best rising step function | each option against the rest, then normalised |

In a binary task temperature keeps the order of rows, and so does Platt's map where its slope is positive: the AUROC
stays (probabilities are kept 1e-15 from 0 and 1, so rows closer to them tie). Isotonic ties rows. An option that the
fitting rows do not hold keeps its probability, before normalising.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lang1.metrics.calibration import log_loss
from lang1.metrics.ranking import Floats, Ints
from lang1.metrics.slope import fit_line, logit, sigmoid

Method = Literal["temperature", "platt", "isotonic"]
_COLDEST, _HOTTEST = 1e-2, 1e2
_EDGE = 1e-15


@dataclass(frozen=True)
class Recalibration:
    """A fitted map, and what is told of it."""

    apply: Callable[[Floats], Floats]
    """(rows, options) -> (rows, options), each row sums to 1"""
    facts: dict[str, Any]


def fit(method: Method, labels: Ints, p_NK: Floats) -> Recalibration | str:
    """The map that `method` fits to these rows; or, as a text, why there is none."""
    if len(np.unique(labels)) < 2:
        return "the rows to fit on are all of one class" if len(labels) else "there are no rows to fit on"
    facts = {"method": method, "rows": len(labels)}
    if method == "temperature":
        return _fit_temperature(labels, p_NK, facts)
    return _fit_each(method, labels, p_NK, facts)


def _fit_temperature(labels: Ints, p_NK: Floats, facts: dict[str, Any]) -> Recalibration:
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return log_loss(labels, _sharpen(p_NK, np.exp(log_t))) or 0.0

    bounds = np.log(_COLDEST), np.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    temperature = float(np.exp(found.x))
    # no temperature within the bounds is best: colder where the model is never wrong, hotter where it knows nothing
    at_bound = bool(np.abs(found.x - np.array(bounds)).min() < 1e-3)
    return Recalibration(lambda p: _sharpen(p, temperature), facts | {"temperature": temperature, "at_bound": at_bound})


def _sharpen(p_NK: Floats, temperature: float) -> Floats:
    logits = np.log(np.maximum(p_NK, _EDGE)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _fit_each(method: Method, labels: Ints, p_NK: Floats, facts: dict[str, Any]) -> Recalibration | str:
    """One map an option; with two options one map, of option 1."""
    options = p_NK.shape[1]
    fitted = [1] if options == 2 else [k for k in range(options) if (labels == k).any()]
    maps, told = {}, {}
    for k in fitted:
        one = _platt(labels == k, p_NK[:, k]) if method == "platt" else _isotonic(labels == k, p_NK[:, k])
        if one is None:
            return f"no line was found for option {k}"
        maps[k], told[str(k)] = one

    def apply(p: Floats) -> Floats:
        mapped = p.copy()
        for k, one in maps.items():
            mapped[:, k] = one(p[:, k])
        if options == 2:
            mapped[:, 0] = 1 - mapped[:, 1]
        total = mapped.sum(axis=1, keepdims=True)
        return np.where(total > 0, mapped / np.where(total > 0, total, 1), p)

    kept = [] if options == 2 else [k for k in range(options) if k not in maps]
    return Recalibration(apply, facts | {"options": told, "options_kept": kept})


def _platt(positive: Any, p: Floats) -> tuple[Callable[[Floats], Floats], dict[str, float]] | None:
    """Platt's map of one option. None where the search for its line does not end."""
    events, others = int(positive.sum()), int((~positive).sum())
    # smoothed targets have a finite solution also where the scores part the classes
    target = np.where(positive, (events + 1) / (events + 2), 1 / (others + 2))
    x_N = logit(p, _EDGE)
    if np.ptp(x_N) == 0:  # every row has one probability: only a level can be fitted
        level = float(target.mean())
        return lambda q: np.full(len(q), level), {"level": level}
    line = fit_line(x_N, target)
    if line is None:
        return None
    told = {"intercept": line.intercept, "slope": line.slope}
    return lambda q: sigmoid(line.intercept + line.slope * logit(q, _EDGE)), told


def _isotonic(positive: Any, p: Floats) -> tuple[Callable[[Floats], Floats], dict[str, float]]:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p, positive.astype(np.float64))
    levels = len(np.unique(steps.y_thresholds_))
    return lambda q: np.asarray(steps.predict(q), dtype=np.float64), {"levels": levels}
