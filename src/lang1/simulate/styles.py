"""How departments write: section headers, their order, what joins phrases; which styles are in use when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """Headers by section, the order of sections, what joins phrases."""

    headers: dict[str, str]
    order: tuple[str, ...]
    joiner: str


_SECTIONS = ("hpi", "pmh", "family", "meds", "social", "exam", "labs", "admin", "plan", "course", "disposition")


def _headers(*names: str) -> dict[str, str]:
    return dict(zip(_SECTIONS, names, strict=True))


_LONG = _headers(
    "History of present illness:", "Past medical history:", "Family history:", "Home medications:", "Social history:",
    "Physical exam:", "Laboratory data:", "Insurance:", "Assessment and plan:", "Hospital course:", "Disposition:",
)  # fmt: skip
_SHORT = _headers("HPI:", "PMH:", "FH:", "Meds:", "SH:", "PE:", "Labs:", "Payer:", "A/P:", "Course:", "Dispo:")
_TEMPLATE = _headers(
    "# Presenting problem", "# Problem list", "# Family", "# Medications", "# Social", "# Exam", "# Results",
    "# Coverage", "# Plan", "# Course", "# Disposition",
)  # fmt: skip
_NOTHING = _headers(*[""] * len(_SECTIONS))
_EXTERNAL = _headers(
    "REASON FOR VISIT -", "ACTIVE AND PAST PROBLEMS -", "RELATIVES -", "DRUGS ON ARRIVAL -", "LIVING SITUATION -",
    "EXAMINATION -", "TESTS -", "FINANCIAL -", "IMPRESSION -", "SUMMARY OF STAY -", "LEAVING -",
)  # fmt: skip
_CAPITALS = _headers(*[_SHORT[name].upper() for name in _SECTIONS])

_ORDER = ("hpi", "course", "pmh", "family", "meds", "social", "exam", "labs", "admin", "disposition", "plan")
_PLAN_FIRST = ("hpi", "course", "plan", "disposition", "exam", "labs", "pmh", "family", "meds", "social", "admin")
_ADMIN_EARLY = ("hpi", "course", "pmh", "meds", "family", "admin", "social", "exam", "labs", "plan", "disposition")

STYLES = (
    Style(_LONG, _ORDER, ". "),
    Style(_SHORT, _ADMIN_EARLY, ", "),
    Style(_NOTHING, _ORDER, ". "),
    Style(_TEMPLATE, _PLAN_FIRST, "; "),
    Style(_EXTERNAL, _ADMIN_EARLY, ". "),
    Style(_CAPITALS, _PLAN_FIRST, "; "),
)
"""0-3: the main hospital (0 fades after 2016, 3 is the template of 2021); 4, 5 and 2: the external one"""
SHARES: dict[str, tuple[tuple[int, dict[int, float]], ...]] = {
    "main": (
        (2011, {0: 0.55, 1: 0.25, 2: 0.20}),
        (2016, {0: 0.30, 1: 0.45, 2: 0.25}),
        (2021, {0: 0.15, 1: 0.35, 2: 0.15, 3: 0.35}),
    ),
    "external": ((2011, {4: 0.5, 5: 0.3, 2: 0.2}), (2018, {4: 0.3, 5: 0.5, 2: 0.2})),
}
"""share of styles by hospital, from a year on"""


def style_of(hospital: str, place: float, year: int) -> Style:
    """The style that a provider's own number in [0, 1) falls into, in that year."""
    shares = [share for first, share in SHARES[hospital] if first <= year][-1]
    return STYLES[_which(place, list(shares), list(shares.values()))]


def _which(place: float, styles: Sequence[int], shares: Sequence[float]) -> int:
    edge = 0.0
    for style, share in zip(styles, shares, strict=True):
        edge += share
        if place < edge:
            return style
    return styles[-1]
