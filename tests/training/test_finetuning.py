"""Finetuning: learns what is in the notes, resumes exactly, writes a whole model folder."""

from __future__ import annotations

import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from training_data import start, wait_for_steps, write_tasks

from lang1 import runs
from lang1.config import FinetuneConfig, OptimizerConfig
from lang1.corpus.hashes import hash_id
from lang1.errors import ConfigError, InputError
from lang1.models.load import load_model, load_tokenizer
from lang1.training import finetune

RATES = OptimizerConfig(lr=1e-3, min_lr=0.0, warmup_steps=0, beta2=0.999, eps=1e-5, weight_decay=0.02, clip=None)
JOINT = FinetuneConfig(
    optimizer=RATES,
    batch_size=10,
    max_steps_per_task=4,
    val_every=5,
    val_rows=20,
    max_note_tokens=20,
    balance="sqrt",
    threads=1,
)


@pytest.fixture(scope="module")
def joint(tasks: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "model"
    finetune(JOINT, tasks=tasks, model=model_folder, out=out, seed=1)
    return out


def test_a_planted_signal_is_learned(model_folder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", 400, ("mortality",), rare=0.2, loud=6)
    cfg = FinetuneConfig(
        tasks=("mortality",),
        optimizer=RATES,
        batch_size=16,
        max_steps_per_task=60,
        val_every=20,
        patience_steps=100,
        max_note_tokens=36,
        balance="sqrt",
        threads=1,
    )
    facts = finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)["facts"]
    assert facts["best_value"] > 0.9
    curve = runs.read_lines(tmp_path / "model" / "curve.jsonl")
    assert next(row["step"] for row in curve if "val" in row) == 20


def test_the_folder_is_a_model_that_says_how_it_was_made(joint: Path, tasks: Path) -> None:
    model, tokenizer = load_model(joint), load_tokenizer(joint)
    assert model.config.vocab_size >= len(tokenizer)
    facts = runs.read_json(joint / "lang1.json")
    assert facts["tasks"] == ["readmission", "mortality", "los", "cci", "denial"]
    assert facts["rows_seen"] == dict.fromkeys(facts["tasks"], 40)
    assert (facts["kind"], facts["init"], facts["balance"], facts["steps"]) == ("finetuned", "pretrained", "sqrt", 20)
    seen = pq.read_table(joint / "seen.parquet").to_pydict()
    rows = pq.read_table(tasks / "los" / "train.parquet").to_pylist()
    assert {row["note_hash"] for row in rows} <= set(seen["note_hash"])
    assert {hash_id(row["patient_id"]) for row in rows} <= set(seen["patient_hash"])
    assert not (joint / ".scratch").exists()


def test_what_the_start_had_met_travels_on(joint: Path, model_folder: Path, tmp_path: Path) -> None:
    """Pretraining's tokens by identity, and the rows of a finetuning before this one."""
    tasks, start = write_tasks(tmp_path / "tasks", 40, ("mortality",), rare=0.4), tmp_path / "start"
    shutil.copytree(joint, start)  # a bare folder: away from its run
    (start / runs.MANIFEST).unlink()
    said = {"tokens": "an identity", "sources": ["clinical"], "unknown": None}
    runs.write_json(start / "lang1.json", runs.read_json(start / "lang1.json") | {"pretraining": said})
    cfg = replace(JOINT, tasks=("mortality",), max_steps_per_task=1, val_every=1)
    finetune(cfg, tasks=tasks, model=start, out=tmp_path / "again", seed=1)
    assert runs.read_json(tmp_path / "again" / "lang1.json")["pretraining"] == said
    before, after, rows = (
        set(pq.read_table(path)["note_hash"].to_pylist())
        for path in (joint / "seen.parquet", tmp_path / "again" / "seen.parquet", tasks / "mortality" / "train.parquet")
    )
    assert before | rows == after
    assert "does not" in runs.read_json(joint / "lang1.json")["pretraining"]["unknown"]  # model_folder is a stranger


def test_a_run_killed_at_a_random_moment_ends_as_an_undisturbed_one(
    tasks: Path, model_folder: Path, joint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    process = start("finetune", JOINT, {"tasks": tasks, "model": model_folder}, out)
    wait_for_steps(process, out / "curve.jsonl", random.SystemRandom().randint(6, 14))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(out)
    finetune(JOINT, tasks=tasks, model=model_folder, out=out, seed=1)
    for name in ("curve.jsonl", "model.safetensors", "lang1.json", "README.md"):
        assert (out / name).read_bytes() == (joint / name).read_bytes(), name


def test_the_best_validation_is_kept_and_a_run_without_progress_ends_early(
    tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    cfg = FinetuneConfig(
        tasks=("mortality",),
        optimizer=OptimizerConfig(lr=1e-9, min_lr=0.0, warmup_steps=0),
        batch_size=2,
        max_steps_per_task=60,
        val_every=5,
        val_rows=20,
        patience_steps=10,
        max_note_tokens=10,
        threads=1,
    )
    finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)
    facts = runs.read_json(tmp_path / "model" / "lang1.json")
    assert facts["steps"] == facts["best_step"] + 10 < 60


def test_random_init_takes_the_shape_and_not_the_weights(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    import torch

    cfg = FinetuneConfig(
        tasks=("mortality",),
        init="random",
        batch_size=2,
        max_steps_per_task=1,
        val_rows=10,
        max_note_tokens=10,
        threads=1,
    )
    finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=9)
    ours, theirs = load_model(tmp_path / "model"), load_model(model_folder)
    assert ours.config.hidden_size == theirs.config.hidden_size
    assert not torch.allclose(ours.lm_head.weight, theirs.lm_head.weight, atol=1e-2)
    assert runs.read_json(tmp_path / "model" / "lang1.json")["init"] == "random"


def test_a_task_without_rows_is_skipped_by_name(model_folder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", 20, ("mortality", "denial"))
    for split in ("train", "val"):
        path = tasks / "denial" / f"{split}.parquet"
        runs.write_table(path, pq.read_table(path).slice(0, 0))
    manifest = runs.read_json(tasks / "manifest.json")
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if "denial" not in name}
    runs.write_json(tasks / "manifest.json", manifest)
    cfg = FinetuneConfig(
        tasks=("mortality", "denial"), batch_size=2, max_steps_per_task=1, max_note_tokens=10, threads=1
    )
    facts = finetune(cfg, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)["facts"]
    assert facts["skipped"] == {"denial": "no rows in train, val"}
    assert runs.read_json(tmp_path / "model" / "lang1.json")["tasks"] == ["mortality"]
    alone = FinetuneConfig(tasks=("denial",), max_note_tokens=10)
    with pytest.raises(InputError, match=r"no task of finetune.tasks has training and validation rows"):
        finetune(alone, tasks=tasks, model=model_folder, out=tmp_path / "other", seed=1)


def test_a_batch_smaller_than_the_number_of_tasks_is_refused(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune.batch_size: 3 is less than a row of each of 5 tasks"):
        finetune(FinetuneConfig(batch_size=3), tasks=tasks, model=model_folder, out=tmp_path / "model", seed=1)


def test_a_folder_that_is_no_model_is_refused(tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a Hugging Face folder"):
        finetune(FinetuneConfig(), tasks=tasks, model=tmp_path / "empty", out=tmp_path / "model", seed=1)
