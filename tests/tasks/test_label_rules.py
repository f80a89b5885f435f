"""Every rule of a label on a drawn timeline, on both sides of its boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawing import Case, draw
from timelines import Built, Hospital, build, config

from lang1.config import AuditConfig

READMISSION = [
    Case("comes back on day 12", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-15 08:00", "admit"), ("2020-01-16 08:00", "discharge", 0)]),
    Case("comes back after exactly 30 days", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-02-02 08:00", "admit"), ("2020-02-03 08:00", "discharge", 0)]),
    Case("comes back a minute later than 30 days", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0),
        ("2020-02-02 08:01", "admit"), ("2020-02-03 08:00", "discharge", 0)]),
    Case("never comes back: the last encounter is kept", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0)]),
    Case("comes back for an emergency visit only", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0),
        ("2020-01-10 08:00", "admit class=emergency"), ("2020-01-10 12:00", "discharge", "is inpatient")]),
    Case("is transferred after an hour: one stay, labelled by what follows it", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-03 09:00", "admit"), ("2020-01-05 08:00", "discharge", "is no transfer"),
        ("2020-01-20 08:00", "admit"), ("2020-01-21 08:00", "discharge", 0)]),
    Case("a gap of 23 h 59 min is a transfer", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0),
        ("2020-01-04 07:59", "admit"), ("2020-01-05 08:00", "discharge", "is no transfer")]),
    Case("a gap of exactly 24 h is a readmission", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-04 08:00", "admit"), ("2020-01-05 08:00", "discharge", 0)]),
    Case("a negative gap is no readmission", [
        ("2020-01-01 08:00", "admit"), ("2020-01-10 08:00", "discharge", 0),
        ("2020-01-05 08:00", "admit"), ("2020-01-06 08:00", "discharge", "is no transfer")]),
    Case("a third stay begins before the first ends: all one stay", [
        ("2020-01-01 08:00", "admit"), ("2020-01-10 08:00", "discharge", 0),
        ("2020-01-05 08:00", "admit"), ("2020-01-06 08:00", "discharge", "is no transfer"),
        ("2020-01-09 08:00", "admit"), ("2020-01-12 08:00", "discharge", "is no transfer")]),
    Case("the gap counts from the end of the longer of two overlapping stays", [
        ("2020-01-01 08:00", "admit"), ("2020-01-10 08:00", "discharge", 1),
        ("2020-01-05 08:00", "admit"), ("2020-01-06 08:00", "discharge", "is no transfer"),
        ("2020-02-08 08:00", "admit"), ("2020-02-09 08:00", "discharge", 0)]),
    Case("dies in the stay", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=Expired", "the patient left alive")]),
    Case("dies in the second part of a transfer", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", "the patient left alive"),
        ("2020-01-03 10:00", "admit"), ("2020-01-05 08:00", "discharge to=Expired", "is no transfer")]),
    Case("dies at home within 30 days: 0, and flagged", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0), ("2020-01-20", "death")]),
    Case("dies on day 31: 0, not flagged", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0), ("2020-02-03", "death")]),
    Case("comes back and dies within 30 days: 1, not flagged", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-10 08:00", "admit"), ("2020-01-12 08:00", "discharge to=Expired", "the patient left alive"),
        ("2020-01-12", "death")]),
    Case("is admitted a minute after death", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=Expired", "the patient left alive"),
        ("2020-01-03 08:01", "admit"), ("2020-01-05 08:00", "discharge", "begins before the patient's death")]),
    Case("is admitted on the day after the day of death", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0), ("2020-01-09", "death"),
        ("2020-01-10 08:00", "admit"), ("2020-01-12 08:00", "discharge", "begins before the patient's death")]),
    Case("is admitted on the day of death", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1), ("2020-01-09", "death"),
        ("2020-01-09 08:00", "admit"), ("2020-01-09 12:00", "discharge to=Expired", "the patient left alive")]),
    Case("a stay of rehabilitation", [
        ("2020-01-01 08:00", "admit service=rehabilitation"),
        ("2020-01-03 08:00", "discharge", "not on an excluded service")]),
    Case("a stay of palliative care, in other letters", [
        ("2020-01-01 08:00", "admit service=Palliative_Care"),
        ("2020-01-03 08:00", "discharge", "not on an excluded service")]),
    Case("a stay of medicine, back for dialysis: all-cause", [
        ("2020-01-01 08:00", "admit service=medicine"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-09 08:00", "admit service=dialysis"),
        ("2020-01-10 08:00", "discharge", "not on an excluded service")]),
    Case("a planned stay counts: all-cause", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-09 08:00", "admit type=elective"), ("2020-01-10 08:00", "discharge", 0)]),
    Case("the next stay has not ended yet: readmitted all the same", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1), ("2020-01-15 08:00", "admit")]),
    Case("the summary was signed 24 h after discharge", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0),
        ("2020-01-04 08:00", "discharge summary")]),
    Case("the summary was signed a minute later", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", "signed within 24 h after discharge"),
        ("2020-01-04 08:01", "discharge summary")]),
    Case("the summary was signed before admission", [
        ("2020-01-01 08:00", "admit"), ("2019-12-31 08:00", "discharge summary"),
        ("2020-01-03 08:00", "discharge", "signed after admission")]),
    Case("the summary was never signed", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", "a discharge summary was signed"),
        ("2020-01-03 08:00", "discharge summary unsigned")]),
    Case("cleaning rejected the summary", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", "a discharge summary passed cleaning"),
        ("2020-01-03 08:00", "discharge summary rejected")]),
    Case("the summary was signed the day after the patient died", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 23:00", "discharge", "signed before the next stay and death"),
        ("2020-01-03", "death"), ("2020-01-04 08:00", "discharge summary")]),
]  # fmt: skip

MORTALITY = [
    Case("leaves alive", [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0)]),
    Case("expires", [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=Expired", 1)]),
    Case("expires, in other letters", [("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge to=EXPIRED", 1)]),
    Case("dies at home the next day", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 0), ("2020-01-04", "death")]),
    Case("expires in the second part of a transfer: the stay's label", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 1),
        ("2020-01-03 10:00", "admit"), ("2020-01-05 08:00", "discharge to=Expired", "is no transfer")]),
    Case("has not left", [("2020-01-01 08:00", "admit")]),
    Case("H&P signed at 120 h", [
        ("2020-01-01 08:00", "admit"), ("2020-01-06 08:00", "H&P"), ("2020-01-09 08:00", "discharge", 0)]),
    Case("H&P signed a minute later", [
        ("2020-01-01 08:00", "admit"), ("2020-01-06 08:01", "H&P"),
        ("2020-01-09 08:00", "discharge", "signed within 120 h of admission")]),
    Case("H&P signed a minute before discharge", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 07:59", "H&P"), ("2020-01-03 08:00", "discharge", 0)]),
    Case("H&P signed at discharge", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "H&P"),
        ("2020-01-03 08:00", "discharge", "signed before discharge and death")]),
    Case("H&P signed at the time of death", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "H&P"),
        ("2020-01-03 08:00", "discharge to=Expired", "signed before discharge and death")]),
    Case("H&P signed after the day of death, body still there", [
        ("2020-01-01 08:00", "admit"), ("2020-01-02", "death"), ("2020-01-03 08:00", "H&P"),
        ("2020-01-04 08:00", "discharge to=Expired", "signed before discharge and death")]),
    Case("H&P signed a minute before admission", [
        ("2020-01-01 08:00", "admit"), ("2020-01-01 07:59", "H&P"),
        ("2020-01-03 08:00", "discharge", "signed after admission")]),
    Case("first H&P too early, second in time", [
        ("2020-01-01 08:00", "admit"), ("2019-12-31 08:00", "H&P"), ("2020-01-01 09:00", "H&P"),
        ("2020-01-03 08:00", "discharge", 0)]),
    Case("no H&P that passed cleaning", [
        ("2020-01-01 08:00", "admit"), ("2020-01-01 09:00", "H&P rejected"),
        ("2020-01-03 08:00", "discharge", "an H&P passed cleaning")]),
]  # fmt: skip

LOS = [
    Case("leaves the same day", [("2020-01-01 01:00", "admit"), ("2020-01-01 23:00", "discharge", 0)]),
    Case("two midnights", [("2020-01-01 01:00", "admit"), ("2020-01-03 23:00", "discharge", 0)]),
    Case("three midnights in two days and two hours", [
        ("2020-01-01 23:00", "admit"), ("2020-01-04 01:00", "discharge", 1)]),
    Case("three midnights", [("2020-01-01 01:00", "admit"), ("2020-01-04 23:00", "discharge", 1)]),
    Case("four midnights", [("2020-01-01 01:00", "admit"), ("2020-01-05 00:00", "discharge", 2)]),
    Case("five midnights", [("2020-01-01 01:00", "admit"), ("2020-01-06 23:00", "discharge", 2)]),
    Case("six midnights", [("2020-01-01 23:00", "admit"), ("2020-01-07 00:30", "discharge", 3)]),
    Case("transferred: both parts count", [
        ("2020-01-01 08:00", "admit"), ("2020-01-03 08:00", "discharge", 2),
        ("2020-01-03 09:00", "admit"), ("2020-01-05 08:00", "discharge", "is no transfer")]),
    Case("discharge before admission", [
        ("2020-01-03 08:00", "admit"), ("2020-01-01 08:00", "discharge", "no earlier discharge time")]),
]  # fmt: skip

DENIAL = [
    Case("no denial", [("2020-01-01", "admit"), ("2020-01-03", "discharge", 0),
                       ("2020-02-01", "claim status=no_denial")]),
    Case("adverse", [("2020-01-01", "admit"), ("2020-01-03", "discharge", 1),
                     ("2020-02-01", "claim status=final,_adverse_determination")]),
    Case("favorable after appeal", [("2020-01-01", "admit"), ("2020-01-03", "discharge", 1),
                                    ("2020-02-01", "claim status=Final,_Favorable_Determination")]),
    Case("pending is no negative", [("2020-01-01", "admit"), ("2020-01-03", "discharge", "has a final claim status"),
                                    ("2020-02-01", "claim status=pending")]),
    Case("another word is no negative", [
        ("2020-01-01", "admit"), ("2020-01-03", "discharge", "has a final claim status"),
        ("2020-02-01", "claim status=in_appeal")]),
    Case("no claim", [("2020-01-01", "admit"), ("2020-01-03", "discharge", "has a claim")]),
    Case("the last status of a claim counts", [
        ("2020-01-01", "admit"), ("2020-01-03", "discharge", 0),
        ("2020-02-01", "claim status=pending id=x1"), ("2020-03-01", "claim status=no_denial id=x1")]),
    Case("of two claims one was denied, the other waits", [
        ("2020-01-01", "admit"), ("2020-01-03", "discharge", 1), ("2020-02-01", "claim status=pending"),
        ("2020-03-01", "claim status=final,_adverse_determination")]),
    Case("of two claims one was paid, the other waits", [
        ("2020-01-01", "admit"), ("2020-01-03", "discharge", "has a final claim status"),
        ("2020-02-01", "claim status=pending"), ("2020-03-01", "claim status=no_denial")]),
]  # fmt: skip

CASES = {"readmission": READMISSION, "mortality": MORTALITY, "los": LOS, "denial": DENIAL}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, dict[str, dict[str, Any]]]:
    """All cases in one hospital, a patient a case, and what is wanted of each stay by task."""
    hospital, wanted = Hospital(), {}
    for task, cases in CASES.items():
        wanted[task] = {}
        for case in cases:
            renamed = Case(f"{task}: {case.name}", case.events)
            wanted[task] |= draw(hospital, renamed)
            assert len({c.name for c in cases}) == len(cases)
    hospital.stay("last", "2049-01-01", "2049-06-01", "filler last")
    cfg = config()
    return build(hospital, tmp_path_factory.mktemp("drawn"), _keeping_every_half(cfg)), wanted


def _keeping_every_half(cfg: Any) -> Any:
    """Denial's cases must not leave by the half that denial does not keep: no patient is in val or test here."""
    from dataclasses import replace

    from timelines import EVERYTHING

    from lang1.config import Window, WindowsConfig

    whole = EVERYTHING.train
    before = Window(whole.start.replace(year=1990), whole.start)
    after = Window(whole.end, whole.end.replace(year=2060))
    # the fillers of 2010 train; the cases of 2020 are temporal_1, which takes no fold
    early = Window(before.start, whole.start.replace(year=2015))
    cases = Window(early.end, whole.end)
    return replace(cfg, denial_windows=WindowsConfig(early, cases, after))


@pytest.mark.parametrize(("task", "name"), [(task, case.name) for task, cases in CASES.items() for case in cases])
def test_stay_has_its_label_or_its_reason(drawn: tuple[Built, dict[str, dict[str, Any]]], task: str, name: str) -> None:
    built, wanted = drawn
    labels, reasons = built.labels(task), built.reasons(task)
    mine = {stay: what for stay, what in wanted[task].items() if stay.rpartition("/")[0] == f"{task}: {name}"}
    for stay, what in mine.items():
        if isinstance(what, int):
            assert labels.get(stay) == what, reasons.get(stay)
        else:
            assert what in reasons.get(stay, f"label {labels.get(stay)}")


def test_stay_without_an_end_is_left_out(drawn: tuple[Built, Any]) -> None:
    assert drawn[0].reasons("mortality")["mortality: has not left/1"].startswith("has ended")


def test_death_after_discharge_is_flagged(drawn: tuple[Built, Any]) -> None:
    flagged = {row["encounter_id"] for row in drawn[0].rows("readmission") if row["died_after_discharge"]}
    assert flagged == {
        "readmission: dies at home within 30 days: 0, and flagged/1",
        "readmission: is admitted on the day after the day of death/1",
        "mortality: dies at home the next day/1",
    }
    statistics = (drawn[0].out / "statistics.json").read_text()
    assert '"died_after_discharge": 3' in statistics


def test_readmission_needs_follow_up_whatever_the_label(tmp_path: Path) -> None:
    """Both outcomes leave in the last 30 days: keeping early positives would bias the rate."""
    hospital = Hospital()
    hospital.stay("in time", "2020-01-01 08:00", "2020-01-10 08:00", "a")
    hospital.stay("a minute late", "2020-01-01 08:00", "2020-01-10 08:01", "b")
    hospital.stay("late but readmitted", "2020-01-01 08:00", "2020-01-15 08:00", "c")
    hospital.stay("the end of the records", "2020-02-01 08:00", "2020-02-09 08:00", "c")
    built = build(hospital, tmp_path)
    assert built.labels("readmission") == {"in time": 0}
    assert "followed up for 30 days" in built.reasons("readmission")["late but readmitted"]
    given = build(hospital, tmp_path / "given", config(follow_up_end=_day("2020-03-31")), filled=False)
    assert given.labels("readmission")["late but readmitted"] == 1


def test_planned_stay_is_no_readmission_when_asked(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-03")
    hospital.stay("b", "2020-01-13", "2020-01-15", admission_type="elective")
    hospital.stay("c", "2020-01-20", "2020-01-25", admission_type="urgent")
    built = build(hospital, tmp_path, config(exclude_planned=True, follow_up_end=_day("2021-01-01")))
    assert built.labels("readmission") == {"a": 0, "b": 1, "c": 0}


def test_elapsed_days_are_upper_bounds(tmp_path: Path) -> None:
    hospital = Hospital()
    for name, hours in (("two days", 48), ("a minute more", 48.02), ("three", 72), ("more", 73), ("five", 120)):
        day = f"2020-01-{1 + int(8 + hours) // 24:02d} {int(8 + hours) % 24:02d}:{round(hours % 1 * 60):02d}"
        hospital.stay(name, "2020-01-01 08:00", day, name)
    hospital.stay("six", "2020-01-01 08:00", "2020-01-06 08:01", "six")
    built = build(hospital, tmp_path, config(los_unit="elapsed"))
    assert built.labels("los") == {
        "two days": 0, "a minute more": 1, "three": 1, "more": 2, "five": 2, "six": 3}  # fmt: skip


def test_late_summary_of_a_wider_cap_must_precede_the_next_stay(tmp_path: Path) -> None:
    hospital = Hospital()
    for name, signed in (("before", "2020-01-06 07:59"), ("after", "2020-01-06 08:00")):
        hospital.stay(name, "2020-01-01 08:00", "2020-01-03 08:00", name, notes=False)
        hospital.note(name, "discharge summary", signed, name)
        hospital.stay(f"{name} 2", "2020-01-06 08:00", "2020-01-07 08:00", name, notes=False)
    # the audit sees that this rule takes positives only
    audit = AuditConfig(accept={"label_dependent_window": "what the wider cap costs is counted here"})
    cfg = config(max_summary_delay_hours=None, follow_up_end=_day("2021-01-01"), audit=audit)
    built = build(hospital, tmp_path, cfg)
    assert built.manifest["facts"]["audit"]["accepted"] == audit.accept
    assert built.labels("readmission") == {"before": 1}
    assert "signed before the next stay" in built.reasons("readmission")["after"]


def test_index_note_is_the_first_hp_and_the_last_summary(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    for name, signed in (("n3", "2020-01-02"), ("n2", "2020-01-01 08:00"), ("n1", "2020-01-01 08:00")):
        hospital.note("a", "H&P", signed, note_id=f"h{name}")
        hospital.note("a", "discharge summary", signed, note_id=f"d{name}")
    built = build(hospital, tmp_path, config(follow_up_end=_day("2021-01-01")))
    assert [r["note_id"] for r in built.rows("mortality") if r["encounter_id"] == "a"] == ["hn1"]
    assert [r["note_id"] for r in built.rows("readmission") if r["encounter_id"] == "a"] == ["dn3"]


def test_stay_that_the_records_cut_off_is_no_length_of_stay(tmp_path: Path) -> None:
    """OMOP wants an end: a stay that goes on ends when the data were pulled, without a disposition."""
    hospital = Hospital()
    hospital.stay("cut off", "2020-01-01", "2020-01-09 23:59", "a", disposition=None)
    hospital.stay("left that day", "2020-01-01", "2020-01-09 12:00", "b")
    hospital.stay("left before, nobody wrote where", "2020-01-01", "2020-01-08", "c", disposition=None)
    hospital.stay("before", "2019-12-20", "2019-12-22", "a")
    built = build(hospital, tmp_path)
    assert built.labels("los") == {"left that day": 3, "left before, nobody wrote where": 3, "before": 0}
    assert built.reasons("los")["cut off"].startswith("has ended")
    assert built.reasons("mortality")["left before, nobody wrote where"] == "has a discharge disposition"


def test_note_of_another_patient_is_no_note_of_the_stay(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-05", notes=False)
    hospital.note("a", "H&P", "2020-01-01", patient_id="someone else")
    assert build(hospital, tmp_path).reasons("los")["a"] == "has an H&P"


def test_young_claims_are_left_out_when_asked(tmp_path: Path) -> None:
    hospital = Hospital()
    for name, day in (("old", "2020-01-31"), ("young", "2020-02-01")):
        hospital.stay(name, "2020-01-10", day, name)
        hospital.claim(name, "no denial")
    cfg = config(claims_follow_up_days=60, follow_up_end=_day("2020-03-30"))
    assert build(hospital, tmp_path, _keeping_every_half(cfg)).labels("denial") == {"old": 0}


def _day(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)
