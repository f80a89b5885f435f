"""Every option of the label rules on a drawn timeline: the default on one side, the other setting on the other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from drawing import Case, draw
from timelines import Hospital, at, build, config, fill_all, judge

from lang1.config import AuditConfig, TasksConfig, load_config
from lang1.errors import ConfigError

Events = list[tuple[Any, ...]]
HOME: Events = [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge")]


def back(when: str, kind: str = "admit") -> Events:
    """Another stay of two hours."""
    return [(f"{when} 10:00", kind), (f"{when} 12:00", "discharge")]


OPTIONS: list[tuple[str, str, Events, dict[str, Any], Any, Any]] = [
    # task, what is drawn, its events, the other setting, wanted of the first stay by default, and with that setting
    ("mortality", "an H&P begun a week before admission and signed in time",
     [*HOME, ("2020-01-01 09:00", "H&P written=2019-12-25")],
     {"prediction_clock": "written"}, 0, "an H&P was begun after admission"),
    ("mortality", "an H&P begun after it was signed",
     [*HOME, ("2020-01-01 09:00", "H&P written=2020-01-02")],
     {"later_edits": "keep"}, "an H&P is no addendum and no later edit", 0),
    ("mortality", "an H&P signed again, first before admission",
     [*HOME, ("2019-12-31 08:00", "H&P written=2019-12-30"), ("2020-01-01 09:00", "H&P written=2019-12-30")],
     {"later_edits": "keep"}, "an H&P was signed after admission", 0),
    ("los", "an amended H&P",
     [*HOME, ("2020-01-01 09:00", "H&P kind=H&P_(amended)")],
     {"later_edits": "keep", "admission_note_types": ("h&p (amended)", "h&p")}, "has an H&P", 0),
    ("readmission", "an addendum alone",
     [*HOME, ("2020-01-03 09:00", "discharge summary text=ADDENDUM:_late")],
     {"later_edits": "keep"}, "a discharge summary is no addendum", 0),
    ("los", "a physician's note in place of an H&P",
     [*HOME, ("2020-01-01 09:00", "H&P kind=Physician_Note_")],
     {"admission_note_types": ("h&p", "physician note")}, "has an H&P", 0),
    ("readmission", "a summary of another type",
     [*HOME, ("2020-01-03 09:00", "discharge summary kind=Summary")],
     {"discharge_note_types": ("summary", "discharge summary")}, "has a discharge summary", 0),
    ("mortality", "an H&P signed at discharge",
     [*HOME, ("2020-01-03 08:00", "H&P")],
     {"notes_within_stay": False}, "an H&P was signed before discharge and death", 0),
    ("mortality", "an H&P signed before admission",
     [*HOME, ("2019-12-31 08:00", "H&P")],
     {"notes_within_stay": False}, "an H&P was signed after admission", 0),
    ("mortality", "an H&P signed after 121 hours",
     [("2020-01-01 08:00", "admit"), ("2020-01-09 08:00", "discharge"), ("2020-01-06 09:00", "H&P")],
     {"max_note_delay_hours": None}, "an H&P was signed within 120 h of admission", 0),
    ("readmission", "a summary signed after two days",
     [*HOME, ("2020-01-05 08:00", "discharge summary")],
     {"max_summary_delay_hours": None}, "a discharge summary was signed within 24 h", 0),
    ("readmission", "a last stay, that nobody follows",
     HOME, {"last_stay": "exclude"}, 0, "is followed by another stay"),
    ("readmission", "a stay that another follows, a year later",
     [*HOME, *back("2021-01-03")], {"last_stay": "exclude"}, 0, 0),
    ("readmission", "death in the stay",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=Expired")],
     {"exclude_death_in_stay": False}, "the patient left alive", 0),
    ("readmission", "death in the stay, and those who die later are left out",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=Expired"), ("2020-01-03", "death")],
     {"exclude_death_in_stay": False, "died_after_discharge": "exclude"}, "the patient left alive", 0),
    ("readmission", "death at home within 30 days",
     [*HOME, ("2020-02-02", "death")], {"died_after_discharge": "exclude"}, 0, "lived for 30 days"),
    ("readmission", "death at home on day 31",
     [*HOME, ("2020-02-03", "death")], {"died_after_discharge": "exclude"}, 0, 0),
    ("readmission", "death in a readmission: left out whatever the label",
     [*HOME, ("2020-01-09 08:00", "admit"), ("2020-01-10 08:00", "discharge to=Expired")],
     {"died_after_discharge": "exclude"}, 1, "lived for 30 days"),
    ("los", "two encounters that overlap",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge"),
      ("2020-01-02 08:00", "admit"), ("2020-01-04 08:00", "discharge")],
     {"overlapping_stays": "exclude"}, 1, "overlaps no other encounter"),
    ("los", "two encounters that touch",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge"),
      ("2020-01-03 08:00", "admit"), ("2020-01-04 08:00", "discharge")],
     {"overlapping_stays": "exclude"}, 1, 1),
    ("readmission", "a gap of two hours",
     [*HOME, *back("2020-01-03")], {"transfer_hours": 1.0}, 0, 1),
    ("readmission", "a stay after death counts for nothing",
     [*HOME, ("2020-01-04", "death"), *back("2020-01-09")], {"exclude_post_death": False}, 0, 1),
    ("readmission", "a planned stay",
     [*HOME, *back("2020-01-09", "admit type=elective")], {"exclude_planned": True}, 1, 0),
    ("readmission", "an unplanned stay hidden by a planned one",
     [*HOME, *back("2020-01-09", "admit type=elective"), *back("2020-01-20")], {"exclude_planned": True}, 1, 0),
    ("readmission", "an unplanned stay after a planned one, looked for",
     [*HOME, *back("2020-01-09", "admit type=elective"), *back("2020-01-20")],
     {"exclude_planned": True, "planned_ends_search": False}, 1, 1),
    ("readmission", "an H&P in an emergency visit",
     [*HOME, *back("2020-01-20", "admit class=emergency")], {"readmission_by": "admission_note"}, 0, 1),
    ("readmission", "a stay without an H&P",
     [*HOME, *back("2020-01-20"), ("2020-01-20 11:00", "H&P unsigned")], {"readmission_by": "admission_note"}, 1, 0),
    ("readmission", "an H&P after exactly 30 days",
     [*HOME, ("2020-02-02 07:00", "admit"), ("2020-02-02 08:00", "H&P"), ("2020-02-03 08:00", "discharge")],
     {"readmission_by": "admission_note"}, 1, 1),
    ("readmission", "an H&P a minute later",
     [*HOME, ("2020-02-02 07:00", "admit"), ("2020-02-02 08:01", "H&P"), ("2020-02-03 08:00", "discharge")],
     {"readmission_by": "admission_note"}, 1, 0),
    ("readmission", "a clinic's H&P admits nobody",
     [*HOME, *back("2020-01-20", "admit class=outpatient")], {"readmission_by": "admission_note"}, 0, 0),
    ("readmission", "exactly 30 days",
     [*HOME, ("2020-02-02 08:00", "admit"), ("2020-02-03 08:00", "discharge")],
     {"readmission_boundary": "before"}, 1, 0),
    ("readmission", "the evening of day 30",
     [*HOME, ("2020-02-02 23:59", "admit"), ("2020-02-03 08:00", "discharge")],
     {"readmission_boundary": "calendar"}, 0, 1),
    ("readmission", "the first minute of day 31",
     [*HOME, ("2020-02-03 00:00", "admit"), ("2020-02-03 08:00", "discharge")],
     {"readmission_boundary": "calendar"}, 0, 0),
    ("readmission", "day 40",
     [*HOME, *back("2020-02-12")], {"readmission_days": 60}, 0, 1),
    ("readmission", "a stay that ends with the records",
     [("2049-05-01", "admit"), ("2049-05-20", "discharge")],
     {"exclude_unfollowed": False}, "is followed up for 30 days", 0),
    ("los", "a newborn",
     [("2020-01-01 08:00", "admit type=newborn"), ("2020-01-03 08:00", "discharge")],
     {"exclude_newborns": True}, 0, "is no newborn's"),
    ("readmission", "a rehabilitation stay",
     [("2020-01-01 08:00", "admit service=rehabilitation"), ("2020-01-03 08:00", "discharge")],
     {"exclude_services": ()}, "not on an excluded service", 0),
    ("readmission", "a department of palliative care",
     [("2020-01-01 08:00", "admit department=Palliative_Unit"), ("2020-01-03 08:00", "discharge")],
     {"exclude_departments": ()}, "not in an excluded department", 0),
    ("readmission", "a summary by the dialysis unit",
     [*HOME, ("2020-01-03 09:00", "discharge summary department=Hemodialysis")],
     {"exclude_departments": ()}, "a discharge summary is of no excluded department", 0),
    ("los", "a rehabilitation stay, for another task",
     [("2020-01-01 08:00", "admit service=rehabilitation"), ("2020-01-03 08:00", "discharge")],
     {"exclude_services": ()}, 0, 0),
    ("mortality", "a stay without disposition",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=")],
     {"exclude_no_disposition": False}, "has a discharge disposition", 0),
    ("los", "49 hours over two midnights",
     [("2020-01-01 08:00", "admit"), ("2020-01-03 09:00", "discharge")], {"los_unit": "elapsed"}, 0, 1),
    ("cci", "a code of the stay",
     [*HOME, ("2020-01-02", "code C78.7")], {"cci_codes": "prior"}, 3, "has an ICD code of an earlier encounter"),
    ("cci", "no code", HOME, {"exclude_uncoded": False}, "has an ICD code", 0),
    ("cci", "a score of 12",
     [*HOME, ("2020-01-02", "code C78.7"), ("2020-01-02", "code B20")], {"cci_classes": 4}, 4, 3),
    ("denial", "denied, then approved",
     [*HOME, ("2020-02-01", "claim status=final,_favorable_determination")], {"denial_rule": "adverse"}, 1, 0),
    ("denial", "denied in the end",
     [*HOME, ("2020-02-01", "claim status=final,_adverse_determination")], {"denial_rule": "adverse"}, 1, 1),
    ("denial", "pending",
     [*HOME, ("2020-02-01", "claim status=pending")], {"denial_rule": "otherwise"}, "has a final claim status", 0),
    ("denial", "a claim of the last three months",
     [("2049-03-01", "admit"), ("2049-03-04", "discharge"), ("2049-03-20", "claim status=no_denial")],
     {"claims_follow_up_days": 88}, "was claimed 90 days or more", 0),
]  # fmt: skip


Judge = Callable[[str, TasksConfig], dict[str, Any]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """All cases in one hospital, judged once a configuration."""
    hospital, done = Hospital(), dict[str, dict[str, Any]]()
    for task, name, events, change, *_ in OPTIONS:
        draw(hospital, Case(_name(task, name, change), events))
    fill_all(hospital)
    records, corpus = hospital.write(tmp_path_factory.mktemp("options"))

    def judge_once(task: str, cfg: TasksConfig) -> dict[str, Any]:
        key = f"{task}: {cfg}"
        if key not in done:
            done[key] = judge(records, corpus, cfg, task)
        return done[key]

    return judge_once


def _name(task: str, name: str, change: dict[str, Any]) -> str:
    return f"{task}: {name}: {', '.join(change)}"


@pytest.mark.parametrize("case", OPTIONS, ids=[_name(task, name, change) for task, name, _, change, *_ in OPTIONS])
def test_option_decides(case: tuple[Any, ...], judged: Judge) -> None:
    task, name, _, change, default, changed = case
    # the half that denial does not keep would leave out one case or another
    half: dict[str, Any] = {"denial_other_half": "train"} if task == "denial" else {}
    for cfg, wanted in ((config(**half), default), (config(**half, **change), changed)):
        found = judged(task, cfg)[_name(task, name, change) + "/1"]
        assert found == wanted if isinstance(wanted, int) else str(found).startswith(wanted)


def test_every_option_of_the_rules_has_a_case() -> None:
    """But for what tests/tasks/test_splits.py and tests of notes, windows and prompts draw."""
    elsewhere = {
        "tasks", "own", "audit", "split_by", "split_unit", "split_ratio", "sequence_fraction", "windows",
        "denial_windows", "denial_other_half", "hp_choice", "summary_choice", "choose_note", "follow_up_end",
        "prompt_set", "cci_weights", "cci_age_points",
    }  # fmt: skip
    drawn = {key for _, _, _, change, *_ in OPTIONS for key in change}
    assert set(TasksConfig.__dataclass_fields__) - elsewhere == drawn


@pytest.mark.parametrize(
    ("change", "hp", "summary"),
    [
        ({}, "h1", "d3"),
        ({"hp_choice": "last", "summary_choice": "first"}, "h3", "d1"),
        ({"hp_choice": "longest", "summary_choice": "longest"}, "h2", "d2"),
    ],
)
def test_one_note_of_several_is_the_index_note(tmp_path: Path, change: dict[str, Any], hp: str, summary: str) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    for n, words in ((1, 5), (2, 9), (3, 5)):
        for kind, letter in (("H&P", "h"), ("discharge summary", "d")):
            hospital.note("a", kind, f"2020-01-0{n} 08:00", note_id=f"{letter}{n}", text="word " * words)
    hospital.stay("tie", "2020-01-01", "2020-01-05", "q", notes=False)
    for n in (2, 1):
        for kind, letter in (("H&P", "th"), ("discharge summary", "td")):
            hospital.note("tie", kind, "2020-01-02 08:00", "q", note_id=f"{letter}{n}", text="word " * 5)
    built = build(hospital, tmp_path, config(follow_up_end=date(2021, 1, 1), **change))
    notes = {r["encounter_id"]: r["note_id"] for r in built.rows("los")}
    assert (notes["a"], notes["tie"]) == (hp, "th1")
    notes = {r["encounter_id"]: r["note_id"] for r in built.rows("readmission")}
    assert (notes["a"], notes["tie"]) == (summary, "td1")


def test_prediction_time_is_the_chosen_clock(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    hospital.note("a", "H&P", "2020-01-01 09:00", written_time=at("2020-01-01 07:00"))
    for clock, wanted in (("signed", "2020-01-01 09:00"), ("written", "2020-01-01 07:00")):
        # the audit knows that a note's text is no older than its signing
        audit = AuditConfig(accept={"note_after_prediction": "the clock is what is tested"})
        cfg = config(tasks=("los",), prediction_clock=clock, audit=audit)
        built = build(hospital, tmp_path / clock, cfg, filled=clock == "signed")
        assert [r["prediction_time"] for r in built.rows("los") if r["encounter_id"] == "a"] == [at(wanted)]
        assert built.manifest["facts"]["prediction_clock"] == clock


def test_late_hp_of_an_earlier_visit_is_no_readmission(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("visit", "2019-12-30", "2019-12-31", encounter_class="emergency", notes=False)
    hospital.note("visit", "H&P", "2020-01-09")
    hospital.stay("stay", "2020-01-01", "2020-01-03")
    fill_all(hospital)
    assert judge(*hospital.write(tmp_path), config(readmission_by="admission_note"), "readmission")["stay"] == 0


def test_codes_of_earlier_encounters_must_be_known_at_prediction(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("clinic", "2019-06-01", "2019-06-01", encounter_class="outpatient")
    hospital.stay("first", "2019-12-01", "2019-12-03")
    hospital.stay("second", "2020-01-01", "2020-01-03")
    hospital.stay("third", "2020-02-01", "2020-02-03")
    hospital.stay("visit", "2019-12-02", "2019-12-02 09:00", encounter_class="emergency", notes=False)
    hospital.code("visit", "C34.90")  # while the first stay lasts: not earlier than it
    hospital.code("clinic", "I50.9")
    hospital.code("first", "C78.7", coded_time=at("2020-01-15"))
    hospital.code("second", "B20")
    fill_all(hospital)
    found = judge(*hospital.write(tmp_path), config(cci_codes="prior"), "cci")
    assert (found["first"], found["second"], found["third"]) == (1, 2, 4)


@pytest.mark.parametrize(
    "types",
    [("H&P", "Discharge summary"), ("discharge notes",), (), ("Summary",)],
    ids=["both", "like", "none", "same"],
)
def test_admission_notes_cannot_be_discharge_notes(types: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.admission_note_types: must be (without discharge notes|at least)"):
        load_config(
            None, [f"tasks.admission_note_types={list(types)}", "tasks.discharge_note_types=[summary ]"], "tasks"
        )
