"""Numbers and names as a reader sees them: one way to write an AUROC, a difference, a count, a task, a split."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

TASKS = {
    "readmission": "30-day readmission",
    "mortality": "Death in hospital",
    "los": "Length of stay",
    "cci": "Charlson comorbidity",
    "denial": "Insurance denial",
}
TASKS_IN_A_SENTENCE = {
    "readmission": "30-day readmission",
    "mortality": "death in hospital",
    "los": "length of stay",
    "cci": "Charlson comorbidity",
    "denial": "insurance denial",
}
OPTIONS = {
    "readmission": ("not readmitted", "readmitted within 30 days"),
    "mortality": ("survived", "died"),
    "los": ("0-2 days", "3 days", "4-5 days", "over 5 days"),
    "cci": ("score 0", "score 1-2", "score 3-4", "score 5-7", "score over 7"),
    "denial": ("approved", "denied"),
}
SPLITS = {
    "train": "Train",
    "val": "Validation",
    "test": "Test",
    "temporal_1": "Temporal 1",
    "temporal_2": "Temporal 2",
}
STAGES = {
    "warehouse": "simulate",
    "records": "extract",
    "corpus": "clean",
    "tokens": "tokenize",
    "checkpoints": "pretrain",
    "tasks": "tasks",
    "model": "finetune",
    "model-random": "finetune from random weights",
    "scores": "evaluate",
}
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EM DASH}"
"""stands where there is no number"""


def stage(folder: str, name: str) -> str:
    """What a stage did: of a model in others/, the stage's name and whose it is."""
    parts = folder.split("/")
    if len(parts) == 1:
        return STAGES[folder]
    task = parts[2].removeprefix("model-") if parts[2].startswith("model-") else ""
    return f"{name}, {parts[1]}{f', {task}' if task else ''}"


def count(value: float | None) -> str:
    """12345 -> 12,345."""
    return NONE if value is None else f"{value:,.0f}"


def auroc(value: float | None) -> str:
    """Three decimals, or a dash."""
    return NONE if value is None else f"{value:.3f}"


def auroc_interval(row: dict[str, Any]) -> str:
    """[0.701, 0.742], or nothing where there is none."""
    return interval(row.get("ci_low"), row.get("ci_high"))


def interval(low: float | None, high: float | None) -> str:
    """[0.701, 0.742], or nothing where a bound is missing."""
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def points(value: float | None) -> str:
    """A difference of AUROC in percentage points, signed: +3.1."""
    if value is None:
        return NONE
    text = f"{abs(100 * value):.1f}"
    return text if float(text) == 0 else ("+" if value > 0 else MINUS) + text


def points_interval(low: float | None, high: float | None) -> str:
    """[+1.0, +5.2] in percentage points."""
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"


def percent(value: float | None, digits: int = 0) -> str:
    """0.123 -> 12 %."""
    return NONE if value is None else f"{100 * value:.{digits}f}".replace("-", MINUS) + "\N{NO-BREAK SPACE}%"


def rate(value: float | None) -> str:
    """A base rate: two significant digits below one percent, one decimal above."""
    if value is None:
        return NONE
    return percent(value, 2 if 0 < value < 0.01 else 1)


def p_value(value: float | None) -> str:
    """p as a reviewer wants it: < 0.001 or two significant digits."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as 42 s, 3 min 20 s or 2 h 5 min."""
    if seconds is None:
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def period(start: date, end: date) -> str:
    """Days from `start` up to, not including, `end`: 2024, Jan 2024 or Jun-Nov 2021 where they are whole months."""
    last = end - timedelta(days=1)
    if start.day != 1 or end.day != 1:
        return f"{start} to {last}"
    if (start.month, last.month) == (1, 12):
        return f"{start.year}" if start.year == last.year else f"{start.year}{DASH}{last.year}"
    first_month, last_month = f"{MONTHS[start.month - 1]} {start.year}", f"{MONTHS[last.month - 1]} {last.year}"
    if first_month == last_month:
        return first_month
    return f"{first_month.removesuffix(f' {last.year}')}{DASH}{last_month}"


def number_word(value: int) -> str:
    """Small numbers as words, as in a sentence."""
    return NUMBERS[value] if 0 <= value < len(NUMBERS) else str(value)


def join(parts: list[str], last: str = "and") -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 task, 2 tasks."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def task(name: str) -> str:
    """A task's name as a heading."""
    return TASKS.get(name, name)


def task_in_a_sentence(name: str) -> str:
    """A task's name inside a sentence."""
    return TASKS_IN_A_SENTENCE.get(name, name)


def split(name: str) -> str:
    """A split's name as a heading."""
    return SPLITS.get(name, name)


def option(task_name: str, index: int, texts: list[str] | None = None) -> str:
    """An option's short name; the question's own words for a task that is not known here."""
    known = OPTIONS.get(task_name)
    if known is not None and index < len(known) and (texts is None or len(texts) == len(known)):
        return known[index]
    return texts[index] if texts is not None and index < len(texts) else f"option {index}"
