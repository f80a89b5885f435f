"""The true probabilities: functions of chart facts alone. The outcomes are drawn from what these return.

Every log-odds is a sum: an intercept, findings that are there, the reason for admission, chronic conditions, and
steps of numbers (`tables/probabilities.json`). docs/simulated-hospital.md has the equations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lang1.simulate.population import Array, Bools, Facts, sigmoid
from lang1.simulate.tables import ADMISSION, CHARLSON, CODED, DISCHARGE, MISCODED, PROBABILITIES, REASONS

CCI_GROUPS: tuple[tuple[str, ...], ...] = (
    ("mi",), ("chf",), ("pvd",), ("cvd",), ("dementia",), ("copd",), ("rheum",), ("ulcer",), ("liver_severe", "liver"),
    ("diabetes_organ", "diabetes"), ("plegia",), ("renal",), ("metastatic", "cancer"), ("aids",),
)  # fmt: skip
"""the severe form stands first and hides the mild one"""
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {"<": operator.lt, ">=": operator.ge}


@cache
def _vector(table: str, outcome: str) -> Array:
    rows: dict[str, tuple[Any, ...]] = {"findings": ADMISSION, "discharge": DISCHARGE, "reasons": REASONS,
                                        "conditions": CHARLSON}  # fmt: skip
    return np.array([getattr(row, outcome) for row in rows[table]])


def _numbers(facts: Facts, outcome: str) -> Array:
    total = np.zeros(len(facts["age"]))
    for name, sign, threshold, coefficient in PROBABILITIES["numbers"][outcome]:
        total += coefficient * _COMPARE[sign](facts[name], threshold)
    return total


def mortality(facts: Facts) -> Array:
    """P(death in the stay | chart at admission)."""
    return sigmoid(
        PROBABILITIES["intercepts"]["mortality"]
        + facts["findings"] @ _vector("findings", "mortality")
        + _vector("reasons", "mortality")[facts["reason"]]
        + facts["conditions"] @ _vector("conditions", "mortality")
        + PROBABILITIES["mortality_per_decade"] * np.clip((facts["age"] - 50) / 10, -2, 4)
        + _numbers(facts, "mortality")
    )


def los(facts: Facts, p_death: Array) -> tuple[Array, Array]:
    """P(bin | survival, chart) and P(bin | chart): the second is the mixture over death."""
    eta = (
        np.array(PROBABILITIES["los_intercept"])
        + facts["findings"] @ _vector("findings", "los")
        + _vector("reasons", "los")[facts["reason"]]
        + np.outer(np.clip((facts["age"] - 50) / 10, -3, 4), PROBABILITIES["los_per_decade"])
    )
    for name, sign, threshold, odds in PROBABILITIES["los_numbers"]:
        eta += np.outer(_COMPARE[sign](facts[name], threshold), odds)
    eta -= eta.max(axis=1, keepdims=True)
    alive = np.exp(eta)
    alive /= alive.sum(axis=1, keepdims=True)
    dead = np.array(PROBABILITIES["death_los"])
    return alive, p_death[:, None] * dead + (1 - p_death[:, None]) * alive


def denial(facts: Facts) -> Array:
    """P(the payer denies the claim at first | chart at admission)."""
    return sigmoid(
        PROBABILITIES["intercepts"]["denial"]
        + facts["findings"] @ _vector("findings", "denial")
        + _vector("reasons", "denial")[facts["reason"]]
        + np.array(PROBABILITIES["payer_denial"])[facts["payer"]]
        + PROBABILITIES["denial_per_year"] * (facts["year"] - 2021)
        + _numbers(facts, "denial")
    )


def readmission(facts: Facts) -> Array:
    """P(a new stay within 30 days | chart at discharge), for a stay that ends alive."""
    return sigmoid(
        PROBABILITIES["intercepts"]["readmission"]
        + facts["discharge"] @ _vector("discharge", "readmission")
        + _vector("reasons", "readmission")[facts["reason"]]
        + facts["conditions"] @ _vector("conditions", "readmission")
        + _numbers(facts, "readmission")
    )


def coding_probability(conditions: Bools, principal: Bools) -> Array:
    """P(coded for the stay) of each Charlson condition, given the chart; a principal diagnosis is always coded."""
    return np.where(principal, 1.0, np.where(conditions, CODED, MISCODED))


def cci(conditions: Bools, principal: Bools) -> Array:
    """P(score bin | chart) for 0, 1-2, 3-4, 5-7, more than 7: an exact convolution over which conditions get coded."""
    p = coding_probability(conditions, principal)
    names = [condition.name for condition in CHARLSON]
    top = 9  # scores of 8 and more share the last cell
    scores: npt.NDArray[np.float64] = np.zeros((len(p), top))
    scores[:, 0] = 1.0
    for group in CCI_GROUPS:
        left = np.ones(len(p))
        moved = np.zeros_like(scores)
        for name in group:
            k = names.index(name)
            weight, share = CHARLSON[k].weight, left * p[:, k]
            for score in range(top):
                moved[:, min(score + weight, top - 1)] += scores[:, score] * share
            left = left * (1 - p[:, k])
        scores = moved + scores * left[:, None]
    bins = ((0, 1), (1, 3), (3, 5), (5, 8), (8, 9))
    return np.column_stack([scores[:, low:high].sum(1) for low, high in bins])
