"""Calibration slope and intercept equal scikit-learn's logistic regression and their score equations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lang1.metrics.additive import as_number, resampled
from lang1.metrics.bootstrap import bootstrap, draw_counts
from lang1.metrics.slope import fit_line, logit, sigmoid, slope_and_intercept


def cohort(n: int = 2000, slope: float = 0.6, intercept: float = -0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 4, n)
    return rng.random(n) < sigmoid(intercept + slope * logit(p)), p


def test_the_slope_is_sklearns() -> None:
    positive, p = cohort()
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], positive)
    slope, _ = slope_and_intercept(positive, p)
    assert slope.value() == pytest.approx(model.coef_[0, 0], abs=1e-5)
    line = fit_line(logit(p), positive.astype(float))
    assert line is not None
    assert line.intercept == pytest.approx(model.intercept_[0], abs=1e-5)


def test_values_that_lie_close_together_have_the_line_of_those_that_do_not() -> None:
    positive, p = cohort()
    wide, narrow = fit_line(logit(p), positive.astype(float)), fit_line(3 + 1e-6 * logit(p), positive.astype(float))
    assert wide is not None and narrow is not None
    assert 1e-6 * narrow.slope == pytest.approx(wide.slope, rel=1e-6)
    assert narrow.intercept + 3 * narrow.slope == pytest.approx(wide.intercept, abs=1e-5)


def test_the_intercept_makes_the_mean_probability_the_observed_rate_with_slope_one() -> None:
    positive, p = cohort()
    _, intercept = slope_and_intercept(positive, p)
    assert sigmoid(logit(p) + intercept.value()).mean() == pytest.approx(positive.mean(), abs=1e-9)


def test_calibrated_probabilities_have_slope_one_and_intercept_nought() -> None:
    slope, intercept = slope_and_intercept(*cohort(200_000, slope=1.0, intercept=0.0))
    assert slope.value() == pytest.approx(1, abs=0.02)
    assert intercept.value() == pytest.approx(0, abs=0.02)


def test_a_resample_is_within_the_noise_of_a_refit() -> None:
    positive, p = cohort(1500)
    rows = np.arange(1500)
    found = bootstrap([resampled(slope_and_intercept(positive, p), rows)], 1500, resamples=60, seed=1, name="x")[0]
    refits = []
    for drawn in next(draw_counts(1500, 60, 1, "x")):
        again = np.repeat(rows, drawn)
        refits.append([s.value() for s in slope_and_intercept(positive[again], p[again])])
    np.testing.assert_allclose(found, refits, atol=0.25 * np.std(refits))


@pytest.mark.parametrize(
    ("positive", "p"),
    [
        ([False, False, True, True], [0.1, 0.2, 0.7, 0.8]),  # parted: the slope runs away
        ([False, True, False, True], [0.3, 0.3, 0.3, 0.3]),  # all alike: any slope will do
        ([False, False, False], [0.1, 0.2, 0.3]),  # one class
    ],
)
def test_without_a_finite_slope_there_is_none(positive: list[bool], p: list[float]) -> None:
    slope, _ = slope_and_intercept(np.array(positive), np.array(p))
    assert as_number(slope.value()) is None


def test_probabilities_of_nought_and_one_are_taken() -> None:
    rng = np.random.default_rng(0)
    p = np.where(rng.random(300) < 0.5, 0.0, 1.0)
    positive = rng.random(300) < np.where(p == 1, 0.7, 0.2)
    slope, intercept = slope_and_intercept(positive, p)
    assert 0 < slope.value() < 0.2
    assert np.isfinite(intercept.value())


@pytest.mark.filterwarnings("error")
def test_probabilities_of_0_and_1_alone_have_a_line_and_no_warning() -> None:
    rng = np.random.default_rng(0)
    certain, happened = (rng.random(300) < 0.3).astype(float), (rng.random(300) < 0.3).astype(float)
    line = fit_line(logit(certain), happened)
    assert line is not None
    for answer in (0.0, 1.0):  # a value of two levels is fitted exactly
        predicted = 1 / (1 + np.exp(-line.intercept - line.slope * logit(np.array([answer]))[0]))
        assert predicted == pytest.approx(happened[certain == answer].mean(), abs=1e-6)
