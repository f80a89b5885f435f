"""The words of the questions, which the corpus room keeps so that prompts stay short."""

from __future__ import annotations

from pathlib import Path

import lang1.corpus
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, question_for, render_question


def test_every_word_of_every_question_takes_part_in_training_the_tokenizer() -> None:
    words = set((Path(lang1.corpus.__file__).parent / "question_words.txt").read_text(encoding="utf-8").split())
    plain = {word.strip("?,:.").lower() for word in words}
    for task, note_type in NOTE_TYPE_PER_TASK.items():
        for prompt_set in ("recommended", "paper-verbatim"):
            for word in render_question(question_for(task, note_type, prompt_set)).split():
                stripped = word.strip("?,:.").lower()
                assert stripped in plain or stripped.isdigit() or len(stripped) == 1, word
