"""A name in the results that stands for more than a folder: one model a task, shots of its own, a corpus of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation import CONFIG

from lang1.errors import InputError
from lang1.remede import Entrant
from lang1.remede.scores import probabilities

CFG = replace(CONFIG, tasks=("mortality", "los"), splits=("test",), headline_split="test", baselines=(), shot_tokens=40)


def test_a_model_a_task_answers_its_own_task_alone(evaluation: Any) -> None:
    zero, tuned = evaluation.models.values()
    both = {"zero": zero, "tuned": tuned, "one a task": Entrant({"mortality": zero, "los": tuned})}
    made = evaluation.again("one-a-task", CFG, models=both, truth=None)
    for task, whose in (("mortality", "zero"), ("los", "tuned")):
        scores = {name: pq.read_table(made.out / name / task / "test.parquet") for name in ("one-a-task", whose)}
        own, other = scores["one-a-task"], scores[whose]
        assert own["row_id"].equals(other["row_id"])
        np.testing.assert_allclose(probabilities(own), probabilities(other), atol=1e-5)  # other batches
    rows = {(row["model"], row["task"]): row for row in made.json("metrics.json")["rows"]}
    for task, whose in (("mortality", "zero"), ("los", "tuned")):
        assert rows["one a task", task]["weights_sha256"] == rows[whose, task]["weights_sha256"]
    about = made.json("summary.json")["facts"]["models"]["one a task"]
    assert about["checkpoint"] == "one model a task" and set(about["by_task"]) == {"mortality", "los"}


def test_a_model_of_some_tasks_has_no_rows_of_the_others(evaluation: Any) -> None:
    zero, tuned = evaluation.models.values()
    models = {"zero": zero, "los only": Entrant({"los": tuned, "cci": tuned})}
    made = evaluation.again("some-tasks", CFG, models=models, truth=None)
    found = {(row["model"], row["task"]) for row in made.json("summary.json")["results"]}
    assert found == {("zero", "mortality"), ("zero", "los"), ("los only", "los")}


def test_shots_of_its_own_ask_as_an_evaluation_with_these_shots_does(evaluation: Any) -> None:
    zero = evaluation.models["lang1 zero-shot"]
    models = {"zero": zero, "two": Entrant(dict.fromkeys(CFG.tasks, zero), shots=2)}
    made = evaluation.again("own-shots", CFG, models=models, truth=None)
    alone = evaluation.again("all-shots", replace(CFG, shots=2), models={"two": zero}, truth=None)
    for task in CFG.tasks:
        own, other = (pq.read_table(one.out / "two" / task / "test.parquet") for one in (made, alone))
        assert own.equals(other) and set(own["shots"].to_pylist()) == {2}
        assert set(pq.read_table(made.out / "zero" / task / "test.parquet")["shots"].to_pylist()) == {0}
    facts = [one.json("summary.json")["facts"] for one in (made, alone)]
    assert facts[0]["shots_of"] == {"two": facts[1]["shots"]} and facts[0]["shots"] == {}


def test_a_model_that_answers_none_of_the_tasks_is_refused_by_name(evaluation: Any) -> None:
    models = {"cci only": Entrant({"cci": evaluation.models["lang1 zero-shot"]})}
    with pytest.raises(InputError, match=r"cci only: answers cci, and none of them is in evaluate\.tasks"):
        evaluation.again("none", CFG, models=models, truth=None)
