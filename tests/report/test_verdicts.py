"""Who wins where: every sentence comes from numbers, and says no more than they do."""

from __future__ import annotations

from typing import Any

import pytest

from lang1.report.verdicts import answer, judge

OURS, BOOSTING, ZERO = "lang1 finetuned joint", "tfidf+xgboost", "lang1 zero-shot"
TASKS = ("readmission", "mortality", "los", "cci", "denial")


def result(task: str, model: str = OURS, value: float = 0.7, share: float | None = 0.6) -> dict[str, Any]:
    return {"task": task, "model": model, "split": "temporal_2", "value": value, "share": share}


def pair(
    task: str, difference: float, p: float | None = 0.001, other: str = BOOSTING, half: float = 0.01
) -> dict[str, Any]:
    return {
        "task": task,
        "split": "temporal_2",
        "model_a": OURS,
        "model_b": other,
        "difference": difference,
        "ci_low": difference - half,
        "ci_high": difference + half,
        "p": 0.0001,
        "p_holm": p,
    }


def test_a_comparison_written_the_other_way_round_is_turned() -> None:
    row = pair("los", 0.05) | {"model_a": BOOSTING, "model_b": OURS}
    [verdict] = judge([row], OURS, "temporal_2")
    assert (verdict.difference, verdict.ci_low, verdict.ci_high) == pytest.approx((-0.05, -0.06, -0.04))
    assert verdict.word == "worse"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (pair("los", 0.05), "better"),
        (pair("los", -0.05), "worse"),
        (pair("los", 0.005), "unclear"),  # the interval holds zero
        (pair("los", 0.05, p=0.2), "unclear"),  # the corrected test does not agree
        (pair("los", 0.05, p=None), "unclear"),  # no test was made
        (pair("los", 0.05) | {"ci_low": None, "ci_high": None}, "unclear"),
    ],
)
def test_a_verdict_needs_the_interval_and_the_test(row: dict[str, Any], word: str) -> None:
    assert judge([row], OURS, "temporal_2")[0].word == word


def test_other_splits_and_other_models_say_nothing() -> None:
    rows = [pair("los", 0.05) | {"split": "test"}, pair("los", 0.05) | {"model_a": ZERO}]
    assert judge(rows, OURS, "temporal_2") == []


def test_yes_needs_every_alternative_on_every_task() -> None:
    rows = [pair(task, 0.05, other=other) for task in TASKS for other in (BOOSTING, ZERO)]
    said = answer([result(task) for task in TASKS], rows, "temporal_2")
    assert said.headline == "Yes. It is clearly better than both alternatives on all five tasks."
    assert said.details[0].text == "better on all five tasks (+5.0 to +5.0 points)."


def test_no_when_each_task_is_lost_to_someone() -> None:
    said = answer([result(task) for task in TASKS], [pair(task, -0.03) for task in TASKS], "temporal_2")
    assert said.headline == "No. On all five tasks the alternative is clearly better."


def test_a_mixed_result_names_the_tasks_and_where_boosting_wins() -> None:
    differences = {"readmission": 0.031, "mortality": -0.041, "los": 0.001, "cci": 0.002, "denial": 0.003}
    said = answer([result(task) for task in TASKS], [pair(t, d) for t, d in differences.items()], "temporal_2")
    assert said.headline == (
        "In part. Clearly better than the one alternative on 30-day readmission; clearly beaten by it "
        "on death in hospital; no clear difference from it on the other three tasks."
    )
    [against, achievable] = said.details
    assert against.about == "Against TF-IDF + boosting"
    assert "better on 30-day readmission (+3.1 points [+2.1, +4.1])" in against.text
    assert "worse on death in hospital (\u22124.1 points [\u22125.1, \u22123.1])" in against.text
    assert against.text.endswith("TF-IDF + boosting wins on death in hospital.")
    assert achievable.text.startswith("60\u00a0% in the mean")


def test_boosting_is_named_when_it_wins_nothing() -> None:
    said = answer([result("los")], [pair("los", 0.05)], "temporal_2")
    assert said.headline == "Yes. It is clearly better than the one alternative on the one task that was measured."
    assert said.details[0].text.endswith("TF-IDF + boosting wins on no task.")


def test_nothing_is_claimed_without_evidence() -> None:
    undecided = answer([result(task) for task in TASKS], [pair(task, 0.001) for task in TASKS], "temporal_2")
    assert undecided.headline == "Not shown. No clear difference from the alternative on all five tasks."
    assert "not compared" in answer([result("los")], [], "temporal_2").headline
    assert "no finetuned LANG1 model" in answer([result("los", model=BOOSTING)], [], "temporal_2").headline
    assert "no model has been evaluated" in answer([], [], "temporal_2").headline
    assert "no model has been evaluated" in answer([result("los") | {"split": "test"}], [], "temporal_2").headline


def test_shares_are_left_out_where_no_truth_exists() -> None:
    said = answer([result("los", share=None)], [pair("los", 0.05)], "temporal_2")
    assert all("achieved" not in detail.about for detail in said.details)


def test_a_task_without_a_comparison_is_not_passed_over() -> None:
    rows = [pair("los", 0.05), pair("los", 0.05, other=ZERO), pair("cci", 0.05)]
    said = answer([result("los"), result("cci"), result("denial")], rows, "temporal_2")
    [missing] = [detail for detail in said.details if detail.about == "Not compared"]
    assert missing.text == (
        "Charlson comorbidity with LANG1 zero-shot; insurance denial with LANG1 zero-shot and TF-IDF + boosting."
    )
