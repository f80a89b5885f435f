"""The Charlson map, code by code, against pycomorb over the whole ICD-9-CM and ICD-10-CM code lists."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from timelines import Hospital, build

from lang1.tasks.charlson import read_map, score_codes

ICD = Path(os.environ.get("LANG1_DATA", Path(__file__).parents[2] / "../shared/data")).resolve() / "icd"
needs_icd = pytest.mark.skipif(not ICD.is_dir(), reason=f"no ICD code lists in {ICD}")


def scores(codes: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """(stay, code system, code) -> score a stay."""
    database = duckdb.connect()
    rows = list(codes)
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("stay_id", "code_system", "code"))})
    database.register("stay_codes", table)
    score_codes(database)
    return dict(database.execute("SELECT * FROM charlson_scores").fetchall())


def score(*codes: str, system: str = "ICD10CM") -> int:
    return scores(("s", system, code) for code in codes)["s"]


def all_codes() -> list[tuple[str, str]]:
    nine = [line.split()[0] for line in (ICD / "CMS32_DESC_SHORT_DX.txt").read_text("latin-1").splitlines() if line]
    with zipfile.ZipFile(ICD / "icd10dx.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith("icd10cm_codes_2018.txt"))
        ten = {line.split()[0] for line in archive.read(name).decode("latin-1").splitlines() if line}
    with gzip.open(ICD / "icd10cm-order-Jan-2021.csv.gz", "rt", encoding="latin-1") as lines:
        ten |= {line.split(",")[0].strip('"') for line in list(lines)[1:]}
    return [("ICD9CM", code) for code in nine] + [("ICD10CM", code) for code in sorted(ten)]


@needs_icd
def test_every_code_scores_as_pycomorb_says() -> None:
    import polars as pl
    from pycomorb import CharlsonComorbidityIndex

    codes = all_codes()
    assert len(codes) > 100_000
    ours = scores((f"{system}:{code}", system, code) for system, code in codes)
    theirs: dict[str, int] = {}
    for system, version in (("ICD9CM", "icd9"), ("ICD10CM", "icd10")):
        listed = [code for known, code in codes if known == system]
        frame = pl.DataFrame({"id": [f"{system}:{code}" for code in listed], "code": listed, "age": [30] * len(listed)})
        found = CharlsonComorbidityIndex(frame, icd_version=version, implementation="quan", weights="charlson")
        # its rows come in no fixed order, and the age score stands in a column of its own: join by id
        theirs |= dict(zip(found["id"], found["Charlson Comorbidity Index"], strict=True))
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {}
    assert sum(value > 0 for value in ours.values()) > 4_000


@pytest.mark.parametrize(
    ("codes", "system", "wanted"),
    [
        (["I10"], "ICD10CM", 0),
        (["I21.4"], "ICD10CM", 1),
        (["E10.21"], "ICD10CM", 2),
        (["E11.9", "E11.22"], "ICD10CM", 2),
        (["K74.60", "K72.90"], "ICD10CM", 3),
        (["C34.90", "C78.7"], "ICD10CM", 6),
        (["B20"], "ICD10CM", 6),
        (["B20", "C78.7", "I50.9"], "ICD10CM", 13),
        (["I50.9", "I50.1", "I42.0"], "ICD10CM", 1),
        (["E11.6"], "ICD10CM", 1),
        (["C4A.9"], "ICD10CM", 0),
        (["C7B.00"], "ICD10CM", 0),
        (["250.40"], "ICD9CM", 2),
        (["V45.1"], "ICD9CM", 2),
        (["V451"], "ICD10CM", 0),
        (["41401"], "ICD9CM", 0),
        (["447.1"], "ICD9CM", 1),
    ],
)
def test_score_of_a_list_of_codes(codes: list[str], system: str, wanted: int) -> None:
    assert score(*(code.replace(".", "") for code in codes), system=system) == wanted


def test_map_has_the_weights_of_1987() -> None:
    weights = {row.category: row.weight for row in read_map()}
    assert sorted(weights.values()) == [1] * 10 + [2] * 4 + [3] + [6] * 2
    assert {row.code_system for row in read_map()} == {"ICD9CM", "ICD10CM"}


def test_spelling_and_version_of_a_code_are_read_as_they_come(tmp_path: Path) -> None:
    hospital = Hospital()
    cases = {
        "dotted": ("2020-01-01", " e11.22 ", "ICD10CM", 1),
        "other name": ("2020-01-01", "E1122", "ICD-10-CM", 1),
        "by date: ten": ("2015-09-30", "E1122", None, 1),
        "by date: nine": ("2015-09-28", "E1122", None, 0),
        "nine by name after 2015": ("2020-01-01", "250.40", "ICD9CM", 1),
        "five": ("2020-01-01", "C78.7", "ICD10CM", 3),
    }
    for name, (admit, code, system, _) in cases.items():
        discharge = {"2020-01-01": "2020-01-03", "2015-09-30": "2015-10-01", "2015-09-28": "2015-09-30"}[admit]
        hospital.stay(name, admit, discharge, name)
        hospital.code(name, code, system, name)
    hospital.stay("no code", "2020-01-01", "2020-01-02", "no code")
    hospital.stay("two parts", "2020-01-01", "2020-01-03", "two parts")
    hospital.stay("second part", "2020-01-03", "2020-01-04", "two parts")
    for part, code in (("two parts", "I50.9"), ("second part", "C78.7"), ("second part", "B20")):
        hospital.code(part, code, patient_id="two parts")
    built = build(hospital, tmp_path)
    assert built.labels("cci") == {name: wanted for name, (*_, wanted) in cases.items()} | {"two parts": 4}
    assert built.reasons("cci")["no code"] == "has an ICD code"
