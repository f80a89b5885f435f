"""The chart at admission: conditions, reason, findings, vital signs, laboratory values, payer, service."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from lang1.simulate.population import (
    MINUTES,
    Array,
    Bools,
    Facts,
    Hospital,
    Ints,
    Patients,
    present_conditions,
    sigmoid,
)
from lang1.simulate.tables import ADMISSION, CHARLSON, CHARLSON_INDEX, COVID_WEIGHT, PLAIN, REASONS, Finding

SERVICES = (
    "medicine", "cardiology", "surgery", "orthopedics", "neurology", "obstetrics", "pediatrics", "newborn",
    "psychiatry", "rehabilitation", "dialysis", "palliative care",
)  # fmt: skip
FINDING = {finding.name: k for k, finding in enumerate(ADMISSION)}
"""column of each finding at admission"""


def _columns(*names: str) -> Ints:
    return np.array([FINDING[name] for name in names])


_SEVERE = _columns("shock", "ventilator", "pressors", "coma", "arrest", "organs", "mottled", "hemorrhage", "icu")
_MILD_COURSE = _columns("tomorrow", "observe")
_ADULT_ONLY = _columns(
    "comfort", "dnr", "cachexia", "bedbound", "placement", "delirium", "ulcer", "guardian", "custodial"
)
_EXCLUSIVE = _columns("tomorrow", "three_day", "drug_course", "long_iv")
TRENDS = (("lactate_trend", 0.18, 0.8), ("creatinine_trend", 0.24, 0.5), ("hemoglobin_trend", 0.22, -0.4))
"""name, share of stays with two values, log-odds of a rise for a unit of acuity"""


def reasons_where(**wanted: object) -> list[int]:
    """Numbers of the reasons whose fields are as wanted; a tuple wants one of its items."""
    return [
        r
        for r, reason in enumerate(REASONS)
        if all(getattr(reason, k) in v if isinstance(v, tuple) else getattr(reason, k) == v for k, v in wanted.items())
    ]


def draw_findings(table: tuple[Finding, ...], latents: Facts, rng: np.random.Generator) -> Bools:
    """Which findings are there: a normal copula, so that each has its `rate` when the latents are standard normal."""
    loads = np.array([[getattr(f, name) for f in table] for name in latents])
    rest = np.sqrt(np.maximum(1 - (loads**2).sum(0), 0.05))
    values = np.column_stack(list(latents.values())) @ loads
    values += rng.standard_normal(values.shape) * rest
    return values > np.array([NormalDist().inv_cdf(1 - f.rate) for f in table])


def _draw_reasons(
    age: Array,
    female: Bools,
    year: Ints,
    has: Bools,
    again: Bools,
    first_day: Bools,
    hospital: Hospital,
    rng: np.random.Generator,
) -> Ints:
    tilt = dict(hospital.reason_tilt)
    weights = np.zeros((len(age), len(REASONS)))
    for r, reason in enumerate(REASONS):
        able = (age >= reason.ages[0]) & (age < reason.ages[1] + 1)
        if reason.sex:
            able &= female == (reason.sex == "female")
        weight = np.full(len(age), reason.weight * tilt.get(reason.name, 1.0))
        if reason.name == "covid":
            weight = np.array([COVID_WEIGHT.get(int(y), 0.0) for y in year])
        if reason.name == "newborn":
            able &= first_day
            weight = np.where(first_day, 1e6, 0.0)
        if reason.kind == "elective" or reason.service == "obstetrics":
            able &= ~again
        if reason.code_of in ("chf", "copd"):
            weight = weight * np.where(has[:, CHARLSON_INDEX[reason.code_of]], 4.0, 0.5)
        weights[:, r] = weight * able
    total = np.cumsum(weights, axis=1)
    return (rng.random(len(age))[:, None] * total[:, -1:] >= total).sum(1)


def _draw_labs(acuity: Array, frailty: Array, facts: Facts, rng: np.random.Generator) -> None:
    n = len(acuity)

    def noise() -> Array:
        return rng.standard_normal(n)

    child = facts["age"] < 12
    renal = facts["conditions"][:, CHARLSON_INDEX["renal"]]
    low = facts["findings"][:, FINDING["shock"]]
    facts["sbp"] = np.round((np.where(child, 104, 128) - 9 * acuity + 11 * noise() - 14 * low) / 2) * 2
    facts["hr"] = np.round((np.where(child, 110, 82) + 8 * acuity + 9 * noise()) / 2) * 2
    facts["rr"] = np.round((np.where(child, 24, 17) + 2.2 * acuity + 2 * noise()) / 2) * 2
    facts["spo2"] = np.clip(np.round(97 - 1.6 * acuity + 1.4 * noise()), 78, 100)
    facts["temp"] = np.round(98.4 + 0.35 * acuity + 0.8 * noise(), 1)
    facts["lactate"] = np.round(np.exp(0.42 + 0.36 * acuity + 0.28 * noise()), 1)
    facts["albumin"] = np.round(np.clip(3.7 - 0.3 * frailty - 0.15 * acuity + 0.35 * noise(), 1.5, 5.0), 1)
    facts["creatinine"] = np.round(np.where(renal, 3.1, 0.95) * np.exp(0.12 * acuity + 0.2 * noise()), 1)
    facts["hemoglobin"] = np.round(np.clip(12.6 - 0.6 * frailty - 0.3 * acuity + 1.3 * noise(), 5.5, 17), 1)
    facts["wbc"] = np.round(np.clip(9 + 2.2 * acuity + 3 * noise(), 1.5, 38), 1)
    facts["sodium"] = np.round(138 - 0.8 * acuity + 3 * noise())
    for name, share, tie in TRENDS:
        measured = rng.random(n) < share
        rising = rng.random(n) < sigmoid(tie * acuity - 0.2)
        facts[name] = np.where(measured, np.where(rising, 1, -1), 0)


def admission_facts(
    patients: Patients,
    who: Ints,
    admit: Ints,
    prior_year: Ints,
    again: Bools,
    hospital: Hospital,
    ever: Bools,
    rng: np.random.Generator,
) -> Facts:
    """What the chart holds when the H&P is written."""
    n = len(who)
    age = (admit - patients.birth[who]) / (365.25 * MINUTES)
    year = (admit.astype("datetime64[m]").astype("datetime64[Y]").astype(np.int64) + 1970).astype(np.int64)
    base = patients.frailty[who]
    conditions = present_conditions(CHARLSON, patients.thresholds[who], age, base, hospital.condition_tilt) | ever
    plain = present_conditions(PLAIN, patients.plain_thresholds[who], age, base, 0.0)
    reason = _draw_reasons(
        age, patients.female[who], year, conditions, again, patients.newborn[who] & (age < 0.01), hospital, rng
    )
    principal = np.zeros_like(conditions)
    for r, item in enumerate(REASONS):
        if item.code_of:
            principal[reason == r, CHARLSON_INDEX[item.code_of]] = True
    conditions |= principal
    frailty = 0.75 * base + np.clip((age - 52) / 24, -1.6, 1.6) * 0.66
    shift = np.array([item.acuity for item in REASONS])[reason]
    acuity = (rng.standard_normal(n) + shift + 0.15 * frailty) / 1.12
    latents = {
        "acuity": acuity,
        "frailty": frailty,
        "social": patients.social[who],
        "admin": patients.admin[who] * 0.6 + 0.8 * rng.standard_normal(n),
    }
    findings = draw_findings(ADMISSION, latents, rng)
    obstetric = np.isin(reason, reasons_where(service="obstetrics"))
    findings[np.ix_((age < 18) | obstetric, _ADULT_ONLY)] = False
    findings[np.ix_(findings[:, _SEVERE].any(1), _MILD_COURSE)] = False
    taken = np.zeros(n, dtype=bool)
    for f in _EXCLUSIVE:
        findings[:, f] &= ~taken
        taken |= findings[:, f]
    facts: Facts = {
        "age": age,
        "year": year,
        "reason": reason,
        "conditions": conditions,
        "plain": plain,
        "principal": principal,
        "findings": findings,
        "prior_year": prior_year,
        "payer": _draw_payers(patients, who, age),
        "_acuity": acuity,
        "_frailty": frailty,
        "_social": latents["social"],
        "again": again,
    }
    _draw_labs(acuity, frailty, facts, rng)
    facts["service"] = _draw_services(facts, rng)
    return facts


def _draw_payers(patients: Patients, who: Ints, age: Array) -> Ints:
    old = np.cumsum((0.48, 0.32, 0.05, 0.05, 0.06, 0.04))
    young = np.cumsum((0.03, 0.01, 0.12, 0.24, 0.32, 0.22))
    draw = np.clip(patients.payer_draw[who] - 0.05 * patients.social[who] * (age < 65), 0, 0.999)
    return np.where(age >= 65, np.searchsorted(old, draw), np.searchsorted(young, draw)).astype(np.int64)


def _draw_services(facts: Facts, rng: np.random.Generator) -> Ints:
    service = np.array([SERVICES.index(item.service) for item in REASONS])[facts["reason"]]
    draw = rng.random(len(service))
    adult = facts["age"] >= 18
    joints = np.isin(facts["reason"], reasons_where(name=("stroke", "hip_fracture", "knee", "hip")))
    service = np.where(adult & joints & (draw < 0.2), SERVICES.index("rehabilitation"), service)
    renal = facts["conditions"][:, CHARLSON_INDEX["renal"]]
    service = np.where(adult & renal & (draw > 0.88), SERVICES.index("dialysis"), service)
    comfort = facts["findings"][:, FINDING["comfort"]]
    return np.where(adult & comfort & (draw < 0.25), SERVICES.index("palliative care"), service)
