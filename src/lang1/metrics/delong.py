"""DeLong's variance of AUROC (DeLong, DeLong & Clarke-Pearson 1988) from ranks (Sun & Xu 2014), beside the bootstrap.

AUROC is a mean over pairs; each row has a share in it, its placement: for a positive, the part of the negatives that
it beats, for a negative, the part of the positives that beat it. `influence` gives each row's share of the error, or
with `clusters` the sum of those of a patient's rows (Obuchowski 1997), scaled so that the sum of squares is the
variance, and the sum of squared differences of two models that of their difference (the covariance is in it). Without
clusters rows count as independent, which is DeLong's case. One-versus-rest: the mean over classes has the mean
influence.

Obuchowski scales her three sums by I / (I - 1), I being the clusters with a positive row, with a negative, and all;
here the third, of patients with rows of both classes, has the geometric mean of the first two, so that one number a
patient is enough; the factors differ by no more than 1 / (I - 1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.proportion import Z95
from lang1.metrics.ranking import Floats, Ints


def influence(positive: NDArray[np.bool_], scores: Floats, clusters: Ints | None = None) -> Floats | None:
    """The share that each row has in the error of AUROC, (rows,); or each cluster, (clusters,).

    `clusters` of each row, 0 and up. None where fewer than two rows, or clusters, have a class.
    """
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    m, n = len(positives), len(negatives)
    with_positive, with_negative = (
        (m, n) if clusters is None else (_held(clusters, positive), _held(clusters, ~positive))
    )
    if with_positive < 2 or with_negative < 2:
        return None
    placed = np.empty(len(scores))
    placed[positive] = _midrank(negatives, scores[positive]) / n
    placed[~positive] = 1 - _midrank(positives, scores[~positive]) / m
    placed -= placed[positive].mean()  # both means are the AUROC
    placed[positive] *= math.sqrt(with_positive / (with_positive - 1)) / m
    placed[~positive] *= math.sqrt(with_negative / (with_negative - 1)) / n
    return placed if clusters is None else np.bincount(clusters, weights=placed).astype(np.float64)


def _held(clusters: Ints, rows: NDArray[np.bool_]) -> int:
    """How many clusters have one of these rows."""
    return len(np.unique(clusters[rows]))


def _midrank(ordered: Floats, values: Floats) -> Floats:
    """How many of `ordered` are lower than each value, ties counting half."""
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def influence_ovr(labels: Ints, p_NK: Floats, clusters: Ints | None = None) -> Floats | None:
    """The same of `headline_auroc`: option 1 for two options, the mean over the classes that have rows for more."""
    if p_NK.shape[1] == 2:
        return influence(labels == 1, p_NK[:, 1], clusters)
    present = [k for k in range(p_NK.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    shares = [influence(labels == k, p_NK[:, k], clusters) for k in present]
    known = [share for share in shares if share is not None]
    return np.mean(known, axis=0) if known and len(known) == len(shares) else None


def standard_error(influence: Floats) -> float:
    """Standard error of an AUROC from the shares in it, or of a difference from the differences of shares."""
    return math.sqrt(float((influence * influence).sum()))


def interval(value: float, se: float) -> tuple[float, float]:
    """95 % bounds of an AUROC, within 0 and 1."""
    return max(0.0, value - Z95 * se), min(1.0, value + Z95 * se)


def p_value(difference: float, se: float) -> float | None:
    """Two-sided p of a difference; 1 for no difference, None where the error is 0 and the difference is not."""
    if difference == 0:
        return 1.0
    return None if se == 0 else math.erfc(abs(difference) / se / math.sqrt(2))
