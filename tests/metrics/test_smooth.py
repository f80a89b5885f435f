"""Smooth calibration error equals its definition, integrated the plain way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from lang1.metrics.bootstrap import draw_counts
from lang1.metrics.smooth import resampled_smooth_calibration, smooth_calibration_error


def by_definition(hit: np.ndarray, p: np.ndarray) -> float:
    """Blasiok & Nakkiran 2023: the width s with smECE_s = s; the reflected Gaussian by its images, s by bisection."""
    t = (np.arange(2000) + 0.5) / 2000
    images = np.concatenate([[2 * k + p, 2 * k - p] for k in range(-3, 4)])

    def error_at(s: float) -> float:
        kernel = np.exp(-((t[:, None, None] - images[None]) ** 2) / (2 * s * s)).sum(axis=1) / (s * np.sqrt(2 * np.pi))
        return float(np.abs(kernel @ (p - hit) / len(p)).mean()) - s

    return float(brentq(error_at, 1e-4, 1.0))


@pytest.mark.parametrize(("n", "power"), [(60, 1.0), (200, 2.0), (300, 0.5)])
def test_it_is_its_definition(n: int, power: float) -> None:
    rng = np.random.default_rng(n)
    p = rng.beta(1, 3, n)
    hit = rng.random(n) < p**power
    assert smooth_calibration_error(hit, p) == pytest.approx(by_definition(hit, p), abs=2e-4)


def test_a_constant_that_is_wrong_is_off_by_its_distance() -> None:
    hit = np.arange(1000) < 300
    assert smooth_calibration_error(hit, np.full(1000, 0.8)) == pytest.approx(0.5, abs=1e-3)
    assert smooth_calibration_error(hit, np.full(1000, 0.3)) == pytest.approx(0, abs=1e-3)


def test_probabilities_at_the_ends_keep_their_weight() -> None:
    hit = np.array([True, True, False, False])
    assert smooth_calibration_error(hit, np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(
        by_definition(hit, np.array([0.0, 0.0, 1.0, 1.0])), abs=5e-3
    )
    assert smooth_calibration_error(hit, np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0, abs=1e-3)


def test_no_rows_no_number() -> None:
    assert smooth_calibration_error(np.zeros(0, bool), np.zeros(0)) is None


def test_a_resample_is_the_error_of_the_drawn_patients_rows() -> None:
    rng = np.random.default_rng(5)
    p = rng.beta(1, 3, 300)
    hit, clusters = rng.random(300) < p**1.5, rng.integers(0, 90, 300)
    counts = next(draw_counts(90, 6, 1, "x"))
    found = resampled_smooth_calibration(hit, p, clusters)(counts)
    for drawn, value in zip(counts, found, strict=True):
        rows = np.repeat(np.arange(300), drawn[clusters])
        assert value == pytest.approx(smooth_calibration_error(hit[rows], p[rows]), abs=1e-12)
