"""Patients: who they are, their latent frailty, social and payer troubles, and thresholds of chronic illness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lang1.simulate.tables import CHARLSON, PLAIN, Condition

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Facts = dict[str, npt.NDArray[Any]]
"""columns by name: age, reason, findings (a column a finding), conditions, ..."""

MINUTES = 1440
"""minutes a day: all times are minutes since 1970-01-01"""
SPARED = -4.5
"""log-odds by which other conditions are rarer in those prone to metastatic cancer"""
START = int(np.datetime64("2011-01-01", "D").astype(np.int64)) * MINUTES
END = int(np.datetime64("2025-01-01", "D").astype(np.int64)) * MINUTES
"""the record ends here: later stays do not exist, stays that still last are open"""

RACES = ("White", "Black", "Asian", "Other", None)
RACE_SHARE = (0.50, 0.18, 0.11, 0.16, 0.05)
ETHNICITIES = ("Hispanic", "Not Hispanic", None)
BOROUGHS = ("Brooklyn", "Queens", "Manhattan", "Bronx", "Staten Island", "Nassau")
BOROUGH_SHARE = (0.28, 0.25, 0.22, 0.10, 0.07, 0.08)
BOROUGH_SOCIAL = (0.10, 0.05, -0.15, 0.25, -0.05, -0.25)


@dataclass(frozen=True)
class Hospital:
    """What differs between the embedded hospitals."""

    name: str
    first_growth: float
    """growth a year of first stays"""
    ages: tuple[float, ...]
    """share of newborns, 0-17, 18-39, 40-64, 65-79, 80-97"""
    stays_per_patient: float
    """mean inpatient stays a patient: turns encounters into patients"""
    reason_tilt: tuple[tuple[str, float], ...]
    """factors on the weights of reasons"""
    condition_tilt: float
    """added to the log-odds of every chronic condition"""


MAIN = Hospital("main", 1.08, (0.012, 0.075, 0.33, 0.30, 0.195, 0.088), 1.845, (), 0.0)
EXTERNAL = Hospital(
    "external",
    1.085,
    (0.008, 0.03, 0.12, 0.30, 0.33, 0.212),
    1.96,
    (
        ("delivery", 0.4),
        ("cesarean", 0.4),
        ("sepsis", 1.6),
        ("stroke", 1.5),
        ("infarct", 1.6),
        ("heart_failure", 1.5),
        ("knee", 0.5),
        ("hip", 0.6),
        ("withdrawal", 1.6),
        ("asthma", 0.5),
    ),
    0.1,
)
HOSPITALS = {"main": MAIN, "external": EXTERNAL}


@dataclass
class Patients:
    """A chunk of patients, one array a fact."""

    birth: Ints
    """minutes since 1970"""
    female: Bools
    race: Ints
    ethnicity: Ints
    borough: Ints
    frailty: Array
    """standard normal, before age"""
    social: Array
    admin: Array
    thresholds: Array
    """uniform, a column a Charlson condition"""
    plain_thresholds: Array
    payer_draw: Array
    first: Ints
    """start of the first stay"""
    newborn: Bools

    def __len__(self) -> int:
        return len(self.birth)


def admit_minutes(days: Ints, rng: np.random.Generator) -> Ints:
    """A time of day for each day: the same distribution for every kind of stay, so that the hour says nothing."""
    minutes = (rng.triangular(0.0, 14.5, 24.0, len(days)) * 60).astype(np.int64)
    return days * MINUTES + np.minimum(minutes, MINUTES - 1)


def draw_patients(count: int, hospital: Hospital, rng: np.random.Generator) -> Patients:
    """`count` new patients with the time of their first stay."""
    years = np.arange(14)
    share = hospital.first_growth**years
    year = rng.choice(14, count, p=share / share.sum())
    first_day = np.datetime64("2011-01-01", "D").astype(np.int64) + (year * 365.25 + rng.random(count) * 365.25).astype(
        np.int64
    )
    first_day = np.minimum(first_day, END // MINUTES - 1)
    band = rng.choice(6, count, p=np.array(hospital.ages) / sum(hospital.ages))
    low, high = np.array([0, 0.05, 18, 40, 65, 80])[band], np.array([0, 18, 40, 65, 80, 98])[band]
    age = low + (high - low) * rng.random(count)
    age = np.where(band >= 3, age - 0.5 * (year - 8), age)  # patients who come back grow old; new ones keep the mix
    female = rng.random(count) < np.where(band == 2, 0.66, 0.52)
    race = rng.choice(5, count, p=RACE_SHARE)
    ethnicity = np.where(rng.random(count) < 0.04, 2, np.where(rng.random(count) < 0.18, 0, 1))
    borough = rng.choice(6, count, p=BOROUGH_SHARE)
    social = rng.standard_normal(count) + np.array(BOROUGH_SOCIAL)[borough] + 0.1 * ((race == 1) | (ethnicity == 0))
    newborn = band == 0
    first = admit_minutes(first_day, rng)
    birth_day = first_day - (age * 365.25).astype(np.int64)
    birth = np.where(newborn, first, birth_day * MINUTES)
    return Patients(
        birth=birth,
        female=female,
        race=race,
        ethnicity=ethnicity,
        borough=borough,
        frailty=rng.standard_normal(count),
        social=social,
        admin=rng.standard_normal(count),
        thresholds=rng.random((count, len(CHARLSON))),
        plain_thresholds=rng.random((count, len(PLAIN))),
        payer_draw=rng.random(count),
        first=first,
        newborn=newborn,
    )


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return 1.0 / (1.0 + np.exp(-x))


def logit(p: float) -> float:
    """Log-odds."""
    return float(np.log(p / (1 - p)))


def _curve(condition: Condition, age: Array, frailty: Array, tilt: float | Array) -> Array:
    adult = np.where(age < 18, -3.0, 0.0) + np.minimum(age - 70.0, 15.0) / 10 * condition.slope
    return sigmoid(logit(condition.prevalence) + tilt + condition.frailty * frailty + adult)


def present_conditions(
    table: tuple[Condition, ...], thresholds: Array, age: Array, frailty: Array, tilt: float
) -> Bools:
    """Which conditions of `table` a patient of this age has: a condition stays once its curve passes the threshold."""
    present = np.zeros(thresholds.shape, dtype=bool)
    names = [condition.name for condition in table]
    spared = np.zeros(len(age))
    if "metastatic" in names:  # whoever will have metastases has less else: scores above 7 are one in a thousand
        cancer, spread = (thresholds[:, names.index(name)] for name in ("cancer", "metastatic"))
        spared = np.where((cancer < 0.1) & (spread < 0.7), SPARED, 0.0)
    for k, condition in enumerate(table):
        shift = tilt if condition.name in ("cancer", "metastatic") else tilt + spared
        present[:, k] = thresholds[:, k] < _curve(condition, age, frailty, shift)
        if condition.needs:
            present[:, k] &= present[:, names.index(condition.needs)]
    return present
