"""Accuracy and quadratic kappa equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from lang1.metrics.agreement import accuracy, quadratic_kappa


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_kappa_is_sklearns_also_where_classes_are_absent(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    value = float(quadratic_kappa(labels, predicted, 5).value())
    if len({*labels, *predicted}) == 1:
        assert np.isnan(value)
    else:
        wanted = cohen_kappa_score(labels, predicted, labels=range(5), weights="quadratic")
        assert value == pytest.approx(wanted, abs=1e-12)


def test_kappa_punishes_a_far_miss_more_than_a_near_one() -> None:
    labels = np.array([0, 1, 2, 3] * 5)
    near, far = labels.copy(), labels.copy()
    near[0], far[0] = 1, 3
    assert 1 > quadratic_kappa(labels, near, 4).value() > quadratic_kappa(labels, far, 4).value()
    assert quadratic_kappa(labels, labels, 4).value() == 1


def test_accuracy_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    labels, p_NK = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    assert accuracy(labels, p_NK).value() == pytest.approx(accuracy_score(labels, p_NK.argmax(axis=1)))
