"""Prompts are Appendix H, character by character, with the two resolutions of the recommended set."""

import pytest

from lang1.config import TASK_IDS
from lang1.errors import InputError
from lang1.tasks.prompts import (
    LETTERS,
    NOTE_TYPE_PER_TASK,
    OPTIONS_PER_TASK,
    answer_for,
    question_for,
    render_question,
)

BINARY = "\nA. no\nB. yes\nAnswer:"
LOS = "\nA. 0 to 2 days\nB. 3 days\nC. 4 to 5 days\nD. more than 5 days\nAnswer:"
CCI = "\nA. score 0\nB. score 1 to 2\nC. score 3 to 4\nD. score {} to 7\nE. score more than 7\nAnswer:"
READMISSION = "note of the patient, will the patient be readmitted to the hospital within 30 days of discharge?"
MORTALITY = "note of the patient, will the patient die during the hospital admission?"
STAY = "note of the patient, how long will the patient stay at the hospital?"
CHARLSON = "note of the patient, what's the Charlson Comorbidity Index of the patient?"
DENIAL = "note of the patient, will the insurance claim of the patient be denied?"
GIVEN = "\nQuestion: Given the above "

RENDERED = {
    ("recommended", "readmission"): f"{GIVEN}discharge {READMISSION}{BINARY}",
    ("recommended", "mortality"): f"{GIVEN}admission {MORTALITY}{BINARY}",
    ("recommended", "los"): f"{GIVEN}admission {STAY}{LOS}",
    ("recommended", "cci"): f"{GIVEN}admission {CHARLSON}{CCI.format(5)}",
    ("recommended", "denial"): f"{GIVEN}admission {DENIAL}{BINARY}",
    ("paper-verbatim", "readmission"): f"{GIVEN}discharge {READMISSION}{BINARY}",
    ("paper-verbatim", "mortality"): f"{GIVEN}admission {MORTALITY}{BINARY}",
    ("paper-verbatim", "los"): f"{GIVEN}admission {STAY}{LOS}",
    ("paper-verbatim", "cci"): f"{GIVEN}admission {CHARLSON}{CCI.format(4)}",
    ("paper-verbatim", "denial"): f"{GIVEN}discharge {DENIAL}{BINARY}",
}


@pytest.mark.parametrize(("prompt_set", "task"), RENDERED)
def test_prompt_is_the_stored_rendering(prompt_set: str, task: str) -> None:
    question = question_for(task, NOTE_TYPE_PER_TASK[task], prompt_set)
    assert render_question(question) == RENDERED[prompt_set, task]


@pytest.mark.parametrize("task", TASK_IDS)
def test_every_task_has_its_number_of_options(task: str) -> None:
    question = question_for(task, NOTE_TYPE_PER_TASK[task], "recommended")
    assert len(question.options) == OPTIONS_PER_TASK[task] <= len(LETTERS)


def test_answers_are_a_space_and_a_letter() -> None:
    assert [answer_for(label) for label in range(5)] == [" A", " B", " C", " D", " E"]


def test_recommended_prompt_names_the_note_by_its_type() -> None:
    assert "above discharge note of" in question_for("denial", "discharge summary", "recommended").text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("icu", "H&P", "recommended"), "icu: no such task"),
        (("los", "H&P", "mine"), "mine: no such prompt set"),
        (("los", "radiology", "recommended"), "radiology: no question is asked"),
    ],
)
def test_unknown_names_are_refused_with_what_there_is(arguments: tuple[str, str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        question_for(*arguments)
