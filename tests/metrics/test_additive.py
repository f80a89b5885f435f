"""A resample of a score made of sums is the score of the rows that were drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from lang1.metrics import agreement, calibration, operating
from lang1.metrics.additive import Additive, as_number, mean_of, ratio, resampled
from lang1.metrics.bootstrap import bootstrap, draw_counts


def scores_of(labels: np.ndarray, p_NK: np.ndarray) -> list[Additive]:
    """Every additive score; flags are by fixed thresholds, so that drawn rows have the same ones."""
    found = [
        agreement.accuracy(labels, p_NK),
        calibration.brier(labels, p_NK),
        calibration.surprise(labels, p_NK),
        calibration.calibration_error(*calibration.spoken_of(labels, p_NK)),
        agreement.quadratic_kappa(labels, p_NK.argmax(axis=1), p_NK.shape[1]),
    ]
    if p_NK.shape[1] == 2:
        found.append(operating.at_flags(labels == 1, operating.flag_at(p_NK[:, 1], 0.4)))
        found.append(operating.net_benefit(labels == 1, p_NK[:, 1], (0.1, 0.5)))
    return found


@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 9), st.sampled_from([2, 4]))
@settings(max_examples=60, deadline=None)
def test_resamples_are_the_scores_of_the_drawn_patients_rows(seed: int, n: int, patients: int, options: int) -> None:
    rng = np.random.default_rng(seed)
    labels, p_NK = rng.integers(0, options, n), np.round(rng.dirichlet(np.ones(options), n), 2)
    _, clusters = np.unique(rng.integers(0, patients, n), return_inverse=True)
    counts = next(draw_counts(int(clusters.max()) + 1, 4, seed, "additive"))
    found = resampled(scores_of(labels, p_NK), clusters)(counts)
    for drawn, values in zip(counts, found, strict=True):
        rows = np.repeat(np.arange(n), drawn[clusters])
        wanted = np.concatenate([np.atleast_1d(score.value()) for score in scores_of(labels[rows], p_NK[rows])])
        np.testing.assert_allclose(values, wanted, atol=1e-10)


def test_no_rows_have_no_mean() -> None:
    assert as_number(mean_of(np.zeros(0)).value()) is None
    assert as_number(mean_of(np.array([1.0, 2.0])).value()) == 1.5
    assert np.isnan(ratio(np.array(1.0), np.array(0.0)))
    assert list(ratio(np.array([1.0, 2.0]), np.array(4.0))) == [0.25, 0.5]


def test_the_number_of_threads_changes_no_byte() -> None:
    """Products of many threads add up in another order: the bootstrap keeps them to one."""
    rng = np.random.default_rng(0)
    labels, p_NK = rng.integers(0, 4, 3000), rng.dirichlet(np.ones(4), 3000)
    statistic = resampled(scores_of(labels, p_NK), np.arange(3000))
    used: set[int] = set()

    def watched(counts_BC: np.ndarray) -> np.ndarray:
        used.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return statistic(counts_BC)

    draws = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            draws.append(bootstrap([watched], 3000, resamples=60, seed=1, name="threads")[0])
            before = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
            assert before == {threads}  # what the caller had is given back
    assert used == {1}
    assert draws[0].tobytes() == draws[1].tobytes() == draws[2].tobytes()


def test_columns_stay_in_the_order_of_the_scores() -> None:
    ones, twos = mean_of(np.ones(5)), mean_of(np.full(5, 2.0))
    counts = np.ones((3, 5), dtype=np.int64)
    assert resampled([ones, twos], np.arange(5))(counts) == pytest.approx(np.tile([1.0, 2.0], (3, 1)))
