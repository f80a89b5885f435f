"""A warehouse that is not ours: OHDSI's Synthea27Nj, OMOP CDM 5.4 by the official definitions."""

import zipfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.errors import InputError

from .hospital import DATA, empty_warehouse, needs_ddl

ARCHIVE = DATA / "omop_synthea27nj" / "Synthea27Nj_5.4.zip"
pytestmark = [needs_ddl, pytest.mark.skipif(not ARCHIVE.exists(), reason=f"no {ARCHIVE}")]
TABLES = ("person", "visit_occurrence", "condition_occurrence", "note", "death", "location", "care_site", "provider",
          "concept")  # fmt: skip


@pytest.fixture(scope="module")
def synthea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthea")
    con = empty_warehouse(folder / "w.duckdb")
    with zipfile.ZipFile(ARCHIVE) as archive:
        for table in TABLES:
            archive.extract(f"{table.upper()}.csv", folder)
            con.execute(
                f"INSERT INTO {table} BY NAME SELECT * FROM read_csv('{folder}/{table.upper()}.csv', header = true, "
                "delim = ',', quote = '\"', all_varchar = true)"
            )
    con.close()
    return folder / "w.duckdb"


def test_it_has_no_notes_and_says_so(synthea: Path, out: Path) -> None:
    with pytest.raises(InputError, match=r"no notes \(0 rows, 0 rejected, 0 excluded\)"):
        extract(ExtractConfig(), source=synthea, out=out, seed=1)
    assert not list(out.iterdir())


def test_with_notes_its_stays_diagnoses_and_deaths_come_out(synthea: Path, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(synthea.read_bytes())
    con = duckdb.connect(str(path))
    con.execute(
        "INSERT INTO note (note_id, person_id, note_date, note_type_concept_id, note_class_concept_id, note_title, "
        "note_text, encoding_concept_id, language_concept_id, visit_occurrence_id) "
        "SELECT visit_occurrence_id, person_id, visit_start_date, 0, 0, 'Admission history and physical', "
        "'Admitted for care, plan as discussed.', 0, 0, visit_occurrence_id "
        "FROM visit_occurrence WHERE visit_concept_id = 9201"
    )
    con.close()
    manifest = extract(ExtractConfig(), source=path, out=out, seed=1)
    counts = manifest["counts"]
    assert (counts["patients_in"], counts["encounters_in"], counts["diagnoses_in"]) == (28, 1791, 470)
    assert counts["inpatient_encounters"] == 13 and counts["notes_kept"] == 13
    assert manifest["facts"]["absent_tables"] == ["claims"]
    assert set(pq.read_table(out / "notes")["note_type"].to_pylist()) == {"H&P"}
    # its conditions are SNOMED, which no ICD rule may take for ICD
    assert set(pq.read_table(out / "diagnoses")["code_system"].to_pylist()) == {"SNOMED"}
    patients = pq.read_table(out / "patients").to_pylist()
    assert sum(p["death_date"] is not None for p in patients) == 3
    assert {p["sex"] for p in patients} == {"female", "male"}
