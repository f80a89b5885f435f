"""Two models' score files are compared on the same rows only, with the numbers that `evaluate` itself gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_benchmark import SIZES, TASKS, write_tasks
from typer.testing import CliRunner

from lang1.cli import app
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.bootstrap import holm
from lang1.metrics.ranking import average_precision
from lang1.remede.compare import METRICS, compare_models, comparison_text

A, B = "lang1-finetuned-joint", "tfidf-xgboost"


@pytest.fixture(scope="module")
def found(evaluation: Any) -> dict[str, Any]:
    return compare_models(evaluation.out / A, evaluation.out / B, resamples=100, seed=5)


def rows_of(found: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in found["rows"] if all(row[key] == value for key, value in wanted.items())]


def refusal(a: Path, b: Path) -> str:
    with pytest.raises(InputError) as raised:
        compare_models(a, b, resamples=20, seed=1)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_auroc_differences_are_those_that_evaluate_wrote(evaluation: Any, found: dict[str, Any]) -> None:
    written = {
        (row["task"], row["split"]): row
        for row in evaluation.json("summary.json")["comparisons"]
        if row["model_b"] == "tfidf+xgboost"
    }
    compared = rows_of(found, metric="auroc")
    assert {(row["task"], row["split"]) for row in compared} == set(written)
    for row in compared:
        wanted = written[row["task"], row["split"]]
        for key in ("difference", "ci_low", "ci_high", "p", "p_holm", "p_delong", "undefined_resamples"):
            assert row[key] == pytest.approx(wanted[key], abs=1e-12), key
        assert (row["contamination_a"], row["contamination_b"]) == (
            wanted["contamination_a"],
            wanted["contamination_b"],
        )


def test_each_metric_has_its_values_differences_and_holm_over_tasks(evaluation: Any, found: dict[str, Any]) -> None:
    assert len(found["rows"]) == len(METRICS) * len(TASKS) * 4
    for row in found["rows"]:
        assert row["n"] == SIZES[row["split"]]
        if row["difference"] is not None:
            assert row["difference"] == pytest.approx(row["a"] - row["b"])
            assert row["ci_low"] <= row["ci_high"]
            assert row["ci_normal_low"] < row["difference"] < row["ci_normal_high"]
    table = [pq.read_table(evaluation.out / model / "mortality/test.parquet") for model in (A, B)]
    (row,) = rows_of(found, metric="auprc", task="mortality", split="test")
    for side, scores in zip("ab", table, strict=True):
        wanted = average_precision(scores["label"].to_numpy() == 1, scores["p_1"].to_numpy())
        assert row[side] == pytest.approx(wanted)
    family = rows_of(found, metric="brier", split="test")
    assert [row["p_holm"] for row in family] == holm([row["p"] for row in family])
    assert {row["average"] for row in rows_of(found, metric="auroc", task="los")} == {"macro"}


def test_swapping_the_sides_turns_every_sign(evaluation: Any, found: dict[str, Any]) -> None:
    turned = compare_models(evaluation.out / B, evaluation.out / A, resamples=100, seed=5)
    for row, other in zip(found["rows"], turned["rows"], strict=True):
        if row["difference"] is not None:
            assert (row["difference"], row["ci_low"]) == pytest.approx((-other["difference"], -other["ci_high"]))
            assert (row["p"], row["p_delong"]) == pytest.approx((other["p"], other["p_delong"]))


def test_a_scores_folder_and_a_run_mean_the_model_that_they_are_about(evaluation: Any, tmp_path: Path) -> None:
    shutil.copytree(evaluation.out, tmp_path / "scores")
    found = compare_models(tmp_path, evaluation.out / "lang1-zero-shot", resamples=20, seed=5)
    assert (found["a"]["model"], found["b"]["model"]) == ("lang1 finetuned joint", "lang1 zero-shot")
    assert found["left_out"] == {"only_a": [], "only_b": []}


def test_other_rows_are_refused_in_numbers(inputs: Any, evaluation: Any, config: EvaluateConfig) -> None:
    few = replace(config, baselines=(), tasks=("los", "cci"), splits=("test",), max_rows=20)
    drawn = inputs.again("compare-few", few)
    message = refusal(evaluation.out / A, drawn.out / A)
    assert message == (
        f"{evaluation.out / A} and {drawn.out / A}: los, test: not the same rows (60 against 20, 20 in common); "
        "evaluate both on one tasks folder with the same seed and evaluate.max_rows"
    )


def test_other_labels_are_refused_with_the_first_row(
    inputs: Any, evaluation: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    tasks = write_tasks(tmp_path, ("mortality",))
    path = tasks / "mortality" / "test.parquet"
    rows = pq.read_table(path)
    labels = rows["label"].to_numpy().copy()
    labels[7] = 1 - labels[7]
    place = rows.column_names.index("label")
    changed = rows.set_column(place, rows.schema.field("label"), [labels.astype(np.int32)])
    pq.write_table(changed, path)
    (tasks / "manifest.json").unlink()
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    from lang1 import runs

    tables = {p.relative_to(tasks): pq.read_table(p) for p in tasks.rglob("*.parquet")}

    def work(stage: runs.Stage) -> None:
        for name, table in tables.items():
            runs.write_table(stage.out / name, table)
        shutil.copy(tasks / "questions.json", stage.out / "questions.json")

    runs.run_stage(tmp_path / "other", "tasks", {}, 1, {}, work)
    only = replace(config, baselines=(), tasks=("mortality",), splits=("test",))
    other = inputs.again("compare-labels", only, tasks=tmp_path / "other")
    message = refusal(evaluation.out / A, other.out / A)
    assert f"mortality, test: label differs in 1 of 60 rows, first in row {rows['row_id'][7]}" in message


def test_no_common_task_says_what_each_has(inputs: Any, config: EvaluateConfig) -> None:
    folders = [
        inputs.again(f"only-{task}", replace(config, baselines=(), tasks=(task,), splits=("test",))).out
        for task in ("los", "cci")
    ]
    assert "no task and split in common (los/test against cci/test)" in refusal(*folders)


def test_what_is_no_evaluation_is_refused(evaluation: Any, tmp_path: Path) -> None:
    tasks = evaluation.tasks
    assert refusal(tasks, evaluation.out) == (
        f"{tasks}: written by the stage tasks, not evaluate; give a scores folder or its run"
    )
    message = refusal(evaluation.out / "lang1", evaluation.out)
    assert message.startswith(f"{evaluation.out / 'lang1'}: no model of {evaluation.out}; there are lang1-zero-shot, ")
    assert refusal(tmp_path / "nowhere", evaluation.out) == (
        f"{tmp_path / 'nowhere'}: no such folder; run the stage that writes it"
    )


def test_a_score_file_that_was_changed_is_refused(evaluation: Any, tmp_path: Path) -> None:
    shutil.copytree(evaluation.out, tmp_path / "scores")
    path = tmp_path / "scores" / A / "los" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "changed since its stage ended" in refusal(tmp_path / "scores", evaluation.out)


def test_tasks_that_one_side_lacks_are_named(inputs: Any, evaluation: Any, config: EvaluateConfig) -> None:
    only = inputs.again("compare-los", replace(config, baselines=(), tasks=("los",), splits=("test",)))
    found = compare_models(evaluation.out / A, only.out / A, resamples=20, seed=1)
    assert {(row["task"], row["split"]) for row in found["rows"]} == {("los", "test")}
    assert len(found["left_out"]["only_a"]) == len(TASKS) * 4 - 1
    assert "Left out, scored by A alone: cci/temporal_1," in comparison_text(found)


def test_the_command_prints_the_table_or_json(evaluation: Any) -> None:
    command = ["evaluate", "evaluate.bootstrap_resamples=100", "--seed", "5", "--compare"]
    sides = [str(evaluation.out / A), str(evaluation.out / B)]
    said = CliRunner().invoke(app, [*command, *sides])
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    assert lines[0].startswith("A: lang1 finetuned joint (") and lines[1].startswith("B: tfidf+xgboost (fitted on")
    (row,) = [line for line in lines if line.split()[:3] == ["test", "los", "auroc"]]
    asked = json.loads(CliRunner().invoke(app, [*command, *sides, "--json"]).output)
    (wanted,) = rows_of(asked, metric="auroc", task="los", split="test")
    assert f"{wanted['difference']:+.3f} [{wanted['ci_low']:+.3f}, {wanted['ci_high']:+.3f}]" in row
    assert "/".join(str(n) for n in wanted["events"].values()) in row


def test_what_comparing_has_no_use_for_is_refused(evaluation: Any, tmp_path: Path) -> None:
    sides = ["--compare", str(evaluation.out / A), str(evaluation.out / B)]
    failed = CliRunner().invoke(app, ["evaluate", *sides, "--out", str(tmp_path / "o"), "--force"])
    assert str(failed.exception) == "--compare scores nothing and writes nothing; leave out --out, --force"


def test_scoring_still_asks_for_its_folders() -> None:
    failed = CliRunner().invoke(app, ["evaluate", "--tasks", "t"])
    assert str(failed.exception) == "missing --model, --out; lang1 evaluate --help shows what each is"
