"""Thresholds, alert rates and decision curves equal scikit-learn's counts and the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

from lang1.metrics.operating import RATES, at_flags, cut_at, flag_at, flag_share, independent, net_benefit


def rates(positive: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    return dict(zip(RATES, at_flags(positive, flagged).value().tolist(), strict=True))


def cohort(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 5, n)
    return rng.random(n) < p, p


def test_rates_at_a_threshold_are_sklearns() -> None:
    positive, p = cohort()
    found, flagged = rates(positive, flag_at(p, 0.2)), p >= 0.2
    tn, fp, fn, tp = confusion_matrix(positive, flagged).ravel()
    assert found["accuracy"] == pytest.approx(accuracy_score(positive, flagged))
    assert found["sensitivity"] == pytest.approx(recall_score(positive, flagged))
    assert found["specificity"] == pytest.approx(tn / (tn + fp))
    assert found["ppv"] == pytest.approx(precision_score(positive, flagged))
    assert found["npv"] == pytest.approx(tn / (tn + fn))
    assert independent(positive, flag_at(p, 0.2), np.arange(400)) == [400, tp + fn, tn + fp, tp + fp, tn + fn]


def test_a_rate_is_a_share_of_patients_not_of_their_rows() -> None:
    patients = np.array([0, 0, 0, 1, 1, 2])
    positive = np.array([True, True, False, False, True, False])
    flagged = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert independent(positive, flagged, patients) == [3, 2, 3, 1, 3]
    tied = np.full(100, 0.1)  # a tenth of everybody is flagged
    assert independent(np.arange(100) < 30, tied, np.arange(100)) == [100, 30, 70, 10, 90]


def test_an_alert_rate_of_less_than_a_rows_rounding_flags_next_to_nobody() -> None:
    assert flag_share(np.array([0.1, 0.3]), 1e-12).sum() == pytest.approx(2e-12)


def test_what_nobody_could_get_right_has_no_value() -> None:
    nobody = rates(np.array([True, False]), np.zeros(2))
    assert np.isnan(nobody["ppv"])
    assert nobody["npv"] == 0.5
    healthy = rates(np.zeros(3, bool), np.array([1.0, 0, 0]))
    assert np.isnan(healthy["sensitivity"])
    assert healthy["specificity"] == pytest.approx(2 / 3)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.floats(0.01, 0.99))
@settings(max_examples=100, deadline=None)
def test_an_alert_rate_is_met_exactly_whatever_the_ties_and_the_order(values: list[int], rate: float) -> None:
    scores = np.array(values, dtype=float)
    flagged = flag_share(scores, rate)
    assert flagged.sum() == pytest.approx(rate * len(scores))
    assert ((flagged >= 0) & (flagged <= 1 + 1e-12)).all()
    for higher in np.unique(scores):  # nobody is flagged before someone with a higher score is flagged wholly
        assert flagged[scores == higher].min() == pytest.approx(flagged[scores == higher].max())
        if flagged[scores < higher].sum() > 1e-9:
            assert flagged[scores == higher].min() == pytest.approx(1)
    order = np.random.default_rng(0).permutation(len(scores))
    assert flag_share(scores[order], rate) == pytest.approx(flagged[order])


def test_ppv_at_an_alert_rate_is_the_precision_of_the_highest_rows() -> None:
    positive, p = cohort()
    highest = np.argsort(-p)[:40]
    assert rates(positive, flag_share(p, 0.1))["ppv"] == pytest.approx(positive[highest].mean())
    assert cut_at(p, 0.1) == p[highest].min()


def test_a_model_that_gives_one_number_flags_a_random_share() -> None:
    positive = np.array([True] * 30 + [False] * 70)
    found = rates(positive, flag_share(np.full(100, 0.3), 0.2))
    assert (found["ppv"], found["sensitivity"]) == (pytest.approx(0.3), pytest.approx(0.2))


def test_net_benefit_is_the_formula_of_vickers_and_elkin() -> None:
    positive, p = cohort()
    thresholds = (0.05, 0.1, 0.3)
    values = net_benefit(positive, p, thresholds).value()
    for i, t in enumerate(thresholds):
        tp, fp = (p[positive] >= t).sum(), (p[~positive] >= t).sum()
        assert values[i] == pytest.approx(tp / 400 - fp / 400 * t / (1 - t))
        prevalence = positive.mean()
        assert values[3 + i] == pytest.approx(prevalence - (1 - prevalence) * t / (1 - t))


def test_flagging_all_has_no_benefit_at_the_prevalence() -> None:
    positive = np.array([True] * 20 + [False] * 80)
    assert net_benefit(positive, np.zeros(100), (0.2,)).value() == pytest.approx([0, 0])
