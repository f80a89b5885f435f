"""Records without times: given facts in place of times, splits by patient or by sequence, a clear word for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timelines import Built, Hospital, build

from lang1.config import TasksConfig
from lang1.corpus.hashes import patient_fold
from lang1.errors import InputError
from lang1.tasks.prompts import OPTIONS_PER_TASK


def untimed(patients: int = 60) -> Hospital:
    """Two stays a patient, as `diabetes130` has them: no times, given facts, no claims."""
    hospital = Hospital()
    for n in range(2 * patients):
        patient, name = f"p{n % patients}", f"e{n:04d}"
        disposition = {7: "Expired", 8: "Hospice / home"}.get(n % 20, "Home")
        hospital.stay(name, None, None, patient, disposition, sequence=1000 + n, length_of_stay_days=float(n % 8),
                      readmitted_30d=n % 3 == 0, age_at_admission=float(n % 100))  # fmt: skip
        hospital.code(name, "428", "ICD9CM", patient)
    return hospital


@pytest.fixture(scope="module")
def by_sequence(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(untimed(), tmp_path_factory.mktemp("sequence"), TasksConfig(split_by="sequence"), filled=False)


def test_labels_are_the_given_facts(by_sequence: Built) -> None:
    los, readmission = by_sequence.labels("los"), by_sequence.labels("readmission")
    assert [los[f"e{n:04d}"] for n in range(7)] == [0, 0, 0, 1, 2, 2, 3]
    assert [readmission.get(f"e{n:04d}") for n in range(10)] == [1, 0, 0, 1, 0, 0, 1, None, None, 1]
    assert by_sequence.labels("mortality")["e0007"] == 1
    assert set(by_sequence.labels("cci").values()) == {1}


def test_dead_and_hospice_are_out_of_readmission(by_sequence: Built) -> None:
    reasons = by_sequence.reasons("readmission")
    assert reasons["e0007"] == "the patient left alive"
    assert reasons["e0008"].startswith("did not end in hospice")


def test_age_is_the_given_age(by_sequence: Built) -> None:
    bands = {r["encounter_id"]: (r["age_band"], r["is_child"]) for r in by_sequence.rows("los")}
    assert [bands[f"e{n:04d}"] for n in (17, 18, 84, 85)] == [
        ("0-17", True), ("18-34", False), ("75-84", False), ("85+", False)]  # fmt: skip


def test_claims_that_do_not_exist_are_said(by_sequence: Built) -> None:
    import json

    assert by_sequence.rows("denial") == []
    assert by_sequence.manifest["facts"]["skipped"] == {"denial": "no claims in these records"}
    statistics = json.loads((by_sequence.out / "statistics.json").read_text())["denial"]
    assert statistics["message"] == "no claims in these records"
    assert statistics["total"]["rows"] == 0
    assert set(by_sequence.reasons("denial").values()) == {"there are claims in these records"}


def test_last_stays_by_sequence_are_temporal_2_and_the_rest_8_1_1(by_sequence: Built) -> None:
    for row in by_sequence.rows("los"):
        late = int(row["encounter_id"][1:]) >= 108
        assert row["split"] == ("temporal_2" if late else patient_fold(7, row["patient_id"]))
    assert len(by_sequence.rows("los", "temporal_2")) == 12


def test_split_by_patient_has_no_temporal_split(tmp_path: Path) -> None:
    built = build(untimed(), tmp_path, TasksConfig(split_by="patient"), filled=False)
    assert built.rows("los", "temporal_1") == built.rows("los", "temporal_2") == []
    assert all(row["split"] == patient_fold(7, row["patient_id"]) for row in built.rows("cci"))
    assert all(row["prediction_time"] is None for row in built.rows("cci"))


@pytest.mark.parametrize(
    ("split_by", "change", "said"),
    [
        ("time", {}, "split_by is 'time' but no encounter of the records has an admission or discharge time"),
        ("sequence", {"sequence": None}, "encounters.sequence is null in all records"),
        ("patient", {"length_of_stay_days": None}, "los has no rows: none of 120 encounters is left at step 6, "
                                                   "'has a length of stay'"),
        ("patient", {"readmitted_30d": None}, "readmission has no rows"),
        ("patient", {"discharge_disposition": None}, "mortality has no rows"),
    ],
)  # fmt: skip
def test_fact_that_is_missing_is_named(split_by: Any, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    hospital = untimed()
    for encounter in hospital.encounters:
        encounter.update(change)
    with pytest.raises(InputError, match=said):
        build(hospital, tmp_path, TasksConfig(split_by=split_by), filled=False)
    assert not (tmp_path / "tasks" / "manifest.json").exists()


def test_given_facts_are_not_read_where_times_are_known(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01", "2020-01-02", length_of_stay_days=99.0, readmitted_30d=True, age_at_admission=3.0)
    hospital.patients[0]["birth_date"] = __import__("datetime").date(1950, 1, 2)
    hospital.stay("end", "2021-01-01", "2021-01-02", "q")
    built = build(hospital, tmp_path, TasksConfig(split_by="patient"))
    assert built.labels("los")["a"] == built.labels("readmission")["a"] == 0
    assert next(r["age_band"] for r in built.rows("los") if r["encounter_id"] == "a") == "65-74"


def test_every_label_is_an_option(by_sequence: Built) -> None:
    for task, options in OPTIONS_PER_TASK.items():
        assert all(0 <= row["label"] < options for row in by_sequence.rows(task))
