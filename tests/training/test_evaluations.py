"""Few-shot evaluation: the same scores as scoring itself, shots that are never scored, faults told at the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from monitored import write_comprehension

from lang1 import runs
from lang1.config import EvaluationConfig
from lang1.errors import InputError
from lang1.metrics.ranking import auroc
from lang1.models.load import load_model, load_tokenizer
from lang1.scoring.options import encode_prompts, option_probabilities, option_token_ids, score_prompts
from lang1.tasks.prompts import read_questions
from lang1.training import evaluations
from lang1.training.evaluations import Sample, evaluate, open_samples


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    torch.set_num_threads(1)
    return load_model(model_folder)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    return load_tokenizer(model_folder)


@pytest.fixture(scope="module")
def comprehension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comprehension(tmp_path_factory.mktemp("comprehension"))


def config(tasks: Path | None = None, comprehension: Path | None = None, **options: Any) -> EvaluationConfig:
    folders = {"tasks": tasks and str(tasks), "comprehension": comprehension and str(comprehension)}
    return EvaluationConfig(**{"every": 1, "rows": 30, "resamples": 100, **folders, **options})


def samples(cfg: EvaluationConfig, tokenizer: Any, seed: int = 1, context_length: int = 256) -> dict[str, Sample]:
    return {s.task: s for s in open_samples(cfg, tokenizer, context_length=context_length, seed=seed)}


def test_zero_shot_values_are_those_of_scoring_the_rows_by_hand(tasks: Path, model: Any, tokenizer: Any) -> None:
    cfg = config(tasks, shots=0, rows=1000, names=("mortality",))
    (result,) = evaluate(model, tokenizer, list(samples(cfg, tokenizer).values()), cfg, seed=1)
    rows = pq.read_table(tasks / "mortality/val.parquet").sort_by("row_id").to_pydict()
    question = read_questions(tasks)["mortality"]
    encoded = encode_prompts(tokenizer, rows["text"], question, cfg.max_note_tokens, 256)
    logits = score_prompts(model, encoded, option_token_ids(tokenizer, question), batch_tokens=4096, pad_id=0)
    labels = np.array(rows["label"])
    assert result["value"] == auroc(labels == 1, option_probabilities(logits)[:, 1])
    assert result["ci_low"] < result["value"] < result["ci_high"]
    assert (result["metric"], result["split"], result["shots"], result["n"]) == ("auroc", "val", 0, 60)
    assert result["labels"] == np.bincount(labels, minlength=2).tolist()


def test_every_task_of_both_folders_is_measured(tasks: Path, comprehension: Path, model: Any, tokenizer: Any) -> None:
    cfg = config(tasks, comprehension, shots=1)
    results = evaluate(model, tokenizer, list(samples(cfg, tokenizer).values()), cfg, seed=1)
    metrics = {row["task"]: row["metric"] for row in results}
    assert metrics == {
        "readmission": "auroc", "mortality": "auroc", "los": "auroc_ovr_macro", "cci": "auroc_ovr_macro",
        "denial": "auroc", "sciq": "accuracy", "pubmedqa": "accuracy",
    }  # fmt: skip
    for row in results:
        assert 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1
        assert sum(row["labels"]) == row["n"] <= 30
        assert row["broken"] == 0


def test_a_sample_is_the_same_each_time_and_another_at_another_seed(tasks: Path, tokenizer: Any) -> None:
    cfg = config(tasks, names=("los",))
    first, again, other = (samples(cfg, tokenizer, seed)["los"] for seed in (1, 1, 2))
    assert first.encoded == again.encoded
    assert first.encoded != other.encoded


def test_shots_are_rows_of_train_with_every_label_in_turn_and_never_scored(tasks: Path, tokenizer: Any) -> None:
    source = next(s for s in evaluations._sources(config(tasks, names=("los",))))
    scored = evaluations._draw(source, "val", 30, 1)
    shots = evaluations._draw_shots(source, scored, 4, 1)
    train = pq.read_table(tasks / "los/train.parquet").to_pydict()
    assert sorted(shot.label for shot in shots) == [0, 1, 2, 3]
    assert {shot.text for shot in shots} <= set(train["text"])
    assert {shot.text for shot in shots}.isdisjoint(row["text"] for row in scored)


def test_a_row_of_train_with_a_scored_text_or_patient_is_no_shot(
    tasks: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = next(s for s in evaluations._sources(config(tasks, names=("mortality",))))
    scored = evaluations._draw(source, "val", 10, 1)
    train = evaluations._read(source, "train", ["row_id", "label", "note_hash", "patient_id"])
    by_id = {row["row_id"]: row for row in train.to_pylist()}
    plain = {shot.text for shot in evaluations._draw_shots(source, scored, 2, 1)}
    texts = {row["text"]: row["row_id"] for row in pq.read_table(tasks / "mortality/train.parquet").to_pylist()}
    for key in ("note_hash", "patient_id"):
        taken = [scored[0] | {key: by_id[texts[text]][key]} for text in plain]
        assert plain.isdisjoint(shot.text for shot in evaluations._draw_shots(source, taken, 2, 1))


def test_shots_stand_in_the_prompt_with_their_answers(comprehension: Path, tokenizer: Any) -> None:
    cfg = config(None, comprehension, names=("sciq",), shots=2, rows=5)
    for prompt in samples(cfg, tokenizer, context_length=2048)["sciq"].encoded:
        text = tokenizer.decode(prompt.ids, skip_special_tokens=True)
        assert text.count("\nAnswer:") == 3
        assert text.endswith("\nAnswer:")
        first, second, asked = text.split("\n\n")
        for shot in (first, second):
            letter = shot[-1]
            assert f"\n{letter}. fever" in shot
        assert {first, second}.isdisjoint({asked})


def test_a_short_context_takes_fewer_shots_and_says_so(tasks: Path, tokenizer: Any, capsys: Any) -> None:
    runs.set_quiet(False)
    sample = samples(config(tasks, names=("mortality",), shots=5), tokenizer, context_length=256)["mortality"]
    assert sample.shots < 5
    assert all(len(prompt.ids) <= 256 for prompt in sample.encoded)
    assert f"mortality: {sample.shots} of 5 shots" in capsys.readouterr().err


def test_a_model_with_broken_weights_gets_no_value(tasks: Path, model_folder: Path, tokenizer: Any) -> None:
    broken = load_model(model_folder)
    broken.model.norm.weight.data.fill_(float("nan"))
    cfg = config(tasks, names=("mortality",), shots=0)
    (result,) = evaluate(broken, tokenizer, list(samples(cfg, tokenizer).values()), cfg, seed=1)
    assert (result["value"], result["ci_low"], result["broken"]) == (None, None, 30)


# --- faults


def test_an_unknown_task_is_answered_with_those_there_are(tasks: Path, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="names: sepsis: no such task; the folders have cci, denial"):
        samples(config(tasks, names=("sepsis",)), tokenizer)


def test_the_folder_of_another_stage_is_refused(tokens: Path, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="written by lang1 tokenize, not by lang1 tasks"):
        samples(config(tokens), tokenizer)


def test_a_split_without_rows_is_refused(tasks: Path, comprehension: Path, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="no task of the folders has rows in split test"):
        samples(config(tasks, split="test"), tokenizer)
    with pytest.raises(InputError, match="no rows to evaluate; leave sciq out"):
        samples(config(None, comprehension, split="test", names=("sciq",)), tokenizer)


def test_evaluations_without_a_folder_are_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="a folder of lang1 tasks"):
        EvaluationConfig(every=100)
