"""A patient's stays: facts at admission, outcomes drawn from the true probabilities, facts at discharge, what follows.

Stays are simulated in waves (every patient's first, every patient's second, ...), each wave in whole arrays. Facts and
outcomes come from separate random streams, so that a changed outcome cannot move what was known before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lang1.simulate import truth
from lang1.simulate.admission import FINDING, admission_facts, draw_findings, reasons_where
from lang1.simulate.population import (
    END,
    MINUTES,
    Array,
    Bools,
    Facts,
    Hospital,
    Ints,
    Patients,
    admit_minutes,
    sigmoid,
)
from lang1.simulate.tables import CHARLSON, DISCHARGE, PROBABILITIES

DISPOSITIONS = (
    "Home", "Home health", "Skilled nursing facility", "Rehabilitation facility", "Hospice", "Against medical advice",
    "Expired", "Transfer",
)  # fmt: skip
CLAIM_STATUS = ("no denial", "final, adverse determination", "final, favorable determination", "pending")
ADVERSE_SHARE, PENDING_SHARE = 0.6, 0.05
UNCODED_SHARE, UNCLAIMED_SHARE = 0.015, 0.02
MAX_WAVES = 40
GAP_DAYS = 32
"""days without an inpatient stay after a discharge for which no readmission was drawn"""
YEARS_BETWEEN = 9.0
"""mean years until the next unrelated stay of a patient of average frailty without chronic illness"""
SHORTEST = 420
"""minutes that any stay lasts: an H&P is signed within 330"""

LEAVING = {finding.name: k for k, finding in enumerate(DISCHARGE)}
"""column of each finding at discharge"""
_ADULT_LEAVING = np.array([
    LEAVING[name]
    for name in ("against_advice", "homeless", "nonadherent", "substance")
])  # fmt: skip


@dataclass
class Stays:
    """Inpatient stays of a chunk, one array a fact; `facts` holds what the probabilities read."""

    patient: Ints
    number: Ints
    admit: Ints
    discharge: Ints
    facts: Facts
    outcomes: Facts
    truths: Facts

    def __len__(self) -> int:
        return len(self.patient)


def discharge_facts(facts: Facts, los_days: Ints, rng: np.random.Generator) -> None:
    """Add to `facts` what the chart holds when the discharge summary is written."""
    n = len(los_days)
    latents = {"acuity": facts["_acuity"], "frailty": facts["_frailty"], "social": facts["_social"]}
    found = draw_findings(DISCHARGE, latents, rng)
    found[np.ix_(facts["age"] < 18, _ADULT_LEAVING)] = False
    found[:, LEAVING["outside_stays"]] |= facts["prior_year"] >= 2
    facts["discharge"] = found
    facts["los_days"] = los_days
    facts["final_hemoglobin"] = np.round(np.clip(facts["hemoglobin"] - 0.3 + 0.6 * rng.standard_normal(n), 5.5, 17), 1)
    measured = rng.random(n) < 0.35
    rising = rng.random(n) < sigmoid(0.5 * facts["_acuity"] - 0.4)
    facts["final_trend"] = np.where(measured, np.where(rising, 1, -1), 0)


def _draw_outcomes(facts: Facts, rng: np.random.Generator) -> tuple[Facts, Facts]:
    """Death, days, coded conditions and claim of each stay, and their true probabilities."""
    p_death = truth.mortality(facts)
    alive_los, p_los = truth.los(facts, p_death)
    p_denial = truth.denial(facts)
    n = len(p_death)
    died = rng.random(n) < p_death
    shares = np.where(died[:, None], np.array(PROBABILITIES["death_los"]), alive_los)
    bins = (rng.random(n)[:, None] >= np.cumsum(shares, axis=1)).sum(1).clip(0, 3)
    p_coded = truth.coding_probability(facts["conditions"], facts["principal"])
    coded = rng.random(p_coded.shape) < p_coded
    denied = rng.random(n) < p_denial
    status = np.where(denied, np.where(rng.random(n) < ADVERSE_SHARE, 1, 2), 0)
    status = np.where(rng.random(n) < PENDING_SHARE, 3, status)
    outcomes: Facts = {
        "died": died,
        "los_days": _draw_days(bins, rng),
        "coded": coded,
        "denied": denied,
        "claim_status": status,
        "uncoded": rng.random(n) < UNCODED_SHARE,
        "unclaimed": rng.random(n) < UNCLAIMED_SHARE,
    }
    truths: Facts = {
        "mortality": p_death,
        "los": p_los,
        "denial": p_denial,
        "cci": truth.cci(facts["conditions"], facts["principal"]),
    }
    return outcomes, truths


def _draw_days(bins: Ints, rng: np.random.Generator) -> Ints:
    """Calendar days within the drawn bin."""
    draw = rng.random(len(bins))
    short = np.searchsorted((0.06, 0.45, 1.0), draw)
    middle = 4 + (draw > 0.56)
    long = 6 + np.minimum((np.log1p(-draw) / np.log(0.82)).astype(np.int64), 90)
    return np.select([bins == 0, bins == 1, bins == 2], [short, np.full(len(bins), 3), middle], long).astype(np.int64)


def _leave_times(admit: Ints, los_days: Ints, died: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Discharge times and the calendar days that came out: a same-day stay that begins late ends the next day."""
    clock = admit % MINUTES
    los_days = np.where((los_days == 0) & (clock > 15 * 60), 1, los_days)
    day = admit - clock + los_days * MINUTES
    hour = np.where(died, rng.random(len(admit)) * 24, rng.triangular(10.0, 14.0, 20.0, len(admit)))
    leave = day + (hour * 60).astype(np.int64)
    least, latest = admit + SHORTEST, day + MINUTES - 1
    later = least + (rng.random(len(admit)) * (latest - least).clip(0)).astype(np.int64)
    return np.where(leave < least, np.minimum(later, latest), leave), los_days


def _next_stay(discharge: Ints, readmitted: Bools, facts: Facts, rng: np.random.Generator) -> Ints:
    """Start of the next stay: after 3 to 28 days where a readmission was drawn, else after a month or more."""
    n = len(discharge)
    days = discharge // MINUTES
    soon = days + 3 + np.minimum((rng.beta(1.0, 1.6, n) * 26).astype(np.int64), 25)
    burden = np.minimum(facts["conditions"].sum(1), 4)
    mean = 365.25 * YEARS_BETWEEN * np.exp(-0.3 * facts["_frailty"] - 0.25 * burden)
    later = days + GAP_DAYS + (rng.exponential(1.0, n) * mean).astype(np.int64)
    return admit_minutes(np.where(readmitted, soon, later), rng)


def _dispositions(facts: Facts, died: Bools, rng: np.random.Generator) -> Ints:
    found, draw = facts["discharge"], rng.random(len(died))
    place = np.where(draw < 0.14, 1, 0)
    hip = np.isin(facts["reason"], reasons_where(name=("stroke", "hip_fracture")))
    place = np.where(hip & (draw > 0.6), 3, place)
    place = np.where(facts["findings"][:, FINDING["comfort"]] & (draw > 0.5), 4, place)
    old = (facts["_frailty"] > 0.9) & (rng.random(len(died)) < 0.5)
    place = np.where(old & (facts["age"] >= 65), 2, place)
    place = np.where(found[:, LEAVING["against_advice"]], 5, place)
    return np.where(died, 6, place)


def _wave(patients: Patients, hospital: Hospital, who: Ints, number: int, admit: Ints, prior_year: Ints, again: Bools,
          ever: Bools, facts_rng: np.random.Generator, outcome_rng: np.random.Generator) -> Stays:  # fmt: skip
    """One stay of each patient in `who`."""
    facts = admission_facts(patients, who, admit, prior_year, again, hospital, ever, facts_rng)
    outcomes, truths = _draw_outcomes(facts, outcome_rng)
    discharge, outcomes["los_days"] = _leave_times(admit, outcomes["los_days"], outcomes["died"], outcome_rng)
    discharge_facts(facts, outcomes["los_days"], facts_rng)
    truths["readmission"] = truth.readmission(facts)
    outcomes["readmitted"] = ~outcomes["died"] & (outcome_rng.random(len(who)) < truths["readmission"])
    outcomes["disposition"] = _dispositions(facts, outcomes["died"], outcome_rng)
    return Stays(who, np.full(len(who), number), admit, discharge, facts, outcomes, truths)


def simulate_stays(
    patients: Patients, hospital: Hospital, facts_rng: np.random.Generator, outcome_rng: np.random.Generator
) -> tuple[Stays, Ints]:
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
        stays = _wave(patients, hospital, who, number, admit, prior_year, again, ever[who], facts_rng, outcome_rng)
        waves.append(stays)
        ever[who] |= stays.facts["principal"]
        last = np.zeros(len(patients), dtype=np.int64)
        last[who] = stays.discharge
        history.append(last)
        died, readmitted = stays.outcomes["died"], stays.outcomes["readmitted"]
        death[who[died]] = stays.discharge[died]
        following = _next_stay(stays.discharge, readmitted, stays.facts, outcome_rng)
        later = _later_deaths(stays, following, outcome_rng)
        death[who[later > 0]] = later[later > 0]
        goes_on = ~died & (later == 0)
        who, admit, again = who[goes_on], following[goes_on], readmitted[goes_on]
    return _join(waves), death


def _later_deaths(stays: Stays, following: Ints, rng: np.random.Generator) -> Ints:
    """Time of death outside the hospital, 0 where there is none: never where a readmission was drawn."""
    n = len(stays)
    draw = rng.random(n) < 0.02 * np.exp(0.9 * stays.facts["_frailty"])
    at = stays.discharge + (MINUTES * (2 + rng.exponential(120.0, n))).astype(np.int64)
    able = ~stays.outcomes["died"] & ~stays.outcomes["readmitted"] & (at < np.minimum(following, END))
    return np.where(draw & able, at, 0)


def _join(waves: list[Stays]) -> Stays:
    def together(parts: list[Facts]) -> Facts:
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    arrays: list[Array] = [
        np.concatenate([getattr(wave, name) for wave in waves]) for name in ("patient", "number", "admit", "discharge")
    ]
    patient, number, admit, discharge = (array.astype(np.int64) for array in arrays)
    return Stays(patient, number, admit, discharge, together([w.facts for w in waves]),
                 together([w.outcomes for w in waves]), together([w.truths for w in waves]))  # fmt: skip
