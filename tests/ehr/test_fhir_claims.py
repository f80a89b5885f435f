"""Source fhir: claims and their answers -> one status a claim, and the denial label that comes of it."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lang1.config import CleanConfig, TasksConfig
from lang1.config.tasks import Window, WindowsConfig
from lang1.corpus import clean
from lang1.tasks import build_tasks

from .exports import coded, document, encounter, export, extracted, patient, reference, rejected, rows

Resource = dict[str, Any]


def claim(name: str, stay: str | None = "e1", **fields: Any) -> Resource:
    item = {"sequence": 1} | ({"encounter": [reference("Encounter", stay)]} if stay else {})
    return {
        "resourceType": "Claim", "id": name, "status": "active", "use": "claim", "created": "2020-02-10",
        "patient": reference("Patient", "p1"), "insurer": {"display": "Medicare"}, "item": [item],
    } | fields  # fmt: skip


def line(category: str, amount: float | None = None, reason: str | None = None) -> Resource:
    return (
        {"category": coded(category)}
        | ({"amount": {"value": amount}} if amount is not None else {})
        | ({"reason": coded(reason)} if reason else {})
    )


PAID = [line("submitted", 900.0), line("benefit", 700.0)]
DENIED = [line("submitted", 900.0), line("benefit", 0.0, "50")]
SHARE = [line("submitted", 900.0), line("deductible", 900.0, "1"), line("benefit", 0.0)]


def answer(name: str, of: str, *items: list[Resource], **fields: Any) -> Resource:
    return {
        "resourceType": "ClaimResponse", "id": name, "status": "active", "use": "claim", "outcome": "complete",
        "request": reference("Claim", of), "created": "2020-03-01", "insurer": {"display": "Medicare"},
        "item": [{"adjudication": item} for item in items],
    } | fields  # fmt: skip


def benefit(name: str, *items: list[Resource], **fields: Any) -> Resource:
    return {
        "resourceType": "ExplanationOfBenefit", "id": name, "status": "active", "use": "claim", "outcome": "complete",
        "created": "2020-03-01", "insurer": {"display": "Aetna"},
        "item": [{"encounter": [reference("Encounter", "e1")], "adjudication": item} for item in items],
    } | fields  # fmt: skip


def statuses(folder: Path, out: Path) -> dict[str, str]:
    extracted(folder, out)
    return {row["claim_id"].partition("/")[2]: row["status"] for row in rows(out, "claims")}


def test_the_status_of_a_claim_by_its_answers(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x",
        claim("none"),
        claim("queued"), answer("a1", "queued", outcome="queued"),
        claim("failed"), answer("a2", "failed", outcome="error"),
        claim("some work"), answer("a3", "some work", DENIED, outcome="partial"),
        claim("paid"), answer("a4", "paid", PAID),
        claim("denied"), answer("a5", "denied", DENIED),
        claim("share"), answer("a6", "share", SHARE),
        claim("in part"), answer("a7", "in part", PAID, DENIED),
        claim("overturned"), answer("a8", "overturned", DENIED), answer("a9", "overturned", PAID, created="2020-06-01"),
        claim("asked again"), answer("b1", "asked again", DENIED), answer("b2", "asked again", outcome="queued",
        created="2020-06-01"),
        claim("as a whole"), answer("b3", "as a whole", PAID, adjudication=[line("denialreason", None, "29")]),
        claim("in words"), answer("b4", "in words", disposition="Claim denied: no authorization"),
        claim("no denial"), answer("b5", "no denial", disposition="Processed, no denial"),
        claim("totals"), answer("b6", "totals", total=[line("submitted", 900.0), line("noncovered", 900.0)]),
        claim("withdrawn"), answer("b7", "withdrawn", PAID), answer("b8", "withdrawn", DENIED, status="cancelled",
        created="2020-06-01"),
    )  # fmt: skip
    assert statuses(folder, out) == {
        "none": "pending", "queued": "pending", "failed": "pending", "some work": "pending",
        "paid": "no denial", "denied": "final, adverse determination", "share": "no denial",
        "in part": "partial denial",
        "overturned": "final, favorable determination", "asked again": "pending",
        "as a whole": "final, adverse determination", "in words": "final, adverse determination",
        "no denial": "no denial",
        "totals": "final, adverse determination", "withdrawn": "no denial",
    }  # fmt: skip


def test_explanations_of_benefit_alone_and_beside_claims(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x",
        benefit("alone", [line("denialreason", None, "96")]),
        benefit("of a claim that is not there", PAID, claim=reference("Claim", "gone")),
        claim("both", insurer=reference("Organization", "o")), answer("r", "both", [line("benefit", 0.0, "197")]),
        # says the same on another day, and no reason: one answer, not an overturned denial
        benefit("both too", PAID, claim=reference("Claim", "both"), claimResponse=reference("ClaimResponse", "r"),
        created="2020-03-05"),
        {"resourceType": "Organization", "id": "o", "name": "Blue Cross"},
    )  # fmt: skip
    extracted(folder, out)
    found = {row["claim_id"]: (row["status"], row["payer"], row["encounter_id"]) for row in rows(out, "claims")}
    assert found == {
        "ExplanationOfBenefit/alone": ("final, adverse determination", "Aetna", "e1"),
        "Claim/gone": ("no denial", "Aetna", "e1"),
        "Claim/both": ("final, adverse determination", "Blue Cross", "e1"),
    }
    assert rows(out, "claims")[0]["status_time"] == datetime(2020, 3, 5)


def test_what_is_no_claim_is_kept_aside(tmp_path: Path, out: Path) -> None:
    folder = export(
        tmp_path / "x", claim("a"), claim("b", status="cancelled"), claim("c", use="preauthorization"),
        claim("d", status="entered-in-error"), claim("e", stay=None), claim("f", stay="e9"), claim("g", status="draft"),
    )  # fmt: skip
    facts = extracted(folder, out)["facts"]
    assert [row["claim_id"] for row in rows(out, "claims")] == ["Claim/a"]
    assert facts["rejects"]["claims"] == {
        "claim cancelled": 1, "a preauthorization is no claim": 1, "entered in error": 1, "missing encounter_id": 1,
        "no such encounter": 1, "claim draft": 1,
    }  # fmt: skip
    assert len(rejected(out, "claims")) == 6


def test_statuses_make_the_denial_label(tmp_path: Path, out: Path) -> None:
    outcomes = {"denied": [DENIED], "paid": [PAID], "part": [PAID, DENIED], "open": []}
    resources: list[Resource] = []
    home = {"dischargeDisposition": {"text": "Home"}}
    for name, items in outcomes.items():
        stay, about = {"encounter": [reference("Encounter", name)]}, reference("Patient", name)
        resources += [
            patient(name), encounter(name, subject=about, hospitalization=home), document(name, subject=about,
            context=stay),
            claim(name, stay=name, patient=about), *([answer(name, name, *items)] if items else []),
        ]  # fmt: skip
    extracted(export(tmp_path / "x", *resources), out)
    clean(CleanConfig(workers=1), records=out, out=tmp_path / "corpus", seed=1)
    ends = [date(2020 + i, 1, 1) for i in range(4)]
    windows = WindowsConfig(Window(ends[0], ends[1]), Window(ends[1], ends[2]), Window(ends[2], ends[3]))
    cfg = TasksConfig(tasks=("denial",), denial_windows=windows, claims_follow_up_days=0)
    build_tasks(cfg, records=out, corpus=tmp_path / "corpus", out=tmp_path / "tasks", seed=1)
    found = [row for file in (tmp_path / "tasks").rglob("denial/*.parquet") for row in pq.read_table(file).to_pylist()]
    assert {row["encounter_id"]: row["label"] for row in found} == {"denied": 1, "paid": 0}
