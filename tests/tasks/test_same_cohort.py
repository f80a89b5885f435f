"""The cohort never depends on the label: patients with the same facts and other outcomes are the same rows.

A hospital is drawn twice from the same facts (times, notes, services, deaths of others) with the outcomes permuted: who
is a row, and why everybody else is not, must be the same; only labels change. Two settings are left out that take one
outcome alone (`last_stay: exclude`, a summary cap wider than transfers): the same check sees that they do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from timelines import Hospital, config, fill_all, judge

from lang1.config import TaskId, TasksConfig

PATIENTS = 150
Outcomes = list[int]
Drawer = Callable[[Outcomes], Hospital]


def facts_of(patient: int) -> dict[str, Any]:
    """What is known of a patient whatever the outcome; the same for every drawing."""
    draw = random.Random(f"facts {patient}")
    admit = datetime(2020, 1, 1) + timedelta(hours=draw.randrange(20_000))
    return {
        "admit": admit,
        "end": admit + timedelta(hours=draw.choice([30, 50, 100, 300])),
        "hp": draw.choice([timedelta(hours=h) for h in (-1, 1, 5, 29, 130)] + [None]),
        "hp_written": timedelta(hours=draw.choice([-3, -1, -1, 0, 2])),
        "summary": draw.choice([timedelta(hours=h) for h in (-5, 0, 3, 24, 25, 100)] + [None]),
        "text": draw.choice(["words of a note"] * 5 + ["Addendum: words"]),
        "class": draw.choice(["inpatient"] * 9 + ["emergency"]),
        "service": draw.choice(["medicine"] * 5 + ["dialysis"]),
        "department": draw.choice(["4 West"] * 5 + ["Rehab"]),
        "type": draw.choice(["urgent", "elective", "newborn"]),
        "dies_after": draw.choice([None] * 5 + [timedelta(days=25), timedelta(days=29)]),
        "gap": timedelta(hours=draw.choice([24, 100, 500, 590])),
        "earlier": draw.choice([True, False]),
    }


def draw_index(hospital: Hospital, p: int, **changes: Any) -> dict[str, Any]:
    """The index stay of patient p, which the outcome may end otherwise."""
    facts = facts_of(p) | changes
    name, patient, end = f"i{p}", f"p{p}", facts["end"]
    hospital.patient(patient, death_date=facts.get("death_date"))
    hospital.stay(
        name, str(facts["admit"]), str(end), patient, facts.get("to", "Home"), notes=False,
        encounter_class=facts["class"], service=facts["service"], department=facts["department"],
        admission_type=facts["type"],
    )  # fmt: skip
    for kind, anchor, delay in (("H&P", facts["admit"], facts["hp"]), ("discharge summary", end, facts["summary"])):
        if delay is not None:
            signed = anchor + delay
            hospital.note(
                name, kind, str(signed), patient, text=facts["text"], written_time=signed + facts["hp_written"]
            )
    if facts["earlier"]:
        hospital.stay(f"{name} before", "2018-01-01", "2018-01-03", patient)
        hospital.code(f"{name} before", "I50.9", patient_id=patient)
    return facts


def readmission(outcomes: Outcomes) -> Hospital:
    """A return after the gap, or none; a death at home later than any return, in both."""
    hospital = Hospital()
    for p, returns in enumerate(outcomes):
        facts = facts_of(p)
        died = facts["dies_after"] and (facts["end"] + facts["dies_after"]).date()
        facts = draw_index(hospital, p, death_date=died)
        if returns:
            again = facts["end"] + facts["gap"]
            hospital.stay(f"i{p} again", str(again), str(again + timedelta(hours=9)), f"p{p}", admission_type="urgent")
    return hospital


def mortality(outcomes: Outcomes) -> Hospital:
    """Expired at the end of the stay, or home."""
    hospital = Hospital()
    for p, dies in enumerate(outcomes):
        day = facts_of(p)["end"].date() if dies else None
        draw_index(hospital, p, to="Expired" if dies else "Home", death_date=day)
    return hospital


def los(outcomes: Outcomes) -> Hospital:
    """Ends that fall into each bin; none before the H&P, which a patient who has left cannot have."""
    hospital = Hospital()
    for p, label in enumerate(outcomes):
        draw_index(hospital, p, end=facts_of(p)["admit"] + timedelta(hours=(30, 70, 110, 300)[label]))
    return hospital


def cci(outcomes: Outcomes) -> Hospital:
    """Codes of each class."""
    hospital = Hospital()
    for p, label in enumerate(outcomes):
        draw_index(hospital, p)
        for code in (["I10"], ["I50.9"], ["I50.9", "N18.6"], ["C78.7"], ["C78.7", "B20"])[label]:
            hospital.code(f"i{p}", code, patient_id=f"p{p}")
    return hospital


STATUSES = ("no denial", "final, adverse determination", "final, favorable determination")


def denial(outcomes: Outcomes) -> Hospital:
    """Settled statuses; some claims are pending whatever the outcome would be."""
    hospital = Hospital()
    for p, status in enumerate(outcomes):
        draw_index(hospital, p)
        if p % 9:
            hospital.claim(f"i{p}", "pending" if p % 7 == 0 else STATUSES[status], "2022-01-01")
    return hospital


DRAWN: dict[TaskId, tuple[Drawer, int]] = {
    "readmission": (readmission, 2),
    "mortality": (mortality, 2),
    "los": (los, 4),
    "cci": (cci, 5),
    "denial": (denial, 3),
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "readmission": [
        {},
        {"readmission_by": "admission_note", "readmission_boundary": "calendar", "split_unit": "note"},
        {"died_after_discharge": "exclude", "exclude_planned": True, "planned_ends_search": False},
        {"exclude_unfollowed": False, "exclude_death_in_stay": False, "later_edits": "keep", "summary_choice": "first"},
        {"transfer_hours": 12.0, "max_summary_delay_hours": 12.0, "overlapping_stays": "exclude"},
    ],
    "mortality": [
        {},
        {"max_note_delay_hours": None, "hp_choice": "longest", "exclude_newborns": True},
        {"prediction_clock": "written", "exclude_no_disposition": False, "exclude_post_death": False},
    ],
    "los": [{}, {"los_unit": "elapsed", "prediction_clock": "written"}, {"split_unit": "note", "later_edits": "keep"}],
    "cci": [{}, {"cci_codes": "prior"}, {"cci_classes": 4, "exclude_uncoded": False}],
    "denial": [{}, {"denial_rule": "adverse"}, {"denial_rule": "otherwise", "denial_other_half": "train"}],
}  # fmt: skip
DEPENDENT: list[dict[str, Any]] = [{"last_stay": "exclude"}, {"max_summary_delay_hours": None}]


def cohorts(task: TaskId, cfg: TasksConfig, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Labels of a drawing and of its permutation, and whose rule, or `in`, differs between the two."""
    drawer, options = DRAWN[task]
    first = [p % options for p in range(PATIENTS)]
    second = random.Random(task).sample(first, PATIENTS)
    assert sum(a != b for a, b in zip(first, second, strict=True)) > PATIENTS / 4
    found = []
    for number, outcomes in enumerate((first, second)):
        hospital = drawer(outcomes)
        fill_all(hospital)
        judged = judge(*hospital.write(folder / str(number)), cfg, task)
        found.append({f"i{p}": judged[f"i{p}"] for p in range(PATIENTS)})
    reasons = [{e: "in" if isinstance(what, int) else what for e, what in one.items()} for one in found]
    return *found, {e: (reasons[0][e], reasons[1][e]) for e in reasons[0] if reasons[0][e] != reasons[1][e]}


@pytest.mark.parametrize(("task", "setting"), [(task, one) for task in DRAWN for one in SETTINGS[task]], ids=str)
def test_cohort_is_the_same_for_every_outcome(task: TaskId, setting: dict[str, Any], tmp_path: Path) -> None:
    first, second, changed = cohorts(task, config(**setting), tmp_path)
    assert changed == {}
    rows = [e for e, what in first.items() if isinstance(what, int)]
    assert 10 < len(rows) < PATIENTS  # some are left out, most for a reason of their own
    if setting.get("cci_codes") != "prior":  # whose label is not the codes that were permuted
        assert any(first[e] != second[e] for e in rows)


@pytest.mark.parametrize("setting", DEPENDENT, ids=str)
def test_setting_that_takes_one_outcome_alone_is_seen(setting: dict[str, Any], tmp_path: Path) -> None:
    *_, changed = cohorts("readmission", config(**setting), tmp_path)
    assert changed
