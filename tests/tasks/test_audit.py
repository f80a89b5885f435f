"""The leakage audit: each check finds what is planted and passes what is clean, on our task sets and on others'."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from timelines import Built, Hospital, at, build, config

from lang1 import cli, runs
from lang1.config import AuditConfig, Window, WindowsConfig
from lang1.config.audit import CHECKS, FAILING
from lang1.corpus.hashes import hash_id
from lang1.errors import InputError
from lang1.tasks import audit_tasks, build_tasks, cohort
from lang1.tasks.schema import OFFENDING

WINDOWS = WindowsConfig(
    train=Window(date(2018, 1, 1), date(2021, 1, 1)),
    temporal_1=Window(date(2021, 1, 1), date(2021, 7, 1)),
    temporal_2=Window(date(2021, 7, 1), date(2023, 1, 1)),
)
CONFIG = config(windows=WINDOWS, denial_windows=WINDOWS, follow_up_end=date(2023, 1, 1))


def hospital(stays: int = 240) -> Hospital:
    """Stays of all outcomes; every note was begun an hour before it was signed; every text is its own."""
    draw, found = random.Random(3), Hospital()
    for n in range(stays):
        patient, name = f"q{n // 2:03d}", f"s{n:03d}"
        begin = at("2018-01-05 08:00") + timedelta(days=900 * (n % 2) + 5 * (n // 2), hours=draw.randrange(9))
        end = begin + timedelta(days=draw.choice([1, 3, 4, 5, 8, 12]))
        to = "Expired" if n % 2 and draw.random() < 0.3 else "Home"
        found.stay(name, str(begin), str(end), patient, to, notes=False, department=draw.choice(["3 West", "4 East"]))
        for kind, signed in (("H&P", begin + timedelta(hours=4)), ("discharge summary", end)):
            words = " ".join(draw.choice(["stable", "edema", "walks", "eats", "cough", "rash"]) for _ in range(30))
            found.note(name, kind, str(signed), patient, text=f"{words} chart {_letters(n)} {kind}",
                       written_time=signed - timedelta(hours=1),
                       author_role=draw.choice(["resident", "attending"]))  # fmt: skip
        found.code(name, draw.choice(["I10", "C78.7", "E11.9"]), patient_id=patient)
        found.claim(name, draw.choice(["no denial", "final, favorable determination"]))
        if to == "Home" and draw.random() < 0.4:
            back = str(end + timedelta(days=9))
            found.stay(f"{name}b", back, str(end + timedelta(days=12)), patient, notes=False)
    return found


def _letters(n: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in str(n))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(hospital(), tmp_path_factory.mktemp("audit"), CONFIG, filled=False)


def findings(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads((folder / "audit.json").read_text())["findings"]
    return {(f["check"], f["task"]): f for f in found}


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None]


def foreign(built: Built, folder: Path, task: str, split: str, change: Change | None = None) -> Path:
    """The task sets without our manifest, as another tool may have written them, with one file changed."""
    shutil.copytree(built.out, folder)
    (folder / runs.MANIFEST).unlink()
    if change is not None:
        path = folder / task / f"{split}.parquet"
        table = pq.read_table(path)
        rows = table.to_pylist()
        runs.write_table(path, pa.Table.from_pylist(change(rows) or rows, table.schema))
    return folder


def audit(built: Built, tasks: Path, cfg: AuditConfig | None = None, corpus: bool = True) -> Path:
    root = built.out.parent
    out = tasks.with_name(f"{tasks.name}-audit")
    audit_tasks(
        cfg or AuditConfig(), tasks=tasks, records=root / "records", corpus=root / "corpus" if corpus else None,
        out=out, seed=7,
    )  # fmt: skip
    return out


def test_clean_task_sets_pass_every_check(built: Built, tmp_path: Path) -> None:
    inside = findings(built.out / "audit")
    assert {check for check, _ in inside} == set(CHECKS)
    assert {f["verdict"] for (check, _), f in inside.items() if check in FAILING} == {"passed"}
    assert all(f["n"] == f["checked"] > 0 for (check, _), f in inside.items() if check in FAILING)
    assert pq.read_table(built.out / "audit" / "offending.parquet").schema.equals(OFFENDING)
    assert built.manifest["facts"]["audit"]["failed"] == []
    copied = shutil.copytree(built.out, tmp_path / "tasks")
    assert findings(audit(built, copied)) == inside, "the command finds what the stage found"


def _predict_earlier(rows: list[dict[str, Any]]) -> None:
    for row in rows[:3]:
        row["prediction_time"] -= timedelta(minutes=1)


def _next_stays_note(rows: list[dict[str, Any]]) -> None:
    by_patient = {row["patient_id"]: row for row in rows}
    for row in rows:
        later = by_patient[row["patient_id"]]
        if later["encounter_id"] > row["encounter_id"]:
            row["note_id"], row["prediction_time"] = later["note_id"], later["prediction_time"]


def _anothers_note(rows: list[dict[str, Any]]) -> None:
    rows[0]["note_id"] = rows[-1]["note_id"]
    rows[0]["prediction_time"] = rows[-1]["prediction_time"]


def _an_addendum(rows: list[dict[str, Any]]) -> None:
    rows[2]["note_type"] = "H&P addendum"


@pytest.mark.parametrize(
    ("check", "change", "at_least"),
    [
        ("note_after_prediction", _predict_earlier, 3),
        ("later_encounter", _next_stays_note, 10),
        ("later_encounter", _anothers_note, 1),
        ("addendum", _an_addendum, 1),
    ],
)
def test_planted_note_fails_its_check_alone(
    built: Built, tmp_path: Path, check: str, change: Change, at_least: int
) -> None:
    tasks = foreign(built, tmp_path / "tasks", "los", "train", change)
    with pytest.raises(InputError, match=rf"the leakage audit failed: {check} \(los: \d+\); .*audit.md") as caught:
        audit(built, tasks)
    assert caught.value.exit_code == 2
    out = tmp_path / "tasks-audit"
    found = findings(out)
    assert found[check, "los"]["found"] >= at_least
    failed = {key for key, f in found.items() if f["verdict"] == "failed"}
    assert failed == {(check, "los")}
    aside = out / "offending.parquet"
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    rows = pq.read_table(aside).to_pylist()
    assert {(row["check"], row["task"]) for row in rows} == {(check, "los")}
    assert len(rows) == found[check, "los"]["found"]


def test_later_edit_of_the_summary_fails_the_stage_before_it_is_complete(tmp_path: Path) -> None:
    edited = hospital()
    note = next(n for n in edited.notes if n["note_id"] == "s012-discharge summary")
    later = note["signed_time"] + timedelta(hours=5)
    edited.note("s012", "discharge summary", str(later), note["patient_id"], "s012 edited",
                written_time=note["written_time"], author_role=note["author_role"],
                text="the same with more")  # fmt: skip
    with pytest.raises(InputError, match=r"the leakage audit failed: addendum \(readmission: 1\)"):
        build(edited, tmp_path, replace(CONFIG, later_edits="keep"), filled=False)
    assert not (tmp_path / "tasks" / runs.MANIFEST).exists()
    assert findings(tmp_path / "tasks" / "audit")["addendum", "readmission"]["found"] == 1
    accepted = replace(CONFIG, later_edits="keep", audit=AuditConfig(accept={"addendum": "read by a nurse"}))
    records, corpus = tmp_path / "records", tmp_path / "corpus"
    manifest = build_tasks(accepted, records=records, corpus=corpus, out=tmp_path / "tasks", seed=7, force=True)
    assert manifest["config"]["audit"]["accept"] == {"addendum": "read by a nurse"}
    assert manifest["facts"]["audit"]["accepted"] == {"addendum": "read by a nurse"}
    found = findings(tmp_path / "tasks" / "audit")["addendum", "readmission"]
    assert (found["verdict"], found["found"], found["accepted"]) == ("accepted", 1, "read by a nurse")


@pytest.mark.parametrize("task", ["readmission", "mortality", "los", "cci", "denial"])
def test_rule_that_reads_the_label_fails(built: Built, tmp_path: Path, task: str, monkeypatch: Any) -> None:
    """A window that is shorter for one outcome, as a careless rule has it."""
    honest = cohort.rules_for
    hasty = cohort.Rule("is early, or of label 0", f"{task}_label = 0 OR encounter_id < 's150'")
    monkeypatch.setattr(cohort, "rules_for", lambda t, cfg: [*honest(t, cfg), *([hasty] if t == task else [])])
    root = built.out.parent
    with pytest.raises(InputError, match=rf"failed: label_dependent_window \({task}: \d+\)"):
        build_tasks(CONFIG, records=root / "records", corpus=root / "corpus", out=tmp_path / "tasks", seed=7)
    found = findings(tmp_path / "tasks" / "audit")
    assert [key for key, f in found.items() if f["verdict"] == "failed"] == [("label_dependent_window", task)]


def _with_hps_of_returns() -> Hospital:
    """Who comes back has an H&P then, as `readmission_by: admission_note` asks; every third is seen and sent home."""
    found = hospital()
    for n, stay in enumerate([e for e in found.encounters if e["encounter_id"].endswith("b")]):
        found.note(stay["encounter_id"], "H&P", str(stay["admit_time"]), stay["patient_id"])
        if n % 3 == 0:
            stay["encounter_class"] = "emergency"
    return found


BY_NOTE = replace(CONFIG, tasks=("readmission",), readmission_by="admission_note")


@pytest.mark.parametrize("changes", [{}, {"exclude_planned": True, "readmission_boundary": "calendar"}])
def test_readmission_by_note_is_permuted(tmp_path: Path, changes: dict[str, Any]) -> None:
    built = build(_with_hps_of_returns(), tmp_path, replace(BY_NOTE, **changes), filled=False)
    found = findings(built.out / "audit")["label_dependent_window", "readmission"]
    positives = sum(row["label"] for row in built.rows("readmission"))
    assert (found["verdict"], found["found"]) == ("passed", 0)
    assert positives > 50 and int(found["why"].split()[0]) > positives / 2


def test_cohort_that_reads_the_return_note_fails(tmp_path: Path, monkeypatch: Any) -> None:
    honest = cohort.rules_for
    hasty = cohort.Rule("is early, or came back by note", "by_note OR encounter_id < 's150'")
    monkeypatch.setattr(cohort, "rules_for", lambda t, cfg: [*honest(t, cfg), hasty])
    with pytest.raises(InputError, match=r"failed: label_dependent_window \(readmission: \d+\)"):
        build(_with_hps_of_returns(), tmp_path, BY_NOTE, filled=False)


def _with_hps_filed_after_short_stays(also_in_time: bool) -> Hospital:
    """Every stay of a day has an H&P that was signed at 30 h: no row, or, with another in time, a row of that one."""
    found = hospital()
    stays = {e["encounter_id"]: e for e in found.encounters}
    for note in [n for n in found.notes if n["note_type"] == "H&P"]:
        stay = stays[note["encounter_id"]]
        if stay["discharge_time"] - stay["admit_time"] > timedelta(days=1):
            continue
        late = stay["admit_time"] + timedelta(hours=30)
        if also_in_time:
            found.note(stay["encounter_id"], "H&P", str(late), stay["patient_id"], f"{note['note_id']} late",
                       written_time=late - timedelta(hours=1), text=f"{note['text']} late")  # fmt: skip
        else:
            note |= {"signed_time": late, "written_time": late - timedelta(hours=1)}
    return found


@pytest.mark.parametrize(
    ("also_in_time", "changes"),
    [(False, {}), (False, {"choose_note": "before"}), (True, {}), (True, {"hp_choice": "last"})],
)
def test_hp_filed_after_a_short_stay_is_no_window_of_los(
    tmp_path: Path, also_in_time: bool, changes: dict[str, Any]
) -> None:
    cfg = replace(CONFIG, tasks=("los",), **changes)
    late = build(_with_hps_filed_after_short_stays(also_in_time), tmp_path, cfg, filled=False)
    found = findings(late.out / "audit")["label_dependent_window", "los"]
    assert (found["verdict"], found["found"]) == ("passed", 0)
    assert int(found["why"].split()[0]) > 50, "labels changed"
    assert any(row["label"] == 0 for row in late.rows("los")) == also_in_time


def test_window_of_los_fails_beside_hps_that_were_filed_late(tmp_path: Path, monkeypatch: Any) -> None:
    honest = cohort.rules_for
    hasty = cohort.Rule("is early, or stays long", "los_label = 3 OR encounter_id < 's150'")
    monkeypatch.setattr(cohort, "rules_for", lambda t, cfg: [*honest(t, cfg), hasty])
    with pytest.raises(InputError, match=r"failed: label_dependent_window \(los: \d+\)"):
        build(_with_hps_filed_after_short_stays(False), tmp_path, replace(CONFIG, tasks=("los",)), filled=False)


def test_window_of_readmission_that_takes_positives_only_fails(tmp_path: Path) -> None:
    late = hospital()
    for note in late.notes[1::4]:
        note["signed_time"] += timedelta(days=10)
    with pytest.raises(InputError, match=r"label_dependent_window \(readmission: \d+\)"):
        build(late, tmp_path, replace(CONFIG, max_summary_delay_hours=None), filled=False)


def test_folder_whose_stage_failed_is_not_cleared_by_the_command(tmp_path: Path) -> None:
    late = hospital()
    for note in late.notes[1::4]:
        note["signed_time"] += timedelta(days=10)
    records, corpus = late.write(tmp_path)
    tasks, cfg = tmp_path / "tasks", replace(CONFIG, tasks=("readmission", "los"), max_summary_delay_hours=None)
    with pytest.raises(InputError, match=r"label_dependent_window \(readmission: \d+\)"):
        build_tasks(cfg, records=records, corpus=corpus, out=tasks, seed=7)
    inside = findings(tasks / "audit")["label_dependent_window", "readmission"]

    def audited(folder: Path, **accept: str) -> dict[tuple[str, str], dict[str, Any]]:
        out = folder.with_name(f"{folder.name}-audit")
        audit_tasks(AuditConfig(accept=accept), tasks=folder, records=records, corpus=corpus, out=out, seed=7)
        return findings(out)

    with pytest.raises(InputError, match="tasks: not complete"):
        audited(tasks)
    # handed on without the marks of the stage: what cannot be checked again is not cleared
    copied = shutil.copytree(tasks, tmp_path / "copied", ignore=shutil.ignore_patterns(".*"))
    with pytest.raises(
        InputError, match=rf"failed: label_dependent_window \(readmission: {inside['found']}\); "
    ) as caught:
        audited(copied)
    assert caught.value.exit_code == 2
    assert findings(tmp_path / "copied-audit")["label_dependent_window", "los"]["verdict"] == "not checkable"
    accepted = audited(copied, label_dependent_window="we know")["label_dependent_window", "readmission"]
    assert (accepted["verdict"], accepted["found"]) == ("accepted", inside["found"])
    (copied / "audit" / "audit.json").write_text('{"findings": ')
    with pytest.raises(InputError, match=r"audit.json: not readable as the audit of a stage"):
        audited(copied)
    # of a folder that never failed there is nothing to carry
    shutil.rmtree(copied / "audit")
    assert audited(copied)["label_dependent_window", "readmission"]["verdict"] == "not checkable"


def test_rows_that_were_left_out_by_their_label_fail_against_the_records(built: Built, tmp_path: Path) -> None:
    """The files are ours, but for the negatives that somebody took away."""
    tasks = shutil.copytree(built.out, tmp_path / "tasks")
    path = tasks / "mortality" / "train.parquet"
    table = pq.read_table(path)
    runs.write_table(path, table.filter(pa.compute.equal(table["label"], 1)))
    manifest = json.loads((tasks / runs.MANIFEST).read_text())
    manifest["files"]["mortality/train.parquet"] = {
        "bytes": path.stat().st_size,
        "sha256": runs.sha256_file(path),
    }
    runs.write_json(tasks / runs.MANIFEST, manifest)
    with pytest.raises(InputError, match=r"label_dependent_window \(mortality"):
        audit(built, tasks)


def test_patient_on_two_sides_fails(built: Built, tmp_path: Path) -> None:
    moved = pq.read_table(built.out / "cci" / "train.parquet").to_pylist()[0]["patient_id"]

    def to_test(rows: list[dict[str, Any]]) -> None:
        rows[0]["patient_id"] = moved

    with pytest.raises(InputError) as caught:
        audit(built, foreign(built, tmp_path / "tasks", "cci", "test", to_test))
    assert "patient_in_two_splits (cci: " in str(caught.value)
    assert "patient_in_two_splits_across_tasks (readmission, mortality, los, cci, denial: 1)" in str(caught.value)
    assert moved not in str(caught.value)


def test_patient_on_two_sides_of_two_tasks_fails(built: Built, tmp_path: Path) -> None:
    tasks = foreign(built, tmp_path / "tasks", "los", "train")
    # the paper's fault: each task drew its split anew
    (tasks / "los" / "train.parquet").rename(tasks / "los" / "x")
    (tasks / "los" / "test.parquet").rename(tasks / "los" / "train.parquet")
    (tasks / "los" / "x").rename(tasks / "los" / "test.parquet")
    with pytest.raises(InputError, match=r"failed: patient_in_two_splits_across_tasks \(.*: \d+\); "):
        audit(built, tasks)
    found = findings(tmp_path / "tasks-audit")
    assert found["patient_in_two_splits", "los"]["verdict"] == "passed"


def test_outcome_words_are_counted_by_label_and_do_not_fail(built: Built, tmp_path: Path) -> None:
    def say(rows: list[dict[str, Any]]) -> None:
        for n, row in enumerate(rows):
            if row["label"] == 1:
                row["text"] += " Time of death 04:10."
            if n % 3 == 0:
                row["text"] += " Father EXPIRED of a stroke."

    tasks = foreign(built, tmp_path / "tasks", "mortality", "train", say)
    found = findings(audit(built, tasks, AuditConfig(outcome_word_rows=5)))["outcome_words", "mortality"]
    words = {d["word"]: d for d in found["details"]}
    rows = pq.read_table(tasks / "mortality" / "train.parquet").to_pylist()
    dead = sum(row["label"] for row in rows)
    assert words["time of death"]["rows"] == {"0": 0, "1": dead}
    assert words["expired"]["rows"]["0"] == sum(r["label"] == 0 for r in rows[::3])
    n, share = len(built.rows("mortality")), dead / _positives(built)
    smoothed = 5 * dead / n / (n - _positives(built) + 5)
    assert words["time of death"]["lift"] == pytest.approx(share / smoothed, rel=0.01)
    assert words["expired"]["lift"] < 2
    assert (found["verdict"], found["severity"]) == ("reported", "reports")
    assert findings(built.out / "audit")["outcome_words", "mortality"]["verdict"] == "below threshold"


@pytest.mark.parametrize(("wanted", "verdict"), [(0, "reported"), (None, "below threshold")])
def test_outcome_word_of_a_common_label_is_reported_and_one_of_all_labels_is_not(
    built: Built, tmp_path: Path, wanted: int | None, verdict: str
) -> None:
    def say(rows: list[dict[str, Any]]) -> None:
        for n, row in enumerate(rows):
            if n % 3 and wanted in (None, row["label"]):
                row["text"] += " Time of death 04:10."

    tasks = foreign(built, tmp_path / "tasks", "mortality", "train", say)
    rows = built.rows("mortality", "train")
    assert sum(row["label"] == 0 for row in rows) > 2 * len(rows) / 3, "its share over that in all rows is below 1.5"
    found = findings(audit(built, tasks))["outcome_words", "mortality"]
    assert found["verdict"] == verdict
    if wanted is not None:
        assert [(d["word"], d["of_label"]) for d in found["details"]] == [("time of death", wanted)]


def _positives(built: Built) -> int:
    return sum(row["label"] for row in built.rows("mortality"))


def test_copies_of_training_texts_are_reported_with_near_ones(built: Built, tmp_path: Path) -> None:
    trained = [row["text"] for row in built.rows("los", "train")]

    def copy(rows: list[dict[str, Any]]) -> None:
        rows[0]["text"] = trained[0]
        rows[1]["text"] = f"10/12: {trained[1].upper()}!"

    found = findings(audit(built, foreign(built, tmp_path / "tasks", "los", "test", copy)))["same_text", "los"]
    tests = next(d for d in found["details"] if d["split"] == "test")
    assert (tests["same"], tests["near"], found["verdict"]) == (1, 2, "reported")
    assert findings(built.out / "audit")["same_text", "los"]["found"] == 0


def test_patients_of_the_temporal_windows_are_said(built: Built, tmp_path: Path) -> None:
    found = findings(built.out / "audit")["patients_in_temporal", "los"]
    known = {r["patient_id"] for s in ("train", "val", "test") for r in built.rows("los", s)}
    for detail in found["details"]:
        rows = built.rows("los", detail["split"])
        assert detail["rows_of_known_patients"] == sum(row["patient_id"] in known for row in rows)
    assert (found["verdict"], found["found"] > 0) == ("reported", True)

    def strangers(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["patient_id"] += " of another hospital"

    tasks = foreign(built, tmp_path / "tasks", "los", "temporal_2", strangers)
    (tasks / "los" / "temporal_1.parquet").unlink()
    # the notes are then another patient's, which is its own fault
    with pytest.raises(InputError, match=r"failed: later_encounter"):
        audit(built, tasks)
    assert findings(tmp_path / "tasks-audit")["patients_in_temporal", "los"]["verdict"] == "below threshold"


@pytest.mark.parametrize("feature", ["note length", "department"])
def test_feature_that_predicts_alone_is_reported(built: Built, tmp_path: Path, feature: str) -> None:
    tasks = foreign(built, tmp_path / "tasks", "cci", "train")
    for split in ("train", "test"):
        path = tasks / "cci" / f"{split}.parquet"
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            if feature == "department":
                row["department"] = f"ward {row['label']}"
            else:
                row["text"] += " more" * 40 * row["label"]
        runs.write_table(path, pa.Table.from_pylist(rows, table.schema))
    found = findings(audit(built, tasks))["one_feature", "cci"]
    assert found["verdict"] == "reported"
    values = {d["feature"]: d for d in found["details"]}
    assert values[feature]["auroc"] > 0.95
    assert max(d["auroc"] for name, d in values.items() if name != feature) < 0.75
    clean = findings(built.out / "audit")["one_feature", "cci"]
    assert clean["verdict"] == "below threshold"
    assert {d["feature"] for d in clean["details"]} == {"note length", "hour of signing", "author role", "department"}


def test_what_is_missing_is_not_checkable_and_never_passed(built: Built, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    for split in ("train", "test"):
        table = pq.read_table(built.out / "los" / f"{split}.parquet", columns=["text", "label"])
        runs.write_table(bare / "los" / f"{split}.parquet", table)
    found = findings(audit(built, bare, corpus=False))
    verdicts = {check: f["verdict"] for (check, _), f in found.items()}
    assert verdicts == {
        **dict.fromkeys(c for c in FAILING if c != "patient_in_two_splits_across_tasks"),
        "outcome_words": "below threshold",
        "same_text": "below threshold",
        "patients_in_temporal": "not checkable",
        "one_feature": "not checkable",
    } | dict.fromkeys((c for c in FAILING if not c.endswith("tasks")), "not checkable")
    assert found["note_after_prediction", "los"]["why"] == "the rows have no column note_id"
    assert found["label_dependent_window", "los"]["why"].startswith("lang1 did not write these task sets")


def test_row_that_the_records_cannot_vouch_for_keeps_the_check_from_passing(built: Built, tmp_path: Path) -> None:
    def lose(rows: list[dict[str, Any]]) -> None:
        rows[0]["note_id"] = "nobody's"

    found = findings(audit(built, foreign(built, tmp_path / "tasks", "los", "train", lose)))
    for check in ("note_after_prediction", "addendum", "later_encounter"):
        finding = found[check, "los"]
        assert (finding["verdict"], finding["checked"]) == ("not checkable", finding["n"] - 1)
        assert "1 of" in finding["why"]


def test_other_records_are_no_ground_for_the_cohort(built: Built, tmp_path: Path) -> None:
    other = hospital(200)
    records, corpus = other.write(tmp_path)
    with pytest.raises(InputError):  # the notes of the rows are not all in these records, or are other ones
        audit_tasks(AuditConfig(), tasks=built.out, records=records, corpus=corpus, out=tmp_path / "out", seed=7)
        raise InputError("no check failed")
    found = findings(tmp_path / "out")["label_dependent_window", "los"]
    assert (found["verdict"], found["why"]) == (
        "not checkable",
        "the records and corpus are not those that the tasks were made from",
    )


def test_command_accepts_with_a_reason_and_names_the_nearest_check(
    built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    tasks = foreign(built, tmp_path / "tasks", "los", "train", _predict_earlier)
    root = built.out.parent
    command = ["lang1", "audit", "--tasks", str(tasks), "--records", str(root / "records"), "--quiet"]

    def ended(*more: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", [*command, *more])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    assert ended("--accept", "note_after=x")[1].strip() == (
        "lang1: tasks.audit.accept.note_after: no such check; did you mean note_after_prediction?"
    )
    assert "write CHECK=REASON" in ended("--accept", "addendum")[1]
    assert "must have a reason" in ended("--accept", "addendum= ")[1]
    code, message = ended()
    assert code == 2
    assert re.fullmatch(r"lang1: the leakage audit failed: note_after_prediction \(los: 3\); .*\n", message)
    assert ended() == (code, message), "a second look at the same says the same"
    # the same folder, with the reason: no --force is needed
    assert ended("--accept", "note_after_prediction=the clock of the scanner is 1 minute late") == (0, "")
    manifest = runs.read_manifest(tmp_path / "tasks-audit")
    assert manifest["config"]["accept"] == {"note_after_prediction": "the clock of the scanner is 1 minute late"}
    assert "the clock of the scanner" in (tmp_path / "tasks-audit" / "audit.md").read_text()


def test_audit_holds_no_text_and_no_id(built: Built, tmp_path: Path) -> None:
    tasks = foreign(built, tmp_path / "tasks", "los", "train", _predict_earlier)
    with pytest.raises(InputError):
        audit(built, tasks)
    out = tmp_path / "tasks-audit"
    said = "".join((out / name).read_text() for name in ("audit.json", "audit.md", "manifest.json"))
    for row in built.rows("los"):
        assert row["patient_id"] not in said
        assert not re.search(rf"\b{row['encounter_id']}\b", said)
        assert row["text"][:40] not in said


def test_page_lists_every_finding_once(built: Built) -> None:
    page = (built.out / "audit" / "audit.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.split("\n") if line.startswith("| ")]
    listed = [(row[0], row[2]) for row in rows if row[0] in CHECKS and len(row) == 10]
    assert sorted(listed) == sorted(findings(built.out / "audit"))


def test_same_input_gives_the_same_audit(built: Built, tmp_path: Path) -> None:
    tasks = foreign(built, tmp_path / "tasks", "los", "train", _predict_earlier)
    files = []
    for name in ("a", "b"):
        with pytest.raises(InputError):
            audit(built, tasks)
        folder = (tmp_path / "tasks-audit").rename(tmp_path / name)
        files.append({p.name: p.read_bytes() for p in folder.iterdir() if p.name != runs.MANIFEST})
    assert files[0] == files[1]


def test_folder_without_task_sets_is_refused(built: Built, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no <task>/<split>.parquet"):
        audit(built, tmp_path / "empty")


def test_outcome_words_file_is_whole() -> None:
    from lang1.tasks import audit_texts

    lines = (Path(audit_texts.__file__).parent / "outcome_words.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    for row in rows:
        assert re.search(row["pattern"], row["word"].replace("claim denied", "claim was denied")), row
    assert hash_id("x")
