"""The true probabilities: functions of chart facts alone. The outcomes are drawn from what these return."""

from __future__ import annotations

from functools import cache

import numpy as np

from lang1.simulate.conditions import CHARLSON, CODED, MISCODED
from lang1.simulate.findings import ADMISSION
from lang1.simulate.findings_discharge import DISCHARGE
from lang1.simulate.population import Array, Bools, Ints, sigmoid
from lang1.simulate.reasons import REASONS

INTERCEPTS = {"mortality": -6.519, "denial": -3.507, "readmission": -3.866}
LOS_INTERCEPT = (1.005, -0.177, -0.598, -0.230)
LOS_SCALE = 0.8
SCALE = {"mortality": 0.8, "denial": 1.25, "readmission": 0.72}
DEATH_LOS = (0.34, 0.08, 0.13, 0.45)
"""length of stay of those who die: early or late (Appendix F)"""

PAYERS = ("Medicare", "Medicare Advantage", "Medicaid", "Medicaid managed", "commercial PPO", "commercial HMO", "self pay")
PAYER_DENIAL = (-0.7, 0.3, -0.3, 0.4, -0.1, 0.5, 0.4)

CCI_GROUPS: tuple[tuple[str, ...], ...] = (
    ("mi",), ("chf",), ("pvd",), ("cvd",), ("dementia",), ("copd",), ("rheum",), ("ulcer",), ("liver_severe", "liver"),
    ("diabetes_organ", "diabetes"), ("plegia",), ("renal",), ("metastatic", "cancer"), ("aids",),
)
"""the severe form stands first and hides the mild one"""


@cache
def coefficients(outcome: str) -> dict[str, Array]:
    """Vectors of an outcome: findings, discharge findings, reasons, Charlson conditions."""
    return {
        "findings": SCALE[outcome] * np.array([getattr(f, outcome) for f in ADMISSION]),
        "discharge": SCALE[outcome] * np.array([getattr(f, outcome) for f in DISCHARGE]),
        "reasons": SCALE[outcome] * np.array([getattr(r, outcome) for r in REASONS]),
        "conditions": SCALE[outcome] * np.array([getattr(c, outcome, 0.0) for c in CHARLSON]),
    }


@cache
def los_coefficients() -> dict[str, Array]:
    """Matrices with four columns: 0-2, 3, 4-5 and more than 5 days."""
    return {"findings": np.array([f.los for f in ADMISSION]), "reasons": np.array([r.los for r in REASONS])}


def mortality(facts: dict[str, Array | Bools | Ints]) -> Array:
    """P(death in the stay | chart at admission)."""
    c = coefficients("mortality")
    age = facts["age"]
    eta = (
        INTERCEPTS["mortality"] + facts["findings"] @ c["findings"] + c["reasons"][facts["reason"]]
        + facts["conditions"] @ c["conditions"] + 0.25 * np.clip((age - 50) / 10, -2, 4)
        + 0.4 * (facts["sbp"] < 96) + 0.4 * (facts["spo2"] < 90) + 0.3 * (facts["rr"] >= 26)
        + 0.5 * (facts["lactate"] >= 4.0) + 0.3 * (facts["albumin"] < 2.6)
        + 1.6 * (facts["lactate_trend"] > 0) - 1.0 * (facts["lactate_trend"] < 0)
        + 0.7 * (facts["creatinine_trend"] > 0) - 0.4 * (facts["creatinine_trend"] < 0)
    )
    return sigmoid(eta)


def los(facts: dict[str, Array | Bools | Ints], p_death: Array) -> tuple[Array, Array]:
    """P(bin | survival, chart) and P(bin | chart): the second is the mixture over death."""
    c = los_coefficients()
    eta = (
        np.array(LOS_INTERCEPT) + LOS_SCALE * (facts["findings"] @ c["findings"] + c["reasons"][facts["reason"]])
        + np.outer(facts["creatinine_trend"] > 0, (-0.5, -0.2, 0.3, 0.3))
        + np.outer(facts["creatinine_trend"] < 0, (0.3, 0.1, -0.1, -0.2))
        + np.outer(facts["hemoglobin_trend"] < 0, (-0.7, -0.2, 0.4, 0.4))
        + np.outer(facts["hemoglobin_trend"] > 0, (0.4, 0.1, -0.2, -0.3))
        + np.outer(np.clip((facts["age"] - 50) / 10, -3, 4), (-0.07, -0.03, 0.02, 0.07))
    )
    eta -= eta.max(axis=1, keepdims=True)
    alive = np.exp(eta)
    alive /= alive.sum(axis=1, keepdims=True)
    return alive, p_death[:, None] * np.array(DEATH_LOS) + (1 - p_death[:, None]) * alive


def denial(facts: dict[str, Array | Bools | Ints]) -> Array:
    """P(the payer denies the claim at first | chart at admission)."""
    c = coefficients("denial")
    eta = (
        INTERCEPTS["denial"] + facts["findings"] @ c["findings"] + c["reasons"][facts["reason"]]
        + np.array(PAYER_DENIAL)[facts["payer"]] - 0.3 * (facts["sbp"] < 96) - 0.3 * (facts["spo2"] < 90)
        + 0.045 * (facts["year"] - 2021)
    )
    return sigmoid(eta)


def readmission(facts: dict[str, Array | Bools | Ints]) -> Array:
    """P(a new stay within 30 days | chart at discharge), for a stay that ends alive."""
    c = coefficients("readmission")
    eta = (
        INTERCEPTS["readmission"] + facts["discharge"] @ c["discharge"]
        + c["reasons"][facts["reason"]] + facts["conditions"] @ c["conditions"] + 0.4 * (facts["los_days"] > 5)
        + 0.4 * (facts["final_hemoglobin"] < 9.0) + 0.9 * (facts["final_trend"] > 0) - 0.5 * (facts["final_trend"] < 0)
        + 0.25 * np.minimum(facts["prior_year"], 2)
    )
    return sigmoid(eta)


def coding_probability(conditions: Bools, principal: Bools) -> Array:
    """P(coded for the stay) of each Charlson condition, given the chart; a principal diagnosis is always coded."""
    return np.where(principal, 1.0, np.where(conditions, CODED, MISCODED))


def cci(conditions: Bools, principal: Bools) -> Array:
    """P(score bin | chart) for 0, 1-2, 3-4, 5-7, more than 7: an exact convolution over which conditions get coded."""
    p = coding_probability(conditions, principal)
    names = [condition.name for condition in CHARLSON]
    top = 9  # scores of 8 and more share the last cell
    scores = np.zeros((len(p), top))
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
    return np.column_stack([scores[:, 0], scores[:, 1:3].sum(1), scores[:, 3:5].sum(1), scores[:, 5:8].sum(1),
                            scores[:, 8]])
