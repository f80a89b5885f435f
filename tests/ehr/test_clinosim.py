"""Source fhir on the output of clinosim, a hospital simulator that is not ours: checked against its own NDJSON."""

import json
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lang1.config import CleanConfig, TasksConfig
from lang1.config.tasks import Window, WindowsConfig
from lang1.corpus import clean
from lang1.tasks import build_tasks

from .exports import extracted, rows

pytest.importorskip("clinosim", reason="clinosim is not installed")


def simulated(folder: Path, people: int, seed: int, start: str) -> Path:
    command = [
        sys.executable, "-c", "import sys; from clinosim.simulator.cli import main; sys.exit(main())", "simulate",
        "-o", str(folder), "-p", str(people), "-s", str(seed), "--country", "US", "--start", start, "--end",
        "2020-12-31",
        "--format", "fhir-r4",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, cwd=folder.parent, timeout=600)
    return folder / "fhir_r4"


def resources(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{kind}.ndjson").read_text().splitlines()]


def last(reference: dict[str, str]) -> str:
    return reference["reference"].rpartition("/")[2]


def local(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=None)


def test_every_resource_of_a_small_hospital_comes_out(tmp_path: Path, out: Path) -> None:
    folder = simulated(tmp_path / "hospital", 40, 3, "2019-06-01")
    manifest = extracted(folder, out)
    counts, facts = manifest["counts"], manifest["facts"]
    stays, notes = (
        resources(folder, "Encounter"),
        resources(folder, "Composition") + resources(folder, "DocumentReference"),
    )
    births = {p["id"]: p["birthDate"] for p in resources(folder, "Patient")}
    born = {e["id"] for e in stays if e["period"]["start"][:10] >= births[last(e["subject"])]}

    assert facts["resources_left_out"] == {} and facts["absent_tables"] == ["claims"]
    assert counts["patients_kept"] == len(births) and counts["encounters_in"] == len(stays)
    # clinosim lets infants see a doctor before they are born
    assert facts["rejects"]["encounters"] == (
        {"admission before birth": len(stays) - len(born)} if len(born) < len(stays) else {}
    )
    assert {r["encounter_id"]: (r["admit_time"], r["discharge_time"]) for r in rows(out, "encounters")} == {
        e["id"]: (local(e["period"]["start"]), local(e["period"]["end"]) if "end" in e["period"] else None)
        for e in stays if e["id"] in born
    }  # fmt: skip
    classes = {"IMP": "inpatient", "EMER": "emergency", "AMB": "outpatient"}
    assert Counter(r["encounter_class"] for r in rows(out, "encounters")) == Counter(
        classes[e["class"]["code"]] for e in stays if e["id"] in born
    )
    assert counts["notes_in"] == len(notes) and counts["notes_with_text"] == counts["notes_kept"] > 0
    by_loinc = Counter(n["type"]["coding"][0]["code"] for n in notes)
    kept = Counter(r["note_type"] for r in rows(out, "notes"))
    assert kept["H&P"] == by_loinc["34117-2"] > 0 and kept["discharge summary"] == by_loinc["18842-5"] > 0
    assert all(r["signed_time"] and r["author_role"] for r in rows(out, "notes") if r["note_type"] == "H&P")

    codes = {k["id"]: k["code"]["coding"][0]["code"] for k in resources(folder, "Condition")}
    listed = {(e["id"], codes[last(d["condition"])]) for e in stays for d in e.get("diagnosis", []) if e["id"] in born}
    named = {(last(k["encounter"]), codes[k["id"]]) for k in resources(folder, "Condition") if "encounter" in k}
    found = {(r["encounter_id"], r["code"]) for r in rows(out, "diagnoses") if r["encounter_id"]}
    assert found == listed | {pair for pair in named if pair[0] in born}
    assert {r["code_system"] for r in rows(out, "diagnoses")} == {"ICD10CM"}


@pytest.mark.long
def test_its_records_make_a_corpus_and_tasks(tmp_path: Path, out: Path) -> None:
    folder = simulated(tmp_path / "hospital", 300, 42, "2020-01-01")
    inpatient = extracted(folder, out)["counts"]["inpatient_encounters"]
    corpus = clean(CleanConfig(workers=1), records=out, out=tmp_path / "corpus", seed=1)["counts"]
    assert corpus["notes_out"] > 0.9 * corpus["notes_in"]
    days = [Window(datetime(2020, a, 1).date(), datetime(2020, b, 1).date()) for a, b in ((1, 10), (10, 11), (11, 12))]
    cfg = TasksConfig(tasks=("readmission", "mortality", "los", "cci"), windows=WindowsConfig(*days))
    made = build_tasks(cfg, records=out, corpus=tmp_path / "corpus", out=tmp_path / "tasks", seed=1)["counts"]
    assert 0 < made["los_rows"] <= inpatient and made["cci_rows"] > 0 and made["mortality_rows"] > 0
    texts = [t for f in (tmp_path / "tasks" / "los").glob("*.parquet") for t in pq.read_table(f)["text"].to_pylist()]
    assert texts and not any("<" in text or "xmlns" in text for text in texts)
