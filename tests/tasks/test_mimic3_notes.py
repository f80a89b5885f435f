"""The admission note of a MIMIC-III stay by the priorities of 5.2.3, and the counts that lead from 19K to 5,658."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from timelines import EVERYTHING, Hospital, at, build

from lang1.config import TasksConfig

PRIORITIES = [
    "Physician: Physician Resident/Attending Admission Note - MICU",
    "Physician: Physician Resident Admission Note",
    "Physician : Physician Attending Admission Note - MICU",
    "Physician: Physician Fellow / Attg Admission Note",
    "Physician: Admission H&P",
    "Physician: Physician Surgical Admission Note",
    "General: Resident admission note",
    "Nursing: Nursing Admission Note",
    "Rehab Services: Admission evaluation",
]
CFG = TasksConfig(
    tasks=("los",), windows=EVERYTHING, hp_choice="mimic3", los_unit="elapsed", max_summary_delay_hours=None
)


@pytest.mark.parametrize(("better", "worse"), list(pairwise(PRIORITIES)))
def test_better_author_wins_over_the_longer_and_earlier_note(tmp_path: Path, better: str, worse: str) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    hospital.note("a", "H&P", "2020-01-01 08:00", note_id="worse", author_role=worse, text="word " * 40)
    hospital.note("a", "H&P", "2020-01-02 08:00", note_id="better", author_role=better, text="word " * 12)
    assert [r["note_id"] for r in build(hospital, tmp_path, CFG).rows("los") if r["encounter_id"] == "a"] == ["better"]


def test_of_equal_authors_the_longer_note_wins(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    for name, day, words in (("short", 1, 12), ("long", 2, 40), ("medium", 3, 30)):
        hospital.note(
            "a", "H&P", f"2020-01-0{day} 08:00", note_id=name, author_role=PRIORITIES[1], text="word " * words
        )
    assert [r["note_id"] for r in build(hospital, tmp_path, CFG).rows("los") if r["encounter_id"] == "a"] == ["long"]


@pytest.mark.parametrize("choose_note", ["before", "after"])
def test_notes_of_two_authors_begun_at_once_are_no_versions_of_one(tmp_path: Path, choose_note: str) -> None:
    """One CHARTTIME, and the resident's STORETIME is the later: the resident's note, no edit of the nurse's."""
    hospital = Hospital()
    nurse, resident = (f"2020-01-01 {clock}" for clock in ("08:10", "08:20"))
    for name, second in (("two authors", PRIORITIES[7]), ("one author", PRIORITIES[1]), ("nobody named", None)):
        hospital.stay(name, "2020-01-01", "2020-01-05", name, notes=False)
        begun = at("2020-01-01 08:00")
        first = None if second is None else PRIORITIES[1]
        hospital.note(name, "H&P", resident, name, f"{name} later", author_role=first, written_time=begun,
                      text="word " * 40)  # fmt: skip
        hospital.note(name, "H&P", nurse, name, f"{name} earlier", author_role=second, written_time=begun)
    built = build(hospital, tmp_path, replace(CFG, choose_note=choose_note))
    notes = {r["encounter_id"]: r["note_id"] for r in built.rows("los")}
    assert notes["two authors"] == "two authors later"
    # signed again by the same author, or by none that is named: the later one is an edit, chosen or not
    for name in ("one author", "nobody named"):
        assert notes.get(name) == (None if choose_note == "before" else f"{name} earlier")


def late_first_choice() -> Hospital:
    """The resident's note comes after 120 hours, the nurse's on the first day."""
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-15", notes=False)
    hospital.note("a", "H&P", "2020-01-01 08:00", note_id="nurse", author_role=PRIORITIES[7])
    hospital.note("a", "H&P", "2020-01-07 08:00", note_id="resident", author_role=PRIORITIES[1])
    hospital.stay("b", "2020-02-01", "2020-02-05", "q", notes=False)
    hospital.note("b", "H&P", "2020-02-01 08:00", "q", note_id="only", author_role=PRIORITIES[1])
    return hospital


def test_chosen_before_the_rules_a_late_note_takes_its_stay_along(tmp_path: Path) -> None:
    after = build(late_first_choice(), tmp_path / "after", CFG)
    before = build(late_first_choice(), tmp_path / "before", replace(CFG, choose_note="before"))
    notes = [{r["encounter_id"]: r["note_id"] for r in built.rows("los")} for built in (after, before)]
    assert (notes[0]["a"], notes[0]["b"]) == ("nurse", "only")
    assert "a" not in notes[1] and notes[1]["b"] == "only"


def test_notes_are_counted_at_each_step_as_the_paper_counts_them(tmp_path: Path) -> None:
    built = build(late_first_choice(), tmp_path, replace(CFG, choose_note="before"), filled=False)
    with (built.out / "note_attrition.csv").open(encoding="utf-8") as source:
        steps = {row["rule"]: (int(row["notes"]), int(row["stays"])) for row in csv.DictReader(source)}
    assert steps["is a note of a stay"] == (3, 2)
    assert steps["is the one chosen of its stay"] == (2, 2)
    assert steps["was there in time"] == steps["was there before the end"] == (1, 1)


def test_length_of_stay_bins_are_upper_bounds_of_elapsed_days(tmp_path: Path) -> None:
    """5.2.3: the "3 days" bin is 2 < LOS <= 3."""
    hospital = Hospital()
    ends = {"2": "2020-01-03 08:00", "2+": "2020-01-03 08:01", "3": "2020-01-04 08:00", "5+": "2020-01-06 08:01"}
    for name, end in ends.items():
        hospital.stay(name, "2020-01-01 08:00", end, f"p{name}", notes=False)
        hospital.note(name, "H&P", "2020-01-01 09:00", f"p{name}", note_id=f"n{name}", author_role=PRIORITIES[1])
    labels = {r["encounter_id"]: r["label"] for r in build(hospital, tmp_path, CFG).rows("los")}
    assert {name: labels[name] for name in ends} == {"2": 0, "2+": 1, "3": 1, "5+": 3}
