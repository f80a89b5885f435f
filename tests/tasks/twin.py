"""The slow, obvious twin of the SQL: plain loops written from the sentences of the paper and of docs/tasks.md."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from timelines import Hospital

from lang1.config import TasksConfig

Row = dict[str, Any]
Answer = dict[str, dict[str, tuple[int, str]]]
"""task -> encounter_id -> (label, note_id)"""


def answer(hospital: Hospital, cfg: TasksConfig) -> Answer:
    """The rows that the hospital gives, before windows and folds."""
    stays = [stay for patient in hospital.patients for stay in _stays(hospital, patient, cfg)]
    every_end = [e["discharge_time"] for stay in stays for e in stay["members"] if e["discharge_time"]]
    for stay in stays:
        stay["open"] = any(_goes_on(e, max(every_end)) for e in stay["members"]) if every_end else True
    last = max((stay["discharge"] for stay in stays if not stay["open"]), default=None)
    rows: Answer = {task: {} for task in ("readmission", "mortality", "los", "denial")}
    for stay in stays:
        if stay["open"]:
            continue
        admission = _admission_note(hospital, stay, cfg)
        if admission is not None:
            if stay["died"] or stay["last"]["discharge_disposition"] is not None:
                rows["mortality"][stay["id"]] = (int(stay["died"]), admission)
            rows["los"][stay["id"]] = (_bin(_days(stay, cfg)), admission)
            denied = _denied(hospital, stay)
            if denied is not None:
                rows["denial"][stay["id"]] = (denied, admission)
        following = [s for s in stays if s["patient"] is stay["patient"] and s["admit"] > stay["admit"]]
        summary = _summary(hospital, stay, following, cfg)
        horizon = timedelta(days=cfg.readmission_days)
        followed = last is not None and stay["discharge"] + horizon <= last
        if summary is not None and followed and _counts_for_readmission(stay, cfg):
            rows["readmission"][stay["id"]] = (int(_comes_back(stay, following, horizon, cfg)), summary)
    return rows


def _stays(hospital: Hospital, patient: Row, cfg: TasksConfig) -> list[Row]:
    mine = [e for e in hospital.encounters if e["patient_id"] == patient["patient_id"]]
    deaths = [e["discharge_time"] for e in mine if _expired(e) and e["discharge_time"]]
    usable = []
    for e in mine:
        if e["encounter_class"] != "inpatient" or e["admit_time"] is None:
            continue
        if e["discharge_time"] is not None and e["discharge_time"] < e["admit_time"]:
            continue
        if patient.get("death_date") and e["admit_time"].date() > patient["death_date"]:
            continue
        if deaths and e["admit_time"] >= min(deaths) and not (_expired(e) and e["discharge_time"] == min(deaths)):
            continue
        usable.append(e)
    stays: list[Row] = []
    for e in sorted(usable, key=lambda e: (e["admit_time"], _end(e), e["encounter_id"])):
        gap = e["admit_time"] - stays[-1]["discharge"] if stays else timedelta.max
        if gap < timedelta(hours=cfg.transfer_hours) or gap <= timedelta(0):
            stays[-1]["members"].append(e)
            stays[-1]["discharge"] = max(stays[-1]["discharge"], _end(e))
        else:
            stays.append({"members": [e], "discharge": _end(e), "patient": patient})
    for stay in stays:
        stay |= {
            "id": stay["members"][0]["encounter_id"],
            "admit": stay["members"][0]["admit_time"],
            "last": max(stay["members"], key=lambda e: (_end(e), e["admit_time"], e["encounter_id"])),
            "died": any(_expired(e) for e in stay["members"]),
        }
    return stays


def _expired(encounter: Row) -> bool:
    return bool(encounter["discharge_disposition"] == "Expired")


def _goes_on(encounter: Row, end_of_records: datetime) -> bool:
    end, disposition = encounter["discharge_time"], encounter["discharge_disposition"]
    return end is None or (disposition is None and end.date() == end_of_records.date())


def _end(encounter: Row) -> datetime:
    end: datetime = encounter["discharge_time"] or encounter["admit_time"]
    return end


def _notes(hospital: Hospital, stay: Row, note_type: str) -> list[Row]:
    ids = {e["encounter_id"] for e in stay["members"]}
    found = []
    for note in hospital.notes:
        if note["encounter_id"] in ids and note["note_type"] == note_type and note["note_id"] not in hospital.rejected:
            signed, death = note["signed_time"], stay["patient"].get("death_date")
            if signed is not None and signed >= stay["admit"] and not (death and signed.date() > death):
                found.append(note)
    return found


def _admission_note(hospital: Hospital, stay: Row, cfg: TasksConfig) -> str | None:
    best = None
    for note in sorted(_notes(hospital, stay, "H&P"), key=lambda n: n["note_id"], reverse=True):
        delay = note["signed_time"] - stay["admit"]
        if cfg.max_note_delay_hours is not None and delay > timedelta(hours=cfg.max_note_delay_hours):
            continue
        if note["signed_time"] < stay["discharge"] and (best is None or note["signed_time"] <= best["signed_time"]):
            best = note
    return None if best is None else str(best["note_id"])


def _summary(hospital: Hospital, stay: Row, following: list[Row], cfg: TasksConfig) -> str | None:
    best = None
    for note in sorted(_notes(hospital, stay, "discharge summary"), key=lambda n: n["note_id"], reverse=True):
        delay = note["signed_time"] - stay["discharge"]
        if cfg.max_summary_delay_hours is not None and delay > timedelta(hours=cfg.max_summary_delay_hours):
            continue
        if any(note["signed_time"] >= later["admit"] for later in following):
            continue
        if best is None or note["signed_time"] >= best["signed_time"]:
            best = note
    return None if best is None else str(best["note_id"])


def _counts_for_readmission(stay: Row, cfg: TasksConfig) -> bool:
    death = stay["patient"].get("death_date")
    if stay["died"] or (death and death < stay["discharge"].date()):
        return False
    return not any(e.get("service") in cfg.exclude_services for e in stay["members"])


def _comes_back(stay: Row, following: list[Row], horizon: timedelta, cfg: TasksConfig) -> bool:
    if not following:
        return False
    first = min(following, key=lambda s: s["admit"])
    if cfg.exclude_planned and first["members"][0].get("admission_type") == "elective":
        return False
    return timedelta(0) < first["admit"] - stay["discharge"] <= horizon


def _days(stay: Row, cfg: TasksConfig) -> float:
    if cfg.los_unit == "calendar":
        return float((stay["discharge"].date() - stay["admit"].date()).days)
    return float((stay["discharge"] - stay["admit"]) / timedelta(days=1))


def _bin(days: float) -> int:
    for label, upper in enumerate((2, 3, 5)):
        if days <= upper:
            return label
    return 3


def _denied(hospital: Hospital, stay: Row) -> int | None:
    ids = {e["encounter_id"] for e in stay["members"]}
    statuses = [claim["status"] for claim in hospital.claims if claim["encounter_id"] in ids]
    if any(status.startswith("final, ") for status in statuses):
        return 1
    return 0 if statuses and all(status == "no denial" for status in statuses) else None
