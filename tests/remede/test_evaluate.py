"""What `lang1 evaluate` writes: score files, results, comparisons, what was seen, the ceiling."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small_benchmark import SIZES, TASKS

import lang1
from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.models.load import load_model, load_tokenizer
from lang1.remede import language_models
from lang1.remede.rows import open_tasks
from lang1.remede.scores import slug
from lang1.scoring.schema import COMPARISON_FIELDS, RESULT_FIELDS, scores_schema
from lang1.tasks.prompts import OPTIONS_PER_TASK, question_for, render_question

ALL = ("lang1 zero-shot", "lang1 finetuned joint", "tfidf+xgboost", "tfidf+logistic")


def of(rows: list[dict[str, Any]], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in {"manifest.json", ".lock"}
    }


def test_every_model_task_and_split_has_a_score_file(evaluation: Any) -> None:
    for model in ALL:
        for task in TASKS:
            for split in ("val", "test", "temporal_1", "temporal_2"):
                table = pq.read_table(evaluation.out / slug(model) / task / f"{split}.parquet")
                assert table.schema.equals(scores_schema(OPTIONS_PER_TASK[task]))
                rows = pq.read_table(evaluation.tasks / task / f"{split}.parquet")
                assert sorted(table["row_id"].to_pylist()) == sorted(rows["row_id"].to_pylist())
                p_NK = np.column_stack([table[f"p_{k}"].to_numpy() for k in range(OPTIONS_PER_TASK[task])])
                np.testing.assert_allclose(p_NK.sum(axis=1), 1, atol=1e-6)


def test_a_score_is_the_softmax_of_a_plain_forward(evaluation: Any) -> None:
    folder = evaluation.models["lang1 finetuned joint"]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    prompt = render_question(question_for("los", "H&P"))
    texts = {r["row_id"]: r["text"] for r in pq.read_table(evaluation.tasks / "los" / "test.parquet").to_pylist()}
    options = [tokenizer(f" {letter}")["input_ids"][0] for letter in "ABCD"]
    for row in pq.read_table(evaluation.out / "lang1-finetuned-joint/los/test.parquet").to_pylist()[:8]:
        ids = tokenizer(texts[row["row_id"]] + prompt)["input_ids"]
        with torch.no_grad():
            wanted = model(torch.tensor([ids])).logits[0, -1, options].softmax(0)
        assert [row[f"p_{k}"] for k in range(4)] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert row["prompt_tokens"] == len(ids)
        assert (row["method"], row["truncated_tokens"]) == ("one-token", 0)


def test_results_have_the_contracts_fields_in_order_and_sklearns_values(evaluation: Any) -> None:
    results = evaluation.json("summary.json")["results"]
    assert len(results) == len(ALL) * len(TASKS) * 4
    for row in results:
        assert set(RESULT_FIELDS) <= set(row)
        table = pq.read_table(evaluation.out / slug(row["model"]) / row["task"] / f"{row['split']}.parquet")
        labels, options = table["label"].to_numpy(), OPTIONS_PER_TASK[row["task"]]
        classes = [1] if options == 2 else row["classes_present"]
        value = np.mean([roc_auc_score(labels == k, table[f"p_{k}"].to_numpy()) for k in classes])
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row["metric"] == ("auroc" if options == 2 else "auroc_ovr_macro")
        assert row["n"] == len(labels) == SIZES[row["split"]]
        assert row["events"] == {str(k): int((labels == k).sum()) for k in range(options)}
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["patients"] == len(set(table["patient_id"].to_pylist()))


def test_a_class_without_rows_is_named_and_null(evaluation: Any, config: EvaluateConfig) -> None:
    rows = [row for row in evaluation.json("metrics.json")["rows"] if row["task"] == "cci"]
    absent = [row for row in rows if row["classes_absent"]]
    for row in rows:
        for k in row["classes_absent"]:
            assert row["per_class"][str(k)]["auroc"] is None
            assert row["per_class"][str(k)]["events"] == 0
        values = [row["per_class"][str(k)]["auroc"] for k in row["classes_present"]]
        assert row["value"] == pytest.approx(np.mean(values))
    assert absent or all(len(row["classes_present"]) == 5 for row in rows)


def test_metrics_hold_every_average_and_calibration(evaluation: Any) -> None:
    for row in evaluation.json("metrics.json")["rows"]:
        for name in ("auroc_micro", "auroc_weighted", "auprc", "brier", "log_loss", "ece", "ci_normal_low"):
            assert row[name] is not None, name
    curves = evaluation.json("calibration.json")
    assert {row["split"] for row in curves} == {"temporal_2"}
    assert len(curves) == len(ALL) * len(TASKS)
    assert all(sum(b["n"] for b in row["bins"]) == SIZES["temporal_2"] for row in curves)


def test_the_finetuned_model_is_compared_with_each_alternative(evaluation: Any) -> None:
    summary = evaluation.json("summary.json")
    results = {(r["model"], r["task"], r["split"]): r["value"] for r in summary["results"]}
    assert len(summary["comparisons"]) == 3 * len(TASKS) * 4
    for row in summary["comparisons"]:
        assert set(COMPARISON_FIELDS) <= set(row)
        assert row["model_a"] == "lang1 finetuned joint" != row["model_b"]
        a, b = (results[row[m], row["task"], row["split"]] for m in ("model_a", "model_b"))
        assert row["difference"] == pytest.approx(a - b)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]
        assert 0 < row["p"] <= row["p_holm"] <= 1


def test_the_same_model_twice_differs_by_nothing(inputs: Any, config: EvaluateConfig) -> None:
    folder = inputs.models["lang1 zero-shot"]
    found = inputs.again(
        "twice", replace(config, baselines=(), splits=("test",)), models={"lang1 finetuned": folder, "its copy": folder}
    )
    for row in found.json("summary.json")["comparisons"]:
        assert (row["difference"], row["ci_low"], row["ci_high"], row["p"]) == (0, 0, 0, 1)


def test_the_ceiling_is_the_auroc_of_the_true_probabilities(evaluation: Any) -> None:
    truth = {(r["task"], r["encounter_id"]): r for r in pq.read_table(evaluation.root / "truth.parquet").to_pylist()}
    for row in of(evaluation.json("summary.json")["results"], split="test", task="readmission"):
        scores = pq.read_table(evaluation.out / slug(row["model"]) / "readmission/test.parquet").to_pylist()
        labels = [r["label"] for r in scores]
        ceiling = roc_auc_score(labels, [truth["readmission", r["encounter_id"]]["p_1"] for r in scores])
        assert row["ceiling"] == pytest.approx(ceiling)
        assert row["share"] == pytest.approx((row["value"] - 0.5) / (ceiling - 0.5))
        assert row["ceiling_ci_low"] <= ceiling <= row["ceiling_ci_high"]
        assert row["share_ci_low"] <= row["share"] <= row["share_ci_high"]
        assert row["ceiling_n"] == row["n"]


def test_without_a_truth_file_ceiling_and_share_are_null(inputs: Any, config: EvaluateConfig) -> None:
    found = inputs.again("no-truth", replace(config, baselines=(), splits=("test",)), truth=None)
    for row in found.json("summary.json")["results"]:
        assert row["ceiling"] is None
        assert row["share"] is None


def test_only_the_ceiling_module_opens_the_truth() -> None:
    """Whoever trains, tunes or scores must not read it: nothing else names a reader and the truth together."""
    reader = re.compile(r"(read_\w+|ParquetFile|dataset|open\w*|scan\w*)\([^()\n]*truth", re.IGNORECASE)
    package = Path(lang1.__file__).parent
    openers = {}
    for path in sorted(package.rglob("*.py")):
        if path.parent.name == "simulate" or path == package / "remede" / "ceiling.py":
            continue  # the one writes it, the other is the reader
        found = [line.strip() for line in path.read_text().splitlines() if reader.search(line)]
        found = [line for line in found if not line.startswith(("def ", "from ", "#"))]
        if found:
            openers[str(path.relative_to(package))] = found
    assert openers == {"remede/evaluating.py": ["truths = open_truth(truth) if truth else None"]}


def test_a_task_without_rows_is_recorded_not_an_error(evaluation: Any) -> None:
    skipped = evaluation.json("summary.json")["facts"]["skipped"]
    assert {(s["task"], s["split"], s["why"]) for s in skipped} == {
        ("denial", split, "the source has no claims") for split in ("val", "test", "temporal_1", "temporal_2")
    }


def test_rows_are_drawn_by_hash(inputs: Any) -> None:
    folder = open_tasks(inputs.tasks)
    few, many = (set(folder.read("los", "test", limit, seed=3).strings("row_id")) for limit in (10, 25))
    assert (len(few), len(many)) == (10, 25)
    assert few < many
    assert few != set(folder.read("los", "test", 10, seed=4).strings("row_id"))


def test_tasks_draw_the_same_encounters_and_other_splits_may_have_their_own_limit(
    inputs: Any, config: EvaluateConfig
) -> None:
    few = replace(config, baselines=(), splits=("test", "temporal_2"), max_rows=20, max_rows_elsewhere=10)
    found = inputs.again("few", few, models={"m": inputs.models["lang1 zero-shot"]})
    drawn = {
        (task, split): pq.read_table(found.out / "m" / task / f"{split}.parquet")["encounter_id"].to_pylist()
        for task in TASKS
        for split in ("test", "temporal_2")
    }
    assert {len(ids) for (_, split), ids in drawn.items() if split == "test"} == {10}
    assert {len(ids) for (_, split), ids in drawn.items() if split == "temporal_2"} == {20}
    assert set(drawn["mortality", "test"]) == set(drawn["cci", "test"]) == set(drawn["los", "test"])


def test_bf16_is_close_to_fp32_and_recorded(inputs: Any, evaluation: Any, config: EvaluateConfig) -> None:
    few = replace(config, baselines=(), splits=("test",), tasks=("los", "mortality"), precision="bf16")
    found = inputs.again("bf16", few)
    name = "lang1-finetuned-joint/los/test.parquet"
    rough, exact = (pq.read_table(e.out / name)["p_1"].to_numpy() for e in (found, evaluation))
    assert 0 < abs(rough - exact).max() < 0.1
    assert found.json("manifest.json")["facts"]["precision"] == "bfloat16"
    assert evaluation.json("manifest.json")["facts"]["precision"] == "float32"


def test_the_same_seed_gives_the_same_bytes(inputs: Any, evaluation: Any) -> None:
    assert bytes_of(inputs.again("again").out) == bytes_of(evaluation.out)


@pytest.mark.parametrize(
    "files",
    [
        3,
        pytest.param(20, marks=pytest.mark.long),
        pytest.param(40, marks=pytest.mark.long),
        pytest.param(61, marks=pytest.mark.long),
    ],
)
def test_a_run_stopped_after_any_file_ends_with_the_same_bytes(
    inputs: Any, evaluation: Any, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = runs.write_table

    def stop(path: Path, *args: Any, **kwargs: Any) -> None:
        nonlocal written
        written += 1
        if written > files:
            raise KeyboardInterrupt
        real(path, *args, **kwargs)

    out = f"stopped-{files}"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            inputs.again(out)
    assert not (inputs.root / out / "summary.json").exists()
    before = {p: p.stat().st_mtime_ns for p in (inputs.root / out).rglob("lang1-zero-shot/*/val.parquet")}
    assert bytes_of(inputs.again(out).out) == bytes_of(evaluation.out)
    if files > 20:  # what was whole is not made again
        assert before == {p: p.stat().st_mtime_ns for p in before}
        assert len(before) == len(TASKS)


def test_a_finished_evaluation_is_not_made_again(inputs: Any, evaluation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_models, "load_scorer", lambda folder, dtype: pytest.fail("scored again"))
    before = {p: p.stat().st_mtime_ns for p in evaluation.out.rglob("*") if p.is_file()}
    inputs.again("scores")
    assert before and {p: p.stat().st_mtime_ns for p in before} == before
