"""Shots: from train only, of no evaluated patient, classes in turn, one text for all models; scored as they read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_benchmark import write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.models.load import load_model, load_tokenizer
from lang1.remede.examples import choose_examples
from lang1.remede.rows import open_tasks
from lang1.scoring.options import option_probabilities
from lang1.scoring.shots import cut_words
from lang1.tasks.prompts import render_question


def test_examples_are_rows_of_train_with_every_label_in_its_turn(inputs: Any) -> None:
    folder = open_tasks(inputs.tasks)
    train = {row["row_id"]: row for row in pq.read_table(inputs.tasks / "los/train.parquet").to_pylist()}
    found = choose_examples(folder, "los", 4, 400, seed=5)
    assert sorted(found.labels) == [0, 1, 2, 3]
    question = render_question(folder.questions["los"])
    assert found.text == "".join(
        f"{train[row_id]['text']}{question} {'ABCD'[train[row_id]['label']]}\n\n" for row_id in found.row_ids
    )
    assert found.cut_words == (0, 0, 0, 0)


def test_the_same_seed_draws_the_same_and_another_draws_others(inputs: Any) -> None:
    folder = open_tasks(inputs.tasks)
    one, again, other = (choose_examples(folder, "los", 4, 400, seed) for seed in (5, 5, 6))
    assert one == again
    assert one.row_ids != other.row_ids


def test_no_example_is_of_an_evaluated_patient_or_note(inputs: Any, tmp_path: Path) -> None:
    """All but six of train's patients are given to test: only those six may be drawn."""
    tasks = write_tasks(tmp_path, ("mortality",))
    path = tasks / "mortality" / "test.parquet"
    train = pq.read_table(tasks / "mortality" / "train.parquet")
    patients = sorted(set(train["patient_id"].to_pylist()))
    kept = set(patients[:6])
    test = pq.read_table(path)
    moved = test.slice(0, len(patients) - 6).set_column(
        test.column_names.index("patient_id"), test.schema.field("patient_id"), pa.array(patients[6 : len(test) + 6])
    )
    assert len(moved) == len(test)
    more = test.set_column(
        test.column_names.index("patient_id"), test.schema.field("patient_id"), pa.array(patients[-len(test) :])
    )
    pq.write_table(pa.concat_tables([moved, more]), path)
    folder = open_tasks_unchecked(tasks)
    by_row = {row["row_id"]: row["patient_id"] for row in train.to_pylist()}
    found = choose_examples(folder, "mortality", 6, 400, seed=1)
    assert {by_row[row_id] for row_id in found.row_ids} <= kept
    with pytest.raises(InputError, match=r"train.parquet: 12 rows of patients that are in no evaluated split, 13 are"):
        choose_examples(folder, "mortality", 13, 400, seed=1)


def open_tasks_unchecked(tasks: Path) -> Any:
    from lang1.remede.rows import TaskFolder
    from lang1.tasks.prompts import read_questions

    return TaskFolder(tasks, read_questions(tasks), {})


def test_notes_share_the_budget_and_the_cut_is_told(inputs: Any) -> None:
    found = choose_examples(open_tasks(inputs.tasks), "los", 4, 40, seed=5)
    assert found.kept_words == (10, 10, 10, 10)
    assert all(cut > 0 for cut in found.cut_words)
    assert found.facts()["cut_words"] == list(found.cut_words)
    assert "text" not in found.facts()


@pytest.mark.parametrize(
    ("text", "most", "kept"),
    [
        ("the patient, is well.", 3, "the patient,"),
        ("the patient is well.", 9, "the patient is well."),
        ("electrocardiogram normal", 2, "electrocardiogra"),
        ("  two\nlines", 1, "  two"),
        ("x", 0, ""),
    ],
)
def test_a_text_is_cut_after_a_whole_word(text: str, most: int, kept: str) -> None:
    assert cut_words(text, most)[0] == kept


def test_evaluate_scores_what_reads_as_examples_note_and_question(inputs: Any, config: EvaluateConfig) -> None:
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("test",), shots=2, shot_tokens=24)
    name, model_folder = "lang1 zero-shot", inputs.models["lang1 zero-shot"]
    out = inputs.again("shots", cfg, models={name: model_folder}).out
    scores = pq.read_table(out / "lang1-zero-shot/mortality/test.parquet").to_pylist()
    folder = open_tasks(inputs.tasks)
    before = choose_examples(folder, "mortality", 2, 24, seed=5)
    texts = {row["row_id"]: row["text"] for row in pq.read_table(inputs.tasks / "mortality/test.parquet").to_pylist()}
    model, tokenizer = load_model(model_folder), load_tokenizer(model_folder)
    letters = tokenizer.convert_tokens_to_ids(["ĠA", "ĠB"])
    for row in scores[:10]:
        prompt = before.text + texts[row["row_id"]] + render_question(folder.questions["mortality"])
        ids = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1, letters].double().numpy()
        assert row["prompt_tokens"] == len(ids)
        np.testing.assert_allclose([row["p_0"], row["p_1"]], option_probabilities(logits[None])[0], atol=1e-5)
        assert (row["shots"], row["shots_cut_words"]) == (2, sum(before.cut_words))
    metrics = runs.read_json(out / "metrics.json")
    facts = metrics["facts"]
    assert [row["shots_cut_words"] for row in metrics["rows"]] == [sum(before.cut_words)]  # told once, not a row
    assert facts["shots"]["mortality"] == before.facts()


def test_examples_that_leave_no_room_are_refused(inputs: Any, config: EvaluateConfig) -> None:
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("test",), shots=6, shot_tokens=400)
    with pytest.raises(InputError, match=r"leaves no room .* lower evaluate.shots or evaluate.shot_tokens"):
        inputs.again("crowded", cfg)


def test_the_examples_of_a_task_are_chosen_once_for_all_its_splits(
    inputs: Any, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lang1.remede import evaluating

    chosen = []

    def choose(folder: Any, task: str, *rest: Any) -> Any:
        chosen.append(task)
        return choose_examples(folder, task, *rest)

    monkeypatch.setattr(evaluating, "choose_examples", choose)
    cfg = replace(
        config, tasks=("mortality", "los"), splits=("val", "test"), headline_split="test", baselines=(), shots=2
    )
    cfg = replace(cfg, max_rows=10, max_note_tokens=40, shot_tokens=40)
    one = dict([next(iter(inputs.models.items()))])
    inputs.again("once", cfg, models=one)
    assert chosen == ["mortality", "los"]
