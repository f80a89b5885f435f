"""The coefficient tables as a Markdown page.

`python -m lang1.simulate.describe` prints docs/simulated-hospital-tables.md. A test compares the page with what this
prints, so the documented coefficients are the ones in use.
"""

from __future__ import annotations

from typing import Any

from lang1.simulate.population import HOSPITALS
from lang1.simulate.tables import (
    ACUTE,
    CHARLSON,
    COURSE,
    COVID_WEIGHT,
    DISCHARGE,
    ORDERED,
    PAYER_FACTS,
    PLAIN,
    PROBABILITIES,
    REASONS,
    Finding,
)

_LATENTS = ("acuity", "frailty", "social", "admin")


def tables_page() -> str:
    """The whole page."""
    parts = [
        "# Coefficients of the simulated hospital\n\nPrinted by `python -m lang1.simulate.describe` from "
        "`src/lang1/simulate/tables/*.json`. The equations are in [simulated-hospital.md](simulated-hospital.md). "
        "Log-odds unless said otherwise; length of stay as 0-2 / 3 / 4-5 / more than 5 days; empty is 0.",
        *_numbers(),
    ]
    groups = (
        ("Acute illness", ACUTE),
        ("What the stay will need", COURSE),
        ("What the payer will look at", PAYER_FACTS),
    )
    parts.append(
        "## Findings at admission\n\nShare of mentions in sentences that only order tells apart: "
        + _pairs(ORDERED)
        + "."
    )
    for title, findings in groups:
        parts.append(f"### {title}\n\n{_findings(findings, ('mortality', 'los', 'denial'))}")
    parts.append(f"## Findings at discharge\n\n{_findings(DISCHARGE, ('readmission',))}")
    parts.append("## Reasons for admission\n\nCOVID-19's weight: " + _pairs(COVID_WEIGHT) + ".\n\n" + _reasons())
    parts.append("## Chronic conditions\n\n" + _conditions())
    parts.append("## Hospitals\n\n" + _hospitals())
    return "\n\n".join(parts) + "\n"


def _pairs(values: dict[Any, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _odds(values: tuple[float, ...] | list[float]) -> str:
    return " / ".join(f"{value:g}" for value in values) if any(values) else ""


def _cell(value: Any) -> str:
    if isinstance(value, tuple | list):
        return _odds(value)
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}" if value else ""
    return str(value)


def _grid(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _numbers() -> list[str]:
    p = PROBABILITIES
    steps = [
        (outcome, f"{name} {sign} {threshold:g}", coefficient)
        for outcome, terms in p["numbers"].items()
        for name, sign, threshold, coefficient in terms
    ]
    steps += [("los", f"{name} {sign} {threshold:g}", odds) for name, sign, threshold, odds in p["los_numbers"]]
    payers = list(zip(p["payers"], p["payer_denial"], strict=True))
    return [
        "## Intercepts and numbers\n\n"
        f"Intercepts: {_pairs(p['intercepts'])}; length of stay {_odds(p['los_intercept'])}. A decade of age above 50: "
        f"mortality {p['mortality_per_decade']:g} (2 decades down, 4 up at most), length of stay "
        f"{_odds(p['los_per_decade'])} (3 down, 4 up). Denial a year after 2021: {p['denial_per_year']:g}. "
        f"Length of stay of those who die (probabilities): {_odds(p['death_los'])}. A present Charlson condition "
        f"is coded with probability {p['coded']:g}, an absent one with {p['miscoded']:g}. A trend is 1 rising, "
        "-1 falling, 0 not measured twice.",
        _grid(("outcome", "step", "log-odds"), steps),
        _grid(("payer", "denial"), payers),
    ]


def _findings(findings: tuple[Finding, ...], outcomes: tuple[str, ...]) -> str:
    header = ("finding", "share of stays", "decoys", *_LATENTS, *outcomes)
    rows = [
        (
            f.name,
            f.rate,
            f.decoy_rate,
            *(getattr(f, name) for name in _LATENTS),
            *(getattr(f, name) for name in outcomes),
        )
        for f in findings
    ]
    return _grid(header, rows)


def _reasons() -> str:
    header = ("reason", "kind", "weight", "ages", "ICD-9-CM", "ICD-10-CM", "acuity", "los", "mortality", "denial",
              "readmission")  # fmt: skip
    rows = [
        (r.name, r.kind, r.weight, f"{r.ages[0]}-{r.ages[1]}", r.icd9, r.icd10, r.acuity, r.los, r.mortality, r.denial,
         r.readmission)
        for r in REASONS
    ]  # fmt: skip
    return _grid(header, rows)


def _conditions() -> str:
    header = ("condition", "weight", "prevalence at 70", "a decade", "a unit of frailty", "form of", "mortality",
              "readmission", "codes")  # fmt: skip
    rows = [
        (c.name, str(c.weight), c.prevalence, c.slope, c.frailty, c.needs, c.mortality, c.readmission,
         ", ".join((*c.icd9, *c.icd10)))
        for c in (*CHARLSON, *PLAIN)
    ]  # fmt: skip
    return _grid(header, rows)


def _hospitals() -> str:
    header = ("hospital", "growth of first stays", "ages 0 / 0-17 / 18-39 / 40-64 / 65-79 / 80+", "stays a patient",
              "conditions", "reasons")  # fmt: skip
    rows = [
        (h.name, h.first_growth, h.ages, h.stays_per_patient, h.condition_tilt, _pairs(dict(h.reason_tilt)))
        for h in HOSPITALS.values()
    ]
    return _grid(header, rows)


if __name__ == "__main__":
    print(tables_page(), end="")
