"""The hospital's tables: findings, conditions, reasons, phrases, coefficients. Read once from `tables/*.json`.

Data, not code: what a number does to an outcome and which words say it can be read and changed in one place, and
docs/simulated-hospital-tables.md is written from the same files (a test compares them).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

Odds = tuple[float, float, float, float]
NONE: Odds = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Finding:
    """One chart fact: how often, tied to which latents, moving which outcomes, said how.

    Drawn from a normal copula on the latents. Where it is absent, it may still be named at `decoy_rate`, as denied,
    over, or a relative's (DENIALS), so that a word alone proves little.
    """

    name: str
    section: str
    frame: str
    """key of DENIALS and FRAMES"""
    rate: float
    said: tuple[str, ...]
    decoy_rate: float = 0.0
    acuity: float = 0.0
    frailty: float = 0.0
    social: float = 0.0
    admin: float = 0.0
    mortality: float = 0.0
    los: Odds = NONE
    denial: float = 0.0
    readmission: float = 0.0


@dataclass(frozen=True)
class Condition:
    """A chronic condition: Charlson weight, prevalence at age 70, log-odds a decade and a unit of frailty, words.

    It is present from the age at which its prevalence curve passes the patient's own threshold: it never goes away.
    """

    name: str
    weight: int
    prevalence: float
    slope: float
    icd9: tuple[str, ...]
    icd10: tuple[str, ...]
    said: tuple[str, ...]
    drugs: tuple[str, ...] = ()
    frailty: float = 0.5
    mortality: float = 0.0
    readmission: float = 0.0
    needs: str = ""
    """the milder condition that this one is a form of; `prevalence` is then among those who have it"""


@dataclass(frozen=True)
class Reason:
    """A reason for admission. `los` are log-odds of 0-2, 3, 4-5 and more than 5 days."""

    name: str
    service: str
    kind: str
    weight: float
    icd9: str
    icd10: str
    said: tuple[str, ...]
    los: Odds = NONE
    ages: tuple[int, int] = (18, 130)
    sex: str = ""
    mortality: float = 0.0
    denial: float = 0.0
    readmission: float = 0.0
    acuity: float = 0.0
    code_of: str = ""
    """the Charlson condition that the principal code belongs to: the reason makes it present"""
    imaging: str = "chest"


def _read(name: str) -> dict[str, Any]:
    text = resources.files("lang1.simulate").joinpath("tables", name).read_text(encoding="utf-8")
    value: dict[str, Any] = json.loads(text)
    return value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _rows(items: list[dict[str, Any]], kind: type[Any]) -> tuple[Any, ...]:
    return tuple(kind(**{key: _frozen(value) for key, value in item.items()}) for item in items)


_findings = _read("findings.json")
_conditions = _read("conditions.json")
_reasons = _read("reasons.json")

ACUTE: tuple[Finding, ...] = _rows(_findings["acute"], Finding)
"""acute illness: rare, strong, shared by most who die"""
COURSE: tuple[Finding, ...] = _rows(_findings["course"], Finding)
"""what the stay will need: moves length of stay"""
PAYER_FACTS: tuple[Finding, ...] = _rows(_findings["payer"], Finding)
"""what the payer will look at"""
ADMISSION = ACUTE + COURSE + PAYER_FACTS
DISCHARGE: tuple[Finding, ...] = _rows(_findings["discharge"], Finding)
DENIALS: dict[str, tuple[str, ...]] = {key: _frozen(value) for key, value in _findings["denials"].items()}
"""how a finding is named that is not there"""
FRAMES: dict[str, tuple[tuple[str, str], ...]] = {key: _frozen(value) for key, value in _findings["frames"].items()}
"""sentences that say a finding is there, or is not, in the same words: only their order tells"""
ORDERED: dict[str, float] = _findings["ordered"]
"""share of mentions in such sentences"""

CHARLSON: tuple[Condition, ...] = _rows(_conditions["charlson"], Condition)
PLAIN: tuple[Condition, ...] = _rows(_conditions["plain"], Condition)
CHARLSON_INDEX = {condition.name: k for k, condition in enumerate(CHARLSON)}

REASONS: tuple[Reason, ...] = _rows(_reasons["reasons"], Reason)
COVID_WEIGHT: dict[int, float] = {int(year): weight for year, weight in _reasons["covid_weight"].items()}
"""weight of the reason `covid` by year; 0 before"""

PHRASES: dict[str, Any] = _read("phrases.json")
FILLERS: dict[str, tuple[str, ...]] = {key: _frozen(value) for key, value in PHRASES["fillers"].items()}
"""words that say nothing about an outcome, by section"""
PROBABILITIES: dict[str, Any] = _read("probabilities.json")
PAYERS: tuple[str, ...] = _frozen(PROBABILITIES["payers"])
CODED: float = PROBABILITIES["coded"]
"""probability that a present Charlson condition is coded for the stay"""
MISCODED: float = PROBABILITIES["miscoded"]
"""probability that an absent one is"""
