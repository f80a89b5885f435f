"""Splits: one patient-level assignment for all tasks, windows by discharge time, stable when data are added."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from timelines import Built, Hospital, build

from lang1.config import TASK_IDS, TasksConfig, Window, WindowsConfig, load_config
from lang1.corpus.hashes import patient_fold
from lang1.errors import ConfigError
from lang1.tasks.database import run_sql, set_variables
from lang1.tasks.schema import SPLITS
from lang1.tasks.splits import keeps_denial_half

WINDOWS = WindowsConfig(
    train=Window(date(2020, 1, 1), date(2021, 1, 1)),
    temporal_1=Window(date(2021, 2, 1), date(2021, 3, 1)),
    temporal_2=Window(date(2022, 1, 1), date(2023, 1, 1)),
)
DENIAL = WindowsConfig(
    train=Window(date(2020, 6, 1), date(2021, 2, 1)),
    temporal_1=Window(date(2021, 2, 1), date(2021, 4, 1)),
    temporal_2=Window(date(2022, 1, 1), date(2022, 6, 1)),
)
CFG = TasksConfig(windows=WINDOWS, denial_windows=DENIAL, follow_up_end=date(2024, 1, 1))


def hospital_of(patients: int, seed: int = 0) -> Hospital:
    """Patients with one to three stays anywhere from 2019 to 2023."""
    draw, hospital = random.Random(seed), Hospital()
    for p in range(patients):
        day = datetime(2019, 12, 1) + timedelta(days=draw.randrange(900))
        for s in range(draw.randint(1, 3)):
            name, leaves = f"s{seed}.{p}.{s}", day + timedelta(days=draw.randint(1, 9))
            hospital.stay(name, str(day), str(leaves), f"p{seed}.{p}")
            hospital.code(name, "E11.9", patient_id=f"p{seed}.{p}")
            hospital.claim(name, draw.choice(["no denial", "final, adverse determination"]))
            day = leaves + timedelta(days=draw.randint(2, 200))
    return hospital


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(hospital_of(400), tmp_path_factory.mktemp("splits"), CFG, filled=False)


def test_no_patient_is_in_two_of_train_val_and_test_of_any_tasks(built: Built) -> None:
    folds: dict[str, set[str]] = {}
    for task in TASK_IDS:
        for row in built.rows(task):
            if not row["split"].startswith("temporal"):
                folds.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(folds) > 150
    assert {patient: found for patient, found in folds.items() if len(found) > 1} == {}


def test_split_of_a_row_is_the_window_of_its_discharge(built: Built) -> None:
    discharged = {f"s0.{e}": t for e, t in _discharges(400).items()}
    for task in TASK_IDS:
        windows = DENIAL if task == "denial" else WINDOWS
        rows = built.rows(task)
        assert {row["split"] for row in rows} == set(SPLITS)
        for row in rows:
            name = row["split"] if row["split"].startswith("temporal") else "train"
            window = getattr(windows, name)
            assert window.start <= discharged[row["encounter_id"]].date() < window.end
            if name == "train":
                assert row["split"] == patient_fold(7, row["patient_id"])


def _discharges(patients: int) -> dict[str, datetime]:
    hospital = hospital_of(patients)
    return {e["encounter_id"].removeprefix("s0."): e["discharge_time"] for e in hospital.encounters}


def test_window_takes_its_first_day_and_not_its_end(tmp_path: Path) -> None:
    hospital = hospital_of(40)
    wanted = {
        "2019-12-31 23:59": None, "2020-01-01 00:00": "train", "2020-12-31 23:59": "train", "2021-01-01 00:00": None,
        "2021-02-01 00:00": "temporal_1", "2021-02-28 23:59": "temporal_1", "2021-03-01 00:00": None,
        "2022-01-01 00:00": "temporal_2", "2023-01-01 00:00": None,
    }  # fmt: skip
    # a patient of the train fold, so that the training window reads as train
    names = iter(n for n in map(str, range(1000)) if patient_fold(7, n) == "train")
    patients = {when: next(names) for when in wanted}
    for when, patient in patients.items():
        admit = datetime.fromisoformat(when) - timedelta(days=2)
        hospital.stay(when, str(admit), when, patient)
    built = build(hospital, tmp_path, CFG, filled=False)
    found = {row["encounter_id"]: row["split"] for row in built.rows("los")}
    assert {when: found.get(when) for when in wanted} == wanted
    assert built.reasons("los")["2021-01-01 00:00"] == "was discharged within a window"


def test_adding_patients_moves_no_other(built: Built, tmp_path: Path) -> None:
    more, before = hospital_of(400), {}
    extra = hospital_of(100, seed=1)
    for name in ("patients", "encounters", "notes", "diagnoses", "claims"):
        getattr(more, name).extend(getattr(extra, name))
    after = build(more, tmp_path, CFG, filled=False)
    for task in TASK_IDS:
        before = {row["row_id"]: row for row in built.rows(task)}
        found = {row["row_id"]: row for row in after.rows(task)}
        assert len(found) > len(before)
        assert {row_id: found.get(row_id) for row_id in before} == before


def test_denial_keeps_half_of_val_and_test_and_the_rest_leaves(built: Built) -> None:
    others = {r["patient_id"]: r["split"] for task in TASK_IDS if task != "denial" for r in built.rows(task)}
    for row in built.rows("denial"):
        if row["split"] in ("val", "test"):
            assert keeps_denial_half(7, row["patient_id"])
            assert others.get(row["patient_id"], row["split"]) in (row["split"], "temporal_1", "temporal_2")
    left = [e for e, rule in built.reasons("denial").items() if rule.startswith("is in the half")]
    assert left
    patients = {e["encounter_id"]: e["patient_id"] for e in hospital_of(400).encounters}
    assert not any(keeps_denial_half(7, patients[e]) or patient_fold(7, patients[e]) == "train" for e in left)


def test_folds_are_8_1_1_and_denials_16_1_1() -> None:
    names = [f"patient {n}" for n in range(20_000)]
    folds = [patient_fold(3, name) for name in names]
    assert [round(folds.count(fold) / len(names), 2) for fold in ("train", "val", "test")] == [0.8, 0.1, 0.1]
    for fold in ("val", "test"):
        kept = [keeps_denial_half(3, name) for name, found in zip(names, folds, strict=True) if found == fold]
        assert 0.46 < sum(kept) / len(kept) < 0.54


def test_another_seed_draws_other_folds(built: Built, tmp_path: Path) -> None:
    other = build(hospital_of(400), tmp_path, CFG, seed=8, filled=False)
    assert {r["row_id"] for r in other.rows("los", "test")} != {r["row_id"] for r in built.rows("los", "test")}


def test_sql_computes_the_fold_of_hashes_py() -> None:
    names = [f"patient {n}" for n in range(3_000)] + ["", "é\u4e2d\U0001f600", "a'b\"c", "p" * 500, "note:n1"]
    for ratio in ((8.0, 1.0, 1.0), (70.0, 15.0, 15.0), (1.0, 0.0, 0.0)):
        database = duckdb.connect()
        set_variables(database, TasksConfig(split_ratio=ratio), seed=3407)
        database.execute("CREATE TABLE encounters AS SELECT unnest(?::VARCHAR[]) AS patient_id", [names])
        run_sql(database, "splits")
        rows = database.execute("SELECT patient_id, fold, keeps_half_of(patient_id) FROM folds").fetchall()
        assert len(rows) == len(names)
        for name, fold, half in rows:
            assert fold == patient_fold(3407, name, ratio)
            assert half == keeps_denial_half(3407, name)


def test_ratio_is_70_15_15_when_asked(tmp_path: Path) -> None:
    built = build(hospital_of(400), tmp_path, replace(CFG, split_ratio=(70, 15, 15), tasks=("los",)), filled=False)
    rows = [row for row in built.rows("los") if not row["split"].startswith("temporal")]
    assert all(row["split"] == patient_fold(7, row["patient_id"], (70, 15, 15)) for row in rows)
    folds = [patient_fold(3, f"patient {n}", (70, 15, 15)) for n in range(20_000)]
    assert [round(folds.count(fold) / 20_000, 2) for fold in ("train", "val", "test")] == [0.7, 0.15, 0.15]


def test_notes_are_split_when_asked_and_the_patients_on_two_sides_are_counted(tmp_path: Path) -> None:
    cfg = replace(CFG, split_unit="note")
    built = build(hospital_of(400), tmp_path, cfg, filled=False)
    statistics = json.loads((built.out / "statistics.json").read_text())
    of_note: dict[str, set[str]] = {}
    for task in TASK_IDS:
        trained = {row["patient_id"] for row in built.rows(task, "train")}
        for split in SPLITS:
            also = trained & {row["patient_id"] for row in built.rows(task, split)}
            assert statistics[task][split]["patients_also_in_train"] == len(also)
        for row in built.rows(task):
            if not row["split"].startswith("temporal"):
                assert row["split"] == patient_fold(7, f"note:{row['note_id']}")
                of_note.setdefault(row["note_id"], set()).add(row["split"])
    assert statistics["los"]["test"]["patients_also_in_train"] > 10
    assert all(len(splits) == 1 for splits in of_note.values())
    assert any("patients of train are in val and test" in line for line in statistics["los"]["cautions"])
    # no patient has a split: MEDS's file has none either, the sidecar has the rows'
    assert pq.read_table(built.out / "meds" / "metadata" / "subject_splits.parquet").num_rows == 0
    more, extra = hospital_of(400), hospital_of(60, seed=1)
    for name in ("patients", "encounters", "notes", "diagnoses", "claims"):
        getattr(more, name).extend(getattr(extra, name))
    after = {row["row_id"]: row["split"] for row in build(more, tmp_path / "more", cfg, filled=False).rows("los")}
    assert all(after[row["row_id"]] == row["split"] for row in built.rows("los"))


def test_papers_denial_trains_on_the_other_half_and_says_so(built: Built, tmp_path: Path) -> None:
    whole = build(hospital_of(400), tmp_path, replace(CFG, denial_other_half="train"), filled=False)
    for split in ("val", "test", "temporal_1", "temporal_2"):
        assert whole.rows("denial", split) == built.rows("denial", split)
    added = {r["patient_id"] for r in whole.rows("denial", "train")} - {
        r["patient_id"] for r in built.rows("denial", "train")
    }
    assert added
    assert all(patient_fold(7, p) != "train" and not keeps_denial_half(7, p) for p in added)
    said = [json.loads((b.out / "statistics.json").read_text())["denial"] for b in (built, whole)]
    assert said[0]["train_patients_in_val_or_test_of_other_tasks"] == 0
    assert said[1]["train_patients_in_val_or_test_of_other_tasks"] > 0
    assert any("18:1:1" in line for line in said[1]["cautions"])
    assert not any("18:1:1" in line for line in said[0]["cautions"])
    reasons = [step["rule"] for step in csv.DictReader((whole.out / "attrition.csv").open())]
    assert not any("that denial keeps" in rule for rule in reasons)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tasks.split_ratio=[0,1,1]"], "tasks.split_ratio: must be 0 or more, and train above 0"),
        (["tasks.split_ratio=[8,1]"], "tasks.split_ratio"),
        (
            ["tokenize.leave_out_folds=[test]", "tasks.split_ratio=[7,2,1]"],
            "tokenize.fold_ratio: must be the same as tasks.split_ratio",
        ),
        (
            ["tokenize.leave_out_folds=[test]", "tasks.split_unit=note"],
            "tasks.split_unit: must be patient with tokenize.leave_out_folds",
        ),
    ],
)
def test_ratios_that_cannot_be_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides, "tasks")
    assert told in str(caught.value)


def test_corpus_leaves_out_the_folds_of_the_tasks() -> None:
    same = ["tokenize.leave_out_folds=[val,test]", "tokenize.fold_ratio=[70,15,15]", "tasks.split_ratio=[70,15,15]"]
    assert load_config(None, same, "tasks").tokenize.fold_ratio == (70, 15, 15)
