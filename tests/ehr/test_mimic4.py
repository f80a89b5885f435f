"""MIMIC-IV and MIMIC-IV-Note: where the notes lie, and what the columns become, on small files of the exact form."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.ehr.mimic import find_notes
from lang1.errors import InputError

from .physionet import SUMMARY, mimic4, mimic4_rows

CFG = ExtractConfig(source="mimic4")


def made(source: Path, out: Path, cfg: ExtractConfig = CFG) -> dict[str, Any]:
    return extract(cfg, source=source, out=out, seed=1)


def rows(out: Path, table: str, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in pq.read_table(out / table).to_pylist()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    runs.set_quiet(True)
    folder = tmp_path_factory.mktemp("mimic4")
    manifest = made(mimic4(folder / "mimic-iv"), folder / "records")
    return folder / "records", manifest


def test_notes_and_their_clock(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    notes = rows(records, "notes", "note_id")
    found = {
        key: (n["note_type"], n["category"], str(n["written_time"]), str(n["signed_time"])) for key, n in notes.items()
    }
    assert found == {
        "10-DS-21": ("discharge summary", "hospital", "None", "2180-01-09 15:26:00"),
        "10-AD-22": ("discharge summary addendum", "hospital", "None", "2180-01-07 23:59:59"),
        "10-RR-15": ("radiology", "radiology", "2180-01-06 23:10:00", "2180-01-06 23:58:00"),
        "10-AR-16": ("radiology addendum", "radiology", "2180-01-06 23:10:00", "2180-01-06 23:10:00"),
    }
    assert notes["10-DS-21"]["text"] == SUMMARY and notes["10-AR-16"]["encounter_id"] is None
    assert manifest["facts"]["flags"]["notes"] == {
        "signed_time from charttime": 1,
        "signed_time from storetime": 2,
        "signed_time from the day of charttime, its last second": 1,
    }


def test_observation_stays_are_not_inpatient(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    stays = rows(records, "encounters", "encounter_id")
    assert [stays[str(20 + i)]["encounter_class"] for i in range(9)] == [
        *["inpatient"] * 6, "emergency", "outpatient", "outpatient",
    ]  # fmt: skip
    assert [stays[str(20 + i)]["admission_type"] for i in range(9)] == [
        "emergency", "emergency", "urgent", "elective", "elective", None, None, None, None,
    ]  # fmt: skip
    assert manifest["facts"]["rejects"]["encounters"] == {"unknown admission_type": 1}


def test_a_stay_its_death_and_its_first_unit(small: tuple[Path, dict[str, Any]]) -> None:
    stays = rows(small[0], "encounters", "encounter_id")
    assert (stays["20"]["service"], stays["20"]["department"]) == ("trauma", "Transplant")
    assert stays["20"]["primary_diagnosis"] == "5723"
    assert (stays["20"]["discharge_disposition"], stays["30"]["discharge_disposition"]) == ("HOME", "Expired")


def test_codes_of_both_versions(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    found = pq.read_table(records / "diagnoses").to_pylist()
    assert [(row["code"], row["code_system"]) for row in found] == [("5723", "ICD9CM"), ("E1122", "ICD10CM")]
    assert manifest["facts"]["rejects"]["diagnoses"] == {"unknown icd_version": 1}


def test_birth_and_death(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    patients = rows(records, "patients", "patient_id")
    assert str(patients["10"]["birth_date"]) == "2128-01-01" and str(patients["10"]["death_date"]) == "2182-09-09"
    assert str(patients["11"]["birth_date"]) == "2059-01-01" and patients["11"]["ethnicity"] == "Hispanic"
    assert manifest["facts"]["flags"]["patients"] == {"over 89: born 91 years before anchor_year": 1}
    assert manifest["facts"]["rejects"]["patients"] == {"unreadable birth_date": 1}
    assert manifest["facts"]["dates_shifted"] is True
    assert "claims" in manifest["facts"]["absent_tables"]


def test_the_notes_may_lie_in_the_folder_beside_it_or_where_one_says(tmp_path: Path, small: tuple[Path, Any]) -> None:
    same = (small[0] / "notes" / "part-00000.parquet").read_bytes()
    zipped = tmp_path / "zip"
    release = tmp_path / "physionet.org" / "files"
    far = tmp_path / "far"
    cases = [
        (zipped / "mimic-iv-2.2", zipped / "mimic-iv-note-deidentified-free-text-clinical-notes-2.2" / "note", None),
        (release / "mimiciv" / "3.1", release / "mimic-iv-note" / "2.2" / "note", None),
        (far / "mimic-iv", far / "elsewhere" / "text", str(far / "elsewhere" / "text")),
        (tmp_path / "flat" / "mimic-iv", tmp_path / "flat" / "Notes", None),
    ]
    for i, (source, notes, given) in enumerate(cases):
        mimic4(source, notes, gz=i % 2 == 0)
        assert find_notes(source, given) == notes
        manifest = made(source, tmp_path / f"out{i}", ExtractConfig(source="mimic4", notes_path=given))
        assert (tmp_path / f"out{i}" / "notes" / "part-00000.parquet").read_bytes() == same
        assert manifest["facts"]["notes_from"] == str(notes) and "notes" in manifest["inputs"]


def test_changed_notes_beside_the_folder_are_another_input(tmp_path: Path, out: Path) -> None:
    source = mimic4(tmp_path / "mimic-iv-2.2", tmp_path / "mimic-iv-note-2.2" / "note")
    made(source, out)
    path = tmp_path / "mimic-iv-note-2.2" / "note" / "discharge.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"10-DS-99,10,20,DS,9,,,More.\n"))
    with pytest.raises(InputError, match=r"inputs\.notes changed"):
        made(source, out)


def fault(source: Path, out: Path, cfg: ExtractConfig = CFG) -> str:
    with pytest.raises(InputError) as caught:
        made(source, out, cfg)
    assert "\n" not in str(caught.value) and (not out.exists() or not list(out.iterdir()))
    return str(caught.value)


def test_no_notes_two_folders_of_notes_and_a_wrong_one(tmp_path: Path, out: Path) -> None:
    tables = {name: lines for name, lines in mimic4_rows().items() if not name.startswith("note/")}
    source = mimic4(tmp_path / "mimic-iv", rows=tables)
    assert fault(source, out) == (
        f"{source}: no discharge.csv in note/, and no *note* folder with one beside it; name the MIMIC-IV-Note folder "
        "with --notes, or extract stays and codes alone with --without-notes"
    )
    wrong = ExtractConfig(source="mimic4", notes_path=str(tmp_path))
    assert fault(source, out, wrong) == (
        f"{tmp_path}: no discharge.csv or discharge.csv.gz in it or in its note/ (extract.notes_path)"
    )
    for name in ("mimic-iv-note-2.1", "mimic-iv-note-2.2"):
        mimic4(tmp_path / "spare", tmp_path / name / "note")
    assert fault(source, out) == (
        f"{source}: notes in 2 folders ({tmp_path}/mimic-iv-note-2.1/note, {tmp_path}/mimic-iv-note-2.2/note); "
        "name one with --notes (extract.notes_path)"
    )
    manifest = made(source, out, ExtractConfig(source="mimic4", without_notes=True))
    assert manifest["counts"]["inpatient_encounters"] == 7 and manifest["counts"]["notes_in"] == 0


def test_faults_of_the_folder(tmp_path: Path, out: Path) -> None:
    source = mimic4(tmp_path / "mimic-iv")
    without = ExtractConfig(source="mimic4", without_notes=True)
    (tmp_path / "empty").mkdir()
    assert "no folder hosp in it" in fault(tmp_path / "empty", out)  # not: no notes
    assert "no folder hosp in it; mimic4 reads the folder that holds hosp/" in fault(source / "hosp", out, without)
    (source / "note" / "radiology.csv.gz").unlink()
    (source / "hosp" / "services.csv.gz").unlink()
    message = fault(source, out)
    assert "lacks what the SQL reads: " in message and "table radiology" in message and "table services" in message
