"""Smooth calibration error, smECE (Blasiok & Nakkiran, "Smooth ECE", 2023): ECE without bins to choose.

The rows' residuals (probability less outcome) are smoothed over [0, 1] with a Gaussian of width s that is reflected
at both ends; smECE_s is the mean size of what is left, and smECE is the s for which smECE_s = s. Residuals are put on
a grid of 256 cells by linear weights, and smoothed in their cosine transform, in which a reflected Gaussian is a
factor a frequency: exact but for the grid. An error below a cell, 0.004, is that of the cells: smoothing by a narrower
Gaussian changes next to nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.bootstrap import Statistic
from lang1.metrics.ranking import Floats, Ints

CELLS = 256
_STEPS = 14
"""halvings of [0, 1]: the width is found to 6e-5"""


def smooth_calibration_error(hit: NDArray[np.bool_], confidence: Floats) -> float | None:
    """smECE of probabilities against what came true, 0 (calibrated) to 1. None without rows."""
    if not len(hit):
        return None
    statistic = resampled_smooth_calibration(hit, confidence, np.zeros(len(hit), dtype=np.int64))
    return float(statistic(np.ones((1, 1), dtype=np.int64))[0])


def resampled_smooth_calibration(hit: NDArray[np.bool_], confidence: Floats, clusters: Ints) -> Statistic:
    """smECE of each resample, (resamples,)."""
    place = np.clip(confidence, 0.0, 1.0) * CELLS - 0.5
    left = np.floor(place).astype(np.int64)
    right_share = place - left
    residual = confidence - hit
    order = np.argsort(left, kind="stable")
    cells, starts = np.unique(left[order], return_index=True)
    weights = np.stack([(residual * (1 - right_share))[order], (residual * right_share)[order]])
    ordered_clusters = clusters[order]

    def statistic(counts_BC: Ints) -> Floats:
        drawn_BN = counts_BC.take(ordered_clusters, axis=1)
        padded_BM = np.zeros((len(counts_BC), CELLS + 2))
        for share_N, target in zip(weights, (cells + 1, cells + 2), strict=True):
            padded_BM[:, target] += np.add.reduceat(drawn_BN * share_N, starts, axis=1)
        sums_BM = padded_BM[:, 1:-1]
        # what lies outside the outermost cells' middles is reflected into them
        sums_BM[:, 0] += padded_BM[:, 0]
        sums_BM[:, -1] += padded_BM[:, -1]
        return _fixed_point(sums_BM / drawn_BN.sum(axis=1, keepdims=True))

    return statistic


def _fixed_point(residual_BM: Floats) -> Floats:
    """The width at which smECE equals it, by halving: smECE falls as the width grows."""
    from scipy.fft import dct, idct

    spectrum_BM = dct(residual_BM, axis=1, norm="ortho")
    frequencies = (np.pi * np.arange(CELLS)) ** 2 / 2
    low, high = np.zeros(len(residual_BM)), np.ones(len(residual_BM))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        smoothed = idct(spectrum_BM * np.exp(-frequencies * middle[:, None] ** 2), axis=1, norm="ortho")
        is_wide = np.abs(smoothed).sum(axis=1) <= middle
        low, high = np.where(is_wide, low, middle), np.where(is_wide, middle, high)
    return (low + high) / 2
