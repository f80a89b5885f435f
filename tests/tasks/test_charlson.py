"""The Charlson map, code by code, against pycomorb over the whole ICD-9-CM and ICD-10-CM code lists."""

from __future__ import annotations

import random
import sys
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from timelines import Hospital, build, config, fill

from lang1.tasks.charlson import Weights, read_map, score_codes

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from compare_charlson import (
    ICD,
    NINE,
    PAGE,
    PYCOMORB,
    TEN,
    all_codes,
    between_marks,
    our_categories,
    our_scores,
    tables,
    their_scores,
)

needs_icd = pytest.mark.skipif(not ICD.is_dir(), reason=f"no ICD code lists in {ICD}")


def score(*codes: str, system: str = "ICD10CM", weights: Weights = 1987) -> int:
    return our_scores((("s", system, code) for code in codes), weights)["s"]


@needs_icd
def test_every_code_scores_as_the_page_says() -> None:
    assert between_marks(PAGE.read_text(encoding="utf-8")) == (made := tables()), (
        "docs/charlson.md is out of date; run: python docs/compare_charlson.py --write"
    )
    assert "not explained" not in made


@needs_icd
def test_stays_of_many_codes_score_as_in_pycomorb() -> None:
    rng = random.Random(7)
    codes = [(system, code) for system, code, _ in all_codes()]
    assert len(codes) > 109_000
    in_map = [code for code in codes if our_categories(*code)]
    systems: list[tuple[str, ...]] = [(NINE,), (TEN,), (NINE, TEN)]
    stays, ages = [], {}
    for i in range(5_000):
        ages[f"s{i}"] = rng.choice([0, 17, 49.9, 50, 59, 60, 69.5, 70, 79, 80, 91, 103])
        allowed = rng.choice(systems)
        drawn = [rng.choice(in_map if rng.random() < 0.6 else codes) for _ in range(12)]
        stays += [(f"s{i}", *code) for code in drawn if code[0] in allowed] or [(f"s{i}", NINE, "4019")]
    for weights in PYCOMORB:
        ours = our_scores(stays, weights)
        theirs, _, with_age = their_scores(stays, weights, ages)
        assert ours == theirs and max(ours.values()) > 10
        assert {stay: score + points(ages[stay]) for stay, score in ours.items()} == with_age


def points(age: float) -> int:
    return (age >= 50) + (age >= 60) + (age >= 70) + (age >= 80)


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


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [
        (["I214"], 0),
        (["I509"], 2),
        (["E119"], 0),
        (["E1122"], 1),
        (["K7460", "K7290"], 4),
        (["C3490", "C787"], 6),
        (["B20"], 4),
    ],
)
def test_score_with_the_weights_of_2011(codes: list[str], wanted: int) -> None:
    assert score(*codes, weights=2011) == wanted


def test_each_category_has_one_weight_of_1987_and_one_of_2011() -> None:
    weights = {row.category: row.weight for row in read_map()}
    assert sorted(weights.values()) == [1] * 10 + [2] * 4 + [3] + [6] * 2
    assert len({(row.category, row.weight, row.weight_2011) for row in read_map()}) == 17
    page = PAGE.read_text(encoding="utf-8")
    for row in read_map():
        assert f"| {row.category} | {row.weight} | {row.weight_2011} |" in page
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


@pytest.mark.parametrize(
    ("age", "wanted"),
    [(49, 0), (50, 1), (59, 1), (60, 2), (69, 2), (70, 3), (79, 3), (80, 4), (101, 4), (None, 0)],
)
def test_age_points_by_the_age_at_admission(age: int | None, wanted: int) -> None:
    """The birthday of the age is the day of admission: a day later it would be a year less."""
    database = duckdb.connect()
    database.execute("CREATE TABLE stay_codes AS SELECT 's' AS stay_id, 'ICD10CM' AS code_system, 'I10' AS code")
    database.execute(
        "CREATE TABLE stays AS SELECT 's' AS stay_id, false AS is_untimed, NULL AS given_age, "
        "TIMESTAMP '2020-05-05 10:00:00' AS admit_time, make_date(2020 - ?::INTEGER, 5, 5) AS birth_date",
        [age],
    )
    score_codes(database, has_age_points=True)
    assert database.execute("SELECT score FROM charlson_scores").fetchall() == [(wanted,)]


def test_options_reach_the_label(tmp_path: Path) -> None:
    hospital = Hospital()
    hospital.patient("a", birth_date=date(1945, 6, 1))
    hospital.stay("a", "2020-01-01", "2020-01-03", "a")
    hospital.code("a", "I21.4", patient_id="a")

    fill(hospital)

    def label(name: str, **options: Any) -> int:
        return build(hospital, tmp_path / name, config(**options), filled=False).labels("cci")["a"]

    # class 1 is a score of 1 or 2, class 2 of 3 or 4: an infarction weighs 1, then 0; 74 years add 3
    assert label("default") == 1
    assert label("2011", cci_weights=2011) == 0
    assert label("age", cci_age_points=True) == 2
    assert label("both", cci_weights=2011, cci_age_points=True) == 2
