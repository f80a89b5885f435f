"""The slow, obvious twin of the SQL: plain loops written from the sentences of the paper and of docs/tasks.md."""

from __future__ import annotations

from datetime import datetime, time, timedelta
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
    rows: Answer = {task: {} for task in ("readmission", "mortality", "los", "cci", "denial")}
    for stay in stays:
        if stay["open"] or not _is_in(stay, cfg):
            continue
        following = [s for s in stays if s["patient"] is stay["patient"] and s["admit"] > stay["admit"]]
        admission = _admission_note(hospital, stay, cfg)
        if admission is not None:
            note_id, when = admission
            if stay["died"] or stay["last"]["discharge_disposition"] is not None or not cfg.exclude_no_disposition:
                rows["mortality"][stay["id"]] = (int(stay["died"]), note_id)
            rows["los"][stay["id"]] = (_bin(_days(stay, cfg)), note_id)
            codes = _codes(hospital, stay, when, cfg)
            if codes or not cfg.exclude_uncoded:
                rows["cci"][stay["id"]] = (_score_bin(codes, cfg), note_id)
            denied = _denied(hospital, stay, cfg)
            cut = timedelta(days=cfg.claims_follow_up_days)
            if denied is not None and last is not None and stay["discharge"] + cut <= last:
                rows["denial"][stay["id"]] = (denied, note_id)
        summary = _summary(hospital, stay, following, cfg)
        followed = not cfg.exclude_unfollowed or (last is not None and _last_moment(stay, cfg) <= last)
        if summary is not None and followed and _counts_for_readmission(hospital, stay, following, cfg):
            rows["readmission"][stay["id"]] = (int(_comes_back(hospital, stay, following, cfg)), summary)
    return rows


# --- stays -----------------------------------------------------------------------------------------------------


def _stays(hospital: Hospital, patient: Row, cfg: TasksConfig) -> list[Row]:
    usable = []
    for e in hospital.encounters:
        if e["patient_id"] != patient["patient_id"] or e["encounter_class"] != "inpatient" or e["admit_time"] is None:
            continue
        if e["discharge_time"] is not None and e["discharge_time"] < e["admit_time"]:
            continue
        if not (cfg.exclude_post_death and _begins_after_death(hospital, patient, e)):
            usable.append(e)
    stays: list[Row] = []
    for e in sorted(usable, key=lambda e: (e["admit_time"], _end(e), e["encounter_id"])):
        gap = e["admit_time"] - stays[-1]["discharge"] if stays else timedelta.max
        if gap < timedelta(hours=cfg.transfer_hours) or gap <= timedelta(0):
            stays[-1]["members"].append(e)
            stays[-1]["overlaps"] |= gap < timedelta(0)
            stays[-1]["discharge"] = max(stays[-1]["discharge"], _end(e))
        else:
            stays.append({"members": [e], "discharge": _end(e), "patient": patient, "overlaps": False})
    for stay in stays:
        stay |= {
            "id": stay["members"][0]["encounter_id"],
            "ids": {e["encounter_id"] for e in stay["members"]},
            "admit": stay["members"][0]["admit_time"],
            "last": max(stay["members"], key=lambda e: (_end(e), e["admit_time"], e["encounter_id"])),
            "died": any(_expired(e) for e in stay["members"]),
        }
    return stays


def _deaths(hospital: Hospital, patient: Row) -> list[datetime]:
    """When the patient expired in an encounter of any class."""
    mine = [e for e in hospital.encounters if e["patient_id"] == patient["patient_id"]]
    return [e["discharge_time"] for e in mine if _expired(e) and e["discharge_time"]]


def _begins_after_death(hospital: Hospital, patient: Row, e: Row) -> bool:
    if patient.get("death_date") and e["admit_time"].date() > patient["death_date"]:
        return True
    deaths = _deaths(hospital, patient)
    if not deaths or e["admit_time"] < min(deaths):
        return False
    return not (_expired(e) and e["discharge_time"] == min(deaths))


def _is_in(stay: Row, cfg: TasksConfig) -> bool:
    if cfg.overlapping_stays == "exclude" and stay["overlaps"]:
        return False
    return not (cfg.exclude_newborns and any(e.get("admission_type") == "newborn" for e in stay["members"]))


def _expired(encounter: Row) -> bool:
    return bool(encounter["discharge_disposition"] == "Expired")


def _goes_on(encounter: Row, end_of_records: datetime) -> bool:
    end, disposition = encounter["discharge_time"], encounter["discharge_disposition"]
    return end is None or (disposition is None and end.date() == end_of_records.date())


def _end(encounter: Row) -> datetime:
    end: datetime = encounter["discharge_time"] or encounter["admit_time"]
    return end


# --- index notes -----------------------------------------------------------------------------------------------


def _clock(note: Row, cfg: TasksConfig) -> Any:
    return note.get("written_time") if cfg.prediction_clock == "written" else note["signed_time"]


def _notes(hospital: Hospital, stay: Row, types: tuple[str, ...], cfg: TasksConfig) -> list[Row]:
    found = []
    for note in hospital.notes:
        if note["encounter_id"] not in stay["ids"] or note["note_type"] not in types:
            continue
        if note["note_id"] in hospital.rejected or _clock(note, cfg) is None:
            continue
        if cfg.later_edits == "exclude" and (_is_later_edit(note) or _is_signed_again(hospital, note)):
            continue
        if cfg.notes_within_stay:
            death = stay["patient"].get("death_date")
            if _clock(note, cfg) < stay["admit"] or (death and _clock(note, cfg).date() > death):
                continue
        found.append(note)
    return found


def _is_later_edit(note: Row) -> bool:
    signed, written = note["signed_time"], note.get("written_time")
    return note["text"].lower().startswith("addendum") or bool(signed and written and written > signed)


def _is_signed_again(hospital: Hospital, note: Row) -> bool:
    keys = ("patient_id", "encounter_id", "note_type", "written_time")
    return any(
        all(note.get(key) == other.get(key) is not None for key in keys)
        and note.get("author_role") == other.get("author_role")
        and note["signed_time"] and other["signed_time"] and other["signed_time"] < note["signed_time"]
        for other in hospital.notes
    )  # fmt: skip


def _choose(notes: list[Row], how: str, default: str, cfg: TasksConfig) -> Row | None:
    """The first, the last or the longest; of equal ones the one by the other clock, then by note_id."""
    if not notes:
        return None
    sign = -1 if (how if how != "longest" else default) == "last" else 1

    def place(note: Row) -> tuple[Any, ...]:
        seconds = []
        other = note["signed_time"] if cfg.prediction_clock == "written" else note.get("written_time")
        for when in (_clock(note, cfg), other):
            seconds.append((when is None, sign * (when - datetime(1970, 1, 1)) if when else timedelta(0)))
        return (-len(note["text"].split()) if how == "longest" else 0, *seconds, note["note_id"])

    return min(notes, key=place)


def _admission_note(hospital: Hospital, stay: Row, cfg: TasksConfig) -> tuple[str, datetime] | None:
    usable = []
    for note in _notes(hospital, stay, cfg.admission_note_types, cfg):
        delay = _clock(note, cfg) - stay["admit"]
        if cfg.max_note_delay_hours is not None and delay > timedelta(hours=cfg.max_note_delay_hours):
            continue
        if not cfg.notes_within_stay or _clock(note, cfg) < stay["discharge"]:
            usable.append(note)
    best = _choose(usable, cfg.hp_choice, "first", cfg)
    return None if best is None else (str(best["note_id"]), _clock(best, cfg))


def _summary(hospital: Hospital, stay: Row, following: list[Row], cfg: TasksConfig) -> str | None:
    usable = []
    for note in _notes(hospital, stay, cfg.discharge_note_types, cfg):
        delay = _clock(note, cfg) - stay["discharge"]
        if cfg.max_summary_delay_hours is not None and delay > timedelta(hours=cfg.max_summary_delay_hours):
            continue
        if cfg.notes_within_stay and any(_clock(note, cfg) >= later["admit"] for later in following):
            continue
        if not any(word in (note.get("department") or "").lower() for word in cfg.exclude_departments):
            usable.append(note)
    best = _choose(usable, cfg.summary_choice, "last", cfg)
    return None if best is None else str(best["note_id"])


# --- readmission -----------------------------------------------------------------------------------------------


def _last_moment(stay: Row, cfg: TasksConfig) -> datetime:
    if cfg.readmission_boundary == "calendar":
        return datetime.combine(stay["discharge"].date() + timedelta(days=cfg.readmission_days + 1), time())
    end: datetime = stay["discharge"] + timedelta(days=cfg.readmission_days)
    return end


def _counts_for_readmission(hospital: Hospital, stay: Row, following: list[Row], cfg: TasksConfig) -> bool:
    death = stay["patient"].get("death_date")
    if cfg.exclude_death_in_stay and (stay["died"] or (death and death < stay["discharge"].date())):
        return False
    if cfg.last_stay == "exclude" and not following:
        return False
    if cfg.died_after_discharge == "exclude" and not stay["died"]:
        last_day = stay["discharge"].date() + timedelta(days=cfg.readmission_days)
        first = min(_deaths(hospital, stay["patient"]), default=None)
        if death and stay["discharge"].date() <= death <= last_day:
            return False
        if first and stay["discharge"] < first <= _last_moment(stay, cfg):
            return False
    for e in stay["members"]:
        if e.get("service") in cfg.exclude_services:
            return False
        if any(word in (e.get("department") or "").lower() for word in cfg.exclude_departments):
            return False
    return True


def _comes_back(hospital: Hospital, stay: Row, following: list[Row], cfg: TasksConfig) -> bool:
    if cfg.readmission_by == "adt":
        events = [(s["admit"], s["members"][0].get("admission_type") == "elective") for s in following]
    else:
        events = _admissions_by_note(hospital, stay, cfg)
    for when, planned in sorted(events, key=lambda event: event[0]):
        if when <= stay["discharge"]:
            continue
        if cfg.exclude_planned and planned:
            # an unplanned event of the same moment is not hidden
            if cfg.planned_ends_search and (when, False) not in events:
                return False
            continue
        if cfg.readmission_boundary == "within":
            return bool(when <= _last_moment(stay, cfg))
        return bool(when < _last_moment(stay, cfg))
    return False


def _admissions_by_note(hospital: Hospital, stay: Row, cfg: TasksConfig) -> list[tuple[datetime, bool]]:
    """H&Ps of encounters that began after this stay ended."""
    events = []
    for e in hospital.encounters:
        if e["patient_id"] != stay["patient"]["patient_id"] or e["encounter_id"] in stay["ids"]:
            continue
        if e["encounter_class"] == "outpatient" or e["admit_time"] is None or e["admit_time"] <= stay["discharge"]:
            continue
        if cfg.exclude_post_death and _begins_after_death(hospital, stay["patient"], e):
            continue
        for note in hospital.notes:
            if note["encounter_id"] == e["encounter_id"] and note["note_type"] in cfg.admission_note_types:
                when = _clock(note, cfg)
                if when is not None and when <= _last_moment(stay, cfg):
                    events.append((when, e.get("admission_type") == "elective"))
    return events


# --- other labels ----------------------------------------------------------------------------------------------


def _days(stay: Row, cfg: TasksConfig) -> float:
    if cfg.los_unit == "calendar":
        return float((stay["discharge"].date() - stay["admit"].date()).days)
    return float((stay["discharge"] - stay["admit"]) / timedelta(days=1))


def _bin(days: float) -> int:
    for label, upper in enumerate((2, 3, 5)):
        if days <= upper:
            return label
    return 3


WEIGHTS = {"I10": 0, "I50.9": 1, "E11.9": 1, "C78.7": 6, "B20": 6}
"""codes that the drawn hospitals use, each of a category of its own"""


def _codes(hospital: Hospital, stay: Row, when: datetime, cfg: TasksConfig) -> set[str]:
    found = set()
    for row in hospital.diagnoses:
        encounter = next(e for e in hospital.encounters if e["encounter_id"] == row["encounter_id"])
        if cfg.cci_codes == "encounter":
            if row["encounter_id"] in stay["ids"]:
                found.add(row["code"])
        elif encounter["patient_id"] == stay["patient"]["patient_id"] and row["encounter_id"] not in stay["ids"]:
            known = row.get("coded_time") is None or row["coded_time"] <= when
            if _end(encounter) <= stay["admit"] and known:
                found.add(row["code"])
    return found


def _score_bin(codes: set[str], cfg: TasksConfig) -> int:
    score = sum(WEIGHTS[code] for code in codes)
    for label, upper in enumerate((0, 2, 4, 7)):
        if score <= upper:
            return label
    return 4 if cfg.cci_classes == 5 else 3


def _denied(hospital: Hospital, stay: Row, cfg: TasksConfig) -> int | None:
    statuses = [claim["status"] for claim in hospital.claims if claim["encounter_id"] in stay["ids"]]
    if not statuses:
        return None
    denials = {"final, adverse determination"}
    if cfg.denial_rule != "adverse":
        denials.add("final, favorable determination")
    if denials & set(statuses):
        return 1
    settled = {"no denial", "final, favorable determination"}
    return 0 if cfg.denial_rule == "otherwise" or set(statuses) <= settled else None
