"""AUROC and AUPRC equal scikit-learn's; an absent class is None."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lang1.metrics.ranking import auroc, auroc_ovr, average_precision, headline_auroc, headline_metric, micro_auroc

rows = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60)


def pair_by_pair(positive: np.ndarray, scores: np.ndarray) -> float:
    """The definition: the share of pairs that are ordered rightly, a tie counting half."""
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[positive] for n in scores[~positive]]
    return float(np.mean(wins))


@given(rows)
@settings(max_examples=200, deadline=None)
def test_auroc_is_the_share_of_ordered_pairs_and_sklearns(drawn: list[tuple[bool, int]]) -> None:
    positive, scores = np.array([p for p, _ in drawn]), np.array([s for _, s in drawn], dtype=float)
    if positive.all() or not positive.any():
        assert auroc(positive, scores) is None
        return
    assert auroc(positive, scores) == pytest.approx(pair_by_pair(positive, scores), abs=1e-12)
    assert auroc(positive, scores) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


@given(rows)
@settings(max_examples=100, deadline=None)
def test_average_precision_is_sklearns(drawn: list[tuple[bool, int]]) -> None:
    positive, scores = np.array([p for p, _ in drawn]), np.array([s for _, s in drawn], dtype=float)
    if positive.all() or not positive.any():  # scikit-learn gives 1 and 0 there
        assert average_precision(positive, scores) is None
    else:
        assert average_precision(positive, scores) == pytest.approx(
            average_precision_score(positive, scores), abs=1e-12
        )


def multiclass(seed: int = 0, n: int = 300, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)


def test_averages_over_classes_are_sklearns() -> None:
    labels, p_NK = multiclass()
    found = auroc_ovr(labels, p_NK)
    for name in ("macro", "weighted", "micro"):
        assert getattr(found, name) == pytest.approx(
            roc_auc_score(labels, p_NK, multi_class="ovr", average=name), abs=1e-12
        ), name


def test_an_absent_class_is_none_and_in_no_average() -> None:
    labels, p_NK = multiclass()
    labels[labels == 2] = 0
    found = auroc_ovr(labels, p_NK)
    assert found.per_class[2] is None
    assert found.present == [0, 1, 3]
    assert found.macro == pytest.approx(np.mean([roc_auc_score(labels == k, p_NK[:, k]) for k in (0, 1, 3)]))


def test_one_class_alone_has_no_value() -> None:
    labels, p_NK = np.zeros(5, dtype=int), np.full((5, 3), 1 / 3)
    found = auroc_ovr(labels, p_NK)
    assert (found.macro, found.weighted, found.present) == (None, None, [])
    assert headline_auroc(labels, p_NK) is None
    assert micro_auroc(np.zeros(0, dtype=int), np.zeros((0, 3))) is None


def test_the_headline_is_option_one_or_the_macro_average() -> None:
    labels, p_NK = multiclass(classes=2)
    assert headline_auroc(labels, p_NK) == pytest.approx(roc_auc_score(labels, p_NK[:, 1]))
    assert [headline_metric(k) for k in (2, 4, 5)] == ["auroc", "auroc_ovr_macro", "auroc_ovr_macro"]
