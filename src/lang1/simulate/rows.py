"""Rows of the warehouse's tables as a chunk makes them, and their Arrow form."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from lang1.simulate.population import END, MINUTES
from lang1.simulate.sites import Frame, Provider, frame_of
from lang1.simulate.tables import CHARLSON, PLAIN
from lang1.simulate.writing import Words, words_of

PATIENTS = 500
"""patients a chunk"""
VISIT_STRIDE, NOTE_STRIDE, CODE_STRIDE = 20_000, 60_000, 200_000
"""ids a chunk: its ids do not depend on how many rows other chunks hold"""
ICD10_FROM = int(np.datetime64("2015-10-01", "D").astype(np.int64)) * MINUTES
INPATIENT, EMERGENCY, OUTPATIENT = 9201, 9203, 9202
STILL_PATIENT = 32220
"""discharged_to_concept_id of a stay that lasts at the end of the record"""
TABLES = ("person", "visit_occurrence", "condition_occurrence", "note", "death", "claim", "truth")
_CATEGORY = {"radiology": "radiology", "pathology": "pathology"}
_SEEDS = 2**64 - 1


@dataclass(frozen=True)
class Job:
    """What a worker needs to make a chunk."""

    seed: int
    chunk: int
    patients: int
    hospital: str
    note_length: float


@dataclass
class Rows:
    """The tables of a chunk under construction."""

    job: Job
    text_seed: int
    tables: dict[str, dict[str, list[Any]]] = field(
        default_factory=lambda: {name: defaultdict(list) for name in TABLES}
    )
    rng: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        """Look up what the hospital's name stands for."""
        self.words: Words = words_of(self.job.hospital)
        self.frame: Frame = frame_of(self.job.hospital)

    def person_id(self, patient: int) -> int:
        """OMOP id of the chunk's patient."""
        return self.job.chunk * PATIENTS + patient + 1

    def text_rng(self, patient: int, number: int, kind: int) -> Random:
        """Random numbers of one note: the same whatever else was written before it."""
        self.rng.seed((self.text_seed + patient * 1_000_003 + number * 8_191 + kind * 131) & _SEEDS)
        return self.rng

    def add(self, table: str, **values: Any) -> None:
        """One row."""
        columns = self.tables[table]
        for key, value in values.items():
            columns[key].append(value)

    def add_visit(self, person: int, concept: int, start: int, end: int, site: int, provider: int,
                  kind: str | None = None, source: str | None = None, target: str | None = None) -> int:  # fmt: skip
        """A visit; one that has not ended when the record does is open. Returns its id."""
        visit = self.job.chunk * VISIT_STRIDE + len(self.tables["visit_occurrence"]["visit_occurrence_id"]) + 1
        is_open = end >= END
        self.add(
            "visit_occurrence",
            visit_occurrence_id=visit,
            person_id=person,
            visit_concept_id=concept,
            visit_start_datetime=start,
            visit_end_datetime=None if is_open else end,
            visit_type_concept_id=32817,
            provider_id=provider,
            care_site_id=site,
            visit_source_value=kind,
            admitted_from_source_value=source,
            discharged_to_concept_id=STILL_PATIENT if is_open else 0,
            discharged_to_source_value="Still patient" if is_open else target,
        )
        return visit

    def add_note(self, person: int, visit: int, kind: str, author: Provider, written: int, signed: int | None,
                 text: str) -> None:  # fmt: skip
        """A note; none is begun after the record's end, and a later signature is not there yet."""
        if written >= END:
            return
        self.add(
            "note",
            note_id=self.job.chunk * NOTE_STRIDE + len(self.tables["note"]["note_id"]) + 1,
            person_id=person,
            note_datetime=written,
            note_signed_datetime=None if signed is None or signed >= END else signed,
            note_type_concept_id=32817,
            note_class_concept_id=0,
            note_title=kind,
            note_text=text,
            encoding_concept_id=32678,
            language_concept_id=4180186,
            provider_id=author.provider_id,
            visit_occurrence_id=visit,
            note_source_value=_CATEGORY.get(kind, "hospital"),
        )

    def add_codes(self, person: int, visit: int, codes: list[str], vocabulary: str, at: int) -> None:
        """Codes of a visit, the principal one first."""
        for position, code in enumerate(codes, start=1):
            self.add(
                "condition_occurrence",
                condition_occurrence_id=self.job.chunk * CODE_STRIDE
                + len(self.tables["condition_occurrence"]["person_id"])
                + 1,
                person_id=person,
                condition_concept_id=0,
                condition_start_datetime=at,
                condition_type_concept_id=32817,
                condition_status_concept_id=32902 if position == 1 else 32908,
                condition_status_source_value=str(position),
                visit_occurrence_id=visit,
                condition_source_value=code,
                condition_source_concept_id=self.frame.concepts[(vocabulary, code)],
            )

    def arrow(self) -> dict[str, pa.Table]:
        """Every table of the chunk."""
        return {name: _table(name, columns) for name, columns in self.tables.items()}


def vocabulary_at(end: int) -> str:
    """Code system of a visit that ended then."""
    return "ICD9CM" if end < ICD10_FROM else "ICD10CM"


def chronic_codes(charlson: list[bool], plain: list[bool], vocabulary: str, patient: int) -> list[str]:
    """Codes of the flagged conditions; a patient keeps to one code of a condition."""
    codes = []
    for table, flags in ((CHARLSON, charlson), (PLAIN, plain)):
        for k, condition in enumerate(table):
            if flags[k]:
                options = condition.icd9 if vocabulary == "ICD9CM" else condition.icd10
                codes.append(options[(patient + k) % len(options)])
    return codes


def _table(name: str, columns: dict[str, list[Any]]) -> pa.Table:
    arrays: dict[str, Any] = {}
    for key, values in columns.items():
        if key.endswith("datetime"):
            arrays[key] = pa.array([None if v is None else v * 60_000_000 for v in values], pa.int64()).cast(
                pa.timestamp("us")
            )
            if key not in ("birth_datetime", "note_signed_datetime", "status_datetime"):
                days = [END // MINUTES - 1 if v is None else v // MINUTES for v in values]
                arrays[key.removesuffix("time")] = pa.array(days, pa.int32()).cast(pa.date32())
        elif key.startswith("p_"):
            arrays[key] = pa.array(values, pa.float64())
        elif key.endswith(("_id", "_of_birth")) and key != "encounter_id":
            arrays[key] = pa.array(values, pa.int64())
        else:
            arrays[key] = pa.array(values, pa.string())
    return pa.table(arrays)
