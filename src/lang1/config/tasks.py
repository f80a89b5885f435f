"""Cohorts, labels, windows and splits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from lang1.config.audit import AuditConfig
from lang1.config.checks import STRICT, TASK_IDS, BuiltInTask, require


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
    """When the rows of a task's splits were discharged. `train` is divided by `split_ratio`."""

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
    """Cohorts, labels and splits (5.2.2; docs/tasks.md, docs/task-families.md)."""

    tasks: tuple[BuiltInTask, ...] = TASK_IDS
    """tasks of ReMedE to build"""
    own: tuple[str, ...] = ()
    """YAML files, each a task of one's own (docs/own-task.md): built beside `tasks`, in the same splits"""
    audit: AuditConfig = field(default_factory=AuditConfig)

    # --- splits
    split_by: Literal["time", "patient", "sequence"] = "time"
    """time: the windows below; patient: no dates exist or they are shifted, by patient only; sequence: as patient, and
    the last stays by `sequence` become temporal_2, exploratory"""
    split_unit: Literal["patient", "note"] = "patient"
    """what the hash assigns to train, val or test; note: as the paper's counts suggest, patients are then in several"""
    split_ratio: tuple[float, float, float] = (8.0, 1.0, 1.0)
    """shares of train, val and test (5.2.2); with tokenize.leave_out_folds, tokenize.fold_ratio is the same"""
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
    denial_other_half: Literal["leave", "train"] = "leave"
    """denial keeps half of the val and test patients; the other half leaves (16:1:1), or trains (the paper's 18:1:1:
    denial then trains on patients of other tasks' val and test)"""

    # --- stays
    transfer_hours: float = 24.0
    """stays with a smaller gap are one stay (transfers)"""
    overlapping_stays: Literal["merge", "exclude"] = "merge"
    """encounters that overlap are one stay, so no gap is negative; exclude: such a stay is left out"""
    exclude_post_death: bool = True
    """a stay that begins after the patient's death is left out and is no readmission"""
    exclude_newborns: bool | None = None
    """stays of admission type newborn are left out; null: in records of MIMIC only. They are counted either way"""

    # --- index notes
    admission_note_types: tuple[str, ...] = ("H&P",)
    """note types that may be the index note of mortality, LOS, CCI and denial: no other text reaches them"""
    discharge_note_types: tuple[str, ...] = ("discharge summary",)
    """note types that may be the index note of readmission"""
    prediction_clock: Literal["signed", "written"] = "signed"
    """which time of the index note is prediction_time: first signed, or begun"""
    later_edits: Literal["exclude", "keep"] = "exclude"
    """addenda, notes signed again, notes begun after they were signed: their text is later than their time says"""
    notes_within_stay: bool = True
    """an H&P is signed from admission to before discharge and death, a discharge summary from admission to before the
    next stay and death; false: whenever"""
    max_note_delay_hours: float | None = 120.0
    """an H&P signed later than this after admission is left out; null: no cap"""
    max_summary_delay_hours: float | None = 24.0
    """a discharge summary signed later than this after discharge is left out, whatever the outcome; at most
    transfer_hours, no readmission can precede it (docs/tasks.md); null: no cap"""
    hp_choice: Literal["first", "last", "longest", "mimic3"] = "first"
    """of several usable H&Ps of a stay; ties go by time, then to the smallest note_id. mimic3: the priorities of 5.2.3,
    physician over general over nursing notes, then resident/attending, resident, attending, fellow, h&p; the longest"""
    summary_choice: Literal["last", "first", "longest"] = "last"
    """of several usable discharge summaries of a stay"""
    choose_note: Literal["after", "before"] = "after"
    """after: one of the notes that keep every rule; before: one of all cleaned notes, and the rules are asked of that
    one alone, so that a stay whose chosen note is late is left out (5.2.3)"""

    # --- readmission
    readmission_by: Literal["adt", "admission_note"] = "adt"
    """what a readmission is: an inpatient stay, or an H&P of a later encounter (NYUTron); both are counted"""
    readmission_days: int = 30
    """what comes back within so many days of discharge is a readmission"""
    readmission_boundary: Literal["within", "before", "calendar"] = "within"
    """within: 0 < gap <= days x 24 h; before: 0 < gap < days x 24 h; calendar: until the end of that day"""
    follow_up_end: date | None = None
    """last day on which a readmission would be seen; null: the last discharge in the records"""
    exclude_unfollowed: bool = True
    """stays that end too late to be followed up are left out, whatever their label; false: they count as they look"""
    last_stay: Literal["keep", "exclude"] = "keep"
    """a patient's last stay; exclude keeps patients who return, as some published code does: never a hospital's rate"""
    exclude_death_in_stay: bool = True
    """a stay that ends in death is left out; false: it is a 0"""
    died_after_discharge: Literal["keep", "exclude"] = "keep"
    """who dies within the days, readmitted or not; kept and not readmitted: 0 and flagged. Both rates are reported"""
    exclude_planned: bool = False
    """true: an elective next stay is no readmission (the paper is all-cause)"""
    planned_ends_search: bool = True
    """with exclude_planned: an elective next stay hides what follows it (CMS); false: the next stay that is not
    elective counts (ClinicalBERT)"""
    exclude_services: tuple[str, ...] = ("rehabilitation", "dialysis", "palliative care")
    """services whose stays are left out of readmission (5.2.2)"""
    exclude_departments: tuple[str, ...] = ("rehab", "dialysis", "palliative")
    """the same by the department of the stay or of the note's author: names that contain one of these words"""

    # --- mortality and LOS
    exclude_no_disposition: bool = True
    """mortality: a stay without disposition is left out; false: it is a 0"""
    los_unit: Literal["calendar", "elapsed"] = "calendar"
    """LOS in calendar days (midnights) or elapsed days rounded up"""

    # --- CCI
    cci_codes: Literal["encounter", "prior"] = "encounter"
    """encounter: codes of the stay, assigned after discharge (imputation); prior: of earlier encounters, known then"""
    exclude_uncoded: bool = True
    """a stay without codes is left out (5.2.2); false: it is a score of 0"""
    cci_weights: Literal[1987, 2011] = 1987
    """Charlson weights of 1987, or those that Quan 2011 fitted anew (docs/charlson.md)"""
    cci_age_points: bool = False
    """true: age at admission adds 1 point a decade from 50 on, 4 from 80 on (docs/charlson.md)"""
    cci_classes: Literal[4, 5] = 5
    """4: the two top classes are one (above 7 holds 0.1 % of the paper's notes)"""

    # --- denial
    denial_rule: Literal["final", "adverse", "otherwise"] = "final"
    """final: both final determinations are 1, no denial is 0, anything else is left out; adverse: the same, but
    denied and then approved is 0; otherwise: every other status is 0, pending too (the paper's sentence)"""
    claims_follow_up_days: int = 90
    """stays that end within so many days of the end of the records are left out: their claims are not mature"""

    prompt_set: Literal["recommended", "paper-verbatim"] = "recommended"
    """recommended: two slips of Appendix H mended (docs/paper-to-code.md); paper-verbatim: as printed"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Horizons and shares that a cohort can have."""
        kinds = [{name.strip().lower() for name in n} for n in (self.admission_note_types, self.discharge_note_types)]
        require(
            (bool(self.tasks) or bool(self.own), "tasks", "at least one task, or none and at least one of tasks.own"),
            (
                self.split_ratio[0] > 0 and all(0 <= share < math.inf for share in self.split_ratio),
                "split_ratio",
                "0 or more, and train above 0",
            ),
            (0 < self.sequence_fraction < 1, "sequence_fraction", "between 0 and 1"),
            (self.readmission_days >= 1, "readmission_days", "at least 1"),
            (self.transfer_hours >= 0, "transfer_hours", "0 or more"),
            (self.claims_follow_up_days >= 0, "claims_follow_up_days", "0 or more"),
            (bool(kinds[0]), "admission_note_types", "at least one note type"),
            (bool(kinds[1]), "discharge_note_types", "at least one note type"),
            (
                not any("discharge" in name for name in kinds[0]) and not kinds[0] & kinds[1],
                "admission_note_types",
                "without discharge notes: they tell length of stay and death",
            ),
        )
