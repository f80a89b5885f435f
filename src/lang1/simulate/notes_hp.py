"""The H&P: written from what the chart holds at admission, and from nothing else.

`AdmissionChart` carries no outcome, so a sentence cannot leak one. Every note is filled with words that say nothing
up to a budget drawn without looking at the patient: length says (next to) nothing.
"""

from __future__ import annotations

from random import Random

from lang1.simulate.course import Stays
from lang1.simulate.population import BOROUGHS, Patients
from lang1.simulate.styles import Style
from lang1.simulate.tables import ADMISSION, CHARLSON, PHRASES, PLAIN
from lang1.simulate.writing import (
    RELATIVES,
    Words,
    add_decoys,
    compose,
    count_words,
    fill,
    mention,
    phrase_of,
    pick,
    tail,
)

PLACES = ("hpi", "exam", "plan", "exam", "plan", "hpi", "exam", "social")
"""sections that take words that say nothing, as often as they stand here"""
OMITTED = 0.04
"""probability that a present fact is left out of the note"""
BUDGET = (64.0, 7.0)
"""words of a note body: mean and standard deviation"""
CONDITION_DECOY = 2.0
"""rate of negated, remote and relatives' conditions, as a multiple of each condition's prevalence"""
_SECTIONS = tuple(f.section for f in ADMISSION)
_DECOY_RATES = tuple(f.decoy_rate for f in ADMISSION)
_CONDITION_RATES = tuple(0.6 * c.prevalence * (0.15 if c.needs else 1.0) for c in CHARLSON)
_PARENTS = {name: k for k, name in enumerate(c.name for c in CHARLSON)}
_HIDES = {_PARENTS[c.needs]: _PARENTS[c.name] for c in CHARLSON if c.needs}
_NUMBERS = (
    "sbp",
    "hr",
    "rr",
    "spo2",
    "temp",
    "lactate",
    "albumin",
    "creatinine",
    "hemoglobin",
    "wbc",
    "sodium",
    "lactate_trend",
    "creatinine_trend",
    "hemoglobin_trend",
)


PAYER_WORDS = (
    "Medicare",
    "Advantage plan",
    "Medicaid",
    "Medicaid managed plan",
    "commercial PPO",
    "commercial HMO",
    "self pay",
)


class AdmissionChart:
    """The facts at admission of a chunk's stays, as plain lists for the writer."""

    def __init__(self, stays: Stays, patients: Patients) -> None:
        facts = stays.facts
        who = stays.patient
        self.age: list[float] = facts["age"].tolist()
        self.female: list[bool] = patients.female[who].tolist()
        self.borough: list[str] = [BOROUGHS[b] for b in patients.borough[who].tolist()]
        self.reason: list[int] = facts["reason"].tolist()
        self.findings: list[list[bool]] = facts["findings"].tolist()
        self.conditions: list[list[bool]] = facts["conditions"].tolist()
        self.principal: list[list[bool]] = facts["principal"].tolist()
        self.plain: list[list[bool]] = facts["plain"].tolist()
        self.payer: list[int] = facts["payer"].tolist()
        self.prior_year: list[int] = facts["prior_year"].tolist()
        self.numbers: dict[str, list[float]] = {name: facts[name].tolist() for name in _NUMBERS}


def person(rng: Random, age: float, female: bool) -> str:
    """Age and sex as authors write them."""
    if age < 0.1:
        return "newborn girl" if female else "newborn boy"
    if age < 2:
        return f"{int(age * 12)} month old {'girl' if female else 'boy'}"
    years = int(age)
    if age < 18:
        return f"{years} yo {'girl' if female else 'boy'}"
    draw = rng.random()
    if draw < 0.4:
        return f"{years} yo {'F' if female else 'M'}"
    if draw < 0.7:
        return f"{years} year old {'woman' if female else 'man'}"
    return f"{years} yo {'woman' if female else 'man'}"


def problems(
    rng: Random,
    conditions: list[bool],
    principal: list[bool],
    plain: list[bool],
    words: Words,
    habit: int,
    sections: dict[str, list[str]],
    room: int,
) -> None:
    """Past history, family history and medications: what is there, what is denied, what relatives have.

    Conditions that score 0 are left out when more than `room` words would be said.
    """
    history, family, drugs = sections["pmh"], sections["family"], sections["meds"]
    for k, condition in enumerate(CHARLSON):
        draw = rng.random()
        if conditions[k]:
            hidden = _HIDES.get(k)
            if draw < (0.4 if principal[k] else OMITTED) or (hidden is not None and conditions[hidden]):
                continue
            history.append(phrase_of(rng, words.conditions[k], habit + k))
            room -= 2
            if condition.drugs and rng.random() < 0.45:
                drugs.append(pick(rng, condition.drugs))
        elif draw < CONDITION_DECOY * _CONDITION_RATES[k]:
            said = pick(rng, words.conditions[k])
            draw = rng.random()
            if draw < 0.4:
                family.append(f"{pick(rng, RELATIVES)} with {said}")
            elif draw < 0.75:
                history.append(f"no {said}")
            else:
                history.append(f"{said} ruled out")
    for k, condition in enumerate(PLAIN):
        if plain[k] and room > 0 and rng.random() < 0.75:
            room -= 2
            history.append(phrase_of(rng, words.plain[k], habit + k))
            if condition.drugs and rng.random() < 0.4:
                drugs.append(pick(rng, condition.drugs))
    if len(history) > 1:
        at = int(rng.random() * len(history))
        history[:] = history[at:] + history[:at]
    if not history:
        history.append(pick(rng, ("no chronic illness listed", "otherwise healthy", "past history reviewed")))
    if not drugs:
        drugs.append(pick(rng, ("multivitamin", "vitamin D", "acetaminophen as needed")))


def trend(rng: Random, name: str, direction: float, level: float, spread: float, digits: int = 1) -> str:
    """A value then and now: which way it goes is in the order of the numbers or in one word."""
    first, last = (level, level * spread) if direction > 0 else (level * spread, level)
    if first == last:
        last = first + 0.1
    a, b = f"{first:.{digits}f}", f"{last:.{digits}f}"
    draw = rng.random()
    if draw < 0.35:
        return f"{name} {a} -> {b}"
    if draw < 0.6:
        return f"{name} now {b}, was {a}"
    return f"{name} {'rising' if direction > 0 else 'falling'} from {a} to {b}"


def _results(rng: Random, numbers: dict[str, list[float]], i: int, adult: bool, share: float) -> list[str]:
    """Vital signs and laboratory values; those that do not change are listed at `share` of their usual rate."""
    n = {name: values[i] for name, values in numbers.items()}
    parts = [f"BP {n['sbp']:.0f}/{n['sbp'] * 0.6:.0f}", f"HR {n['hr']:.0f}", f"RR {n['rr']:.0f}", f"O2 {n['spo2']:.0f}"]
    if rng.random() < 0.4:
        parts.insert(0, f"T {n['temp']:.1f}")
    labs: list[str] = []
    if n["lactate_trend"]:
        labs.append(trend(rng, "lactate", n["lactate_trend"], max(n["lactate"], 1.2), 2.2))
    elif adult and rng.random() < 0.6 * share:
        labs.append(f"lactate {n['lactate']:.1f}")
    if n["creatinine_trend"]:
        labs.append(trend(rng, "Cr", n["creatinine_trend"], n["creatinine"], 1.8))
    elif rng.random() < 0.4 * share:
        labs.append(f"Cr {n['creatinine']:.1f}")
    if n["hemoglobin_trend"]:
        labs.append(trend(rng, "Hgb", n["hemoglobin_trend"], n["hemoglobin"], 1.3))
    elif rng.random() < 0.3 * share:
        labs.append(f"Hgb {n['hemoglobin']:.1f}")
    if adult and rng.random() < 0.5 * share:
        labs.append(f"albumin {n['albumin']:.1f}")
    if rng.random() < 0.4 * share:
        labs.append(f"WBC {n['wbc']:.1f}")
    if rng.random() < 0.3 * share:
        labs.append(f"Na {n['sodium']:.0f}")
    return [" ".join(parts), *labs]


def write_hp(
    chart: AdmissionChart, i: int, words: Words, style: Style, habit: int, rng: Random, note_length: float
) -> list[str]:
    """Lines of the H&P of stay `i`."""
    age = chart.age[i]
    sections: dict[str, list[str]] = {
        name: [] for name in ("hpi", "pmh", "family", "meds", "social", "exam", "labs", "admin", "plan")
    }
    reason = phrase_of(rng, words.reasons[chart.reason[i]], habit)
    since = pick(rng, PHRASES["since"])
    opening = f"{person(rng, age, chart.female[i])} {pick(rng, PHRASES['complaint']).format(reason=reason)}"
    sections["hpi"].append(f"{opening} {since}".rstrip())
    found = chart.findings[i]
    pairs: list[tuple[str, str]] = []
    for f, ways in enumerate(words.findings):
        draw = rng.random()
        if found[f]:
            if draw >= OMITTED:
                sections[_SECTIONS[f]].append(mention(rng, ways, True, habit + f))
        elif draw < _DECOY_RATES[f] and age >= 18:
            pairs.append((_SECTIONS[f], mention(rng, ways, False, habit + f)))
    budget = round(rng.gauss(*BUDGET))
    room = budget - count_words(sections) - 28
    problems(rng, chart.conditions[i], chart.principal[i], chart.plain[i], words, habit, sections, room)
    sections["admin"].insert(0, PAYER_WORDS[chart.payer[i]])
    sections["labs"].extend(_results(rng, chart.numbers, i, age >= 18, 1.0 if room > 12 else 0.4))
    if rng.random() < 0.2:
        sections["social"].append(f"lives in {chart.borough[i]}")
    add_decoys(rng, sections, pairs, budget - count_words(sections))
    fill(rng, sections, PLACES, budget - count_words(sections), age < 14)
    lines = compose(sections, style)
    extra = tail(rng, note_length, 90)
    if extra:
        lines.append(extra)
    return lines
