"""Which encounters become rows of a task, rule by rule. The first rule that an encounter fails is its reason.

The rules stand here in their order; what each asks is a boolean column of the table `facts` (sql/facts.sql). So an
attrition table adds up by construction, and `left_out/<task>.parquet` names the rule of every encounter that is not
a row. A rule never reads a label: the cohort is the same for both outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lang1.config import TasksConfig
from lang1.errors import InputError
from lang1.tasks.database import count
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Rule:
    """What an encounter must be, in words and as a column of `facts`."""

    text: str
    column: str


@dataclass(frozen=True)
class Step:
    """A line of the attrition table."""

    task: str
    step: int
    rule: str
    left_out: int
    remaining: int


def rules_for(task: str, cfg: TasksConfig) -> list[Rule]:
    """The rules of a task in the order in which they are asked."""
    return [*_stay_rules(cfg), *_task_rules(task, cfg), *_note_rules(task, cfg), *_split_rules(task, cfg)]


def _stay_rules(cfg: TasksConfig) -> list[Rule]:
    return [
        Rule("is inpatient", "is_inpatient"),
        Rule("has an admission time and no earlier discharge time, or no times at all", "has_usable_times"),
        *_when(cfg.exclude_post_death, "begins before the patient's death", "is_before_death"),
        Rule(f"is no transfer (begins {cfg.transfer_hours:g} h or more after the stay before it)", "is_first_of_stay"),
        *_when(cfg.overlapping_stays == "exclude", "overlaps no other encounter of the patient", "has_no_overlap"),
        Rule("has ended (not: without disposition on the last day of the records)", "has_ended"),
        *_when(cfg.exclude_newborns, "is no newborn's", "is_no_newborn"),
    ]


def _task_rules(task: str, cfg: TasksConfig) -> list[Rule]:
    if task == "readmission":
        return _readmission_rules(cfg)
    if task == "mortality":
        return _when(cfg.exclude_no_disposition, "has a discharge disposition", "has_disposition")
    if task == "los":
        return [Rule("has a length of stay", "has_length")]
    if task == "cci":
        of_whom = "an ICD code of an earlier encounter" if cfg.cci_codes == "prior" else "an ICD code"
        return _when(cfg.exclude_uncoded, f"has {of_whom}", "has_codes")
    maturity = f"was claimed {cfg.claims_follow_up_days} days or more before the records end"
    final = "has a final claim status (pending and unknown statuses are no negatives)"
    return [
        Rule("there are claims in these records", "has_claims"),
        Rule("has a claim", "has_claim"),
        *_when(cfg.claims_follow_up_days > 0, maturity, "is_mature"),
        *_when(cfg.denial_rule != "otherwise", final, "has_final_status"),
    ]


def _readmission_rules(cfg: TasksConfig) -> list[Rule]:
    services, words = (", ".join(names) for names in (cfg.exclude_services, cfg.exclude_departments))
    days = cfg.readmission_days
    known = (
        f"is followed up for {days} days, or readmission is a given fact"
        if cfg.exclude_unfollowed
        else ("has times, or readmission is a given fact")
    )
    return [
        *_when(cfg.exclude_death_in_stay, "the patient left alive", "survived"),
        Rule("did not end in hospice (records without times)", "is_not_hospice"),
        *_when(services, f"not on an excluded service ({services})", "is_acute_service"),
        *_when(words, f"not in an excluded department ({words})", "is_acute_department"),
        Rule(known, "has_follow_up"),
        *_when(cfg.died_after_discharge == "exclude", f"lived for {days} days, readmitted or not", "lived_on"),
        *_when(cfg.last_stay == "exclude", "is followed by another stay of the patient", "is_followed_by_a_stay"),
    ]


def _note_rules(task: str, cfg: TasksConfig) -> list[Rule]:
    note, clock = NOTE_TYPE_PER_TASK[task], "begun" if cfg.prediction_clock == "written" else "signed"
    if note == "H&P":
        a_note, prefix, hours, in_time = "an H&P", "hp", cfg.max_note_delay_hours, "of admission"
        within, types, words = "before discharge and death", cfg.admission_note_types, ""
    else:
        a_note, prefix, hours, in_time = "a discharge summary", "ds", cfg.max_summary_delay_hours, "after discharge"
        within, types, words = (
            "before the next stay and death",
            cfg.discharge_note_types,
            ", ".join(cfg.exclude_departments),
        )
    named = "" if types == (note,) else f" ({', '.join(types)})"
    original = f"{a_note} is no addendum and no later edit"
    return [
        Rule(f"has {a_note}{named}", f"{prefix}_exists"),
        Rule(f"{a_note} passed cleaning", f"{prefix}_is_clean"),
        *_when(cfg.later_edits == "exclude", original, f"{prefix}_is_original"),
        *_when(words, f"{a_note} is of no excluded department ({words})", f"{prefix}_is_acute"),
        Rule(f"{a_note} was {clock}", f"{prefix}_is_signed"),
        *_when(cfg.notes_within_stay, f"{a_note} was {clock} after admission", f"{prefix}_is_after_admission"),
        *_when(hours is not None, f"{a_note} was {clock} within {hours or 0:g} h {in_time}", f"{prefix}_is_in_time"),
        *_when(cfg.notes_within_stay, f"{a_note} was {clock} {within}", f"{prefix}_is_usable"),
    ]


def _split_rules(task: str, cfg: TasksConfig) -> list[Rule]:
    place = {
        "time": "was discharged within a window",
        "sequence": "has a place in the sequence",
        "patient": "has a fold",
    }[cfg.split_by]
    if task != "denial":
        return [Rule(place, "is_in_window")]
    half = f"is in the half of val and test {cfg.split_unit}s that denial keeps"
    return [
        Rule(place, "is_in_denial_window"),
        *_when(cfg.denial_other_half == "leave", half, "is_in_denial_half"),
    ]


def _when(is_asked: object, text: str, column: str) -> list[Rule]:
    """The rule where the configuration asks it."""
    return [Rule(text, column)] if is_asked else []


def select_rows(database: duckdb.DuckDBPyConnection, task: str, cfg: TasksConfig) -> list[Step]:
    """Make `reasons_<task>` (encounter_id, step, rule) and `rows_<task>` (everything but the text).

    Returns the attrition steps. Raises InputError when no row, or none of train, is left: the task cannot be used.
    """
    rules = rules_for(task, cfg)
    cases = " ".join(f"WHEN {rule.column} IS NOT TRUE THEN {step}" for step, rule in enumerate(rules, 1))
    database.execute(f"CREATE TABLE reasons_{task} AS SELECT encounter_id, CASE {cases} END AS step FROM facts")
    steps = count_steps(database, task, rules)
    _make_rows(database, task)
    refuse_empty(database, task, steps)
    return steps


def choose(task: str, cfg: TasksConfig) -> str:
    """A SELECT of (encounter_id, note_id, label) that the rules choose from `facts`: for the leakage audit."""
    conditions = " AND ".join(f"({rule.column}) IS TRUE" for rule in rules_for(task, cfg))
    prefix = "hp" if NOTE_TYPE_PER_TASK[task] == "H&P" else "ds"
    return f"SELECT encounter_id, {prefix}_note_id AS note_id, {task}_label AS label FROM facts WHERE {conditions}"


def count_steps(database: duckdb.DuckDBPyConnection, task: str, rules: list[Rule]) -> list[Step]:
    """The attrition of `reasons_<task>`."""
    left_out = dict(database.execute(f"SELECT step, count(*) FROM reasons_{task} GROUP BY step").fetchall())
    remaining = sum(left_out.values())
    steps = [Step(task, 0, "is an encounter of the records", 0, remaining)]
    for number, rule in enumerate(rules, 1):
        remaining -= left_out.get(number, 0)
        steps.append(Step(task, number, rule.text, left_out.get(number, 0), remaining))
    return steps


def _make_rows(database: duckdb.DuckDBPyConnection, task: str) -> None:
    prefix = "hp" if NOTE_TYPE_PER_TASK[task] == "H&P" else "ds"
    split = "denial_split" if task == "denial" else f"{prefix}_split"
    database.execute(
        f"""
        CREATE TABLE rows_{task} AS
        SELECT '{task}-' || facts.encounter_id AS row_id, facts.patient_id, facts.encounter_id,
            clean.note_id, '{NOTE_TYPE_PER_TASK[task]}' AS note_type, {prefix}_time AS prediction_time,
            {task}_label AS label,
            {split} AS split, clean.note_hash, clean.words, clean.author_role, facts.department,
            facts.age_band, facts.is_child, patients.sex, patients.race, patients.ethnicity, patients.borough,
            {"died_after_discharge" if task == "readmission" else "NULL::BOOLEAN"} AS died_after_discharge,
            NOT is_no_newborn AS is_newborn, lived_on, by_adt, by_note, claim_days, los_days
        FROM reasons_{task} JOIN facts USING (encounter_id)
        JOIN clean_notes AS clean ON clean.note_id = facts.{prefix}_note_id
        LEFT JOIN patients ON patients.patient_id = facts.patient_id
        WHERE reasons_{task}.step IS NULL
        """
    )


def refuse_empty(database: duckdb.DuckDBPyConnection, task: str, steps: list[Step]) -> None:
    """Raise InputError when `rows_<task>` has no row, or none of train."""
    if steps[-1].remaining == 0:
        last = next(step for step in steps if step.remaining == 0)
        if task == "denial" and last.rule == "there are claims in these records":
            return
        raise InputError(
            f"tasks: {task} has no rows: none of {steps[0].remaining} encounters is left at step {last.step}, "
            f"'{last.rule}'; mend the records, or leave {task} out of tasks.tasks"
        )
    if count(database, f"SELECT count(*) FROM rows_{task} WHERE split = 'train'") == 0:
        raise InputError(
            f"tasks: {task} has {steps[-1].remaining} rows but none in train at step {len(steps) - 1}, "
            f"'{steps[-1].rule}'; widen the train window of the tasks section, or leave {task} out of tasks.tasks"
        )
