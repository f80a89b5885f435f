"""Drawn timelines: a case is a list of (when, event, label wanted or the rule that leaves the stay out).

Events: `admit` and `discharge` bound a stay (the wanted outcome stands at its discharge); `H&P` and
`discharge summary` are signed then and belong to the stay around or before them; `death` is the day of death. A stay
that draws no note of a type has one signed at its admission (H&P) or discharge (summary). Words after an event are
values: `admit class=emergency`, `admit service=rehabilitation type=elective`, `discharge to=Expired`,
`H&P rejected`, `H&P unsigned`, `H&P written=2020-01-01 kind=Physician_note department=x text=y`,
`code I10`, `claim status=pending`. A space in a value is written `_`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timelines import Hospital, at

Event = tuple[Any, ...]
_KEYS = {
    "class": "encounter_class",
    "service": "service",
    "type": "admission_type",
    "department": "department",
}


@dataclass(frozen=True)
class Case:
    """A patient's timeline; the stays are named `<name>/1`, `<name>/2`, ... in the order of their admissions."""

    name: str
    events: list[Event]


def draw(hospital: Hospital, case: Case) -> dict[str, Any]:
    """Put a case into the hospital. Returns what is wanted of each stay."""
    stays: list[dict[str, Any]] = []
    wanted: dict[str, Any] = {}
    drawn: list[tuple[dict[str, Any], str, str | None, dict[str, str]]] = []
    codes: list[tuple[str, str]] = []
    death = None
    for when, what, *rest in case.events:
        event, values = _read(what)
        if event == "admit":
            stays.append({"id": f"{case.name}/{len(stays) + 1}", "admit": when, "discharge": None, "values": values})
        elif event == "discharge":
            stays[-1] |= {"discharge": when, "to": values.get("to", "Home") or None}
            if rest:
                wanted[stays[-1]["id"]] = rest[0]
        elif event == "death":
            death = when[:10]
        elif event == "claim":
            hospital.claim(stays[-1]["id"], values["status"].replace("_", " "), when, values.get("id"))
        elif event in ("H&P", "discharge summary"):
            signed = None if "unsigned" in values else when
            drawn.append((stays[int(values.get("stay", len(stays))) - 1], event, signed, values))
        elif event == "code":
            codes.append((stays[-1]["id"], next(iter(values))))
        else:
            raise ValueError(event)
    hospital.patient(case.name, death_date=death and _day(death))
    for stay in stays:
        named = {_KEYS[key]: value.replace("_", " ") for key, value in stay["values"].items()}
        hospital.stay(stay["id"], stay["admit"], stay["discharge"], case.name, stay.get("to"), notes=False, **named)
        for note_type, default in (("H&P", stay["admit"]), ("discharge summary", stay["discharge"])):
            own = [d for d in drawn if d[0] is stay and d[1] == note_type]
            for number, (_, _, signed, values) in enumerate(own or [(stay, note_type, default, {})], 1):
                kind = values.get("kind", note_type).replace("_", " ")
                others = {key: values[key].replace("_", " ") for key in ("department", "text") if key in values}
                written = at(values.get("written", signed))
                hospital.note(
                    stay["id"], kind, signed, case.name, f"{stay['id']}-{note_type}-{number}", "rejected" in values,
                    written_time=written, **others,
                )  # fmt: skip
    for stay_id, code in codes:
        hospital.code(stay_id, code, patient_id=case.name)
    return wanted


def _read(what: str) -> tuple[str, dict[str, str]]:
    for event in ("admit", "discharge summary", "discharge", "H&P", "death", "claim", "code"):
        if what.startswith(event):
            pairs = (word.partition("=") for word in what.removeprefix(event).split())
            return event, {key: value for key, _, value in pairs}
    raise ValueError(what)


def _day(text: str) -> Any:
    from datetime import date

    return date.fromisoformat(text)
