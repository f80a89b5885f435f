"""A patient's stays: facts at admission, outcomes drawn from the true probabilities, facts at discharge, what follows.

Stays are simulated in waves (every patient's first, every patient's second, ...), each wave in whole arrays. Facts and
outcomes come from separate random streams, so that a changed outcome cannot move what was known before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lang1.simulate import truth
from lang1.simulate.conditions import CHARLSON, CHARLSON_INDEX, PLAIN
from lang1.simulate.findings import ADMISSION, Finding
from lang1.simulate.findings_discharge import DISCHARGE
from lang1.simulate.population import (
    END,
    MINUTES,
    Array,
    Bools,
    Hospital,
    Ints,
    Patients,
    admit_minutes,
    present_conditions,
    sigmoid,
)
from lang1.simulate.reasons import COVID_WEIGHT, REASONS

SERVICES = ("medicine", "cardiology", "surgery", "orthopedics", "neurology", "obstetrics", "pediatrics", "newborn",
            "psychiatry", "rehabilitation", "dialysis", "palliative care")
DISPOSITIONS = ("Home", "Home health", "Skilled nursing facility", "Rehabilitation facility", "Hospice",
                "Against medical advice", "Expired", "Transfer")
CLAIM_STATUS = ("no denial", "final, adverse determination", "final, favorable determination", "pending")
MAX_WAVES = 40
GAP_DAYS = 32
"""days without an inpatient stay after a discharge for which no readmission was drawn"""

_NAMES = [finding.name for finding in ADMISSION]
_DISCHARGE_NAMES = [finding.name for finding in DISCHARGE]
_SEVERE = [_NAMES.index(name) for name in ("shock", "ventilator", "pressors", "obtunded", "arrest", "organs", "mottled",
                                           "refractory", "hemorrhage")]
_MILD_COURSE = [_NAMES.index(name) for name in ("tomorrow", "eating", "observe")]
_ADULT_ONLY = [_NAMES.index(name) for name in ("comfort", "dnr", "cachexia", "bedbound", "placement", "delirium", "ulcer",
                                               "guardian", "assist", "custodial", "conservative", "arrest")]
_EXCLUSIVE = [_NAMES.index(name) for name in ("tomorrow", "three_day", "five_day", "long_iv")]


@dataclass
class Stays:
    """Inpatient stays of a chunk, one array a fact; `facts` holds what the probabilities read."""

    patient: Ints
    number: Ints
    admit: Ints
    discharge: Ints
    facts: dict[str, Array]
    outcomes: dict[str, Array]
    truths: dict[str, Array]

    def __len__(self) -> int:
        return len(self.patient)


def draw_findings(table: tuple[Finding, ...], latents: dict[str, Array], rng: np.random.Generator) -> Bools:
    """Which findings are there: a normal copula on the latents, so that each has its `rate` when latents are standard."""
    from statistics import NormalDist

    loads = np.array([[getattr(f, name) for f in table] for name in latents])
    rest = np.sqrt(np.maximum(1 - (loads**2).sum(0), 0.05))
    values = np.column_stack(list(latents.values())) @ loads
    values += rng.standard_normal(values.shape) * rest
    return values > np.array([NormalDist().inv_cdf(1 - f.rate) for f in table])


def _draw_reasons(age: Array, female: Bools, year: Ints, has: Bools, again: Bools, first_day: Bools, hospital: Hospital,
                  rng: np.random.Generator) -> Ints:
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


def _draw_labs(acuity: Array, frailty: Array, facts: dict[str, Array], rng: np.random.Generator) -> None:
    n = len(acuity)

    def noise() -> Array:
        return rng.standard_normal(n)

    child = facts["age"] < 12
    renal = facts["conditions"][:, CHARLSON_INDEX["renal"]]
    low = facts["findings"][:, _NAMES.index("refractory")]
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
    for name, share, tie in (("lactate_trend", 0.18, 0.8), ("creatinine_trend", 0.24, 0.5), ("hemoglobin_trend", 0.22, -0.4)):
        measured = rng.random(n) < share
        rising = rng.random(n) < sigmoid(tie * acuity - 0.2)
        facts[name] = np.where(measured, np.where(rising, 1, -1), 0)


def admission_facts(patients: Patients, who: Ints, admit: Ints, prior_year: Ints, again: Bools, hospital: Hospital,
                    ever: Bools, rng: np.random.Generator) -> dict[str, Array]:
    """What the chart holds when the H&P is written."""
    n = len(who)
    age = (admit - patients.birth[who]) / (365.25 * MINUTES)
    year = (admit.astype("datetime64[m]").astype("datetime64[Y]").astype(np.int64) + 1970).astype(np.int64)
    base = patients.frailty[who]
    conditions = present_conditions(CHARLSON, patients.thresholds[who], age, base, hospital.condition_tilt) | ever
    plain = present_conditions(PLAIN, patients.plain_thresholds[who], age, base, 0.0)
    reason = _draw_reasons(age, patients.female[who], year, conditions, again, patients.newborn[who] & (age < 0.01),
                           hospital, rng)
    principal = np.zeros_like(conditions)
    for r, item in enumerate(REASONS):
        if item.code_of:
            principal[reason == r, CHARLSON_INDEX[item.code_of]] = True
    conditions |= principal
    frailty = 0.75 * base + np.clip((age - 52) / 24, -1.6, 1.6) * 0.66
    shift = np.array([item.acuity for item in REASONS])[reason]
    acuity = (rng.standard_normal(n) + shift + 0.15 * frailty) / 1.12
    latents = {"acuity": acuity, "frailty": frailty, "social": patients.social[who], "admin": patients.admin[who] * 0.6
               + 0.8 * rng.standard_normal(n)}
    findings = draw_findings(ADMISSION, latents, rng)
    obstetric = np.isin(reason, [r for r, item in enumerate(REASONS) if item.service == "obstetrics"])
    findings[np.ix_((age < 18) | obstetric, _ADULT_ONLY)] = False
    findings[np.ix_(findings[:, _SEVERE].any(1), _MILD_COURSE)] = False
    taken = np.zeros(n, dtype=bool)
    for f in _EXCLUSIVE:
        findings[:, f] &= ~taken
        taken |= findings[:, f]
    facts: dict[str, Array] = {
        "age": age, "year": year, "reason": reason, "conditions": conditions, "plain": plain, "principal": principal,
        "findings": findings, "prior_year": prior_year, "payer": _draw_payers(patients, who, age), "_acuity": acuity,
        "_frailty": frailty, "_social": latents["social"], "again": again,
    }
    _draw_labs(acuity, frailty, facts, rng)
    facts["service"] = _draw_services(facts, rng)
    return facts


def _draw_payers(patients: Patients, who: Ints, age: Array) -> Ints:
    old = np.cumsum((0.48, 0.32, 0.05, 0.05, 0.06, 0.04))
    young = np.cumsum((0.03, 0.01, 0.12, 0.24, 0.32, 0.22))
    draw = np.clip(patients.payer_draw[who] - 0.05 * patients.social[who] * (age < 65), 0, 0.999)
    return np.where(age >= 65, np.searchsorted(old, draw), np.searchsorted(young, draw)).astype(np.int64)


def _draw_services(facts: dict[str, Array], rng: np.random.Generator) -> Ints:
    service = np.array([SERVICES.index(item.service) for item in REASONS])[facts["reason"]]
    draw = rng.random(len(service))
    adult = facts["age"] >= 18
    joints = np.isin(facts["reason"], [r for r, item in enumerate(REASONS)
                                       if item.name in ("stroke", "hip_fracture", "knee", "hip")])
    service = np.where(adult & joints & (draw < 0.2), SERVICES.index("rehabilitation"), service)
    renal = facts["conditions"][:, CHARLSON_INDEX["renal"]]
    service = np.where(adult & renal & (draw > 0.88), SERVICES.index("dialysis"), service)
    comfort = facts["findings"][:, _NAMES.index("comfort")]
    return np.where(adult & comfort & (draw < 0.25), SERVICES.index("palliative care"), service)


def discharge_facts(facts: dict[str, Array], los_days: Ints, rng: np.random.Generator) -> None:
    """What the chart holds when the discharge summary is written, added to `facts`."""
    n = len(los_days)
    latents = {"acuity": facts["_acuity"], "frailty": facts["_frailty"], "social": facts["_social"]}
    found = draw_findings(DISCHARGE, latents, rng)
    found[np.ix_(facts["age"] < 18, [_DISCHARGE_NAMES.index(name) for name in (
        "against_advice", "homeless", "alone", "nonadherent", "substance", "facility", "depression", "teach_back")])] = False
    frequent = _DISCHARGE_NAMES.index("outside_stays")
    found[:, frequent] |= facts["prior_year"] >= 2
    alone, support = _DISCHARGE_NAMES.index("alone"), _DISCHARGE_NAMES.index("support")
    found[:, support] &= ~found[:, _DISCHARGE_NAMES.index("homeless")]
    found[:, alone] &= ~found[:, _DISCHARGE_NAMES.index("homeless")]
    facts["discharge"] = found
    facts["los_days"] = los_days
    facts["final_hemoglobin"] = np.round(np.clip(facts["hemoglobin"] - 0.3 + 0.6 * rng.standard_normal(n), 5.5, 17), 1)
    measured = rng.random(n) < 0.35
    rising = rng.random(n) < sigmoid(0.5 * facts["_acuity"] - 0.4)
    facts["final_trend"] = np.where(measured, np.where(rising, 1, -1), 0)


def _draw_los_days(bins: Ints, rng: np.random.Generator) -> Ints:
    draw = rng.random(len(bins))
    short = np.searchsorted((0.06, 0.45, 1.0), draw)
    middle = 4 + (draw > 0.56)
    long = 6 + np.minimum((np.log1p(-draw) / np.log(0.82)).astype(np.int64), 90)
    return np.select([bins == 0, bins == 1, bins == 2], [short, np.full(len(bins), 3), middle], long).astype(np.int64)


def _draw_outcomes(facts: dict[str, Array], rng: np.random.Generator) -> tuple[dict[str, Array], dict[str, Array]]:
    p_death = truth.mortality(facts)
    alive_los, p_los = truth.los(facts, p_death)
    p_denial = truth.denial(facts)
    n = len(p_death)
    died = rng.random(n) < p_death
    shares = np.where(died[:, None], np.array(truth.DEATH_LOS), alive_los)
    bins = (rng.random(n)[:, None] >= np.cumsum(shares, axis=1)).sum(1).clip(0, 3)
    coded = rng.random(facts["conditions"].shape) < truth.coding_probability(facts["conditions"], facts["principal"])
    denied = rng.random(n) < p_denial
    status = np.where(denied, np.where(rng.random(n) < 0.6, 1, 2), 0)
    status = np.where(rng.random(n) < 0.05, 3, status)
    truths = {"mortality": p_death, "los": p_los, "denial": p_denial, "cci": truth.cci(facts["conditions"], facts["principal"])}
    outcomes = {"died": died, "los_days": _draw_los_days(bins, rng), "coded": coded, "denied": denied,
                "claim_status": status, "uncoded": rng.random(n) < 0.015, "unclaimed": rng.random(n) < 0.02}
    return outcomes, truths


def _leave_times(admit: Ints, los_days: Ints, died: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Discharge times and the calendar days that came out: a same-day stay that begins late ends the next day."""
    clock = admit % MINUTES
    los_days = np.where((los_days == 0) & (clock > 15 * 60), 1, los_days)
    day = admit - clock + los_days * MINUTES
    hour = np.where(died, rng.random(len(admit)) * 24, rng.triangular(10.0, 14.0, 20.0, len(admit)))
    leave = day + (hour * 60).astype(np.int64)
    least = admit + 420
    latest = day + MINUTES - 1
    leave = np.where(leave < least, np.minimum(least + (rng.random(len(admit)) * (latest - least).clip(0)).astype(np.int64),
                                               latest), leave)
    return leave, los_days


def _next_stay(discharge: Ints, readmitted: Bools, facts: dict[str, Array], rng: np.random.Generator) -> Ints:
    """Start of each patient's next stay: within 3 to 28 days where a readmission was drawn, else after a month or more."""
    n = len(discharge)
    days = discharge // MINUTES
    soon = days + 3 + np.minimum((rng.beta(1.0, 1.6, n) * 26).astype(np.int64), 25)
    burden = facts["conditions"].sum(1)
    mean = 365.25 * 9.0 * np.exp(-0.3 * facts["_frailty"] - 0.25 * np.minimum(burden, 4))
    later = days + GAP_DAYS + (rng.exponential(1.0, n) * mean).astype(np.int64)
    return admit_minutes(np.where(readmitted, soon, later), rng)


def simulate_stays(patients: Patients, hospital: Hospital, facts_rng: np.random.Generator,
                   outcome_rng: np.random.Generator) -> tuple[Stays, Ints]:
    """All stays of a chunk, and each patient's death time (0: alive)."""
    waves: list[Stays] = []
    death = np.zeros(len(patients), dtype=np.int64)
    who, admit = np.arange(len(patients)), patients.first.copy()
    again = np.zeros(len(patients), dtype=bool)
    ever = np.zeros((len(patients), len(CHARLSON)), dtype=bool)
    history: list[Ints] = []
    for number in range(MAX_WAVES):
        kept = admit < END
        who, admit, again = who[kept], admit[kept], again[kept]
        if not len(who):
            break
        prior_year = np.zeros(len(who), dtype=np.int64)
        for past in history:
            prior_year += (past[who] > 0) & (admit - past[who] <= 365 * MINUTES)
        facts = admission_facts(patients, who, admit, prior_year, again, hospital, ever[who], facts_rng)
        ever[who] |= facts["principal"]
        outcomes, truths = _draw_outcomes(facts, outcome_rng)
        discharge, los_days = _leave_times(admit, outcomes["los_days"], outcomes["died"], outcome_rng)
        outcomes["los_days"] = los_days
        discharge_facts(facts, los_days, facts_rng)
        truths["readmission"] = truth.readmission(facts)
        alive = ~outcomes["died"]
        outcomes["readmitted"] = alive & (outcome_rng.random(len(who)) < truths["readmission"])
        outcomes["disposition"] = _dispositions(facts, outcomes, outcome_rng)
        waves.append(Stays(who, np.full(len(who), number), admit, discharge, facts, outcomes, truths))
        death[who[~alive]] = discharge[~alive]
        last = np.zeros(len(patients), dtype=np.int64)
        last[who] = discharge
        history.append(last)
        following = _next_stay(discharge, outcomes["readmitted"], facts, outcome_rng)
        later_death = alive & ~outcomes["readmitted"] & (outcome_rng.random(len(who)) < 0.02 * np.exp(0.9 * facts["_frailty"]))
        at = discharge + (MINUTES * (2 + outcome_rng.exponential(120.0, len(who)))).astype(np.int64)
        later_death &= at < np.minimum(following, END)
        death[who[later_death]] = at[later_death]
        goes_on = alive & ~later_death
        who, admit, again = who[goes_on], following[goes_on], outcomes["readmitted"][goes_on]
    return _join(waves), death


def _dispositions(facts: dict[str, Array], outcomes: dict[str, Array], rng: np.random.Generator) -> Ints:
    found = facts["discharge"]
    draw = rng.random(len(found))
    place = np.where(draw < 0.14, 1, 0)
    hip = np.isin(facts["reason"], [r for r, item in enumerate(REASONS) if item.name in ("stroke", "hip_fracture")])
    place = np.where(hip & (draw > 0.6), 3, place)
    place = np.where(facts["findings"][:, _NAMES.index("comfort")] & (draw > 0.5), 4, place)
    place = np.where(found[:, _DISCHARGE_NAMES.index("facility")], 2, place)
    place = np.where(found[:, _DISCHARGE_NAMES.index("against_advice")], 5, place)
    return np.where(outcomes["died"], 6, place)


def _join(waves: list[Stays]) -> Stays:
    def cat(parts: list[Array]) -> Array:
        return np.concatenate(parts)

    return Stays(
        cat([w.patient for w in waves]), cat([w.number for w in waves]), cat([w.admit for w in waves]),
        cat([w.discharge for w in waves]),
        {key: cat([w.facts[key] for w in waves]) for key in waves[0].facts},
        {key: cat([w.outcomes[key] for w in waves]) for key in waves[0].outcomes},
        {key: cat([w.truths[key] for w in waves]) for key in waves[0].truths},
    )

