"""The rows that are scored: read from the tasks folder, checked, in one order, drawn by hash where there are too many.

Rows are sorted by row_id, so that every model's score file has the same order and no result depends on how a file
was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lang1 import runs
from lang1.config import TASK_IDS
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.tasks.prompts import Question, built_in, read_questions

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("row_id", "patient_id", "encounter_id", "note_type", "note_hash", "text", "label")


@dataclass(frozen=True)
class TaskRows:
    """Rows of one task and split, sorted by row_id, with the question that is asked of them."""

    task: str
    split: str
    table: pa.Table
    question: Question

    @property
    def options(self) -> int:
        """How many answers the question has."""
        return len(self.question.options)

    @property
    def note_type(self) -> str:
        """The one note type of these rows."""
        return str(self.table["note_type"][0].as_py())

    @property
    def labels(self) -> NDArray[np.int64]:
        """Index of the true option of each row."""
        return self.table["label"].to_numpy().astype(np.int64)

    def strings(self, column: str) -> list[str]:
        """A text column as a list."""
        values: list[str] = self.table[column].to_pylist()
        return values


@dataclass(frozen=True)
class TaskFolder:
    """A complete tasks folder."""

    path: Path
    questions: dict[str, Question]
    """of every task, as the tasks stage wrote them"""
    skipped: dict[str, str]
    """tasks that the tasks stage could not build, and why"""
    split_by: str = "time"

    def is_future_window(self, split: str) -> bool:
        """True for the last window of records with dates: nothing of it was there when a model was trained."""
        return self.split_by == "time" and split == "temporal_2"

    def without_rows(self, task: str, split: str) -> str | None:
        """Why there are no rows of a task and split, or None; none of them is read."""
        if task in self.skipped:
            return self.skipped[task]
        path = self.path / task / f"{split}.parquet"
        if not path.exists():
            return f"the tasks folder has no split {split} of this task"
        return None if _count(path) else "no rows"

    def read(self, task: str, split: str, limit: int | None = None, seed: int = 0) -> TaskRows | str:
        """Rows of a task and split, at most `limit` drawn by hash; or, as a text, why there are none.

        Raises InputError for rows that no task folder of ours holds.
        """
        path = self.path / task / f"{split}.parquet"
        why = self.without_rows(task, split)
        if why is not None:
            return why
        table = _read(path)
        question = self.questions.get(task)
        if question is None:
            raise InputError(
                f"{self.path / 'questions.json'}: no question of {task}; run lang1 tasks again with --force"
            )
        _check_labels(path, table, len(question.options))
        types = table["note_type"].unique().to_pylist()
        if len(types) != 1:
            raise InputError(f"{path}: rows of several note types ({', '.join(map(str, types))}); one is needed")
        table = table.sort_by("row_id")
        if limit is not None and len(table) > limit:
            table = table.take(_draw(table["encounter_id"].to_pylist(), limit, seed))
        return TaskRows(task, split, table, question)


def open_tasks(path: Path) -> TaskFolder:
    """A complete tasks folder. Raises InputError when it is another stage's, or not whole."""
    manifest = runs.read_manifest(path)
    if manifest.get("stage") != "tasks":
        raise InputError(f"{path}: written by the stage {manifest.get('stage')}, not tasks; give a tasks folder")
    skipped = manifest.get("facts", {}).get("skipped", {})
    config = manifest.get("config", {})
    split_by = str(config.get("split_by", "time"))
    if (path / "questions.json").exists():
        questions = read_questions(path)
    else:  # a folder put together by hand, of ReMedE's tasks
        prompt_set, cci_classes = str(config.get("prompt_set", "recommended")), int(config.get("cci_classes", 5))
        questions = {task: built_in(task, prompt_set, cci_classes).question for task in TASK_IDS}
    return TaskFolder(path, questions, dict(skipped), split_by)


def _read(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with _as_task_rows(path):
        return pq.read_table(path, columns=list(COLUMNS))


def _count(path: Path) -> int:
    import pyarrow.parquet as pq

    with _as_task_rows(path):
        return int(pq.read_metadata(path).num_rows)


@contextlib.contextmanager
def _as_task_rows(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as task rows ({type(error).__name__}); run lang1 tasks again") from None


def _check_labels(path: Path, table: pa.Table, options: int) -> None:
    labels = table["label"].to_numpy()
    wrong = np.flatnonzero((labels < 0) | (labels >= options))
    if len(wrong):
        raise InputError(
            f"{path}: row {table['row_id'][int(wrong[0])]}: label {labels[wrong[0]]} is not one of the "
            f"{options} options; run lang1 tasks again"
        )


def _draw(encounter_ids: list[str], limit: int, seed: int) -> list[int]:
    """Places of the encounters drawn: the same encounters for every task, so that tasks go on sharing notes."""
    order = sorted(range(len(encounter_ids)), key=lambda i: (hash_fraction(seed, encounter_ids[i]), encounter_ids[i]))
    return sorted(order[:limit])
