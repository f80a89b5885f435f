"""Baselines learn what the notes or columns say, are tuned on validation only, and keep the cohort's rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost
from small_benchmark import write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.metrics.ranking import headline_auroc
from lang1.remede import baselines
from lang1.remede.rows import TaskRows, open_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(
        tmp_path_factory.mktemp("more"), ("readmission", "los", "mortality"), {"train": 900, "val": 300, "test": 500}
    )


def fitted(folder: Path, name: str, task: str, trials: int = 3) -> tuple[TaskRows, np.ndarray, dict[str, Any]]:
    parts = {split: open_tasks(folder).read(task, split) for split in ("train", "val", "test")}
    features = baselines.tfidf([parts["train"]], [parts["val"], parts["test"]])
    learn, tune = (baselines.Labelled(features(parts[s]), parts[s].labels) for s in ("train", "val"))
    found = baselines.fit(name, learn, tune, parts["train"].options, 1, 1, trials)
    assert isinstance(found, baselines.Fitted)
    return parts["test"], found.predict(features(parts["test"])), found.facts


@pytest.mark.parametrize("name", ["tfidf+xgboost", "tfidf+logistic"])
@pytest.mark.parametrize("task", ["readmission", "los"])
def test_the_signs_in_the_notes_are_learnt_and_rates_kept(folder: Path, name: str, task: str) -> None:
    test, p_NK, _ = fitted(folder, name, task)
    assert headline_auroc(test.labels, p_NK) > 0.6
    np.testing.assert_allclose(p_NK.sum(axis=1), 1, atol=1e-6)
    rates = np.bincount(test.labels, minlength=test.options) / len(test.labels)
    np.testing.assert_allclose(p_NK.mean(axis=0), rates, atol=0.06)


def test_a_rare_outcome_is_learnt_by_logistic_regression() -> None:
    """A loose tolerance stops lbfgs before it has: 15 positives in 3,000 rows."""
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    sign = (rng.random(6000) < 0.02).astype(np.float32)
    labels = (rng.random(6000) < np.where(sign, 0.2, 0.002)).astype(int)
    features = csr_matrix(np.column_stack([0.1 * sign, *(0.1 * rng.random((40, 6000)))]).astype(np.float32))
    learn, tune = (baselines.Labelled(features[half], labels[half]) for half in (slice(0, 3000), slice(3000, 6000)))
    found = baselines.fit("tfidf+logistic", learn, tune, 2, 1, 1)
    assert isinstance(found, baselines.Fitted)
    assert headline_auroc(tune.labels, found.predict(tune.features)) > 0.62


def test_the_choice_is_the_best_on_validation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = (1e-9, 0.5, 1e4)  # too stiff, right, learnt by heart
    alone = {}
    for strength in strengths:
        monkeypatch.setattr(baselines, "STRENGTHS", (strength,))
        alone[strength] = fitted(folder, "tfidf+logistic", "readmission", 1)[2]["validation"]
    monkeypatch.setattr(baselines, "STRENGTHS", strengths)
    _, _, facts = fitted(folder, "tfidf+logistic", "readmission")
    assert max(alone, key=lambda strength: alone[strength]) == 0.5
    assert (facts["C"], facts["validation"], facts["train_rows"]) == (0.5, alone[0.5], 900)
    assert [(trial["C"], trial["validation"]) for trial in facts["trials"]] == list(alone.items())


@pytest.mark.parametrize("name", ["tfidf+xgboost", "tfidf+logistic"])
def test_the_budget_is_kept_and_a_larger_one_only_adds_candidates(folder: Path, name: str) -> None:
    few, more = (fitted(folder, name, "readmission", trials)[2] for trials in (2, 6))
    assert (len(few["trials"]), len(more["trials"])) == (2, 6)
    assert more["trials"][:2] == few["trials"]
    assert more["validation"] == max(trial["validation"] for trial in more["trials"]) >= few["validation"]
    settings = [tuple(sorted((k, v) for k, v in t.items() if k != "validation")) for t in more["trials"]]
    assert len(set(settings)) == 6
    assert baselines.draw(name, 6, 1) == baselines.draw(name, 6, 1) != baselines.draw(name, 6, 2)


def test_rows_are_binned_once_however_many_candidates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    inner = xgboost.DMatrix

    def counted(values: Any, *more: Any, **options: Any) -> xgboost.DMatrix:
        made.append(values.shape[0])
        return inner(values, *more, **options)

    monkeypatch.setattr(xgboost, "DMatrix", counted)
    test, *_ = fitted(folder, "tfidf+xgboost", "readmission", 4)
    assert len(made) == 3 and made[-1] == len(test.labels)


@pytest.mark.parametrize("name", ["tfidf+xgboost", "tfidf+logistic"])
def test_the_same_seed_gives_the_same_probabilities(folder: Path, name: str) -> None:
    one, two = (fitted(folder, name, "los", 4)[1] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_the_weights_are_scikit_learn_s_where_every_note_gives_words(folder: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, test = (open_tasks(folder).read("readmission", split) for split in ("train", "test"))
    texts = dict(sorted(zip(train.strings("note_hash"), train.strings("text"), strict=True)))
    theirs = TfidfVectorizer(
        ngram_range=(1, 2), max_features=baselines.FEATURES, sublinear_tf=True, min_df=5, token_pattern=r"(?u)\b\w+\b"
    ).fit(texts.values())
    ours = baselines.tfidf([train], [test])(test)
    np.testing.assert_allclose(ours.toarray(), theirs.transform(test.strings("text")).toarray(), atol=1e-6)


def test_the_vocabulary_is_chosen_on_a_bounded_number_of_notes_and_batches_change_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (open_tasks(folder).read("readmission", split) for split in ("train", "test"))
    whole = baselines.tfidf([train], [test])(test)
    monkeypatch.setattr(baselines, "NOTES_A_BATCH", 7)
    np.testing.assert_array_equal(baselines.tfidf([train], [test])(test).toarray(), whole.toarray())
    monkeypatch.setattr(baselines, "VOCABULARY_NOTES", 20)
    few = baselines.tfidf([train], [test])(test)
    assert few.shape[0] == whole.shape[0] and 0 < few.shape[1] < whole.shape[1]


def test_one_class_cannot_be_fitted() -> None:
    features = np.ones((10, 2))
    one, two = np.zeros(10, dtype=int), np.array([0, 1] * 5)
    of = baselines.Labelled
    assert "training rows are all of one class" in str(
        baselines.fit("x", of(features, one), of(features, two), 2, 1, 1)
    )
    assert "nothing to tune on" in str(baselines.fit("x", of(features, two), of(features, one), 2, 1, 1))


def test_columns_known_at_the_time_are_read_by_encounter(folder: Path, tmp_path: Path) -> None:
    parts = [open_tasks(folder).read("mortality", split) for split in ("train", "val", "test")]
    encounters = [e for part in parts for e in part.strings("encounter_id")]
    labels = [int(y) for part in parts for y in part.labels]
    ward = ["icu" if y else "ward" for y in labels]
    ward[-1] = "a ward that train never saw"
    table = pa.table({"encounter_id": encounters[::-1], "age": [None, *[40.0] * (len(labels) - 1)], "ward": ward[::-1]})
    runs.write_table(tmp_path / "features_admission" / "part-0.parquet", table)
    features = baselines.columns(tmp_path, parts[:1], parts[1:])
    assert not isinstance(features, str)
    learn, tune = (baselines.Labelled(features(part), part.labels) for part in parts[:2])
    found = baselines.fit("columns+xgboost", learn, tune, 2, 1, 1)
    assert isinstance(found, baselines.Fitted)
    p_NK = found.predict(features(parts[2]))
    assert headline_auroc(parts[2].labels[:-1], p_NK[:-1]) == 1.0


def test_columns_that_the_records_lack_are_skipped_and_said(
    inputs: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    (tmp_path / "records").mkdir()
    found = inputs.again(
        "no-columns",
        replace(config, baselines=("columns+xgboost",), tasks=("mortality", "readmission"), splits=("test",)),
        records=tmp_path / "records",
    )
    facts = found.json("summary.json")["facts"]
    assert [(s["task"], s["why"]) for s in facts["skipped"]] == [
        ("mortality", "the records have no table features_admission"),
        ("readmission", "the records have no table features_discharge"),
    ]
    assert {row["model"] for row in found.json("summary.json")["results"]} == set(inputs.models)


def test_test_labels_change_no_prediction(inputs: Any, config: EvaluateConfig, tmp_path: Path) -> None:
    few = replace(config, tasks=("mortality",), splits=("test",))
    first = inputs.again("labels-as-they-are", few)
    flipped = _flip(write_tasks(tmp_path, ("mortality",)), tmp_path / "flipped")
    second = inputs.again("labels-flipped", few, tasks=flipped)
    for model in ("tfidf-xgboost", "tfidf-logistic"):
        one, two = (pq.read_table(e.out / model / "mortality" / "test.parquet") for e in (first, second))
        assert one["p_1"].equals(two["p_1"])
        assert not one["label"].equals(two["label"])


def _flip(tasks: Path, out: Path) -> Path:
    tables = {p.stem: pq.read_table(p) for p in (tasks / "mortality").glob("*.parquet")}
    test = tables["test"]
    labels = pa.array([1 - y for y in test["label"].to_pylist()], pa.int32())
    tables["test"] = test.set_column(test.column_names.index("label"), test.schema.field("label"), labels)

    def work(stage: runs.Stage) -> None:
        for split, table in tables.items():
            runs.write_table(stage.out / "mortality" / f"{split}.parquet", table)

    runs.run_stage(out, "tasks", {}, 1, {}, work)
    return out
