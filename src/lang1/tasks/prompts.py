"""The one multiple-choice prompt: the note, `\\nQuestion: ...\\nA. ...\\nAnswer:`, answered by ` A`, ` B`, ...

The wording stands in `prompt_sets/<set>/<task>.txt`, as it is rendered. `paper-verbatim` is Appendix H as
printed. `recommended` differs in two places, where the paper contradicts itself: option D of the Charlson
question is "score 5 to 7", as 5.2.2 bins it, and the note is named by its type, so that the denial question,
asked of H&P notes, says "admission note". The options keep the order of Appendix H: A is no.
"""

from __future__ import annotations

import difflib
import string
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.config import TASK_IDS
from lang1.errors import InputError

LETTERS = tuple(string.ascii_uppercase)
OPTIONS_PER_TASK: dict[str, int] = {"readmission": 2, "mortality": 2, "los": 4, "cci": 5, "denial": 2}
NOTE_TYPE_PER_TASK: dict[str, str] = {
    "readmission": "discharge summary",
    "mortality": "H&P",
    "los": "H&P",
    "cci": "H&P",
    "denial": "H&P",
}
PROMPT_SETS = ("recommended", "paper-verbatim")
QUESTIONS = "questions.json"
"""of a tasks folder, and of a finetuned model: the question of each task"""
_NOTE_NAMES = {"H&P": "admission note", "discharge summary": "discharge note"}


@dataclass(frozen=True)
class Question:
    """A question with its answer choices; the label of a row is an index into `options`."""

    text: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """A task as it is asked: of which notes, and what."""

    task: str
    note_type: str
    question: Question


def built_in(task: str, prompt_set: str, cci_classes: int = 5) -> Asked:
    """A task of ReMedE with the question of a prompt set."""
    note_type = NOTE_TYPE_PER_TASK[task]
    return Asked(task, note_type, question_for(task, note_type, prompt_set, cci_classes))


def describe(asked: Asked, prompt_set: str | None) -> dict[str, Any]:
    """A task's entry in questions.json; `prompt_set` is null for a task of one's own."""
    return {
        "note_type": asked.note_type,
        "prompt_set": prompt_set,
        "text": asked.question.text,
        "options": list(asked.question.options),
        "rendered": render_question(asked.question),
    }


def describe_questions(questions: dict[str, Question]) -> dict[str, Any]:
    """The questions.json of a finetuned model: what it learned to answer."""
    return {
        task: {"text": q.text, "options": list(q.options), "rendered": render_question(q)}
        for task, q in questions.items()
    }


def read_questions(tasks: Path) -> dict[str, Question]:
    """The question of every task in a tasks folder, from its questions.json. Raises InputError when it is broken."""
    path = tasks / QUESTIONS
    try:
        return {
            str(task): Question(str(found["text"]), tuple(str(option) for option in found["options"]))
            for task, found in runs.read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: not the text and options of each task; run lang1 tasks again with --force") from None


def require_known(wanted: tuple[str, ...], questions: dict[str, Question], tasks: Path, key: str) -> None:
    """Refuse a task id that neither ReMedE nor this tasks folder has. Raises InputError with the nearest known."""
    known = list(dict.fromkeys([*questions, *TASK_IDS]))
    for task in wanted:
        if task not in known:
            near = difflib.get_close_matches(task, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise InputError(f"{key}: {task}: no such task in {tasks}; {hint}")


@cache
def question_for(task: str, note_type: str, prompt_set: str = "recommended", cci_classes: int = 5) -> Question:
    """The question that `task` asks of a note of this type; with `cci_classes` 4, the two top scores are one option.

    Raises InputError for names that are unknown here.
    """
    if task not in TASK_IDS:
        raise InputError(f"{task}: no such task; there are {', '.join(TASK_IDS)}")
    if prompt_set not in PROMPT_SETS:
        raise InputError(f"{prompt_set}: no such prompt set; there are {', '.join(PROMPT_SETS)}")
    if note_type not in _NOTE_NAMES:
        raise InputError(f"{note_type}: no question is asked of this note type; there are {', '.join(_NOTE_NAMES)}")
    file = files("lang1.tasks") / "prompt_sets" / prompt_set / f"{task}.txt"
    question = _parse(file.read_text(encoding="utf-8").replace("{note}", _NOTE_NAMES[note_type]))
    if task == "cci" and cci_classes == 4:
        return Question(question.text, (*question.options[:3], "score more than 4"))
    return question


def render_question(question: Question) -> str:
    """What follows the note: it starts with a newline and ends with `Answer:`, without a space."""
    options = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False))
    return f"\nQuestion: {question.text}{options}\nAnswer:"


def answer_for(label: int) -> str:
    """The continuation that answers a prompt: ` A` for label 0."""
    return f" {LETTERS[label]}"


def _parse(rendered: str) -> Question:
    """Read a prompt file back into its parts; rendering them gives the file again."""
    first, *options = rendered.strip().split("\n")[:-1]
    question = Question(first.removeprefix("Question: "), tuple(line.partition(". ")[2] for line in options))
    if render_question(question).strip() != rendered.strip():
        raise ValueError("a prompt file is Question:, the lettered options, Answer:")
    return question
