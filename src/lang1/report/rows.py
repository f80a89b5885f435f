"""The few facts that the report reads from the rows themselves: what a model had seen before, what was cut, examples.

Note text leaves this module in one case only: `read_examples`, when the recipe asks for it and the manifests prove
that the notes were written by the simulated hospital.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import figures
from lang1.config import ReportConfig
from lang1.report import sections, verdicts
from lang1.report.collect import RunData
from lang1.tasks.prompts import LETTERS, Question, question_for, render_question

EXAMPLE_WORDS = (60, 170)
"""an example's length: long enough to be a note, short enough to be read"""


@dataclass(frozen=True)
class Seen:
    """Rows of a task on a split, and how many of them a model had met before or did not read whole.

    None where nobody can tell: a model that came from elsewhere.
    """

    model: str
    task: str
    rows: int
    notes_in_pretraining: int | None
    notes_in_finetuning: int | None
    patients_in_pretraining: int | None
    patients_in_finetuning: int | None
    truncated: int | None


def read_seen(data: RunData, split: str) -> list[Seen]:
    """What `evaluate` counted on `split`, in the order of tasks and models."""
    truncated = _count_truncated(data, split)
    tasks = sections.task_ids(data)
    rows = [
        row
        for row in data.metrics.get("rows", [])
        if row["split"] == split and row["task"] in tasks and row.get("recalibration") is None
    ]
    models = figures.order_models({row["model"] for row in rows})
    rows.sort(key=lambda row: (tasks.index(row["task"]), models.index(row["model"])))
    return [
        Seen(
            model=row["model"],
            task=row["task"],
            rows=int(row["n"]),
            notes_in_pretraining=row.get("rows_of_notes_seen_in_pretraining"),
            notes_in_finetuning=row.get("rows_of_notes_seen_in_finetuning"),
            patients_in_pretraining=row.get("rows_of_patients_seen_in_pretraining"),
            patients_in_finetuning=row.get("rows_of_patients_seen_in_finetuning"),
            truncated=truncated.get((row["model"], row["task"])),
        )
        for row in rows
    ]


def _count_truncated(data: RunData, split: str) -> dict[tuple[str, str], int]:
    """Rows whose note was cut, by model and task; baselines, which read the whole note, are not in it."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counts: dict[tuple[str, str], int] = {}
    for path in (data.run / "scores").glob(f"*/*/{split}.parquet") if data.has("scores") else ():
        table = pq.read_table(path, columns=["model_id", "task", "truncated_tokens"])
        if table["truncated_tokens"].null_count < len(table):
            key = table["model_id"][0].as_py(), table["task"][0].as_py()
            counts[key] = int(pc.sum(pc.greater(table["truncated_tokens"], 0)).as_py())
    return counts


@dataclass(frozen=True)
class Example:
    """A prompt as the model reads it, the right answer, and what our model gave each option."""

    task: str
    note: str
    question: str
    label: int
    answers: list[tuple[str, str, float | None]]
    """letter, option, and its probability where the row was scored"""
    cut: int
    """tokens at the note's end that the model did not read"""


def example_refusal(cfg: ReportConfig, data: RunData) -> str | None:
    """Why no prompt may be shown, or None when it may. Real notes never stand in a report."""
    if not cfg.example_prompts:
        return "The recipe does not ask for examples (report.example_prompts)."
    if not data.has("tasks"):
        return "The stage tasks was not run."
    proven = all(data.comes_from(*pair) for pair in (("tasks", "records"), ("tasks", "corpus"), ("corpus", "records")))
    if not (sections.is_simulated(data) and proven):
        return (
            "Prompts are shown only when the manifests prove that every note was written by the simulated "
            "hospital. Those of this run do not, so none is shown."
        )
    return None


def read_examples(cfg: ReportConfig, data: RunData, split: str) -> list[Example]:
    """One short note a task, the first by row id whose note is not shown yet.

    Empty when `example_refusal` gives a reason.
    """
    if example_refusal(cfg, data) is not None:
        return []
    examples: list[Example] = []
    tasks = data.config("tasks")
    prompt_set, cci_classes = str(tasks.get("prompt_set", "recommended")), int(tasks.get("cci_classes", 5))
    for task in sections.task_ids(data):
        row = _short_row(data.run / "tasks" / task / f"{split}.parquet", {example.note for example in examples})
        if row is None:
            continue
        asked = data.questions.get(task)
        if asked is None:
            question = question_for(task, row["note_type"], prompt_set, cci_classes)
        else:
            question = Question(asked["text"], tuple(asked["options"]))
        score = _score_of(data, task, split, row["row_id"])
        examples.append(
            Example(
                task=task,
                note=row["text"],
                question=render_question(question).strip("\n"),
                label=int(row["label"]),
                answers=[(LETTERS[k], option, score.get(f"p_{k}")) for k, option in enumerate(question.options)],
                cut=score.get("truncated_tokens") or 0,
            )
        )
    return examples


def _short_row(path: Path, shown: set[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["row_id", "text", "label", "note_type"]).sort_by("row_id")
    length = pc.add(pc.count_substring(table["text"], " "), 1)
    short = table.filter(pc.and_(pc.greater_equal(length, EXAMPLE_WORDS[0]), pc.less_equal(length, EXAMPLE_WORDS[1])))
    rows = short.slice(0, len(shown) + 1).to_pylist()
    return next((row for row in rows if row["text"] not in shown), None)


def _score_of(data: RunData, task: str, split: str, row_id: str) -> dict[str, Any]:
    """Our model's score of a row; empty where it was not scored."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    subject = verdicts.find_subject(data.results)
    for path in sorted((data.run / "scores").glob(f"*/{task}/{split}.parquet")) if data.has("scores") else ():
        table = pq.read_table(path)
        found = table.filter(pc.and_(pc.equal(table["row_id"], row_id), pc.equal(table["model_id"], subject)))
        if len(found):
            return dict(found.to_pylist()[0])
    return {}
