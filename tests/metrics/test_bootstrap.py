"""The bootstrap by patient equals a plain one, is fixed by its seed, and says what it could not resample."""

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from lang1.metrics.bootstrap import (
    bootstrap_auroc,
    draw_counts,
    holm,
    interval,
    paired_p,
    rank,
    resampled_auroc,
    resampled_ranking,
)


def cohort(n: int, patients: int, rate: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties, and the patient of each row."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < rate
    _, clusters = np.unique(rng.integers(0, patients, n), return_inverse=True)
    return positive, np.round(rng.normal(size=n) + positive, 1), clusters


def plain_resamples(
    positive: np.ndarray, scores: np.ndarray, clusters: np.ndarray, counts: np.ndarray, metric: Any = roc_auc_score
) -> list[float]:
    """The obvious way: write out the rows of the drawn patients, ask sklearn."""
    values = []
    for drawn in counts:
        rows = np.concatenate([np.flatnonzero(clusters == c) for c in range(len(drawn)) for _ in range(drawn[c])])
        mixed = 0 < positive[rows].sum() < len(rows)
        values.append(metric(positive[rows], scores[rows]) if mixed else np.nan)
    return values


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_resample_is_the_auroc_of_the_drawn_patients_rows(seed: int, n: int, patients: int) -> None:
    positive, scores, clusters = cohort(n, patients, seed=seed)
    ranking = rank(positive, scores, clusters)
    counts = next(draw_counts(int(clusters.max()) + 1, 5, seed, "twin"))
    if ranking is None:
        assert positive.all() or not positive.any()
        return
    both = resampled_ranking(ranking, counts)
    wanted = [plain_resamples(positive, scores, clusters, counts, m) for m in (roc_auc_score, average_precision_score)]
    np.testing.assert_allclose(resampled_auroc(ranking, counts), wanted[0], atol=1e-12)
    np.testing.assert_allclose(both, np.transpose(wanted), atol=1e-12)


def test_large_resamples_by_row_are_sklearns_to_the_last_digits() -> None:
    rng = np.random.default_rng(3)
    positive = rng.random(30_000) < 0.11
    scores = np.round(rng.normal(size=30_000) + 0.8 * positive, 2)  # a few hundred values: nearly every row is tied
    counts = next(draw_counts(30_000, 3, 1, "large"))
    ranking = rank(positive, scores, np.arange(30_000))
    assert ranking is not None
    for drawn, value in zip(counts, resampled_auroc(ranking, counts), strict=True):
        rows = np.repeat(np.arange(30_000), drawn)
        assert value == pytest.approx(roc_auc_score(positive[rows], scores[rows]), abs=1e-12)


def test_one_versus_rest_classes_share_their_resamples_and_are_sklearns() -> None:
    rng = np.random.default_rng(4)
    labels, p_NK = rng.integers(0, 4, 800), rng.dirichlet(np.ones(4), 800)
    rankings = [rank(labels == k, p_NK[:, k], np.arange(800)) for k in range(4)]
    draws = bootstrap_auroc(rankings, 800, resamples=3, seed=9, name="ovr")
    for drawn, values in zip(next(draw_counts(800, 3, 9, "ovr")), draws, strict=True):
        rows = np.repeat(np.arange(800), drawn)
        wanted = roc_auc_score(labels[rows], p_NK[rows], multi_class="ovr")
        assert values.mean() == pytest.approx(wanted, abs=1e-12)


def test_every_resample_draws_as_many_patients_as_there_are() -> None:
    blocks = list(draw_counts(7, 1000, 3, "x"))
    counts = np.concatenate(blocks)
    assert counts.shape == (1000, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert abs(counts.mean() - 1) < 0.02
    assert (counts == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.02)


def test_few_patients_with_many_rows_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 20, 50_000)
    positive = rng.random(50_000) < 0.2
    ranking = rank(positive, rng.normal(size=50_000) + positive, clusters)
    tracemalloc.start()
    bootstrap_auroc([ranking], 20, resamples=300, seed=1, name="x")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_the_block_size_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draw_counts(11, 50, 3, "x")))
    monkeypatch.setattr("lang1.metrics.bootstrap._CELLS", 40)
    assert (np.concatenate(list(draw_counts(11, 50, 3, "x"))) == whole).all()


def test_seed_and_name_fix_the_draws() -> None:
    def first(seed: int, name: str) -> bytes:
        return next(draw_counts(50, 4, seed, name)).tobytes()

    assert first(1, "los/test") == first(1, "los/test")
    assert len({first(1, "los/test"), first(2, "los/test"), first(1, "cci/test")}) == 3


def test_intervals_agree_with_scipys_bootstrap_when_every_row_is_a_patient() -> None:
    positive, scores, _ = cohort(400, 400)
    rows = np.arange(400)
    ours = interval(
        roc_auc_score(positive, scores),
        bootstrap_auroc([rank(positive, scores, rows)], 400, resamples=4000, seed=1, name="x")[:, 0],
    )
    theirs = stats.bootstrap(
        (positive, scores),
        roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert (ours.normal_low, ours.normal_high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_patients_with_many_equal_rows_widen_the_interval() -> None:
    positive, scores, _ = cohort(200, 200)
    copies = 9
    repeated, wide = np.repeat(positive, copies), np.repeat(scores, copies)
    by_row = bootstrap_auroc(
        [rank(repeated, wide, np.arange(200 * copies))], 200 * copies, resamples=500, seed=1, name="x"
    )
    by_patient = bootstrap_auroc(
        [rank(repeated, wide, np.repeat(np.arange(200), copies))], 200, resamples=500, seed=1, name="x"
    )
    assert by_patient.std() > 2.5 * by_row.std()


def test_resamples_that_lose_a_class_are_left_out_and_counted() -> None:
    positive = np.array([True] + [False] * 9)
    scores = np.arange(10.0)[::-1]
    draws = bootstrap_auroc([rank(positive, scores, np.arange(10))], 10, resamples=2000, seed=1, name="x")[:, 0]
    found = interval(1.0, draws)
    assert found.undefined == np.isnan(draws).sum()
    assert found.undefined / 2000 == pytest.approx(0.9**10, abs=0.04)
    assert (found.low, found.high) == (1.0, 1.0)


def test_a_value_that_is_not_there_has_no_interval() -> None:
    draws = bootstrap_auroc([None], 5, resamples=20, seed=1, name="x")[:, 0]
    found = interval(None, draws)
    assert (found.low, found.high, found.normal_low, found.undefined) == (None, None, None, 20)
    assert paired_p(draws) is None


def test_columns_of_one_call_share_their_resamples() -> None:
    positive, scores, clusters = cohort(300, 100)
    ranking = rank(positive, scores, clusters)
    draws = bootstrap_auroc([ranking, ranking], int(clusters.max()) + 1, resamples=100, seed=1, name="x")
    assert (draws[:, 0] == draws[:, 1]).all()


def test_p_is_never_zero_and_one_for_no_difference() -> None:
    assert paired_p(np.full(999, 0.1)) == pytest.approx(2 / 1000)
    assert paired_p(np.zeros(999)) == 1.0
    assert paired_p(np.r_[np.full(30, -0.1), np.full(969, 0.1)]) == pytest.approx(2 * 31 / 1000)


def test_p_of_two_equally_good_models_is_spread_evenly() -> None:
    """Under no difference, p below 0.2 comes about one time in five."""
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        positive = rng.random(300) < 0.3
        rankings = [rank(positive, positive + rng.normal(scale=2, size=300), np.arange(300)) for _ in range(2)]
        draws = bootstrap_auroc(rankings, 300, resamples=300, seed=seed, name="x")
        small += (paired_p(draws[:, 0] - draws[:, 1]) or 0) < 0.2
    assert 4 <= small <= 22


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.one_of(st.none(), st.integers(0, 50).map(lambda i: i / 50)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_holm_is_its_definition(p_values: list[float | None]) -> None:
    """Adjusted p of each: the largest of (number of p at least as large) x p over the p no larger than it."""
    known = sorted(p for p in p_values if p is not None)
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        if p is None:
            assert corrected is None
        else:
            steps = [min(1.0, (len(known) - j) * q) for j, q in enumerate(known) if q <= p]
            assert corrected == pytest.approx(max(steps))


def test_a_thousand_resamples_of_five_thousand_rows_take_under_a_second() -> None:
    positive, scores, clusters = cohort(5000, 3500)
    started = time.process_time()
    bootstrap_auroc([rank(positive, scores, clusters)], int(clusters.max()) + 1, resamples=1000, seed=1, name="x")
    assert time.process_time() - started < 1.0


def test_a_thousand_resamples_of_a_hundred_thousand_rows_take_three_seconds_and_little_memory() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(100_000) < 0.11
    ranking = rank(positive, rng.normal(size=100_000) + positive, np.arange(100_000))
    started = time.process_time()
    bootstrap_auroc([ranking], 100_000, resamples=1000, seed=1, name="x")
    assert time.process_time() - started < 3.0
    tracemalloc.start()
    bootstrap_auroc([ranking], 100_000, resamples=5, seed=1, name="x")
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
