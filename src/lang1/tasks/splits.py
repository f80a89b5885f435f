"""Which split a row belongs to: its unit's hash decides inside the training window, the discharge time elsewhere.

One assignment for all tasks: `patient_fold` hashes seed and patient_id to train, val or test (8:1:1), so adding a
patient moves no other, and joint training on one task's rows cannot leak into another's test (the paper drew the
split anew a task; reference: field.md section 5 rows 8 and 9). Patients of the temporal windows may be patients of
train (Appendix L). `split_unit: note` hashes the index note instead, as the paper's counts suggest: a patient is then
on several sides, and the statistics say how many are.

Denial has its own windows and half as much val and test: a second hash keeps half of the shared val and test
patients, and the other half leaves denial, so that it is 16:1:1. The paper's 18:1:1 (`denial_other_half: train`) puts
patients of another task's test into denial's train. Cost of leaving: 10 % of denial's rows between May 2021 and
February 2022.

Not prevented, and seen by `evaluate` as `seen_in_finetuning`: denial trains in months that are `temporal_1` for the
other tasks. `temporal_2` begins after every training window.

The SQL computes the same hash (sql/splits.sql); `refuse_what_cannot_be_split` says which records a split cannot be made
of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lang1.config import TasksConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.tasks.database import count
from lang1.tasks.origin import Origin

if TYPE_CHECKING:
    import duckdb


def keeps_denial_half(seed: int, unit: str) -> bool:
    """True for the half of patients that stay in denial's val and test: a hash of its own, nested in the folds."""
    return hash_fraction(seed, f"denial:{unit}") < 0.5


def refuse_what_cannot_be_split(database: duckdb.DuckDBPyConnection, cfg: TasksConfig, origin: Origin) -> None:
    """Raise InputError when the stays lack what `split_by` needs, or when their dates mean nothing across patients."""
    if origin.dates_shifted:
        _refuse_calendar(cfg)
    stays = count(database, "SELECT count(*) FROM stays")
    if cfg.split_by == "time" and stays and not count(database, "SELECT count(*) FROM stays WHERE NOT is_untimed"):
        raise InputError(
            "tasks: split_by is 'time' but no encounter of the records has an admission or discharge time; "
            "set tasks.split_by to patient or sequence"
        )
    if cfg.split_by == "sequence" and stays and not count(database, "SELECT count(sequence) FROM stays"):
        raise InputError(
            "tasks: split_by is 'sequence' but encounters.sequence is null in all records; "
            "set tasks.split_by to patient, or to time when the encounters have times"
        )


def _refuse_calendar(cfg: TasksConfig) -> None:
    why = "but the dates of these records are shifted patient by patient, so no calendar day is the same day for two"
    if cfg.split_by == "time":
        raise InputError(f"tasks: split_by is 'time' {why}; set tasks.split_by to patient")
    if cfg.follow_up_end is not None:
        raise InputError(f"tasks: follow_up_end is {cfg.follow_up_end} {why}; leave tasks.follow_up_end null")
