"""What the records' own manifest says of them that a rule must know: the source, its clock, whether dates are shifted.

Records without a manifest (a test's, or files made by hand) are taken as they are: no MIMIC, dates as they happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lang1 import runs
from lang1.config import TasksConfig


@dataclass(frozen=True)
class Origin:
    """Facts of the extract stage."""

    source: str | None = None
    dates_shifted: bool = False
    """dates are true within a patient and not between patients"""
    signed_time_from: str | None = None
    """the source's column that stands as notes.signed_time"""

    def excludes_newborns(self, cfg: TasksConfig) -> bool:
        """As configured; by default in MIMIC only, which is where dates are shifted."""
        return self.dates_shifted if cfg.exclude_newborns is None else cfg.exclude_newborns


def read_origin(records: Path) -> Origin:
    """The facts of `records`' manifest, where there is one."""
    if not runs.is_complete(records):
        return Origin()
    facts = runs.read_manifest(records).get("facts", {})
    return Origin(
        source=facts.get("source"),
        dates_shifted=bool(facts.get("dates_shifted", False)) or str(facts.get("source")).lower().startswith("mimic"),
        signed_time_from=facts.get("signed_time_from"),
    )
