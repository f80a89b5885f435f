"""An encoder the whole way by its recipe: masked pretraining, finetuning on readmission, AUROC with its interval."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from running import HERE, lang1

from lang1 import runs

pytestmark = pytest.mark.long  # test_others.py has an encoder in a run too


def test_an_encoder_pretrained_finetuned_and_evaluated_ranks_better_than_chance(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = lang1("run", HERE / "encoder.yaml", "--out", run)
    assert done.returncode == 0, done.stderr
    curve = runs.read_lines(run / "checkpoints" / "curve.jsonl")
    validation = [row["val"]["clinical"]["loss"] for row in curve if "val" in row]
    assert validation[-1] < validation[0] < 7.0
    results = {row["model"]: row for row in runs.read_json(run / "summary.json")["results"] if row["split"] == "test"}
    assert set(results) == {"encoder finetuned", "tfidf+xgboost", "lace"}
    found = results["encoder finetuned"]
    assert found["ci_low"] < found["value"] < found["ci_high"]
    pooled = [row for row in runs.read_json(run / "summary.json")["results"] if row["model"] == "encoder finetuned"]
    assert all(row["value"] > 0.55 for row in pooled) and any(row["ci_low"] > 0.5 for row in pooled)
    scores = pq.read_table(run / "scores" / "encoder-finetuned" / "readmission" / "test.parquet")
    assert set(scores["method"].to_pylist()) == {"encoder"}
    assert max(scores["prompt_tokens"].to_pylist()) <= 130
    assert sum(scores["truncated_tokens"].to_pylist()) > 0
    assert set(scores["seen_in_pretraining"].to_pylist()) <= {True, False}  # the tokens folder is the one it names
    assert (run / "report.html").stat().st_size > 10_000
    # the model answers alone too, and a task it has no head for is said and left out
    alone = tmp_path / "scores"
    done = lang1(
        "evaluate", "evaluate.tasks=[readmission, mortality]", "evaluate.splits=[test]", "evaluate.baselines=[]",
        "evaluate.max_rows=50", "--tasks", run / "tasks", "--model", f"encoder={run / 'model'}", "--out", alone,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "has no head for mortality" in done.stderr + done.stdout
    # an encoder that was not finetuned is refused in a line
    done = lang1(
        "evaluate", "evaluate.tasks=[readmission]", "--tasks", run / "tasks", "--model", run / "checkpoints" / "export",
        "--out", tmp_path / "none",
    )  # fmt: skip
    assert done.returncode == 2
    assert "an encoder without the head of a task" in done.stderr and "Traceback" not in done.stderr
