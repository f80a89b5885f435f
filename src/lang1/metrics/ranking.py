"""AUROC and AUPRC from ranks: ties count half, a class that is not there gives None.

AUROC is the share of (positive, negative) pairs that the scores order rightly, a tie counting half: what
scikit-learn's `roc_auc_score` gives. For tasks with several options each class is set against the rest
(one-versus-rest, 5.5), and the averages say over which classes they were taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def auroc(positive: NDArray[np.bool_], scores: Floats) -> float | None:
    """Binary AUROC; None when all rows are of one class. Any finite scores, higher means more likely positive."""
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, "left")
    up_to = np.searchsorted(negatives, positives, "right")
    return float((below.sum() + up_to.sum()) / (2 * len(positives) * len(negatives)))


@dataclass(frozen=True)
class OvrAuroc:
    """One-versus-rest AUROC; an absent class is None and in no average."""

    per_class: list[float | None]
    present: list[int]
    """classes with rows, and rows beside them: the ones that macro and weighted average over"""
    macro: float | None
    weighted: float | None
    """classes weigh by their rows"""
    micro: float | None
    """every (row, class) cell is one binary case"""


def auroc_ovr(labels: Ints, p_NK: Floats) -> OvrAuroc:
    """One-versus-rest AUROC of a task with K options, with every average beside it."""
    options = p_NK.shape[1]
    per_class = [auroc(labels == k, p_NK[:, k]) for k in range(options)]
    present = [k for k, value in enumerate(per_class) if value is not None]
    values = np.array([per_class[k] for k in present], dtype=np.float64)
    rows = np.array([(labels == k).sum() for k in present], dtype=np.float64)
    return OvrAuroc(
        per_class=per_class,
        present=present,
        macro=float(values.mean()) if present else None,
        weighted=float(values @ rows / rows.sum()) if present else None,
        micro=micro_auroc(labels, p_NK),
    )


def micro_auroc(labels: Ints, p_NK: Floats) -> float | None:
    """AUROC over every (row, class) cell; what finetuning stops on (5.4). None without rows."""
    return auroc((labels[:, None] == np.arange(p_NK.shape[1])).ravel(), p_NK.ravel())


def headline_auroc(labels: Ints, p_NK: Floats) -> float | None:
    """`auroc` of option 1 for two options, `auroc_ovr_macro` for more: the number that results quote."""
    return auroc(labels == 1, p_NK[:, 1]) if p_NK.shape[1] == 2 else auroc_ovr(labels, p_NK).macro


def headline_metric(options: int) -> str:
    """The name of the number that results quote for a task with so many options."""
    return "auroc" if options == 2 else "auroc_ovr_macro"


def average_precision(positive: NDArray[np.bool_], scores: Floats) -> float | None:
    """AUPRC as average precision: precision at each new threshold, weighed by the recall it adds.

    None when all rows are of one class: with positives alone every ranking would have 1.
    """
    total = int(positive.sum())
    if total in (0, len(positive)):
        return None
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_tie = np.r_[np.diff(scores[order]) != 0, True]
    hits, taken = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    return float(np.sum(np.diff(np.r_[0, hits]) / total * (hits / taken)))
