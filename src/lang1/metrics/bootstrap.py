"""Bootstrap by patient: resample patients with replacement, take their rows along, 1000 times (5.5).

A resample is a whole number of times that each patient is drawn, so a resampled AUROC is a weighted one: scores are
sorted once, and a resample costs a count of the draws, a cumulative sum over the negatives and a look-up for each
positive, all exact in integers. Everything that is compared shares its resamples: models on the same rows, the
ceiling, each class, each score. By row instead of by patient: every row its own cluster.

A resample in which a class that the sample has is not drawn has no value for it (NaN): intervals are taken over the
others, and `Interval.undefined` says how many those were. The percentile interval is the primary one, +-1.96 SD
stands beside it (reference: the paper names both).

A stream of random numbers belongs to a seed and a name, and no two questions have one name: resamples of one task
and split never come back for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.ranking import Floats, Ints

_CELLS = 1 << 17
"""draws worked on at once: they stay in the processor's cache, bound memory, and change no value"""

Statistic = Callable[[Ints], Floats]
"""(resamples, clusters), how often each cluster is drawn -> (resamples,) or (resamples, values); NaN: undefined"""


@dataclass(frozen=True)
class Ranking:
    """A binary problem made ready for resampling: who was ranked where."""

    positive_clusters: Ints
    """cluster of each positive row, by rising score"""
    negative_clusters: Ints
    """cluster of each negative row, by rising score"""
    below: Ints
    """negatives that score lower than each positive"""
    up_to: Ints
    """negatives that score no higher than each positive"""
    beneath: Ints
    """positives that score lower than each positive"""

    @property
    def has_ties(self) -> bool:
        """True when a positive and a negative have one score."""
        return bool((self.below != self.up_to).any())


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
    positives, negatives = scores[positive], scores[~positive]
    up, down = np.argsort(positives, kind="stable"), np.argsort(negatives, kind="stable")
    positives, negatives = positives[up], negatives[down]
    return Ranking(
        positive_clusters=clusters[positive][up],
        negative_clusters=clusters[~positive][down],
        below=np.searchsorted(negatives, positives, "left"),
        up_to=np.searchsorted(negatives, positives, "right"),
        beneath=np.searchsorted(positives, positives, "left"),
    )


def draw_counts(clusters: int, resamples: int, seed: int, name: str, longest: int = 0) -> Iterator[Ints]:
    """Blocks of (resamples, clusters): how often each cluster is drawn. `name` keeps streams of calls apart.

    `longest`: the longest array that is made of one resample, where it is longer than the clusters; smaller blocks.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    block = max(1, _CELLS // max(clusters, longest, 1))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, clusters, size=(size, clusters))
        if size > 1:
            drawn += (np.arange(size) * clusters)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)


def resampled_auroc(ranking: Ranking, counts_BC: Ints) -> Floats:
    """AUROC of each resample, (resamples,); NaN where a class was not drawn."""
    return _auroc(ranking, counts_BC.take(ranking.positive_clusters, axis=1), _before(ranking, counts_BC))


def resampled_ranking(ranking: Ranking, counts_BC: Ints) -> Floats:
    """AUROC and AUPRC (average precision) of each resample, (resamples, 2); NaN where a class was not drawn."""
    drawn_BP, before_BN = counts_BC.take(ranking.positive_clusters, axis=1), _before(ranking, counts_BC)
    values = np.empty((len(counts_BC), 2))
    values[:, 0] = _auroc(ranking, drawn_BP, before_BN)
    # at the score of a positive: how many positives, and how many rows, are taken at or above it
    sums_BP = np.zeros((len(drawn_BP), drawn_BP.shape[1] + 1), dtype=np.int64)
    np.cumsum(drawn_BP, axis=1, out=sums_BP[:, 1:])
    hits_BP = sums_BP[:, -1:] - sums_BP.take(ranking.beneath, axis=1)
    taken_BP = hits_BP + before_BN[:, -1:] - before_BN.take(ranking.below, axis=1)
    precision_BP = hits_BP / np.maximum(taken_BP, 1)
    total_B = sums_BP[:, -1]
    won_B = np.einsum("bp,bp->b", drawn_BP, precision_BP)
    defined = (total_B > 0) & (before_BN[:, -1] > 0)
    values[:, 1] = np.divide(won_B, total_B, out=np.full(len(won_B), np.nan), where=defined)
    return values


def _before(ranking: Ranking, counts_BC: Ints) -> Ints:
    """Negatives drawn from the lowest 0, 1, ... of them, (resamples, negatives + 1)."""
    before_BN = np.zeros((len(counts_BC), len(ranking.negative_clusters) + 1), dtype=np.int64)
    np.cumsum(counts_BC.take(ranking.negative_clusters, axis=1), axis=1, out=before_BN[:, 1:])
    return before_BN


def _auroc(ranking: Ranking, drawn_BP: Ints, before_BN: Ints) -> Floats:
    beaten_BP = before_BN.take(ranking.below, axis=1)
    beaten_BP += before_BN.take(ranking.up_to, axis=1) if ranking.has_ties else beaten_BP
    pairs_B = 2 * drawn_BP.sum(axis=1) * before_BN[:, -1]
    won_B = np.einsum("bp,bp->b", drawn_BP, beaten_BP)
    return np.divide(won_B, pairs_B, out=np.full(len(won_B), np.nan), where=pairs_B > 0)


def bootstrap(
    statistics: Sequence[Statistic], clusters: int, *, resamples: int, seed: int, name: str, longest: int = 0
) -> list[Floats]:
    """Every statistic on the same resamples, each (resamples,) or (resamples, values).

    `longest`: rows, or cells, that a statistic looks at in each resample: few patients with many rows need memory too.
    Matrix products run on one thread: they are small, and how many threads share a sum changes its last bits.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    parts: list[list[Floats]] = [[] for _ in statistics]
    with threadpool_limits(1, user_api="blas"):
        for counts_BC in draw_counts(clusters, resamples, seed, name, longest):
            for part, statistic in zip(parts, statistics, strict=True):
                part.append(statistic(counts_BC))
    return [np.concatenate(part) for part in parts]


def bootstrap_auroc(
    rankings: Sequence[Ranking | None], clusters: int, *, resamples: int, seed: int, name: str
) -> Floats:
    """Resampled AUROC, (resamples, rankings), every column on the same resamples; NaN where it has no value."""
    draws = np.full((resamples, len(rankings)), np.nan)
    there = [column for column, ranking in enumerate(rankings) if ranking is not None]
    statistics = [partial(resampled_auroc, ranking) for ranking in rankings if ranking is not None]
    longest = max((len(r.positive_clusters) + len(r.negative_clusters) for r in rankings if r is not None), default=0)
    found = bootstrap(statistics, clusters, resamples=resamples, seed=seed, name=name, longest=longest)
    for column, values in zip(there, found, strict=True):
        draws[:, column] = values
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
