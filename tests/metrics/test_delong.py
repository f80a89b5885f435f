"""DeLong's variance from ranks equals the one written out over pairs, alone, paired and over classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1.metrics.bootstrap import bootstrap_auroc, rank
from lang1.metrics.delong import influence, influence_ovr, interval, p_value, standard_error
from lang1.metrics.ranking import auroc


def components(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V10 and V01 of DeLong, DeLong & Clarke-Pearson (1988), pair by pair."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    won = (difference > 0) + 0.5 * (difference == 0)
    return won.mean(axis=1), won.mean(axis=0)


def covariance_by_pairs(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    parts = [components(positive, scores) for scores in (a, b)]
    m, n = int(positive.sum()), int((~positive).sum())
    return np.cov([v10 for v10, _ in parts]) / m + np.cov([v01 for _, v01 in parts]) / n


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 25))
@settings(max_examples=80, deadline=None)
def test_variances_and_covariance_are_those_of_the_definition(seed: int, m: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.r_[np.ones(m, bool), np.zeros(n, bool)])
    a, b = (np.round(rng.normal(size=m + n) + positive, 1) for _ in range(2))  # with ties
    wanted = covariance_by_pairs(positive, a, b)
    shares = influence(positive, a), influence(positive, b)
    assert shares[0] is not None and shares[1] is not None
    assert standard_error(shares[0]) ** 2 == pytest.approx(wanted[0, 0], abs=1e-12)
    assert float(shares[0] @ shares[1]) == pytest.approx(wanted[0, 1], abs=1e-12)
    paired = wanted[0, 0] + wanted[1, 1] - 2 * wanted[0, 1]
    assert standard_error(shares[0] - shares[1]) ** 2 == pytest.approx(paired, abs=1e-12)


def test_the_interval_of_many_rows_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(3000) < 0.2
    scores = rng.normal(size=3000) + 0.8 * positive
    shares = influence(positive, scores)
    assert shares is not None
    draws = bootstrap_auroc([rank(positive, scores, np.arange(3000))], 3000, resamples=1000, seed=1, name="x")
    assert standard_error(shares) == pytest.approx(draws.std(), rel=0.08)
    low, high = interval(auroc(positive, scores) or 0, standard_error(shares))
    assert (low, high) == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.003)


def test_the_macro_average_of_classes_has_the_bootstraps_error() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(4, 3000, p=[0.4, 0.15, 0.2, 0.25])
    p_NK = rng.dirichlet(np.ones(4), 3000) + 0.4 * np.eye(4)[labels]
    shares = influence_ovr(labels, p_NK)
    assert shares is not None
    rankings = [rank(labels == k, p_NK[:, k], np.arange(3000)) for k in range(4)]
    draws = bootstrap_auroc(rankings, 3000, resamples=1000, seed=1, name="x").mean(axis=1)
    assert standard_error(shares) == pytest.approx(draws.std(), rel=0.08)


def test_rows_repeated_within_a_patient_are_no_new_evidence() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(400) < 0.3
    scores = rng.normal(size=400) + positive
    copies = np.repeat(positive, 9), np.repeat(scores, 9)
    once, often, by_patient = (
        influence(positive, scores),
        influence(*copies),
        influence(*copies, np.repeat(np.arange(400), 9)),
    )
    assert once is not None and often is not None and by_patient is not None
    assert standard_error(by_patient) == pytest.approx(standard_error(once), rel=1e-12)
    assert standard_error(often) == pytest.approx(standard_error(once) / 3, rel=0.01)


def obuchowskis_error(positive: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> float:
    """Obuchowski (1997), equations 2 to 4, patient by patient."""
    v10, v01 = components(positive, scores)
    area = v10.mean()
    x, y = np.zeros(len(scores)), np.zeros(len(scores))
    x[positive], y[~positive] = v10 - area, v01 - area
    ids = np.unique(patients)
    up = np.array([x[patients == i].sum() for i in ids])
    down = np.array([y[patients == i].sum() for i in ids])
    sick = len(np.unique(patients[positive]))
    well, both = len(np.unique(patients[~positive])), len(ids)
    m, n = positive.sum(), (~positive).sum()
    s10, s01 = sick / ((sick - 1) * m) * (up @ up), well / ((well - 1) * n) * (down @ down)
    s11 = both / (both - 1) * (up @ down)
    return math.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("seed", range(5))
def test_patients_with_several_rows_have_obuchowskis_error_and_the_bootstraps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(0, 120, 500))
    frailty = rng.normal(size=120)[patients]
    positive = frailty + rng.normal(size=500) > 0.7
    scores = 0.8 * frailty + rng.normal(size=500)
    _, clusters = np.unique(patients, return_inverse=True)
    shares = influence(positive, scores, clusters)
    assert shares is not None
    assert standard_error(shares) == pytest.approx(obuchowskis_error(positive, scores, patients), rel=0.01)
    drawn = bootstrap_auroc([rank(positive, scores, clusters)], len(shares), resamples=1000, seed=1, name="obuchowski")
    assert standard_error(shares) == pytest.approx(drawn.std(), rel=0.12)


def test_classes_apart_by_patient_have_obuchowskis_error_exactly() -> None:
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(8), 4)  # each patient has rows of one class: the factor over patients is exact
    positive, scores = patients < 3, rng.normal(size=32)
    shares = influence(positive, scores, patients)
    assert shares is not None
    assert standard_error(shares) == pytest.approx(obuchowskis_error(positive, scores, patients), rel=1e-12)


def test_too_few_rows_of_a_class_have_no_variance() -> None:
    one_positive = np.array([True, False, False, False])
    assert influence(one_positive, np.arange(4.0)) is None
    assert influence(~one_positive, np.arange(4.0)) is None
    patients = np.array([0, 0, 1, 2])
    assert influence(np.array([True, True, False, False]), np.arange(4.0), patients) is None  # one patient has them all
    labels = np.array([0, 0, 0, 1, 1, 2])  # class 2 has one row: the mean over classes has no variance either
    assert influence_ovr(labels, np.full((6, 3), 1 / 3)) is None


def test_an_absent_class_is_left_out_of_the_macro_average() -> None:
    rng = np.random.default_rng(3)
    labels, p_NK = rng.integers(0, 3, 60), rng.dirichlet(np.ones(4), 60)
    wanted = np.mean([influence(labels == k, p_NK[:, k]) for k in range(3)], axis=0)
    assert influence_ovr(labels, p_NK) == pytest.approx(wanted)


def test_p_is_two_sided_and_normal() -> None:
    assert p_value(0.0, 0.0) == 1.0
    assert p_value(0.1, 0.0) is None
    assert p_value(1.959963984540054, 1.0) == pytest.approx(0.05)
    assert p_value(-3.0, 1.0) == pytest.approx(math.erfc(3 / math.sqrt(2)))
    assert interval(0.99, 0.1) == (pytest.approx(0.794, abs=1e-3), 1.0)
