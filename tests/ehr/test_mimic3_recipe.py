"""From MIMIC-III's files to its task sets, by the recipe: the real demo's stays, with notes that the test writes."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
DEMO = Path(os.environ.get("LANG1_DATA", ROOT / "../shared/data")).resolve() / "mimic3_demo"
pytestmark = pytest.mark.skipif(not DEMO.exists(), reason=f"no MIMIC-III demo in {DEMO}")
BODY = "Seen on the ward with dyspnea and oedema of both legs for three days, stable on two litres of oxygen. "


def lang1(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lang1.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def write_notes(folder: Path) -> list[dict[str, str]]:
    """A resident's and a nurse's admission note, a readmission note and a summary for every stay; the stays.

    The resident stores ten minutes after the nurse: two notes of one CHARTTIME, no versions of one.
    """
    with (DEMO / "ADMISSIONS.csv").open(encoding="utf-8") as source:
        stays = list(csv.DictReader(source))
    with (DEMO / "NOTEEVENTS.csv").open(encoding="utf-8") as source:
        columns = next(csv.reader(source))
    kinds = [("Physician ", "Physician Resident Admission Note"), ("Nursing ", "Nursing Admission Note"),
             ("Physician ", "Readmission Note"), ("Discharge summary", "Report")]  # fmt: skip
    with (folder / "NOTEEVENTS.csv").open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, columns, quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for n, stay in enumerate(stays):
            for k, (category, description) in enumerate(kinds):
                day = stay["dischtime" if k == 3 else "admittime"][:10]
                stored = datetime.fromisoformat(stay["admittime"]) + timedelta(minutes=20 if k == 0 else 10)
                writer.writerow({
                    "row_id": 10 * n + k, "subject_id": stay["subject_id"], "hadm_id": stay["hadm_id"],
                    "chartdate": day, "charttime": "" if k == 3 else stay["admittime"],
                    "storetime": "" if k == 3 else str(stored),
                    "category": category, "description": description, "iserror": "",
                    "text": f'{BODY * (1 + k)}\n"Note" {n}-{k}',
                })  # fmt: skip
    return stays


@pytest.mark.slow
def test_cohorts_are_those_of_the_admissions_and_notes_those_of_the_priorities(tmp_path: Path) -> None:
    files, records, corpus, tasks = (tmp_path / name for name in ("mimic", "records", "corpus", "tasks"))
    files.mkdir()
    for name in ("ADMISSIONS", "DIAGNOSES_ICD", "PATIENTS", "SERVICES", "TRANSFERS"):
        shutil.copy(DEMO / f"{name}.csv", files)
    stays = write_notes(files)
    for command in (
        ("extract", "mimic3", files, "--out", records),
        ("clean", "--records", records, "--out", corpus, "clean.workers=1"),
        ("tasks", "recipes/mimic3.yaml", "--records", records, "--corpus", corpus, "--out", tasks),
    ):
        done = lang1(*command)
        assert done.returncode == 0, done.stderr[-2000:]
    found = {
        task: pa.concat_tables(
            pq.read_table(tasks / task / f"{split}.parquet") for split in ("train", "val", "test")
        ).to_pylist()
        for task in ("readmission", "mortality", "los")
    }
    assert len(found["mortality"]) == len(stays) == 129
    assert sum(row["label"] for row in found["mortality"]) == 40
    roles = {row["author_role"] for row in found["mortality"]}
    assert roles == {"Physician: Physician Resident Admission Note"}
    elapsed = [row["label"] for row in found["los"]]
    assert len(elapsed) == 129 and elapsed.count(3) > 60
    assert len(found["readmission"]) == 129 - 40
    with (tasks / "note_attrition.csv").open(encoding="utf-8") as source:
        steps = {
            (row["note_type"], row["rule"]): (int(row["notes"]), int(row["stays"])) for row in csv.DictReader(source)
        }
    assert steps["H&P", "is a note of a stay"] == (2 * 129, 129)
    assert steps["H&P", "is the one chosen of its stay"] == (129, 129)
    assert "MIMIC" in done.stderr + done.stdout, "the caution on its rates is said"
