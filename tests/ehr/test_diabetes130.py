"""The Diabetes 130 recipe: the set's published counts, and that no text or feature sees what its time could not."""

import csv
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig, load_config
from lang1.ehr import extract

from .hospital import DATA

RECIPE = Path(__file__).parents[2] / "recipes" / "diabetes130.yaml"
ARCHIVE = DATA / "diabetes130" / "diabetic_data.csv.zip"
pytestmark = pytest.mark.skipif(not ARCHIVE.exists(), reason=f"no {ARCHIVE}")
CFG = ExtractConfig(source="sql", sql_dir=str(RECIPE.with_suffix("")))

# What is filled or decided after admission, and a value that each may take (docs/decisions/0008).
AFTER_ADMISSION = {
    "discharge_disposition_id": "11", "time_in_hospital": "9", "num_lab_procedures": "77", "num_procedures": "6",
    "num_medications": "55", "diag_1": "197", "diag_2": "042", "diag_3": "428", "number_diagnoses": "16",
    "max_glu_serum": ">300", "A1Cresult": ">8", "insulin": "Up", "metformin": "Down", "glipizide": "Steady",
    "glyburide": "Up", "glimepiride": "Up", "pioglitazone": "Up", "rosiglitazone": "Up", "repaglinide": "Up",
    "nateglinide": "Up", "acarbose": "Up", "glyburide-metformin": "Up", "change": "Ch", "diabetesMed": "Yes",
}  # fmt: skip
AT_ADMISSION = ("gender", "age", "weight", "admission_type_id", "admission_source_id", "payer_code",
                "medical_specialty", "number_outpatient", "number_emergency", "number_inpatient")  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diabetes130") / "records"
    runs.set_quiet(True)
    extract(CFG, source=ARCHIVE, out=folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def some() -> list[dict[str, str]]:
    """Every 500th row of the set."""
    with zipfile.ZipFile(ARCHIVE) as archive, archive.open("diabetic_data.csv") as packed:
        return list(csv.DictReader(io.TextIOWrapper(packed, encoding="utf-8")))[::500]


def made(rows: list[dict[str, str]], folder: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    folder.mkdir()
    with (folder / "diabetic_data.csv").open("w", newline="") as sink:
        writer = csv.DictWriter(sink, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, **change(row)} for row in rows)
    extract(CFG, source=folder / "diabetic_data.csv", out=folder / "records", seed=1)
    return folder / "records"


def texts(records: Path, note_type: str) -> dict[str, str]:
    table = pq.read_table(records / "notes")
    table = table.filter(pc.equal(table["note_type"].cast(pa.string()), note_type))
    return dict(zip(table["encounter_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def features(records: Path, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(records / name).to_pylist())


def test_the_recipe_names_this_sql_and_the_tasks_that_exist() -> None:
    config = load_config(RECIPE, [])
    assert config.extract.sql_dir == "recipes/diabetes130" and config.extract.source == "sql"
    assert config.tokenize.leave_out_folds == ("val", "test") and config.tasks.split_by == "sequence"
    assert config.evaluate.headline_split == "test" and "columns+xgboost" in config.evaluate.baselines
    assert "denial" not in config.finetune.tasks


def test_the_published_counts(records: Path) -> None:
    encounters = pq.read_table(records / "encounters")
    assert encounters.num_rows == 101_766 and pq.read_table(records / "patients").num_rows == 71_518
    assert pc.sum(encounters["readmitted_30d"]).as_py() == 11_357
    disposition = encounters["discharge_disposition"].cast(pa.string())
    assert pc.sum(pc.equal(disposition, "Expired")).as_py() == 1_652
    assert pc.sum(pc.starts_with(disposition, "Hospice")).as_py() == 399 + 372
    days = encounters["length_of_stay_days"]
    assert (pc.min(days).as_py(), pc.max(days).as_py()) == (1, 14)
    assert (
        pc.all(pc.is_null(encounters["admit_time"])).as_py()
        and pc.all(pc.is_null(encounters["discharge_time"])).as_py()
    )
    assert encounters["sequence"].null_count == encounters["age_at_admission"].null_count == 0
    assert not (records / "rejects").exists()
    assert pq.read_table(records / "claims").num_rows == 0
    assert runs.read_manifest(records)["facts"]["absent_tables"] == ["claims"]


def test_codes_have_their_leading_zeros_again(records: Path) -> None:
    codes = pc.value_counts(pq.read_table(records / "diagnoses")["code"])
    found = {entry["values"].as_py(): entry["counts"].as_py() for entry in codes}
    assert found["042"] == 153 and found["038"] == 2_325  # HIV and septicemia, 42 and 38 in the set
    assert found["250.02"] == 4_118 and "42" not in found and "?" not in found
    assert min(len(code.split(".")[0]) for code in found) == 3


def test_what_is_known_later_does_not_show_at_admission(some: list[dict[str, str]], tmp_path: Path) -> None:
    before = made(some, tmp_path / "before", lambda row: {})
    after = made(some, tmp_path / "after", lambda row: {**AFTER_ADMISSION, "readmitted": "<30"})
    assert texts(before, "H&P") == texts(after, "H&P")
    assert features(before, "features_admission") == features(after, "features_admission")
    assert texts(before, "discharge summary") != texts(after, "discharge summary")


def test_every_column_is_decided(some: list[dict[str, str]]) -> None:
    keys = {"encounter_id", "patient_nbr", "race", "readmitted"}
    rare = {"chlorpropamide", "acetohexamide", "tolbutamide", "miglitol", "troglitazone", "tolazamide", "examide",
            "citoglipton", "glipizide-metformin", "glimepiride-pioglitazone", "metformin-rosiglitazone",
            "metformin-pioglitazone"}  # fmt: skip
    assert set(some[0]) == keys | rare | set(AFTER_ADMISSION) | set(AT_ADMISSION)


def test_whether_they_came_back_shows_nowhere(some: list[dict[str, str]], tmp_path: Path) -> None:
    before = made(some, tmp_path / "before", lambda row: {"readmitted": "NO"})
    after = made(some, tmp_path / "after", lambda row: {"readmitted": "<30"})
    for note_type in ("H&P", "discharge summary"):
        assert texts(before, note_type) == texts(after, note_type)
    for name in ("features_admission", "features_discharge"):
        assert features(before, name) == features(after, name)


def test_the_text_says_what_the_columns_say(tmp_path: Path, some: list[dict[str, str]]) -> None:
    row = {
        **some[0], "encounter_id": "7", "patient_nbr": "3", "gender": "Female", "age": "[70-80)", "weight": "?",
        "admission_type_id": "1", "admission_source_id": "7", "payer_code": "MC",
        "medical_specialty": "InternalMedicine", "number_inpatient": "2",
        "number_emergency": "0", "number_outpatient": "1", "discharge_disposition_id": "3",
        "time_in_hospital": "1", "num_lab_procedures": "41", "num_procedures": "0", "num_medications": "18",
        "diag_1": "428", "diag_2": "250.02", "diag_3": "?", "number_diagnoses": "2", "A1Cresult": ">8",
        "max_glu_serum": "None", "diabetesMed": "Yes", "insulin": "Up", "metformin": "Steady", "change": "Ch",
        "glipizide": "No", "glyburide": "No",
    }  # fmt: skip
    records = made([row], tmp_path / "one", lambda row: {})
    admission = "Woman between 70 and 80 years of age with diabetes mellitus, admitted as an emergency through "
    admission += "the emergency room. "
    earlier = "In the year before this admission: 2 inpatient stays, no emergency visit, 1 outpatient visit."
    assert texts(records, "H&P")["7"] == (
        f"Admission note. {admission}Admitting physician: internal medicine. Payer MC. {earlier}"
    )
    assert texts(records, "discharge summary")["7"] == (
        "Discharge summary. Discharged to a skilled nursing facility. Principal diagnosis: heart failure (428). "
        f"Further diagnoses: diabetes mellitus (250.02). Diagnoses in all: 2. {earlier} {admission}"
        "Stay of 1 day with 41 laboratory tests, no other procedures and 18 medications. "
        "Diabetes medication: insulin raised, metformin unchanged. Diabetes regimen changed. HbA1c above 8 percent. "
        "Admitting physician: internal medicine. Payer MC."
    )


def test_texts_are_long_enough_to_be_notes(records: Path) -> None:
    for note_type, least, most in (("H&P", 35, 60), ("discharge summary", 70, 120)):
        words = [len(text.split()) for text in texts(records, note_type).values()]
        assert least <= min(words) and max(words) <= most, note_type
