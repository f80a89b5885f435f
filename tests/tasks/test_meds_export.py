"""The MEDS dataset: the official schemas accept every file, one subject stands in one file, nothing is known early."""

from __future__ import annotations

import csv
import json
import random
import stat
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_audit import CONFIG, hospital
from timelines import Built, Hospital, build

from lang1 import runs
from lang1.errors import InputError
from lang1.tasks import export_meds, meds_data
from lang1.tasks.meds import subject_id
from lang1.tasks.schema import MEDS_DATA


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(with_patients(hospital()), tmp_path_factory.mktemp("meds"), CONFIG, filled=False)


def with_patients(given: Hospital) -> Hospital:
    for n, patient in enumerate(given.patients):
        patient.update(birth_date=date(1950, 1, 1 + n % 28), sex="female", borough="Queens")
    given.patients[0]["death_date"] = date(2022, 5, 5)
    given.note("s003", "progress", None, "q001", "never signed")
    given.note("s003", "progress", "2020-07-01", "q001", "rejected", rejected=True)
    given.diagnoses.append({"encounter_id": None, "patient_id": "q001", "code": "I10", "code_system": "ICD10CM"})
    return given


@pytest.fixture
def exported(built: Built, tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setattr(meds_data, "SHARD_ROWS", 300)
    monkeypatch.setattr(meds_data, "_BATCH_ROWS", 64)
    return export(built, tmp_path / "meds")


def export(built: Built, out: Path, tasks: bool = True) -> Path:
    root = built.out.parent
    export_meds(
        records=root / "records", corpus=root / "corpus", tasks=built.out if tasks else None, out=out, seed=7
    )  # fmt: skip
    return out


def shards(folder: Path) -> list[pa.Table]:
    return [pq.read_table(path) for path in sorted((folder / "data").glob("*.parquet"))]


def events(folder: Path, patient: str) -> list[dict[str, Any]]:
    rows = [row for table in shards(folder) for row in table.to_pylist()]
    return [row for row in rows if row["subject_id"] == subject_id(patient)]


def test_official_schemas_accept_every_file(exported: Path) -> None:
    assert len(shards(exported)) > 2
    for table in shards(exported):
        assert table.schema.equals(MEDS_DATA)
        meds.DataSchema.validate(table)
    meds.CodeMetadataSchema.validate(pq.read_table(exported / meds.code_metadata_filepath))
    meds.SubjectSplitSchema.validate(pq.read_table(exported / meds.subject_splits_filepath))
    dataset = json.loads((exported / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(dataset)
    assert dataset["meds_version"] == meds.__version__
    extra = set(MEDS_DATA.names) - {"subject_id", "time", "code", "numeric_value", "text_value"}
    assert set(dataset["raw_source_id_columns"] + dataset["other_extension_columns"]) == extra
    labels = sorted((exported / "labels").glob("*.parquet"))
    assert [path.stem for path in labels] == ["cci", "denial", "los", "mortality", "readmission"]
    for path in labels:
        meds.LabelSchema.validate(pq.read_table(path))


def test_subject_stands_in_one_file_contiguous_and_sorted_by_time(exported: Path, built: Built) -> None:
    seen: set[int] = set()
    for table in shards(exported):
        ids = table["subject_id"].to_pylist()
        firsts = [b for a, b in zip([None, *ids], ids, strict=False) if a != b]
        assert len(firsts) == len(set(firsts))
        assert not seen & set(firsts)
        seen |= set(firsts)
        for subject in set(firsts):
            times = [t for s, t in zip(ids, table["time"].to_pylist(), strict=True) if s == subject]
            known = [t for t in times if t is not None]
            assert times[: len(times) - len(known)] == [None] * (len(times) - len(known))
            assert known == sorted(known)
    assert seen == {subject_id(f"q{n:03d}") for n in range(120)}
    splits = pq.read_table(exported / meds.subject_splits_filepath)
    assert set(splits["subject_id"].to_pylist()) == seen
    tasks = pq.read_table(built.out / "meds" / "metadata" / "subject_splits.parquet").to_pylist()
    whole = {row["subject_id"]: row["split"] for row in splits.to_pylist()}
    assert all(whole[row["subject_id"]] == row["split"] for row in tasks)


def test_events_of_a_patient_are_those_of_the_records(exported: Path) -> None:
    found = [(str(row["time"]), row["code"], row["note_id"]) for row in events(exported, "q000")]
    begun = next(e for e in hospital().encounters if e["encounter_id"] == "s000")
    assert found[:3] == [
        ("None", "BOROUGH//Queens", None),
        ("None", "SEX//female", None),
        ("1950-01-01 00:00:00", "MEDS_BIRTH", None),
    ]
    assert (str(begun["admit_time"]), "ENCOUNTER_START//inpatient", None) in found
    assert (str(begun["discharge_time"]), "ENCOUNTER_END//inpatient//Home", None) in found
    note = next(row for row in events(exported, "q000") if row["note_id"] == "s000-H&P")
    text = next(n["text"] for n in hospital().notes if n["note_id"] == "s000-H&P")
    assert (note["code"], note["note_type"], note["text_value"]) == ("NOTE//H&P", "H&P", text)
    assert note["encounter_id"] == "s000"
    assert sum(row["code"].startswith("ICD10CM//") for row in events(exported, "q000")) == 2


def test_death_is_not_known_before_it_happened(exported: Path) -> None:
    at_home = next(row for row in events(exported, "q000") if row["code"] == "MEDS_DEATH")
    assert at_home["time"] == datetime(2022, 5, 5, 23, 59, 59, 999999)
    died = next(e for e in hospital().encounters if e["discharge_disposition"] == "Expired")
    rows = events(exported, died["patient_id"])
    death = next(row for row in rows if row["code"] == "MEDS_DEATH")
    assert death["time"] == died["discharge_time"]
    assert rows[-1] is death or rows[-1]["time"] > death["time"]


def test_every_code_is_described_and_what_has_no_time_is_counted(exported: Path) -> None:
    codes = {row["code"]: row for row in pq.read_table(exported / meds.code_metadata_filepath).to_pylist()}
    assert set(codes) == {code for table in shards(exported) for code in table["code"].to_pylist()}
    assert codes["ICD10CM//E11.9"]["parent_codes"] == ["ICD10CM/E11.9"]
    assert codes["MEDS_DEATH"]["description"].startswith("Death")
    with (exported / "left_out.csv").open() as lines:
        counts = {row["table"]: int(row["rows"]) for row in csv.DictReader(lines)}
    assert (counts["notes"], counts["notes, rejected"], counts["diagnoses"]) == (1, 1, 1)
    assert counts["encounters"] == counts["patients"] == 0
    assert all(row["note_id"] not in ("never signed", "rejected") for row in events(exported, "q001"))


def test_labels_are_those_of_the_tasks_and_their_notes_are_in_the_data(exported: Path, built: Built) -> None:
    notes = {row["note_id"]: row for table in shards(exported) for row in table.to_pylist() if row["note_id"]}
    for path in sorted((exported / "labels").glob("*.parquet")):
        assert path.read_bytes() == (built.out / "meds" / "labels" / path.name).read_bytes()
        for row in pq.read_table(exported / "rows" / path.name).to_pylist():
            note = notes[row["note_id"]]
            assert note["subject_id"] == row["subject_id"]
            assert note["time"] <= row["prediction_time"]


def test_same_records_in_another_order_give_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    given = with_patients(hospital())
    for name in ("patients", "encounters", "notes", "diagnoses", "claims"):
        random.Random(5).shuffle(getattr(given, name))
    again = export(build(given, tmp_path / "again", CONFIG, filled=False), tmp_path / "meds2")
    for path in exported.rglob("*"):
        if path.is_file() and path.name != runs.MANIFEST:
            assert path.read_bytes() == (again / path.relative_to(exported)).read_bytes(), path


def test_without_tasks_the_seed_splits_and_there_are_no_labels(built: Built, tmp_path: Path) -> None:
    out = export(built, tmp_path / "meds", tasks=False)
    assert not (out / "labels").exists()
    assert len(shards(out)) == 1
    assert stat.S_IMODE((out / "subject_id_map.parquet").stat().st_mode) == 0o600
    with pytest.raises(InputError, match=r"written by the stage meds, not tasks; give a tasks folder"):
        root = built.out.parent
        export_meds(records=root / "records", corpus=root / "corpus", tasks=out, out=tmp_path / "x", seed=7)


def splits_of(folder: Path) -> dict[int, str]:
    found = pq.read_table(folder / meds.subject_splits_filepath).to_pylist()
    return {row["subject_id"]: row["split"] for row in found}


def test_splits_are_those_of_the_tasks_whatever_their_ratio_and_seed(tmp_path: Path) -> None:
    built = build(hospital(), tmp_path, replace(CONFIG, split_ratio=(50, 25, 25)), seed=11, filled=False)
    splits = splits_of(export(built, tmp_path / "meds"))  # its own seed is 7
    names = {"train": "train", "val": "tuning", "test": "held_out"}
    rows = [row for row in built.rows("los") if row["split"] in names]
    assert rows and all(splits[subject_id(row["patient_id"])] == names[row["split"]] for row in rows)
    assert splits != splits_of(export(built, tmp_path / "other", tasks=False))
    given = tmp_path / "given"
    export_meds(records=tmp_path / "records", corpus=tmp_path / "corpus", tasks=None, out=given, seed=11,
                split_ratio=(50, 25, 25))  # fmt: skip
    assert splits == splits_of(given), "the configuration's, without tasks"


def test_no_patient_has_a_split_where_notes_are_split(tmp_path: Path) -> None:
    built = build(hospital(), tmp_path, replace(CONFIG, split_unit="note"), filled=False)
    out = export(built, tmp_path / "meds")
    assert splits_of(out) == splits_of(built.out / "meds") == {}
    meds.SubjectSplitSchema.validate(pq.read_table(out / meds.subject_splits_filepath))
    assert sum(table.num_rows for table in shards(out)) > 0


def test_code_of_a_stay_is_not_known_before_its_discharge(tmp_path: Path) -> None:
    """OMOP dates a condition by its start, often the admission: before the H&P's prediction time."""
    given = hospital()
    stay = given.encounters[0]
    begun, end, patient = stay["admit_time"], stay["discharge_time"], stay["patient_id"]
    for code, coded in (("C50.1", begun), ("C50.2", None), ("C50.3", end + timedelta(days=2))):
        given.code(stay["encounter_id"], code, patient_id=patient, coded_time=coded)
    given.stay("open", "2022-11-01", None, patient, None, notes=False)
    given.code("open", "C50.4", patient_id=patient, coded_time=datetime(2022, 11, 3))
    built = build(given, tmp_path, CONFIG, filled=False)
    times = {row["code"][-5:]: row["time"] for row in events(export(built, tmp_path / "meds"), patient)}
    assert (times["C50.1"], times["C50.2"]) == (end, end)
    assert times["C50.3"] == end + timedelta(days=2)
    assert times["C50.4"] == datetime(2022, 11, 3), "no discharge: when it was coded"


def test_single_task_of_patients_with_several_rows_has_one_subject_each(tmp_path: Path) -> None:
    built = build(hospital(), tmp_path, replace(CONFIG, tasks=("los",)), filled=False)
    rows = built.rows("los")
    patients = {row["patient_id"] for row in rows}
    assert len(patients) < len(rows)
    assert pq.read_table(built.out / "meds" / "subject_id_map.parquet").num_rows == len(patients)
