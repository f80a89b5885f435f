"""Bootstrap of AUROC by patient: resample patients with replacement, take their rows along, 1000 times (5.5).

A resample is a whole number of times that each patient is drawn, so a resampled AUROC is a weighted one: scores are
sorted once, and a resample costs a cumulative sum over the negatives and a look-up for each positive, all exact in
integers. Everything that is compared shares its resamples: models on the same rows, the ceiling, each class.

A resample in which a class that the sample has is not drawn has no value for it (NaN): intervals are taken over the
others, and `Interval.undefined` says how many those were. The percentile interval is the primary one, +-1.96 SD
stands beside it (reference: the paper names both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.ranking import Floats, Ints

_CELLS = 4_000_000
"""draws held at once: bounds memory, changes no value"""


@dataclass(frozen=True)
class Ranking:
    """A binary problem made ready for resampling: who was ranked where."""

    positive_clusters: Ints
    negative_clusters: Ints
    """cluster of each negative row, by rising score"""
    below: Ints
    """negatives that score lower than each positive"""
    up_to: Ints
    """negatives that score no higher than each positive"""


@dataclass(frozen=True)
class Interval:
    """What resampling says about a value. Bounds are None when no resample defines them."""

    low: float | None
    high: float | None
    normal_low: float | None
    """value - 1.96 SD"""
    normal_high: float | None
    undefined: int
    """resamples without a value, because they drew no row of a class"""


def rank(positive: NDArray[np.bool_], scores: Floats, clusters: Ints) -> Ranking | None:
    """Sort once what every resample reads. None when all rows are of one class."""
    if positive.all() or not positive.any():
        return None
    negatives = scores[~positive]
    order = np.argsort(negatives, kind="stable")
    negatives = negatives[order]
    return Ranking(
        positive_clusters=clusters[positive],
        negative_clusters=clusters[~positive][order],
        below=np.searchsorted(negatives, scores[positive], "left"),
        up_to=np.searchsorted(negatives, scores[positive], "right"),
    )


def draw_counts(clusters: int, resamples: int, seed: int, name: str) -> Iterator[NDArray[np.int32]]:
    """Blocks of (resamples, clusters): how often each cluster is drawn. `name` keeps streams of calls apart."""
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    block = max(1, _CELLS // max(clusters, 1))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, clusters, size=(size, clusters), dtype=np.int32)
        drawn += (np.arange(size, dtype=np.int32) * clusters)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * clusters).astype(np.int32).reshape(size, clusters)


def resampled_auroc(ranking: Ranking, counts_BC: NDArray[np.int32]) -> Floats:
    """AUROC of each resample; NaN where a class was not drawn."""
    negatives = counts_BC[:, ranking.negative_clusters]
    before = np.zeros((len(counts_BC), negatives.shape[1] + 1), dtype=np.int32)
    np.cumsum(negatives, axis=1, out=before[:, 1:])
    positives = counts_BC[:, ranking.positive_clusters].astype(np.float64)
    beaten = before[:, ranking.below].astype(np.float64)
    if (ranking.below != ranking.up_to).any():
        beaten = (beaten + before[:, ranking.up_to]) / 2
    pairs = positives.sum(axis=1) * before[:, -1]
    won = np.einsum("bp,bp->b", positives, beaten)
    return np.divide(won, pairs, out=np.full(len(counts_BC), np.nan), where=pairs > 0)


def bootstrap_auroc(
    rankings: Sequence[Ranking | None], clusters: int, *, resamples: int, seed: int, name: str
) -> Floats:
    """Resampled AUROC, (resamples, rankings), every column on the same resamples; NaN where it has no value."""
    draws = np.full((resamples, len(rankings)), np.nan)
    start = 0
    for counts_BC in draw_counts(clusters, resamples, seed, name):
        stop = start + len(counts_BC)
        for column, ranking in enumerate(rankings):
            if ranking is not None:
                draws[start:stop, column] = resampled_auroc(ranking, counts_BC)
        start = stop
    return draws


def interval(value: float | None, draws_B: Floats) -> Interval:
    """The 95 % intervals of `value` from its resampled values."""
    defined = draws_B[~np.isnan(draws_B)]
    undefined = len(draws_B) - len(defined)
    if value is None or len(defined) < 2:
        return Interval(None, None, None, None, undefined)
    low, high = np.percentile(defined, [2.5, 97.5])
    reach = 1.96 * float(defined.std(ddof=1))
    return Interval(float(low), float(high), value - reach, value + reach, undefined)


def paired_p(difference_B: Floats) -> float | None:
    """Two-sided p of a paired difference from its resamples, (1 + count) / (B + 1) a side: never 0."""
    defined = difference_B[~np.isnan(difference_B)]
    if len(defined) == 0:
        return None
    side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return float(min(1.0, 2 * (1 + side) / (len(defined) + 1)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction over one family of tests; None stays None and is not counted."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for step, (p, i) in enumerate(known):
        worst = max(worst, min(1.0, p * (len(known) - step)))
        corrected[i] = worst
    return corrected
