"""A task of one's own: a YAML file with the question, and SQL that gives encounter_id, prediction_time and label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lang1.config.checks import STRICT, TASK_IDS, require
from lang1.config.files import read_mapping
from lang1.errors import ConfigError

MAX_OPTIONS = 26
"""answers are the letters A to Z"""
TAKEN = (*TASK_IDS, "left_out", "meds", "audit", "own", "train", "val", "test", "temporal_1", "temporal_2")
"""ids that the tasks folder has another use for"""
_OUTCOME = re.compile(r"(patients|encounters|notes|diagnoses|claims|stays)\.[a-z0-9_]+")


@dataclass(frozen=True)
class OwnTask:
    """One task as its YAML file defines it (docs/own-task.md)."""

    id: str
    """name of the task and of its folder: small letters, digits and _, a letter first"""
    question: str
    """what is asked about the note, in one line"""
    options: tuple[str, ...]
    """the answers, in the order of their letters; a label is the index or the text of one"""
    sql: str
    """the SQL file, beside the YAML file"""
    note_type: str = "H&P"
    """type of the index note: the last of that type signed in the encounter at or before prediction_time"""
    outcome: tuple[str, ...] = ()
    """columns that hold the outcome (encounters.service): the audit permutes them and runs the SQL again"""
    outcome_words: tuple[str, ...] = ()
    """words that give the answer away in a note: the audit counts them by label"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Names and answers that a prompt and a folder can hold."""
        lines = (self.question, *self.options)
        require(
            (re.fullmatch(r"[a-z][a-z0-9_]{0,63}", self.id) is not None, "id", "small letters, digits and _"),
            (self.id not in TAKEN, "id", f"another than {', '.join(TAKEN)}"),
            (2 <= len(self.options) <= MAX_OPTIONS, "options", f"2 to {MAX_OPTIONS}"),
            (len(set(self.options)) == len(self.options), "options", "different from each other"),
            (all(text.strip() and "\n" not in text for text in lines), "question, options", "one line of text each"),
            (bool(self.sql.strip()), "sql", "the name of a file"),
            (bool(self.note_type.strip()), "note_type", "a type of note"),
            (
                all(_OUTCOME.fullmatch(name) for name in self.outcome),
                "outcome",
                "columns as table.column, of patients, encounters, notes, diagnoses, claims or stays",
            ),
            (all(word.strip() for word in self.outcome_words), "outcome_words", "words"),
        )


def read_own_task(path: Path) -> OwnTask:
    """The task that a YAML file defines, `sql` as a path from here. Raises ConfigError with every fault at once."""
    raw = read_mapping(path, "task", "name the YAML file of your own task (tasks.own)")
    try:
        task: OwnTask = TypeAdapter(OwnTask).validate_python(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {'; '.join(_explain(e) for e in error.errors())}") from None
    sql = path.parent / task.sql
    if not sql.is_file():
        raise ConfigError(f"{path}: sql: {sql}: no such file; it stands beside the YAML file")
    return OwnTask(**{**vars(task), "sql": str(sql)})


def read_own_tasks(paths: tuple[str, ...]) -> list[OwnTask]:
    """Every own task. Raises ConfigError for an id that two of them have."""
    tasks = [read_own_task(Path(path)) for path in paths]
    for i, task in enumerate(tasks):
        if task.id in {other.id for other in tasks[:i]}:
            raise ConfigError(f"{paths[i]}: id: {task.id} is taken by another of tasks.own; give each its own")
    return tasks


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ").replace("\n", "; ")
    known = ", ".join(OwnTask.__dataclass_fields__)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        message = f"unknown key; known here: {known}"
    elif error["type"] in {"missing", "missing_argument"}:
        message = "is missing"
    elif error["type"] == "string_type":
        message += "; write it in quotes"
    return f"{where}: {message}" if where else message
