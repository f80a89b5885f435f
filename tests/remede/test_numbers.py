"""metrics.json says of every result what it is; recalibration is fitted on validation rows and named."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, brier_score_loss
from small_benchmark import TASKS, write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig, load_config
from lang1.errors import ConfigError, InputError
from lang1.metrics.recalibration import Recalibration, fit
from lang1.remede.provenance import describe_model
from lang1.remede.scores import probabilities, slug
from lang1.tasks.prompts import question_for, render_question

SCORES = ("auprc", "auroc_micro", "accuracy", "brier", "log_loss", "ece", "smece")


def test_every_score_has_an_interval_around_it(evaluation: Any) -> None:
    for row in evaluation.json("metrics.json")["rows"]:
        names = [*SCORES, *(["quadratic_kappa"] if row["task"] in ("los", "cci") else ["calibration_intercept"])]
        names += ["auroc_weighted"] if row["average"] == "macro" else []
        for name in names:
            assert row[f"{name}_ci_low"] <= row[name] <= row[f"{name}_ci_high"], (name, row["task"], row["split"])
        assert row["delong"]["ci_low"] < row["value"] < row["delong"]["ci_high"] or row["delong"]["se"] is None
        assert 0 <= row["tied_pairs"] <= 1


def test_scores_are_sklearns_on_the_score_file(evaluation: Any) -> None:
    for row in evaluation.json("metrics.json")["rows"]:
        if row["task"] != "mortality":
            continue
        table = pq.read_table(evaluation.out / slug(row["model"]) / "mortality" / f"{row['split']}.parquet")
        labels, p = table["label"].to_numpy(), table["p_1"].to_numpy()
        assert row["auprc"] == pytest.approx(average_precision_score(labels, p))
        assert row["brier"] == pytest.approx(brier_score_loss(labels, p))
        at = {(point["at"], point["level"]): point for point in row["operating"]}
        assert set(at) == {("probability", 0.5), *(("alert_rate", rate) for rate in (0.01, 0.05, 0.1, 0.2))}
        highest = np.argsort(-p, kind="stable")[: round(0.1 * len(p))]
        if len(set(p)) == len(p):
            assert at["alert_rate", 0.1]["ppv"] == pytest.approx(labels[highest].mean())
            assert at["alert_rate", 0.1]["flagged"] == pytest.approx(0.1)
        assert at["probability", 0.5]["accuracy"] == pytest.approx(((p >= 0.5) == labels).mean())


def test_a_share_of_none_or_all_has_wilsons_interval_not_one_without_width(evaluation: Any) -> None:
    shares = [
        (point[name], point[f"{name}_ci_low"], point[f"{name}_ci_high"])
        for row in evaluation.json("metrics.json")["rows"]
        for point in row["operating"]
        for name in ("sensitivity", "specificity", "ppv", "npv")
        if point[name] in (0.0, 1.0)
    ]
    assert shares
    assert [share for share in shares if share[2] - share[1] < 0.01] == []


def test_decision_curves_are_of_binary_tasks_on_the_headline_split(evaluation: Any) -> None:
    curves = evaluation.json("decision_curves.json")
    assert {row["task"] for row in curves} == {"readmission", "mortality"}
    assert {row["split"] for row in curves} == {"temporal_2"}
    for row in curves:
        table = pq.read_table(evaluation.out / slug(row["model"]) / row["task"] / "temporal_2.parquet")
        labels, p = table["label"].to_numpy(), table["p_1"].to_numpy()
        point = next(point for point in row["points"] if point["threshold"] == 0.2)
        tp, fp = ((p >= 0.2) & (labels == 1)).mean(), ((p >= 0.2) & (labels == 0)).mean()
        assert point["net_benefit"] == pytest.approx(tp - fp / 4)
        assert point["net_benefit_ci_low"] <= point["net_benefit"] <= point["net_benefit_ci_high"]


def test_every_row_says_what_it_is(evaluation: Any) -> None:
    metrics = evaluation.json("metrics.json")
    facts = metrics["facts"]
    held = sorted(
        (path.relative_to(evaluation.tasks).as_posix(), runs.sha256_file(path))
        for path in evaluation.tasks.rglob("*")
        if path.suffix == ".parquet" or path.name == "questions.json"
    )
    listed = "\n".join(" ".join(pair) for pair in held)
    assert facts["tasks"]["identity"] == hashlib.sha256(listed.encode()).hexdigest()
    assert {"lang1", "torch", "transformers", "numpy"} <= set(facts["versions"])
    for row in metrics["rows"]:
        table = pq.read_table(evaluation.out / slug(row["model"]) / row["task"] / f"{row['split']}.parquet")
        pairs = zip(table["row_id"].to_pylist(), table["label"].to_pylist(), strict=True)
        assert (
            row["rows_sha256"] == hashlib.sha256("\n".join(f"{r} {label}" for r, label in pairs).encode()).hexdigest()
        )
        assert row["tasks_identity"] == facts["tasks"]["identity"]
        if row["model"] in evaluation.models:
            note_type = "discharge summary" if row["task"] == "readmission" else "H&P"
            asked = render_question(question_for(row["task"], note_type))
            assert row["prompt"]["sha256"] == hashlib.sha256(asked.encode()).hexdigest()
            assert row["prompt"]["version"] == "recommended"
            assert row["shots"] == 0
            assert row["truncated_tokens"] == sum(table["truncated_tokens"].to_pylist())
            assert row["prompt_tokens"] == sum(table["prompt_tokens"].to_pylist())
            assert row["weights_sha256"] == facts["models"][row["model"]]["weights_sha256"]
            assert row["methods"] == ["one-token"]
        else:
            assert (row["checkpoint"], row["prompt"], row["shots"]) == ("fitted on the training rows", None, None)
            assert row["methods"] == ["classifier"]


def test_a_model_is_known_by_its_weights_not_its_folder(inputs: Any, tmp_path: Path) -> None:
    folder = inputs.models["lang1 zero-shot"]
    same = describe_model(shutil.copytree(folder, tmp_path / "copy"))
    assert same == describe_model(folder)
    assert same["checkpoint"] == same["kind"] == "foreign"
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    runs.write_json(tmp_path / "copy" / "lang1.json", {"kind": "finetuned", "steps": 9, "best_step": 6, "seed": 3})
    other = describe_model(tmp_path / "copy")
    assert other["weights_sha256"] != same["weights_sha256"]
    assert (other["checkpoint"], other["seed"]) == ("finetuned, step 6", 3)
    assert other["tokenizer_sha256"] == same["tokenizer_sha256"]


def test_resampling_by_row_is_an_option_that_is_named(inputs: Any, evaluation: Any, config: EvaluateConfig) -> None:
    found = inputs.again(
        "by-row", replace(config, baselines=(), tasks=("mortality",), splits=("test",), resample="row")
    )
    metrics = found.json("metrics.json")
    assert metrics["facts"]["interval"] == "percentile, rows resampled"
    by_patient = {
        row["model"]: row
        for row in evaluation.json("metrics.json")["rows"]
        if (row["task"], row["split"]) == ("mortality", "test")
    }
    for row in metrics["rows"]:
        assert row["value"] == by_patient[row["model"]]["value"]
        assert row["ci_low"] != by_patient[row["model"]]["ci_low"]
        assert row["by_row"] is None  # it is the interval itself


def test_the_interval_by_row_stands_beside_that_by_patient(evaluation: Any) -> None:
    for row in evaluation.json("metrics.json")["rows"]:
        by_row = row["by_row"]
        assert by_row["ci_low"] < row["value"] < by_row["ci_high"]
        assert by_row["ci_normal_low"] < row["value"] < by_row["ci_normal_high"]
        assert (by_row["ci_low"], by_row["ci_high"]) != (row["ci_low"], row["ci_high"])


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_recalibrated_rows_stand_beside_the_models_and_are_fitted_on_val(
    inputs: Any, evaluation: Any, config: EvaluateConfig, method: Any
) -> None:
    cfg = replace(config, baselines=("tfidf+logistic",), splits=("val", "test"), recalibrate=method)
    found = inputs.again(f"recalibrated-{method}", cfg)
    rows = {(r["model"], r["task"], r["split"]): r for r in found.json("metrics.json")["rows"]}
    models = [*inputs.models, "tfidf+logistic"]
    counted = found.json("summary.json")["facts"]["contamination"]["test"]
    assert sum(counted.values()) == len(models) * len(TASKS)  # a model and its recalibrated twin are one result
    assert found.json("metrics.json")["facts"]["recalibrate"] == method
    for model in models:
        after = f"{model}, {method} on val"
        for task in TASKS:
            assert rows[model, task, "test"]["recalibration"] is None
            assert (after, task, "val") not in rows  # what it was fitted on is not reported
            row = rows[after, task, "test"]
            assert row["recalibration"]["fitted_on"] == "val"
            assert (row["recalibration"]["of"], row["recalibration"]["rows"]) == (model, 80)
            val, test = (pq.read_table(found.out / slug(model) / task / f"{s}.parquet") for s in ("val", "test"))
            one = fit(method, val["label"].to_numpy().astype(np.int64), probabilities(val))
            assert isinstance(one, Recalibration)
            p_NK, labels = one.apply(probabilities(test)), test["label"].to_numpy()
            brier = ((p_NK - np.eye(p_NK.shape[1])[labels]) ** 2).sum(axis=1).mean()
            assert row["brier"] == pytest.approx(brier / 2 if p_NK.shape[1] == 2 else brier)
            assert row["weights_sha256"] == rows[model, task, "test"]["weights_sha256"]
    assert not [r for r in found.json("summary.json")["comparisons"] if "on val" in r["model_a"] + r["model_b"]]


def test_recalibrated_curves_say_so(inputs: Any, config: EvaluateConfig) -> None:
    cfg = replace(config, baselines=(), splits=("val", "test"), headline_split="test", recalibrate="platt")
    found = inputs.again("recalibrated-curves", cfg)
    rows = {(r["model"], r["task"]): r for r in found.json("metrics.json")["rows"] if r["split"] == "test"}
    for name, tasks in (("calibration.json", len(TASKS)), ("decision_curves.json", 2)):
        curves = found.json(name)
        assert len(curves) == 2 * len(inputs.models) * tasks
        for curve in curves:
            assert curve["recalibration"] == rows[curve["model"], curve["task"]]["recalibration"]
        assert {c["model"] for c in curves if c["recalibration"] is None} == set(inputs.models)


def test_recalibration_without_val_is_refused_by_the_configuration() -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, ["evaluate.recalibrate=platt", "evaluate.splits=[test]"], "evaluate")
    assert "evaluate.recalibrate: must be none where splits lack val" in str(raised.value)


def test_recalibration_of_a_task_without_validation_rows_is_refused_before_scoring(
    inputs: Any, config: EvaluateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lang1.remede import language_models

    monkeypatch.setattr(
        language_models, "load_scorer", lambda folder, dtype: pytest.fail("scored before it was refused")
    )
    tasks = write_tasks(tmp_path, ("mortality",), {"train": 40, "test": 20})
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("val", "test"), recalibrate="platt")
    with pytest.raises(InputError) as raised:
        inputs.again("no-val", cfg, tasks=tasks, truth=None)
    assert str(raised.value) == (
        "evaluate.recalibrate: platt: mortality has no validation rows to fit it on; put val into evaluate.splits, "
        "leave the task out, or set evaluate.recalibrate=none"
    )
    with pytest.raises(InputError, match="the 3 validation rows of mortality are all of one class"):
        inputs.again("one-class", replace(cfg, max_rows=3), truth=None)


def test_levels_outside_nought_and_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"evaluate.alert_rates: must be between 0 and 1"):
        load_config(None, ["evaluate.alert_rates=[5]"], "evaluate")
