"""A small FHIR R4 export in the shape of US Core, for the tests of source fhir."""

import base64
import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lang1.config import ExtractConfig
from lang1.ehr import extract

Resource = dict[str, Any]
ICD10, ICD9, SNOMED = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm", "http://snomed.info/sct"
V3 = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
WORDS = "Chief complaint chest pain for two days. History of heart failure. No fever. Plan admit to medicine."


def reference(kind: str, name: str) -> dict[str, str]:
    return {"reference": f"{kind}/{name}"}


def coded(code: str, system: str = "http://loinc.org", display: str | None = None) -> Resource:
    return {"coding": [{"system": system, "code": code} | ({"display": display} if display else {})]}


def base64_of(text: str | bytes, content_type: str | None = "text/plain") -> Resource:
    data = base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
    return {"attachment": {"data": data} | ({"contentType": content_type} if content_type else {})}


def patient(name: str = "p1", **fields: Any) -> Resource:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1950-03-04"} | fields


def encounter(name: str = "e1", **fields: Any) -> Resource:
    return {
        "resourceType": "Encounter", "id": name, "status": "finished", "class": {"system": V3, "code": "IMP"},
        "subject": reference("Patient", "p1"),
        "period": {"start": "2020-02-01T10:00:00-05:00", "end": "2020-02-04T22:00:00-05:00"},
    } | fields  # fmt: skip


def document(name: str = "d1", **fields: Any) -> Resource:
    return {
        "resourceType": "DocumentReference", "id": name, "status": "current", "docStatus": "final",
        "type": coded("34117-2"), "subject": reference("Patient", "p1"), "date": "2020-02-01T12:00:00-05:00",
        "content": [base64_of(WORDS)], "context": {"encounter": [reference("Encounter", "e1")]},
    } | fields  # fmt: skip


def composition(name: str = "c1", **fields: Any) -> Resource:
    div = f"<div xmlns='http://www.w3.org/1999/xhtml'>{WORDS}</div>"
    return {
        "resourceType": "Composition", "id": name, "status": "final", "type": coded("18842-5"),
        "subject": reference("Patient", "p1"), "encounter": reference("Encounter", "e1"),
        "date": "2020-02-04T20:00:00-05:00", "section": [{"title": "Hospital course", "text": {"div": div}}],
    } | fields  # fmt: skip


def condition(name: str = "k1", code: str = "I50.9", system: str = ICD10, **fields: Any) -> Resource:
    return {
        "resourceType": "Condition", "id": name, "subject": reference("Patient", "p1"),
        "encounter": reference("Encounter", "e1"), "code": coded(code, system),
        "category": [coded("encounter-diagnosis", "http://terminology.hl7.org/CodeSystem/condition-category")],
    } | fields  # fmt: skip


def export(folder: Path, *resources: Resource, whole: bool = True) -> Path:
    """Files <type>.ndjson; `whole` adds a patient, an inpatient stay and a note where there is none of the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    every = list(copy.deepcopy(resources))
    kinds = {r["resourceType"] for r in every}
    if whole:
        every += [r for r in (patient(), encounter()) if r["resourceType"] not in kinds]
        every += [document("base", context={})] if not kinds & {"DocumentReference", "Composition"} else []
    for kind in {r["resourceType"] for r in every}:
        write(folder / f"{kind}.ndjson", *[json.dumps(r) for r in every if r["resourceType"] == kind])
    return folder


def write(file: Path, *lines: str | bytes) -> Path:
    content = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def extracted(folder: Path, out: Path, **settings: Any) -> Resource:
    return extract(ExtractConfig(source="fhir", **settings), source=folder, out=out, seed=1)


def rows(out: Path, table: str) -> list[Resource]:
    found: list[Resource] = pq.read_table(out / table).to_pylist()
    return found


def row_of(folder: Path, out: Path, table: str, **settings: Any) -> Resource:
    """The only row of a table."""
    extracted(folder, out, **settings)
    [row] = rows(out, table)
    return row


def rejected(out: Path, name: str) -> list[Resource]:
    file = out / "rejects" / f"{name}.parquet"
    assert file.stat().st_mode & 0o777 == 0o600
    found: list[Resource] = pq.read_table(file).to_pylist()
    return found
