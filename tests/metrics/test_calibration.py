"""Calibration numbers equal scikit-learn's, and the written-out definition of ECE."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve as sklearn_curve

from lang1.metrics.calibration import brier_score, calibration_curve, expected_calibration_error, log_loss


def binary(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 4, n)
    return (rng.random(n) < p**1.3).astype(int), np.column_stack([1 - p, p])


def multiclass(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, n), rng.dirichlet(np.ones(4), n)


def ece_by_loop(hit: np.ndarray, confidence: np.ndarray, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = (confidence >= low) & ((confidence < high) | (b == bins - 1))
        if inside.any():
            total += inside.sum() * abs(hit[inside].mean() - confidence[inside].mean())
    return total / len(hit)


def test_curve_is_sklearns() -> None:
    labels, p_NK = binary()
    ours = calibration_curve(labels == 1, p_NK[:, 1])
    observed, predicted = sklearn_curve(labels, p_NK[:, 1], n_bins=15)
    assert [b.observed for b in ours] == pytest.approx(observed)
    assert [b.predicted for b in ours] == pytest.approx(predicted)
    assert sum(b.n for b in ours) == len(labels)


def test_probabilities_of_zero_and_one_have_a_bin() -> None:
    curve = calibration_curve(np.array([False, True]), np.array([0.0, 1.0]))
    assert [(b.predicted, b.observed, b.n) for b in curve] == [(0.0, 0.0, 1), (1.0, 1.0, 1)]


def test_ece_is_its_definition() -> None:
    labels, p_NK = binary()
    assert expected_calibration_error(labels, p_NK) == pytest.approx(ece_by_loop(labels, p_NK[:, 1], 15))
    labels, p_NK = multiclass()
    hit = p_NK.argmax(axis=1) == labels
    assert expected_calibration_error(labels, p_NK) == pytest.approx(ece_by_loop(hit, p_NK.max(axis=1), 15))


def test_ece_is_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    labels, p_NK = binary()
    theirs = binary_calibration_error(torch.tensor(p_NK[:, 1]), torch.tensor(labels), n_bins=15)
    assert expected_calibration_error(labels, p_NK) == pytest.approx(float(theirs), abs=1e-6)
    labels, p_NK = multiclass()
    theirs = multiclass_calibration_error(torch.tensor(p_NK), torch.tensor(labels), num_classes=4, n_bins=15)
    assert expected_calibration_error(labels, p_NK) == pytest.approx(float(theirs), abs=1e-6)


def test_brier_and_log_loss_are_sklearns() -> None:
    labels, p_NK = binary()
    assert brier_score(labels, p_NK) == pytest.approx(metrics.brier_score_loss(labels, p_NK[:, 1]))
    assert log_loss(labels, p_NK) == pytest.approx(metrics.log_loss(labels, p_NK))
    labels, p_NK = multiclass()
    assert brier_score(labels, p_NK) == pytest.approx(np.mean(((np.eye(4)[labels] - p_NK) ** 2).sum(axis=1)))
    assert log_loss(labels, p_NK) == pytest.approx(metrics.log_loss(labels, p_NK))


def test_no_rows_no_numbers() -> None:
    nothing = np.zeros(0, dtype=int), np.zeros((0, 2))
    assert (brier_score(*nothing), log_loss(*nothing), expected_calibration_error(*nothing)) == (None, None, None)


def test_a_certain_wrong_answer_costs_a_finite_loss() -> None:
    assert log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(1e-15))
