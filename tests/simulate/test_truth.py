"""The true probabilities: calibrated against the draws, at the paper's rates, the Charlson convolution exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lang1.simulate import truth
from lang1.simulate.check import macro_auroc
from lang1.simulate.course import Stays
from lang1.simulate.tables import CHARLSON, CODED, MISCODED

SCORE_BINS = ((0, 0), (1, 2), (3, 4), (5, 7), (8, 99))
SEVERE = {"liver": "liver_severe", "diabetes": "diabetes_organ", "cancer": "metastatic"}
NAMES = [condition.name for condition in CHARLSON]


def score_of(coded: set[str]) -> int:
    """Charlson's score of a set of coded conditions, by the rule in words: a severe form hides its mild one."""
    weights = {condition.name: condition.weight for condition in CHARLSON}
    return sum(weights[name] for name in coded if SEVERE.get(name) not in coded)


def bins_of(days: np.ndarray) -> np.ndarray:
    return np.searchsorted([2, 3, 5], days)


def scores(stays: Stays) -> np.ndarray:
    values = [score_of({NAMES[k] for k in np.flatnonzero(row)}) for row in stays.outcomes["coded"]]
    return np.searchsorted([0, 2, 4, 7], values)


def outcome(stays: Stays, task: str) -> tuple[np.ndarray, np.ndarray]:
    alive = ~stays.outcomes["died"]
    if task == "readmission":
        return stays.outcomes["readmitted"][alive].astype(int), stays.truths[task][alive]
    labels = {
        "mortality": lambda: stays.outcomes["died"],
        "denial": lambda: stays.outcomes["denied"],
        "los": lambda: bins_of(stays.outcomes["los_days"]),
        "cci": lambda: scores(stays),
    }[task]()
    return labels.astype(int), stays.truths[task]


@pytest.mark.parametrize("task", ["readmission", "mortality", "los", "cci", "denial"])
def test_truth_is_calibrated_in_every_tenth(many_stays: Stays, task: str) -> None:
    labels, probabilities = outcome(many_stays, task)
    columns = probabilities if probabilities.ndim == 2 else np.column_stack([1 - probabilities, probabilities])
    for k in range(columns.shape[1]):
        p, y = columns[:, k], labels == k
        for part in np.array_split(np.argsort(p, kind="stable"), 10):
            spread = np.sqrt((p[part] * (1 - p[part])).sum())
            assert abs(y[part].sum() - p[part].sum()) < 4.5 * spread + 1, (task, k)


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("readmission", (0.89, 0.11)),
        ("mortality", (0.981, 0.019)),
        ("los", (0.42, 0.18, 0.17, 0.24)),
        ("denial", (0.875, 0.125)),
        ("cci", (0.69, 0.22, 0.05, 0.025)),  # the rate of scores above 7, one in a thousand, needs more stays
    ],
)
def test_rates_are_the_papers(many_stays: Stays, task: str, wanted: tuple[float, ...]) -> None:
    labels, _ = outcome(many_stays, task)
    rates = np.bincount(labels) / len(labels)
    assert rates[: len(wanted)] == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize(
    ("task", "low", "high"),
    [("readmission", 0.79, 0.84), ("mortality", 0.925, 0.955), ("los", 0.80, 0.85), ("cci", 0.965, 0.995),
     ("denial", 0.87, 0.90)],
)  # fmt: skip
def test_ceilings_leave_room_for_noise(many_stays: Stays, task: str, low: float, high: float) -> None:
    labels, probabilities = outcome(many_stays, task)
    columns = probabilities if probabilities.ndim == 2 else np.column_stack([1 - probabilities, probabilities])
    assert low < macro_auroc(labels, columns) < high


def test_charlson_convolution_equals_enumeration() -> None:
    rng = np.random.default_rng(3)
    picked = [NAMES.index(name) for name in ("chf", "liver", "liver_severe", "renal", "cancer", "metastatic")]
    for _ in range(5):
        present = np.zeros(len(NAMES), dtype=bool)
        present[picked] = rng.random(len(picked)) < 0.6
        principal = np.zeros(len(NAMES), dtype=bool)
        principal[NAMES.index("chf")] = present[NAMES.index("chf")] and rng.random() < 0.5
        p = np.where(principal, 1.0, np.where(present, CODED, MISCODED))
        expected = np.zeros(5)
        # every set of codes among six conditions and every single miscode of the others; two miscodes are negligible
        others = [k for k in range(len(NAMES)) if k not in picked]
        for flags in itertools.product((0, 1), repeat=len(picked)):
            chance = np.prod([p[k] if flag else 1 - p[k] for k, flag in zip(picked, flags, strict=True)])
            coded = {NAMES[k] for k, flag in zip(picked, flags, strict=True) if flag}
            for extra in (None, *others):
                odd = np.prod([p[k] if k == extra else 1 - p[k] for k in others])
                score = score_of(coded | ({NAMES[extra]} if extra is not None else set()))
                place = next(b for b, (low, high) in enumerate(SCORE_BINS) if low <= score <= high)
                expected[place] += chance * odd
        found = truth.cci(present[None], principal[None])[0]
        assert found == pytest.approx(expected, abs=1e-4)
        assert found.sum() == pytest.approx(1.0)


def test_length_of_stay_is_a_mixture_over_death(many_stays: Stays) -> None:
    p_death = many_stays.truths["mortality"]
    alive, mixed = truth.los(many_stays.facts, p_death)
    assert mixed.sum(axis=1) == pytest.approx(np.ones(len(mixed)))
    surely_dead = truth.los(many_stays.facts, np.ones(len(mixed)))[1]
    assert mixed == pytest.approx(p_death[:, None] * surely_dead + (1 - p_death[:, None]) * alive)
