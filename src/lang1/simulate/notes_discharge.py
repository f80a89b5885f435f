"""The discharge summary: written from what the chart holds at discharge; whether the patient comes back is unknown."""

from __future__ import annotations

from random import Random

from lang1.simulate.course import DISPOSITIONS, Stays
from lang1.simulate.notes_hp import OMITTED, AdmissionChart, person, problems, trend
from lang1.simulate.styles import Style
from lang1.simulate.tables import DISCHARGE
from lang1.simulate.writing import Words, add_decoys, compose, count_words, fill, mention, phrase_of, pick, tail

BUDGET = (62.0, 7.0)
PLACES = ("exam", "plan", "course", "exam", "plan", "course", "social")
_SECTIONS = tuple(f.section for f in DISCHARGE)
_DECOY_RATES = tuple(f.decoy_rate for f in DISCHARGE)
_FREQUENT = next(k for k, f in enumerate(DISCHARGE) if f.name == "outside_stays")
_PLACES = (
    "home",
    "home with home health",
    "skilled facility",
    "rehabilitation",
    "hospice",
    "home, left early",
    "deceased",
    "other hospital",
)
_PRIOR = ("one admission this year", "one stay this year")


class DischargeChart:
    """The facts at discharge of a chunk's stays, beside those at admission."""

    def __init__(self, stays: Stays) -> None:
        facts = stays.facts
        self.findings: list[list[bool]] = facts["discharge"].tolist()
        self.los_days: list[int] = facts["los_days"].tolist()
        self.hemoglobin: list[float] = facts["final_hemoglobin"].tolist()
        self.trend: list[int] = facts["final_trend"].tolist()
        self.creatinine: list[float] = facts["creatinine"].tolist()
        self.disposition: list[int] = stays.outcomes["disposition"].tolist()


def write_discharge(
    admission: AdmissionChart,
    chart: DischargeChart,
    i: int,
    words: Words,
    style: Style,
    habit: int,
    rng: Random,
    note_length: float,
) -> list[str]:
    """Lines of the discharge summary of stay `i`."""
    age = admission.age[i]
    sections: dict[str, list[str]] = {
        name: [] for name in ("hpi", "course", "pmh", "family", "meds", "social", "exam", "labs", "disposition", "plan")
    }
    reason = phrase_of(rng, words.reasons[admission.reason[i]], habit)
    days = max(chart.los_days[i], 1)
    stay = pick(rng, (f"{days} day stay", f"length of stay {days} days", f"hospital day {days}"))
    sections["hpi"].append(f"{person(rng, age, admission.female[i])} admitted for {reason}")
    sections["course"].append(stay)
    found = chart.findings[i]
    if admission.prior_year[i] and not found[_FREQUENT] and rng.random() >= OMITTED:
        sections["hpi"].append(phrase_of(rng, _PRIOR, habit))
    pairs: list[tuple[str, str]] = []
    for f, ways in enumerate(words.discharge):
        draw = rng.random()
        if found[f]:
            if draw >= OMITTED:
                sections[_SECTIONS[f]].append(mention(rng, ways, True, habit + f))
        elif draw < _DECOY_RATES[f] and age >= 18:
            pairs.append((_SECTIONS[f], mention(rng, ways, False, habit + f)))
    budget = round(rng.gauss(*BUDGET))
    problems(
        rng,
        admission.conditions[i],
        admission.principal[i],
        admission.plain[i],
        words,
        habit,
        sections,
        budget - count_words(sections) - 16,
    )
    if chart.trend[i]:
        sections["labs"].append(trend(rng, "Cr", chart.trend[i], admission.numbers["creatinine"][i], 1.5))
    else:
        sections["labs"].append(f"Cr {admission.numbers['creatinine'][i]:.1f}")
    if rng.random() < 0.85:
        sections["labs"].append(f"Hgb {chart.hemoglobin[i]:.1f} at discharge")
    sections["disposition"].append(_PLACES[chart.disposition[i]])
    add_decoys(rng, sections, pairs, budget - count_words(sections))
    fill(rng, sections, PLACES, budget - count_words(sections), age < 14)
    lines = compose(sections, style)
    extra = tail(rng, note_length, 85)
    if extra:
        lines.append(extra)
    return lines


def death_summary(admission: AdmissionChart, i: int, words: Words, style: Style, habit: int, rng: Random) -> list[str]:
    """Lines of the summary of a stay that ended in death."""
    reason = phrase_of(rng, words.reasons[admission.reason[i]], habit)
    sections: dict[str, list[str]] = {
        "hpi": [f"{person(rng, admission.age[i], admission.female[i])} admitted for {reason}"],
        "course": ["condition worsened despite treatment", "family at bedside", "patient expired"],
        "pmh": [],
        "family": [],
        "meds": [],
        "exam": [],
        "plan": [],
        "social": [],
        "disposition": [DISPOSITIONS[6]],
    }
    problems(rng, admission.conditions[i], admission.principal[i], admission.plain[i], words, habit, sections, 12)
    fill(rng, sections, ("social", "course"), 15)
    return compose(sections, style)
