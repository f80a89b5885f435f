"""What a reader must know before a task's numbers: a line each, in statistics.json, the manifest and on stdout.

A caution follows from the configuration and from where the records come from, never from the rows.
"""

from __future__ import annotations

from lang1.config import TasksConfig
from lang1.tasks.origin import Origin

SHIFTED = (
    "these records have dates shifted patient by patient (MIMIC: intensive care of one hospital): readmissions to "
    "other hospitals and after a patient's last stay are not seen, no stay is known to be followed up, and no split is "
    "by calendar; this is not a general hospital's readmission rate"
)


def cautions_of(task: str, cfg: TasksConfig, origin: Origin) -> list[str]:
    """The cautions of a task, the most serious first."""
    lines = _of_task(task, cfg, origin)
    if origin.signed_time_from == "note_datetime" and cfg.prediction_clock == "signed":
        lines.append("the source has no signing time: note_datetime stands in as the clock of prediction_time")
    if cfg.prediction_clock == "written":
        lines.append("prediction_time is when the note was begun: its text may hold what was known when it was signed")
    if not cfg.notes_within_stay:
        lines.append("the index note may be signed outside of its stay (notes_within_stay: false): its text may tell")
    if cfg.later_edits == "keep":
        lines.append("addenda and later edits may be index notes (later_edits: keep): their text may tell the outcome")
    if cfg.split_unit == "note":
        lines.append("notes are split, not patients: patients of train are in val and test (patients_also_in_train)")
    return lines


def _of_task(task: str, cfg: TasksConfig, origin: Origin) -> list[str]:
    lines = []
    if task == "readmission":
        if origin.dates_shifted:
            lines.append(SHIFTED)
        if cfg.last_stay == "exclude":
            lines.append("last stays are left out: only patients who return are here, the rate is no hospital's")
        if not cfg.exclude_unfollowed:
            lines.append("stays that were not followed up count as not readmitted (exclude_unfollowed: false)")
        if not cfg.exclude_death_in_stay:
            lines.append("stays that ended in death count as not readmitted (exclude_death_in_stay: false)")
        late = cfg.max_summary_delay_hours is None or cfg.max_summary_delay_hours > cfg.transfer_hours
        if cfg.notes_within_stay and late:
            lines.append(
                "a discharge summary may be signed later than transfer_hours after discharge: leaving out those signed "
                "after the next stay began takes positives alone"
            )
    if task == "cci" and cfg.cci_codes == "encounter":
        lines.append("the codes of a stay are assigned after discharge: the task imputes a score, it is not prognostic")
    if task == "cci" and not cfg.exclude_uncoded:
        lines.append("stays without codes count as a score of 0 (exclude_uncoded: false)")
    if task == "mortality" and not cfg.exclude_no_disposition:
        lines.append("stays without disposition count as survived (exclude_no_disposition: false)")
    if task == "denial" and cfg.denial_rule == "otherwise":
        lines.append("pending and unknown claim statuses count as not denied (denial_rule: otherwise)")
    if task == "denial" and cfg.denial_other_half == "train":
        lines.append("denial trains on patients of other tasks' val and test (18:1:1): do not train it with them")
    return lines
