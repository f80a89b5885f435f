"""Source fhir: which files hold what, and lines and files that are not what they should be."""

import gzip
import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr.checking import check
from lang1.errors import InputError

from .exports import document, encounter, export, extracted, patient, reference, rejected, rows, write

CANARY = "CANARY-5512"


def test_files_are_found_by_name_or_by_their_first_line(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "x"
    lines = {i: json.dumps(patient(f"p{i}")) for i in range(7)}
    write(folder / "Patient.ndjson", lines[0])
    write(folder / "Patient.000.ndjson", lines[1])
    write(folder / "1.Patient.ndjson", "", lines[2], "  \r", "")
    write(folder / "Patient" / "part-1.jsonl.gz", lines[3])
    write(folder / "0f3c2b", lines[4])  # as a server names it
    (folder / "Patient-2.ndjson").write_bytes(gzip.compress(lines[5].encode()))  # gzip under a plain name, no newline
    (folder / "Patient-3.ndjson").write_bytes(b"\xef\xbb\xbf" + lines[6].encode() + b"\r\n")
    write(folder / "x.ndjson", json.dumps(encounter(subject=reference("Patient", "p1"))))
    write(folder / "DocumentReference.ndjson", json.dumps(document(subject=reference("Patient", "p1"))))
    write(folder / "Observation.ndjson", '{"resourceType": "Observation", "id": "o"}')
    write(folder / "errors.ndjson", '{"resourceType": "OperationOutcome"}')
    write(folder / "manifest.json", "{", '"output": []}')
    write(folder / "README", "read me")
    write(folder / "Empty.ndjson")
    facts = extracted(folder, out)["facts"]
    assert [row["patient_id"] for row in rows(out, "patients")] == [f"p{i}" for i in range(7)]
    assert facts["resources"]["Patient"] == {"files": 7, "lines": 7, "kept": 7}
    assert facts["files_of_other_types"] == {"Observation": 1, "OperationOutcome": 1}


def test_an_exports_own_manifest_is_no_manifest_of_ours_and_a_changed_export_is_seen(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x")
    (folder / "manifest.json").write_text('{"transactionTime": "2021-01-01", "output": [{"type": "Patient"}]}')
    first = extracted(folder, out)
    assert extracted(folder, out) == first  # up to date
    write(folder / "Patient.ndjson", json.dumps(patient("p1", gender="male")))
    with pytest.raises(InputError, match=r"inputs\.source changed"):
        extracted(folder, out)


def test_lines_that_are_no_resource_are_kept_aside_with_their_place(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x")
    write(
        folder / "Patient.ndjson", json.dumps(patient("p1")), '{"resourceType": "Patient", "id": "cut', "[1, 2]",
        json.dumps(encounter("e9")), '{"resourceType": "Patient"}', b'{"resourceType": "Patient", "id": "\xff"}',
        '{"resourceType": "Patient", "id": "nan", "x": NaN}', "[" * 100_000, json.dumps(patient("p2")),
    )  # fmt: skip
    facts = extracted(folder, out)["facts"]
    assert [row["patient_id"] for row in rows(out, "patients")] == ["p1", "p2"]
    assert facts["resources"]["Patient"] == {"files": 1, "lines": 9, "kept": 2}
    expected = [
        ("not JSON", "2"), ("not an object", "3"), ("another resourceType", "4"), ("no id", "5"), ("not UTF-8", "6"),
        ("not JSON", "7"), ("not JSON", "8"),
    ]  # fmt: skip
    aside = rejected(out, "fhir_resources")
    assert [(row["rule"], row["line"]) for row in aside] == expected
    assert {row["file"] for row in aside} == {"Patient.ndjson"} and aside[2]["id"] == "e9"
    assert aside[0]["resource"] == '{"resourceType": "Patient", "id": "cut'
    assert facts["resources_left_out"] == {
        "not JSON": 3, "not an object": 1, "another resourceType": 1, "no id": 1, "not UTF-8": 1,
    }  # fmt: skip


def test_the_newest_version_of_a_resource_wins(tmp_path: Path, out: Path) -> None:
    def version(updated: str | None, gender: str) -> str:
        return json.dumps(patient("p1", gender=gender) | ({"meta": {"lastUpdated": updated}} if updated else {}))

    folder = export(tmp_path / "x")
    new, old = version("2021-01-01T01:00:00+00:00", "male"), version("2020-12-31T23:00:00-01:00", "female")
    write(folder / "Patient.ndjson", new, old, version(None, "other"))
    write(folder / "Patient-again.ndjson", new, version("2021-01-01T01:00:00Z", "unknown"))
    facts = extracted(folder, out)["facts"]
    assert facts["resources"]["Patient"]["kept"] == 1
    [row] = rows(out, "patients")
    assert row["sex"] in {"male", "unknown"}  # both carry the newest time: the smaller hash is kept, in any order
    kept_is_new = row["sex"] == "male"
    assert facts["resources_left_out"] == (
        {"older version": 2, "repeated resource": 1, "duplicate id": 1}
        if kept_is_new
        else {"older version": 2, "duplicate id": 2}
    )
    assert len(rejected(out, "fhir_resources")) == 4
    write(folder / "Patient.ndjson", version(None, "other"), new)
    write(folder / "Patient-again.ndjson", version("2021-01-01T01:00:00Z", "unknown"), old, new)
    extracted(folder, tmp_path / "again")
    assert rows(tmp_path / "again", "patients") == [row]


def test_older_versions_keep_their_text_and_their_notes_do_not_count(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x", document("d1", meta={"lastUpdated": "2020-02-02T00:00:00Z"}))
    newer = document("d1", meta={"lastUpdated": "2020-02-03T00:00:00Z"}, docStatus="amended")
    write(folder / "DocumentReference-2.ndjson", json.dumps(newer))
    manifest = extracted(folder, out)
    assert manifest["counts"]["notes_in"] == 1
    [old] = rejected(out, "fhir_resources")
    assert old["rule"] == "older version" and old["text"].startswith("Chief complaint")


def test_nothing_of_an_excluded_patient_is_kept_aside(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x", patient("p1"), patient("p2"), encounter(), document())
    stamped = [
        document("d2", subject=reference("Patient", "p2"), date=f"2020-01-0{i}", description=CANARY) for i in (1, 2)
    ]
    write(
        folder / "DocumentReference-2.ndjson", *[json.dumps(d) for d in stamped], f'{{"subject": "p2", "x": "{CANARY}',
        json.dumps(document("d3", description="kept")), json.dumps(document("d3", description="kept too")),
    )  # fmt: skip
    (tmp_path / "no.txt").write_text("p2\n")
    extracted(folder, out, exclude_patients=str(tmp_path / "no.txt"))
    aside = rejected(out, "fhir_resources")
    assert CANARY not in str(aside) and [row["rule"] for row in aside] == ["not JSON", "duplicate id"]
    assert aside[0]["line"] == "3" and aside[0]["resource"] is None and "kept" in aside[1]["resource"]


def test_since_merges_and_what_was_set_aside_stays_so(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", document("d1"), document("d2", status="entered-in-error"), document("d3", content=[])
    )
    extracted(folder, out)
    later = export(tmp_path / "y", document("d3"), document("d4"))
    counts = extracted(later, out, since=datetime(2020, 1, 1))["counts"]
    assert [row["note_id"].partition("/")[2] for row in rows(out, "notes")] == ["d1", "d3", "d4"]
    assert [row["rule"] for row in rejected(out, "notes")] == ["entered in error"]
    assert (counts["notes_new"], counts["notes_again"], counts["notes_before"]) == (1, 1, 2)


def test_check_reads_no_more_than_it_must(tmp_path: Path) -> None:
    folder = export(tmp_path / "x")
    file = write(folder / "Patient.ndjson", *[json.dumps(patient(f"p{i}")) for i in range(200)])
    file.write_bytes(file.read_bytes()[:-20])  # damage that only a whole reading finds
    found = {(line.table, line.column): line.given for line in check(ExtractConfig(source="fhir"), source=folder)}
    assert found[("notes", "text")] == "VARCHAR" and found[("claims", "")] == ""


# --- faults -----------------------------------------------------------------------------------------------------


def fault(folder: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        extracted(folder, out)
    message = str(caught.value)
    assert "\n" not in message and CANARY not in message and caught.value.__cause__ is None
    assert not [p for p in out.rglob("*") if p.name != runs.LOCK]
    return message


def test_a_last_line_that_ends_in_its_middle(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x")
    file = write(
        folder / "DocumentReference.ndjson", *[json.dumps(document(f"d{i}", description=CANARY)) for i in range(3)]
    )
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert fault(folder, out) == f"{file}: line 3 ends in its middle: the file is cut off; export it again"
    file.write_bytes(whole[:-1])  # no newline at the end is no damage
    assert extracted(folder, out)["counts"]["notes_kept"] == 3


@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
def test_a_gzip_that_was_cut_off(tmp_path: Path, out: Path, share: float) -> None:
    folder = export(tmp_path / "x")
    lines = [json.dumps(patient(f"p{i}", telecom=[{"value": CANARY * (i % 7)}])) for i in range(3000)]
    file = write(folder / "Patient.ndjson.gz", *lines)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    message = fault(folder, out)
    assert re.fullmatch(
        rf"{re.escape(str(file))}: cannot be read after line \d+ \(EOFError\): cut off or damaged; export it again",
        message,
    )


def test_a_gzip_with_a_flipped_byte(tmp_path: Path, out: Path) -> None:
    folder = export(tmp_path / "x")
    file = write(folder / "Patient.ndjson.gz", *[json.dumps(patient(f"p{i}")) for i in range(3000)])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x55
    file.write_bytes(content)
    assert "cut off or damaged" in fault(folder, out) or "ends in its middle" in fault(folder, out)


def test_folders_that_are_no_export(tmp_path: Path, out: Path) -> None:
    file = write(tmp_path / "Patient.ndjson", json.dumps(patient()))
    assert fault(file, out) == f"{file}: not a folder; source fhir reads the folder of a bulk export's NDJSON files"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fault(empty, out).endswith(
        "no file of Patient and no file of Encounter resources (resources there: none at all)"
    )
    folder = export(tmp_path / "x", patient(), document(), whole=False)
    assert fault(folder, out) == (
        f"{folder}: no file of Encounter resources (resources there: DocumentReference, Patient)"
    )
    write(folder / "part.ndjson", "id,name", "1,x")
    assert "part.ndjson: line 1 is no FHIR resource and the name holds no one resource type" in fault(folder, out)
    (folder / "part.ndjson").unlink()
    write(folder / "Encounter.ndjson", json.dumps(patient()))
    assert fault(folder, out) == f"{folder}: no line of the Encounter files is a Encounter resource"


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(tmp_path / "x", *[document(f"d{i}") for i in range(20)])
    write(folder / "Patient.ndjson", json.dumps(patient()), "broken", "")
    whole = extracted(folder, tmp_path / "whole")["files"]
    with monkeypatch.context() as patched:  # what kill -9 leaves: scratch, a part of the tables, no manifest
        patched.setattr("lang1.ehr.extraction._refuse_empty", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extracted(folder, out)
    assert (out / runs.SCRATCH / "fhir" / "Patient.parquet").stat().st_mode & 0o777 == 0o600
    assert (out / runs.SCRATCH).stat().st_mode & 0o777 == 0o700
    assert extracted(folder, out)["files"] == whole and not (out / runs.SCRATCH).exists()
