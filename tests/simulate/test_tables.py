"""The tables: documented as used, codes real, Charlson categories those of the tasks room."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import pytest

from lang1.simulate.admission import SERVICES
from lang1.simulate.describe import tables_page
from lang1.simulate.notes_hp import AdmissionChart
from lang1.simulate.sites import frame_of
from lang1.simulate.tables import ADMISSION, CHARLSON, DENIALS, DISCHARGE, FILLERS, FRAMES, PLAIN, REASONS
from lang1.tasks.charlson import read_map

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LANG1_DATA", ROOT.parent / "shared" / "data"))


def test_the_documented_coefficients_are_the_ones_in_use() -> None:
    page = (ROOT / "docs" / "simulated-hospital-tables.md").read_text(encoding="utf-8")
    assert page == tables_page(), (
        "print it again: python -m lang1.simulate.describe > docs/simulated-hospital-tables.md"
    )


def weight_of(code: str, system: str) -> int:
    """Weight of a code by the tasks room's map; 0 where it belongs to no category."""
    bare = code.replace(".", "")
    return max(
        (row.weight for row in read_map() if row.code_system == system and bare.startswith(row.prefix)), default=0
    )


def test_codes_score_what_their_condition_weighs() -> None:
    for condition in (*CHARLSON, *PLAIN):
        for system, codes in (("ICD9CM", condition.icd9), ("ICD10CM", condition.icd10)):
            assert {weight_of(code, system) for code in codes} == {condition.weight}, condition.name


def test_principal_codes_score_only_what_the_reason_says() -> None:
    weights = {condition.name: condition.weight for condition in CHARLSON}
    for reason in REASONS:
        wanted = weights[reason.code_of] if reason.code_of else 0
        assert weight_of(reason.icd9, "ICD9CM") == weight_of(reason.icd10, "ICD10CM") == wanted, reason.name


def test_codes_are_in_the_official_lists() -> None:
    nine, ten = DATA / "icd" / "CMS32_DESC_LONG_DX.txt", DATA / "icd" / "icd10cm-order-Jan-2021.csv.gz"
    if not nine.exists() or not ten.exists():
        pytest.skip(f"{DATA / 'icd'}: not there")
    known_nine = {line.split()[0] for line in nine.read_text(encoding="latin-1").splitlines() if line.strip()}
    with gzip.open(ten, "rt") as source:
        known_ten = {row["code"] for row in csv.DictReader(source) if row["billable"] == "1"}
    codes = [(c, p) for table in (CHARLSON, PLAIN) for c in table for p in (c.icd9, c.icd10)]
    for condition, pair in codes:
        known = known_nine if pair == condition.icd9 else known_ten
        assert {code.replace(".", "") for code in pair} <= known, condition.name
    newer = {"M54.50"}  # in force from October 2021, after this list
    for reason in REASONS:
        assert reason.icd9.replace(".", "") in known_nine, reason.name
        assert reason.icd10.replace(".", "") in known_ten or reason.icd10 in newer, reason.name


def test_tables_are_consistent() -> None:
    sections = {"hpi", "exam", "plan", "social", "admin", "meds"}
    for finding in (*ADMISSION, *DISCHARGE):
        assert finding.section in sections
        assert len(set(finding.said)) == len(finding.said) >= 2
        assert finding.frame in FRAMES and finding.frame in DENIALS
        assert sum(getattr(finding, name) ** 2 for name in ("acuity", "frailty", "social", "admin")) < 0.95
    assert {reason.service for reason in REASONS} <= set(SERVICES)
    assert len({finding.name for finding in ADMISSION}) == len(ADMISSION)
    for pool in FILLERS.values():
        assert len(pool) % 7, "steps of 7 through a pool would not reach every phrase"


def test_the_hp_writer_is_handed_no_outcome() -> None:
    names = set(AdmissionChart.__init__.__code__.co_names)
    assert not names & {"outcomes", "truths", "discharge"}


def test_a_hospitals_frame_is_the_same_every_time() -> None:
    frame_of.cache_clear()
    first = frame_of("main")
    frame_of.cache_clear()
    assert frame_of("main") == first
    roles = {provider.role for provider in first.providers}
    assert roles == {"attending", "resident", "physician assistant", "nurse practitioner", "radiologist", "pathologist"}
