"""Cohorts, labels, windows and splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from lang1.config.checks import STRICT, TASK_IDS, TaskId, require


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; by discharge time."""

    start: date
    end: date

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A window holds at least a day."""
        require(
            (self.start < self.end, "end", f"after start ({self.start})"),
        )


@dataclass(frozen=True)
class WindowsConfig:
    """When the rows of a task's splits were discharged. `train` is divided 8:1:1 by patient."""

    train: Window = Window(date(2013, 1, 1), date(2021, 6, 1))
    temporal_1: Window = Window(date(2021, 6, 1), date(2021, 12, 1))
    temporal_2: Window = Window(date(2024, 1, 1), date(2025, 1, 1))

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Windows follow each other in time, so that the future stays unseen."""
        require(
            (self.train.end <= self.temporal_1.start, "temporal_1.start", "at or after train.end"),
            (self.temporal_1.end <= self.temporal_2.start, "temporal_2.start", "at or after temporal_1.end"),
        )


@dataclass(frozen=True)
class TasksConfig:
    """Cohorts, labels and splits (5.2.2; docs/tasks.md)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    split_by: Literal["time", "patient", "sequence"] = "time"
    """time: the windows below; patient: no dates exist, 8:1:1 by patient only; sequence: as patient, and the last
    stays by `sequence` become temporal_2, exploratory"""
    sequence_fraction: float = 0.1
    """share of encounters, last by `sequence`, that become temporal_2 under split_by: sequence"""
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    denial_windows: WindowsConfig = field(
        default_factory=lambda: WindowsConfig(
            train=Window(date(2021, 5, 1), date(2022, 3, 1)),
            temporal_1=Window(date(2022, 3, 1), date(2022, 5, 1)),
            temporal_2=Window(date(2024, 1, 1), date(2024, 2, 1)),
        )
    )
    """denial has its own windows (5.2.2)"""
    follow_up_end: date | None = None
    """last day on which a readmission would be seen; null: the last discharge in the records"""
    readmission_days: int = 30
    """a stay that starts within so many days of discharge is a readmission: 0 < gap <= days x 24 h"""
    transfer_hours: float = 24.0
    """stays with a smaller gap are one stay (transfers)"""
    exclude_planned: bool = False
    """true: an elective next stay is no readmission (the paper is all-cause)"""
    exclude_services: tuple[str, ...] = ("rehabilitation", "dialysis", "palliative care")
    """services left out of readmission (5.2.2)"""
    max_note_delay_hours: float | None = 120.0
    """an H&P signed later than this after admission is left out; null: no cap"""
    max_summary_delay_hours: float | None = 24.0
    """a discharge summary signed later than this after discharge is left out, whatever the outcome; at most
    transfer_hours, no readmission can precede it (docs/tasks.md); null: no cap"""
    los_unit: Literal["calendar", "elapsed"] = "calendar"
    """LOS in calendar days (midnights) or elapsed days rounded up"""
    claims_follow_up_days: int = 0
    """denial: claims younger than this at the end of the records are left out as not mature"""
    prompt_set: Literal["recommended", "paper-verbatim"] = "recommended"
    """recommended: two slips of Appendix H mended (docs/paper-to-code.md); paper-verbatim: as printed"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Horizons and shares that a cohort can have."""
        require(
            (bool(self.tasks), "tasks", "at least one task"),
            (0 < self.sequence_fraction < 1, "sequence_fraction", "between 0 and 1"),
            (self.readmission_days >= 1, "readmission_days", "at least 1"),
            (self.transfer_hours >= 0, "transfer_hours", "0 or more"),
            (self.claims_follow_up_days >= 0, "claims_follow_up_days", "0 or more"),
        )
