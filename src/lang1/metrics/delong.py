"""DeLong's variance of AUROC (DeLong, DeLong & Clarke-Pearson 1988) from ranks (Sun & Xu 2014), beside the bootstrap.

AUROC is a mean over pairs; each row has a share in it, its placement: for a positive, the part of the negatives that
it beats, for a negative, the part of the positives that beat it. `influence` gives each row's share of the error,
scaled so that the sum of squares is DeLong's variance, and the sum of squared differences of two models that of
their difference (the covariance is in it). Rows count as independent; with `clusters` the shares of a patient's rows
are summed first (Obuchowski 1997). One-versus-rest: the mean over classes has the mean influence.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.proportion import Z95
from lang1.metrics.ranking import Floats, Ints


def influence(positive: NDArray[np.bool_], scores: Floats) -> Floats | None:
    """Each row's share of the error of AUROC, (rows,). None with fewer than two rows of a class."""
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    m, n = len(positives), len(negatives)
    if m < 2 or n < 2:
        return None
    placed = np.empty(len(scores))
    placed[positive] = _midrank(negatives, scores[positive]) / n
    placed[~positive] = 1 - _midrank(positives, scores[~positive]) / m
    placed -= placed[positive].mean()  # both means are the AUROC
    placed[positive] /= math.sqrt(m * (m - 1))
    placed[~positive] /= math.sqrt(n * (n - 1))
    return placed


def _midrank(ordered: Floats, values: Floats) -> Floats:
    """How many of `ordered` are lower than each value, ties counting half."""
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def influence_ovr(labels: Ints, p_NK: Floats) -> Floats | None:
    """The same of `headline_auroc`: option 1 for two options, the mean over the classes that have rows for more."""
    if p_NK.shape[1] == 2:
        return influence(labels == 1, p_NK[:, 1])
    present = [k for k in range(p_NK.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    shares = [influence(labels == k, p_NK[:, k]) for k in present]
    known = [share for share in shares if share is not None]
    return np.mean(known, axis=0) if known and len(known) == len(shares) else None


def standard_error(influence_N: Floats, clusters: Ints | None = None) -> float:
    """Standard error from the rows' shares, or from the clusters' sums of them."""
    parts = influence_N if clusters is None else np.bincount(clusters, weights=influence_N)
    return math.sqrt(float(parts @ parts))


def interval(value: float, se: float) -> tuple[float, float]:
    """95 % bounds of an AUROC, within 0 and 1."""
    return max(0.0, value - Z95 * se), min(1.0, value + Z95 * se)


def p_value(difference: float, se: float) -> float | None:
    """Two-sided p of a difference; 1 for no difference, None where the error is 0 and the difference is not."""
    if difference == 0:
        return 1.0
    return None if se == 0 else math.erfc(abs(difference) / se / math.sqrt(2))
