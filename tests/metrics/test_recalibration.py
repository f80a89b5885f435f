"""Recalibration maps undo what was done to probabilities, keep what they promise and tell what they are."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from lang1.metrics.calibration import log_loss
from lang1.metrics.ranking import auroc
from lang1.metrics.recalibration import Method, Recalibration, fit
from lang1.metrics.slope import logit, sigmoid

METHODS: tuple[Method, ...] = get_args(Method)


def cohort(options: int, n: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, options)) - 0.5 * np.arange(options)
    p_NK = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.array([rng.choice(options, p=p) for p in p_NK]), p_NK


def fitted(method: Method, labels: np.ndarray, p_NK: np.ndarray) -> Recalibration:
    found = fit(method, labels, p_NK)
    assert isinstance(found, Recalibration)
    return found


def sharpen(p_NK: np.ndarray, power: float) -> np.ndarray:
    raised = p_NK**power
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("options", [2, 4])
def test_temperature_is_found_again(options: int) -> None:
    labels, p_NK = cohort(options)
    found = fitted("temperature", labels, sharpen(p_NK, 3.0))
    assert found.facts["temperature"] == pytest.approx(3.0, rel=0.07)
    np.testing.assert_allclose(found.apply(sharpen(p_NK, 3.0)), p_NK, atol=0.03)


def test_a_temperature_at_its_bound_is_told() -> None:
    labels, p_NK = cohort(2, 300)
    assert fitted("temperature", labels, p_NK).facts["at_bound"] is False
    never_wrong = 0.5 + 0.1 * (np.eye(2)[labels] - 0.5)
    assert fitted("temperature", labels, never_wrong).facts["at_bound"] is True
    knows_nothing = np.eye(2)[1 - labels]
    assert fitted("temperature", labels, 0.4 + 0.2 * knows_nothing).facts["at_bound"] is True


def test_platts_line_is_the_maximum_for_his_smoothed_targets() -> None:
    labels, p_NK = cohort(2, 500)
    found = fitted("platt", labels, sharpen(p_NK, 2.0)).facts["options"]["1"]
    x = logit(sharpen(p_NK, 2.0)[:, 1])
    events, others = (labels == 1).sum(), (labels == 0).sum()
    target = np.where(labels == 1, (events + 1) / (events + 2), 1 / (others + 2))
    rest = target - sigmoid(found["intercept"] + found["slope"] * x)
    assert [rest.sum(), rest @ x] == pytest.approx([0, 0], abs=1e-6)


def test_platt_has_an_answer_where_the_scores_part_the_classes() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    p = np.array([0.1, 0.2, 0.3, 0.6, 0.9])
    after = fitted("platt", labels, np.column_stack([1 - p, p])).apply(np.column_stack([1 - p, p]))[:, 1]
    assert (np.diff(after) > 0).all()
    assert 0 < after.min() < after.max() < 1


@pytest.mark.parametrize("squeezed", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("middle", [0.5, 0.03])
def test_platt_keeps_what_a_model_knows_that_says_nearly_one_number(squeezed: float, middle: float) -> None:
    labels, p_NK = cohort(2, 2000)
    p = middle + squeezed * (p_NK[:, 1] - 0.5)  # the slope that undoes it is 1 / squeezed and more
    after = fitted("platt", labels, np.column_stack([1 - p, p])).apply(np.column_stack([1 - p, p]))[:, 1]
    assert auroc(labels == 1, after) == pytest.approx(auroc(labels == 1, p_NK[:, 1]), abs=1e-6)
    assert after.std() == pytest.approx(p_NK[:, 1].std(), rel=0.1)
    assert after.mean() == pytest.approx((labels == 1).mean(), abs=1e-3)


@pytest.mark.parametrize("scale", [1e-9, 1e-6])
def test_platt_keeps_the_order_of_rows_near_nought(scale: float) -> None:
    labels, p_NK = cohort(2, 500)
    p = scale * p_NK[:, 1]  # a rare event: all far below one in a million
    after = fitted("platt", labels, np.column_stack([1 - p, p])).apply(np.column_stack([1 - p, p]))
    assert auroc(labels == 1, after[:, 1]) == auroc(labels == 1, p_NK[:, 1])


def test_isotonic_is_sklearns() -> None:
    labels, p_NK = cohort(2, 400)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(p_NK[:, 1], labels).predict(p_NK[:, 1])
    assert fitted("isotonic", labels, p_NK).apply(p_NK)[:, 1] == pytest.approx(wanted)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [2, 4])
def test_rows_sum_to_one_and_the_log_loss_of_new_rows_falls(method: Method, options: int) -> None:
    labels, p_NK = cohort(options, 8000)
    wrong = sharpen(p_NK, 3.0)
    found = fitted(method, labels[:4000], wrong[:4000])
    after = found.apply(wrong[4000:])
    assert after.sum(axis=1) == pytest.approx(np.ones(4000))
    assert (after >= 0).all()
    after = (after + 1e-3) / (1 + 1e-3 * options)  # an isotonic step may be 0, which log-loss does not forgive
    assert log_loss(labels[4000:], after) < log_loss(labels[4000:], wrong[4000:]) - 0.01  # type: ignore[operator]


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_the_order_of_a_binary_tasks_rows_stays(method: Method) -> None:
    labels, p_NK = cohort(2, 500)
    after = fitted(method, labels, p_NK).apply(p_NK)
    assert auroc(labels == 1, after[:, 1]) == auroc(labels == 1, p_NK[:, 1])


def test_an_option_without_rows_keeps_its_probability_and_is_named() -> None:
    labels, p_NK = cohort(4, 500)
    labels[labels == 2] = 0
    found = fitted("platt", labels, p_NK)
    assert found.facts["options_kept"] == [2]
    after = found.apply(p_NK)
    assert after.sum(axis=1) == pytest.approx(np.ones(500))
    assert (after[:, 2] > 0).all()


def test_one_class_or_no_rows_give_a_reason() -> None:
    assert fit("platt", np.zeros(5, int), np.full((5, 2), 0.5)) == "the rows to fit on are all of one class"
    assert fit("isotonic", np.zeros(0, int), np.zeros((0, 2))) == "there are no rows to fit on"


def test_a_model_that_says_one_number_gets_the_rate() -> None:
    labels = np.array([1] * 30 + [0] * 70)
    for method in ("platt", "isotonic"):
        after = fitted(method, labels, np.full((100, 2), 0.5)).apply(np.full((1, 2), 0.5))
        assert after[0, 1] == pytest.approx(0.3, abs=0.01)
