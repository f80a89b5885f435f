"""The search of a learning rate: rates by the seed, best by AUROC then loss, the same after a kill or in parallel."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig, OptimizerConfig, SweepConfig, load_config
from lang1.errors import InputError, TrainingGaveUp
from lang1.training import finetune, sweep
from lang1.training.searching import best_of, draw_rates
from warm import Process

SEARCH = SweepConfig(trials=3, steps=4)
CFG = FinetuneConfig(
    tasks=("mortality", "los"),
    optimizer=OptimizerConfig(lr=1e-4, min_lr=1e-5, warmup_steps=0, clip=None),
    batch_size=4,
    max_steps_per_task=50,
    val_every=2,
    val_rows=20,
    max_note_tokens=20,
    threads=1,
)
CHILD = """
import json, sys
from pathlib import Path
from pydantic import TypeAdapter
from lang1 import config
from lang1.training import sweep
search, cfg = (TypeAdapter(kind).validate_json(text)
               for kind, text in zip((config.SweepConfig, config.FinetuneConfig), sys.argv[1:3]))
tasks, model, out = map(Path, sys.argv[3:6])
sweep(search, cfg, tasks=tasks, model=model, out=out, seed=7)
"""


@pytest.fixture(scope="module")
def searched(tasks: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "sweep"
    sweep(SEARCH, CFG, tasks=tasks, model=model_folder, out=out, seed=7)
    return out


def test_rates_are_log_uniform_and_fixed_by_the_seed() -> None:
    many = SweepConfig(trials=400)
    rates = draw_rates(many, 7)
    assert rates == draw_rates(many, 7) != draw_rates(many, 8)
    assert rates[:5] == draw_rates(SweepConfig(), 7)
    assert all(1e-6 <= rate <= 1e-3 for rate in rates)
    thirds = [sum(low <= math.log10(rate) < low + 1 for rate in rates) for low in (-6, -5, -4)]
    assert min(thirds) > 100, thirds


def test_the_best_has_the_highest_auroc_then_the_lowest_loss() -> None:
    def trial(number: int, auroc: float | None, loss: float | None) -> dict[str, object]:
        return {"trial": number, "auroc": auroc, "loss": loss}

    found = best_of([trial(0, 0.7, 0.3), trial(1, 0.8, 0.9), trial(2, 0.8, 0.6), trial(3, None, None)])
    assert found["trial"] == 2
    with pytest.raises(TrainingGaveUp, match="no trial has a validation AUROC"):
        best_of([trial(0, None, None)])


def test_a_trial_is_the_beginning_of_the_finetuning_itself(
    searched: Path, tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    """The rate falls by the schedule of the whole finetuning, and the recipe that is written runs."""
    best = runs.read_json(searched / "best.json")
    trials = runs.read_json(searched / "trials.json")
    assert [t["lr"] for t in trials] == draw_rates(SEARCH, 7)
    assert best["auroc"] == max(t["auroc"] for t in trials)
    config = load_config(searched / "finetune.yaml", [], "finetune")
    assert config.finetune.optimizer.lr == best["lr"]
    assert (config.seed, config.finetune.optimizer.beta2) == (7, CFG.optimizer.beta2)
    whole = replace(config.finetune, patience_steps=4)
    finetune(whole, tasks=tasks, model=model_folder, out=tmp_path / "model", seed=7)
    ours = runs.read_lines(tmp_path / "model" / "curve.jsonl")[:4]
    theirs = runs.read_lines(searched / "trials" / str(best["trial"]) / "curve.jsonl")
    assert ours == theirs


def test_a_rate_that_is_given_is_no_part_of_the_search_and_all_steps_are_counted(
    searched: Path, tasks: Path, model_folder: Path
) -> None:
    other = replace(CFG, optimizer=replace(CFG.optimizer, lr=5e-5))
    before = (searched / "trials.json").stat().st_mtime_ns
    manifest = sweep(SEARCH, other, tasks=tasks, model=model_folder, out=searched, seed=7)
    assert (searched / "trials.json").stat().st_mtime_ns == before
    assert manifest["counts"] == {"trials": SEARCH.trials, "steps": SEARCH.trials * SEARCH.steps}
    with pytest.raises(InputError, match="made with other settings"):
        sweep(SEARCH, replace(CFG, batch_size=6), tasks=tasks, model=model_folder, out=searched, seed=7)


def test_optuna_reads_the_study(searched: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(
        study_name="sweep", storage=JournalStorage(JournalFileBackend(str(searched / "optuna.log")))
    )
    trials = runs.read_json(searched / "trials.json")
    assert [t.params["lr"] for t in study.trials] == [t["lr"] for t in trials]
    assert [t.values for t in study.trials] == [[t["auroc"], t["loss"]] for t in trials]


def test_killed_and_run_again_it_comes_to_the_same(
    searched: Path, tasks: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    arguments = [json.dumps(configuration.dump(value)) for value in (SEARCH, CFG)]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    process = Process("-c", CHILD, *arguments, tasks, model_folder, out, env=one)
    deadline = time.monotonic() + 120
    while not (out / "trials" / "1" / "curve.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = out / "trials" / "0" / "result.json"
    written = first.stat().st_mtime_ns
    sweep(SEARCH, CFG, tasks=tasks, model=model_folder, out=out, seed=7)
    assert first.stat().st_mtime_ns == written, "a trial that had ended was run again"
    same(out, searched)


@pytest.mark.long
def test_two_at_a_time_come_to_the_same(searched: Path, tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    sweep(SEARCH, CFG, tasks=tasks, model=model_folder, out=tmp_path / "sweep", seed=7, workers=2)
    same(tmp_path / "sweep", searched)


def same(mine: Path, theirs: Path) -> None:
    for name in ("trials.json", "best.json", "finetune.yaml"):
        assert (mine / name).read_bytes() == (theirs / name).read_bytes(), name
    assert not (mine / ".scratch").exists()


def test_the_command_prints_the_line_that_takes_its_rate(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from lang1.cli import app

    where = ["--tasks", str(tasks), "--model", str(model_folder)]
    small = ["finetune.tasks=[mortality]", "finetune.batch_size=2", "finetune.max_note_tokens=10", "finetune.threads=1"]
    search = ["sweep.trials=2", "steps=1", "finetune.max_steps_per_task=1", "finetune.optimizer.min_lr=5e-5"]
    done = CliRunner().invoke(app, ["sweep", *small, *search, *where, "--out", str(tmp_path / "sweep"), "--quiet"])
    assert done.exit_code == 0, done.output
    _, line, override = done.stdout.splitlines()
    assert line.startswith(f"lang1 finetune {tmp_path / 'sweep' / 'finetune.yaml'} --tasks")
    rate = runs.read_json(tmp_path / "sweep" / "best.json")["lr"]
    for given in (line.split()[2:3], [*small, "finetune.optimizer.min_lr=5e-5", *override.split(": ")[1].split()]):
        assert load_config(*recipe_and_overrides(given), "finetune").finetune.optimizer.lr == rate
    done = CliRunner().invoke(app, [*line.split()[1:-1], str(tmp_path / "model"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert runs.read_json(tmp_path / "model" / "lang1.json")["learning_rate"] == rate


def recipe_and_overrides(given: list[str]) -> tuple[Path | None, list[str]]:
    recipes = [Path(word) for word in given if "=" not in word]
    return (recipes[0] if recipes else None), [word for word in given if "=" in word]


def test_a_rate_that_diverges_is_a_trial_without_a_value(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    wild = SweepConfig(trials=2, steps=6, lowest=1e-4, highest=1e30)
    sweep(wild, CFG, tasks=tasks, model=model_folder, out=tmp_path / "sweep", seed=7)
    diverged = [t for t in runs.read_json(tmp_path / "sweep" / "trials.json") if t["gave_up"]]
    assert diverged and all(t["auroc"] is None for t in diverged)


def test_a_task_without_rows_is_refused_before_any_trial(tasks: Path, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such task"):
        sweep(SEARCH, replace(CFG, tasks=("deniel",)), tasks=tasks, model=model_folder, out=tmp_path / "s", seed=7)
