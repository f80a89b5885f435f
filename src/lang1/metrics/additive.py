"""Scores that are functions of sums over rows: their resamples are reweighted sums, one matrix product for all.

Brier score, log-loss, accuracy, ECE, kappa, sensitivity, net benefit: each is written as columns (a number or more a
row) and what is made of the columns' sums. The value of a sample and that of every resample come from the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lang1.metrics.bootstrap import Statistic
from lang1.metrics.ranking import Floats, Ints


@dataclass(frozen=True)
class Additive:
    """A score made of sums over rows."""

    columns: Floats
    """(rows, M)"""
    finish: Callable[[Floats], Floats]
    """sums (..., M) -> values (...) or (..., V); NaN where they have none"""

    def value(self) -> Floats:
        """The score of all rows, () or (V,)."""
        return np.asarray(self.finish(self.columns.sum(axis=0)))


def as_number(value: Floats) -> float | None:
    """A score as JSON holds it: None where it is not defined."""
    return None if np.isnan(value) else float(value)


def mean_of(rows_N: Floats) -> Additive:
    """The mean of a number a row. NaN without rows."""
    return Additive(np.column_stack([rows_N, np.ones(len(rows_N))]), lambda s: ratio(s[..., 0], s[..., 1]))


def ratio(above: Floats, below: Floats) -> Floats:
    """`above` / `below`, NaN where below is not positive."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def resampled(scores: Sequence[Additive], clusters: Ints) -> Statistic:
    """All scores of each resample side by side, (resamples, values); `clusters` of each row, 0 and up."""
    size = int(clusters.max()) + 1
    columns = np.concatenate([score.columns for score in scores], axis=1)
    sums_CM = np.column_stack([np.bincount(clusters, weights=column, minlength=size) for column in columns.T])
    ends = np.cumsum([score.columns.shape[1] for score in scores])[:-1]

    def statistic(counts_BC: Ints) -> Floats:
        sums_BM = counts_BC.astype(np.float64) @ sums_CM
        parts = zip(scores, np.split(sums_BM, ends, axis=1), strict=True)
        return np.concatenate([score.finish(part).reshape(len(counts_BC), -1) for score, part in parts], axis=1)

    return statistic
