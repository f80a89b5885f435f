"""A task of one's own goes the whole way of docs/own-task.md: rows, audit, finetuning, evaluation, report."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_benchmark import write_model

from lang1 import runs
from lang1.config import (
    CleanConfig,
    EvaluateConfig,
    ExtractConfig,
    FinetuneConfig,
    ReportConfig,
    SimulateConfig,
    TasksConfig,
    Window,
    WindowsConfig,
)
from lang1.corpus import clean
from lang1.ehr import extract
from lang1.errors import InputError
from lang1.remede import evaluate
from lang1.report import build_report
from lang1.simulate import simulate_hospital
from lang1.tasks import build_tasks
from lang1.training import finetune

RECIPES = Path(__file__).parents[2] / "recipes" / "own-task"
WINDOWS = WindowsConfig(
    train=Window(date(2005, 1, 1), date(2022, 1, 1)),
    temporal_1=Window(date(2022, 1, 1), date(2023, 1, 1)),
    temporal_2=Window(date(2023, 1, 1), date(2026, 1, 1)),
)
OWN = ("mortality", "transfer", "ward")
WARD = """
-- Which of four kinds of ward has the patient? Four classes, labels as texts, asked when the H&P is signed.
SELECT encounter_id, signed_time AS prediction_time,
    CASE WHEN service IN ('medicine', 'surgery', 'cardiology') THEN service ELSE 'another' END AS label
FROM encounters JOIN notes USING (encounter_id) WHERE note_type = 'H&P' AND encounter_class = 'inpatient'
QUALIFY row_number() OVER (PARTITION BY encounter_id ORDER BY signed_time, note_id) = 1 AND signed_time IS NOT NULL
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    runs.set_quiet(True)
    (root / "ward.sql").write_text(WARD)
    options = ["medicine", "surgery", "cardiology", "another"]
    ward = {"id": "ward", "question": "Which ward?", "options": options, "sql": "ward.sql"}
    (root / "ward.yaml").write_text(json.dumps(ward))
    simulate_hospital(SimulateConfig(encounters=900, workers=1), seed=5, out=root / "warehouse")
    extract(ExtractConfig(), source=root / "warehouse" / "warehouse.duckdb", out=root / "records", seed=5)
    clean(CleanConfig(workers=1), records=root / "records", out=root / "corpus", seed=5)
    own = (str(RECIPES / "transfer.yaml"), str(root / "ward.yaml"))
    cfg = TasksConfig(tasks=("mortality",), own=own, windows=WINDOWS)
    build_tasks(cfg, records=root / "records", corpus=root / "corpus", out=root / "tasks", seed=5)
    finetuning = FinetuneConfig(
        tasks=OWN, batch_size=9, max_steps_per_task=2, val_every=3, val_rows=20, max_note_tokens=48, threads=1
    )
    finetune(finetuning, tasks=root / "tasks", model=write_model(root / "start", 1), out=root / "model", seed=5)
    evaluation = EvaluateConfig(
        tasks=OWN, baselines=("tfidf+logistic",), max_rows=60, max_note_tokens=48, bootstrap_resamples=20, threads=1
    )
    evaluate(
        evaluation, models={"lang1 finetuned joint": root / "model"}, tasks=root / "tasks", out=root / "scores", seed=5
    )
    build_report(ReportConfig(), run=root, out=root / "report", seed=5)
    return root


def test_model_was_trained_on_the_own_tasks(run: Path) -> None:
    facts = runs.read_json(run / "model" / "lang1.json")
    assert facts["tasks"] == list(OWN)
    assert all(facts["rows_seen"][task] > 0 for task in OWN)


def test_own_tasks_are_scored_by_model_and_baseline(run: Path) -> None:
    results = runs.read_json(run / "scores" / "summary.json")["results"]
    found = {(row["task"], row["model"]) for row in results if row["split"] == "test"}
    for task in ("transfer", "ward"):
        assert (task, "lang1 finetuned joint") in found
    assert ("ward", "tfidf+logistic") in found
    ward = next(row for row in results if row["task"] == "ward" and row["split"] == "test")
    assert ward["metric"] == "auroc_ovr_macro"
    assert len(ward["events"]) == 4
    scores = pq.read_table(run / "scores" / "lang1-finetuned-joint" / "ward" / "test.parquet")
    total = sum(scores[f"p_{k}"].to_numpy() for k in range(4))
    assert total == pytest.approx(1.0)


def test_moved_patients_are_those_with_two_hospitals(run: Path) -> None:
    import duckdb

    rows = [row for s in ("train", "val", "test", "temporal_1", "temporal_2")
            for row in pq.read_table(run / "tasks" / "transfer" / f"{s}.parquet").to_pylist()]  # fmt: skip
    moved = {row["encounter_id"] for row in rows if row["label"] == 1}
    # a plain second reading: the next inpatient visit of the patient begins within a day, in another hospital
    found = (
        duckdb.connect()
        .sql(
            f"""
        SELECT encounter_id FROM (
            SELECT *, lead(admit_time) OVER visits AS next_time, lead(facility) OVER visits AS next_facility
            FROM read_parquet('{run}/records/encounters/*.parquet') WHERE encounter_class = 'inpatient'
            WINDOW visits AS (PARTITION BY patient_id ORDER BY admit_time))
        WHERE next_time - discharge_time < INTERVAL 24 HOUR AND next_facility != facility
        """
        )
        .fetchall()
    )
    assert moved == {e for (e,) in found} & {row["encounter_id"] for row in rows}
    assert len(moved) > 3


def test_report_shows_the_own_tasks_in_their_words(run: Path) -> None:
    page = (run / "report" / "report.html").read_text()
    assert "transfer" in page
    assert "cardiology" in page
    assert "option 1" not in page


def test_task_that_the_folder_does_not_know_is_answered_with_the_nearest(run: Path, tmp_path: Path) -> None:
    asked = replace(FinetuneConfig(), tasks=("tranfser",))
    with pytest.raises(InputError, match=r"finetune.tasks: tranfser: no such task in .*; did you mean transfer\?"):
        finetune(asked, tasks=run / "tasks", model=run / "start", out=tmp_path / "model", seed=1)
    with pytest.raises(InputError, match=r"evaluate.tasks: wards: no such task in .*; did you mean ward\?"):
        evaluate(
            EvaluateConfig(tasks=("wards",), baselines=()), models={"m": run / "model"}, tasks=run / "tasks",
            out=tmp_path / "scores", seed=1,
        )  # fmt: skip
