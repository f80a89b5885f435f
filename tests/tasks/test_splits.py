"""Splits: one patient-level assignment for all tasks, windows by discharge time, stable when data are added."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from timelines import Built, Hospital, build

from lang1.config import TASK_IDS, TasksConfig, Window, WindowsConfig
from lang1.corpus.hashes import patient_fold
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
