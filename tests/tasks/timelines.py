"""Small hospitals for tests: a timeline of encounters, notes, codes and claims becomes records and a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import TasksConfig, Window, WindowsConfig
from lang1.corpus.hashes import hash_id
from lang1.corpus.schema import CLEAN_NOTES
from lang1.ehr.schema import TABLES
from lang1.tasks import build_tasks
from lang1.tasks.build import make_facts
from lang1.tasks.cohort import select_rows
from lang1.tasks.database import open_database

runs.set_quiet(True)

EVERYTHING = WindowsConfig(
    train=Window(date(2001, 1, 1), date(2051, 1, 1)),
    temporal_1=Window(date(2051, 1, 1), date(2052, 1, 1)),
    temporal_2=Window(date(2052, 1, 1), date(2053, 1, 1)),
)


def at(text: str | None) -> datetime | None:
    """ "2020-01-05 14:00" or "2020-01-05" (midnight)."""
    return None if text is None else datetime.fromisoformat(text)


@dataclass
class Hospital:
    """Rows of the canonical tables, one list a table; `rejected` notes are in the records but not in the corpus."""

    patients: list[dict[str, Any]] = field(default_factory=list)
    encounters: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    diagnoses: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)

    def patient(self, patient_id: str = "p", **values: Any) -> None:
        self.patients.append({"patient_id": patient_id, **values})

    def stay(
        self,
        encounter_id: str,
        admit: str | None,
        discharge: str | None,
        patient_id: str = "p",
        disposition: str | None = "Home",
        notes: bool = True,
        **values: Any,
    ) -> None:
        """An inpatient stay, with an H&P signed at admission and a discharge summary signed at discharge."""
        if all(p["patient_id"] != patient_id for p in self.patients):
            self.patient(patient_id)
        self.encounters.append(
            {
                "encounter_id": encounter_id,
                "patient_id": patient_id,
                "encounter_class": "inpatient",
                "admit_time": at(admit),
                "discharge_time": at(discharge),
                "discharge_disposition": disposition,
                **values,
            }
        )
        if notes:
            self.note(encounter_id, "H&P", admit, patient_id, written_time=at(admit))
            end = discharge or admit
            self.note(encounter_id, "discharge summary", end, patient_id, written_time=at(end))

    def note(
        self,
        encounter_id: str,
        note_type: str,
        signed: str | None,
        patient_id: str = "p",
        note_id: str | None = None,
        rejected: bool = False,
        **values: Any,
    ) -> None:
        note_id = note_id or f"{encounter_id}-{note_type}"
        self.notes.append(
            {
                "note_id": note_id,
                "patient_id": patient_id,
                "encounter_id": encounter_id,
                "category": "hospital",
                "note_type": note_type,
                "signed_time": at(signed),
                "text": f"the text of {note_id}",
                **values,
            }
        )
        if rejected:
            self.rejected.add(note_id)

    def code(
        self, encounter_id: str, code: str, system: str | None = "ICD10CM", patient_id: str = "p", **values: Any
    ) -> None:
        self.diagnoses.append(
            {"encounter_id": encounter_id, "patient_id": patient_id, "code": code, "code_system": system, **values}
        )

    def claim(self, encounter_id: str, status: str, when: str | None = None, claim_id: str | None = None) -> None:
        self.claims.append(
            {
                "claim_id": claim_id or f"c{len(self.claims)}",
                "encounter_id": encounter_id,
                "status": status,
                "status_time": at(when),
            }
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """records/ and corpus/ under `folder`."""
        for name, schema in TABLES.items():
            rows = getattr(self, name)
            if rows or name != "claims":
                runs.write_table(folder / "records" / name / "part-0.parquet", pa.Table.from_pylist(rows, schema))
        clean = [
            {**note, "words": len(note["text"].split()), "note_hash": hash_id(note["text"])}
            for note in self.notes
            if note["note_id"] not in self.rejected
        ]
        runs.write_table(folder / "corpus" / "notes" / "part-0.parquet", pa.Table.from_pylist(clean, CLEAN_NOTES))
        return folder / "records", folder / "corpus"


def fill(hospital: Hospital, stays: int = 40) -> None:
    """Patients of no interest, so that every task has rows to train on: ids begin with `filler`."""
    day = datetime(2010, 1, 1)
    for n in range(stays):
        admit = day + timedelta(days=10 * n)
        name = f"filler{n:03d}"
        hospital.stay(name, str(admit), str(admit + timedelta(days=2)), name)
        hospital.code(name, "I10", patient_id=name)
        hospital.claim(name, "no denial")


def config(**changes: Any) -> TasksConfig:
    """Every discharge between 2001 and 2050 is in the training window, for denial too."""
    return replace(TasksConfig(windows=EVERYTHING, denial_windows=EVERYTHING), **changes)


@dataclass
class Built:
    """What `build_tasks` wrote."""

    out: Path
    manifest: dict[str, Any]

    def rows(self, task: str, split: str | None = None) -> list[dict[str, Any]]:
        names = [split] if split else ["train", "val", "test", "temporal_1", "temporal_2"]
        return [row for name in names for row in pq.read_table(self.out / task / f"{name}.parquet").to_pylist()]

    def labels(self, task: str) -> dict[str, int]:
        """encounter_id -> label, without the fillers."""
        return {r["encounter_id"]: r["label"] for r in self.rows(task) if not r["encounter_id"].startswith("filler")}

    def reasons(self, task: str) -> dict[str, str]:
        """encounter_id -> the rule that left it out."""
        left_out = pq.read_table(self.out / "left_out" / f"{task}.parquet").to_pylist()
        return {row["encounter_id"]: row["rule"] for row in left_out}


def build(
    hospital: Hospital,
    folder: Path,
    cfg: TasksConfig | None = None,
    seed: int = 7,
    filled: bool = True,
    name: str = "tasks",
) -> Built:
    if filled:
        fill(hospital)
    records, corpus = hospital.write(folder)
    out = folder / name
    return Built(out, build_tasks(cfg or config(), records=records, corpus=corpus, out=out, seed=seed))


def fill_all(hospital: Hospital, has_last: bool = True) -> None:
    """Fillers that give every task rows to train on under every configuration; `has_last`: the records end in 2049."""
    fill(hospital, stays=12)
    if has_last:
        hospital.stay("filler last", "2049-01-01", "2049-06-01", "filler last")
    for n in range(12):
        for day in (1, 20):  # they come back, with codes before that
            name = f"filler-{n}-{day}"
            hospital.stay(name, f"2012-01-{day:02d}", f"2012-01-{day + 2:02d}", f"returns {n}")
            hospital.code(name, "I10", patient_id=f"returns {n}")


def judge(records: Path, corpus: Path, cfg: TasksConfig, task: str) -> dict[str, Any]:
    """encounter_id -> label, or the rule that left it out, without fillers: the stage's tables without its files."""
    database = open_database(records, corpus, records.parent)
    make_facts(database, cfg, seed=7)
    steps = select_rows(database, task, cfg)
    found = database.execute(
        f"SELECT encounter_id, step, label FROM reasons_{task} LEFT JOIN rows_{task} USING (encounter_id)"
    ).fetchall()
    database.close()
    return {e: label if step is None else steps[step].rule for e, step, label in found if not e.startswith("filler")}
