"""The learning-rate search before a finetuning (5.4): `lang1 sweep`.

Trials are the first steps (100) of the schedule that the finetuning itself would follow, each from the same start with
the same rows, at a rate drawn log-uniformly by Optuna's random sampler. All rates are drawn beforehand by the seed, so
that a trial is the same whoever runs it and when: killed, the command goes on with the trials that have no result, and
inside a trial from its checkpoint. The best has the highest validation AUROC, among equals the lowest loss: the paper
asks for both, which may disagree, so both are written down. Optuna's own study, for its dashboard and importances, is
written beside from the results.

Trials run one after the other, shared out by torchrun's processes if it started them, or several at a time in
processes of their own (`--workers`), each on a GPU of its own where there are any.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig, SweepConfig
from lang1.corpus.processes import map_in_processes
from lang1.errors import ConfigError, InputError, TrainingGaveUp, require_package
from lang1.training.asked import READ
from lang1.training.distributed import World, joined, run_stage
from lang1.training.finetuning import check, prepare, run, what
from lang1.training.loop import CURVE
from lang1.training.validation import mean_loss

RESULT = "result.json"
RESULTS, BEST, RECIPE, STUDY = "trials.json", "best.json", "finetune.yaml", "optuna.log"


@dataclass(frozen=True)
class Trial:
    """One rate to try; goes to another process as it is."""

    number: int
    lr: float
    cfg: FinetuneConfig
    steps: int
    tasks: Path
    model: Path
    folder: Path
    scratch: Path
    seed: int


def sweep(
    cfg: SweepConfig,
    finetune: FinetuneConfig,
    *,
    tasks: Path,
    model: Path,
    out: Path,
    seed: int,
    workers: int = 1,
    force: bool = False,
) -> dict[str, Any]:
    """Try learning rates for the finetuning that `finetune` describes; the manifest, in which `facts` has the best.

    `out` gets trials.json, best.json, a recipe that `lang1 finetune` takes with the best rate in it, and Optuna's
    study. Raises TrainingGaveUp when no trial has an AUROC.
    """
    runs.read_manifest(tasks)
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    require_package("optuna", "sweep", "tune")
    settings = {"finetune": _searched(finetune), "sweep": configuration.dump(cfg)}
    inputs: dict[str, Path | str] = {"tasks": tasks, "model": model}
    with joined() as world:
        check(finetune, model, world)
        if workers > 1 and world.size > 1:
            raise ConfigError("--workers: torchrun's processes share each trial out already; leave one of the two away")

        def work(stage: runs.Stage) -> None:
            trials = [
                Trial(number, lr, with_rate(finetune, lr), cfg.steps, tasks, model, stage.out / "trials" / f"{number}",
                      stage.scratch() / f"trial-{number}", seed)
                for number, lr in enumerate(draw_rates(cfg, seed))
            ]  # fmt: skip
            results = list(_together(trials, workers) if workers > 1 else _in_turn(trials, world))
            if world.is_main:
                _write(stage, cfg, finetune, results, seed)

        return run_stage(world, out, "sweep", settings, seed, inputs, work, force, only={"tasks": READ})


def draw_rates(cfg: SweepConfig, seed: int) -> list[float]:
    """The rates of all trials, log-uniform in [lowest, highest], by Optuna's random sampler."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed % 2**32))
    return [study.ask({"lr": _distribution(cfg)}).params["lr"] for _ in range(cfg.trials)]


def _searched(cfg: FinetuneConfig) -> dict[str, Any]:
    """The settings that make a search another search: a rate that is given is not tried."""
    settings = what(cfg)
    return settings | {"optimizer": {key: value for key, value in settings["optimizer"].items() if key != "lr"}}


def with_rate(cfg: FinetuneConfig, lr: float) -> FinetuneConfig:
    """The finetuning at another peak rate; the last rate is no higher than the peak."""
    return replace(cfg, optimizer=replace(cfg.optimizer, lr=lr, min_lr=min(cfg.optimizer.min_lr, lr)))


def best_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial with the highest AUROC, among equals the lowest loss. Raises TrainingGaveUp when none has one."""
    scored = [result for result in results if result["auroc"] is not None]
    if not scored:
        raise TrainingGaveUp(
            "no trial has a validation AUROC: all diverged, or the validation rows are of one class; "
            "lower sweep.highest or look at trials.json"
        )
    return min(scored, key=lambda result: (-result["auroc"], result["loss"], result["trial"]))


def _in_turn(trials: list[Trial], world: World) -> Iterator[dict[str, Any]]:
    for trial in trials:
        yield run_trial(trial, world)


def _together(trials: list[Trial], workers: int) -> Iterator[dict[str, Any]]:
    """In processes of their own, each with its share of the processor's cores."""
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    shared = [replace(t, cfg=replace(t.cfg, threads=t.cfg.threads or cores)) for t in trials]
    killed = "sweep: a trial was killed (out of memory?); the same command goes on, with fewer --workers"
    yield from map_in_processes(_trial_alone, [(trial, runs.is_quiet()) for trial in shared], workers, killed)


def _trial_alone(trial: Trial, quiet: bool) -> dict[str, Any]:
    import torch

    runs.set_quiet(quiet)
    with _a_gpu(trial.scratch.parent) as device:
        return run_trial(trial, World(0, 1, torch.device("cpu") if device is None else torch.device("cuda", device)))


@contextlib.contextmanager
def _a_gpu(locks: Path) -> Iterator[int | None]:
    """A GPU that no other trial of this search is on; None without any."""
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        yield None
        return
    with contextlib.ExitStack() as stack:
        for device in range(count):
            try:
                stack.enter_context(runs.lock(locks / f"gpu-{device}"))
            except InputError:
                continue
            torch.cuda.set_device(device)
            yield device
            return
        raise ConfigError(f"--workers: more than the {count} GPUs that are here")


def run_trial(trial: Trial, world: World) -> dict[str, Any]:
    """What came of a trial, from its file where it has ended before. A rate that diverges has an AUROC of null.

    `step` is that of the best validation, `steps` were run.
    """
    path = trial.folder / RESULT
    if world.told(path.exists() if world.is_main else None):
        result: dict[str, Any] = runs.read_json(path)
        return result
    runs.say(f"sweep: trial {trial.number}, rate {trial.lr:.2e}")
    setup = prepare(trial.cfg, trial.tasks, trial.model, trial.seed, world)
    result = {"trial": trial.number, "lr": trial.lr, "auroc": None, "loss": None, "step": None, "by_task": {}}
    result |= {"gave_up": None}
    try:
        steps = min(trial.steps, setup.steps)
        progress = run(setup, trial.folder, trial.scratch, trial.scratch / "best", steps)
    except TrainingGaveUp as error:
        result |= {"gave_up": str(error)}
    else:
        if progress.best_step is not None and world.is_main:
            curve = {line["step"]: line for line in runs.read_lines(trial.folder / CURVE)}
            found = curve[progress.best_step]["val"]
            result |= {"auroc": progress.best_value, "loss": mean_loss(found), "step": progress.best_step}
            result |= {"by_task": found}
    if world.is_main:
        result |= {"steps": len(runs.read_lines(trial.folder / CURVE))}
        runs.write_json(path, result)
        shutil.rmtree(trial.scratch, ignore_errors=True)
    world.wait()
    return result


def _write(
    stage: runs.Stage, cfg: SweepConfig, finetune: FinetuneConfig, results: list[dict[str, Any]], seed: int
) -> None:
    runs.write_json(stage.out / RESULTS, results)
    best = best_of(results)
    chosen = {key: best[key] for key in ("trial", "lr", "auroc", "loss", "step")}
    runs.write_json(stage.out / BEST, chosen)
    recipe = {"seed": seed, "finetune": configuration.dump(with_rate(finetune, best["lr"]))}
    runs.write_text(
        stage.out / RECIPE,
        f"# The finetuning that lang1 sweep searched a rate for: trial {best['trial']} of {len(results)}.\n"
        + configuration.as_yaml(recipe),
    )
    _write_study(stage.out / STUDY, cfg, results)
    stage.count(trials=len(results), steps=sum(result["steps"] for result in results))
    rates = with_rate(finetune, best["lr"]).optimizer
    override = f"finetune.optimizer.lr={rates.lr!r}"
    if rates.min_lr != finetune.optimizer.min_lr:
        override += f" finetune.optimizer.min_lr={rates.min_lr!r}"
    stage.record(best=chosen, override=override)
    runs.say(f"sweep: best rate {best['lr']:.3e} (trial {best['trial']}, AUROC {best['auroc']:.4f})")


def _write_study(path: Path, cfg: SweepConfig, results: list[dict[str, Any]]) -> None:
    """The trials as an Optuna study of two aims, AUROC and loss, in a journal file."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with runs.atomic_path(path) as temporary:
        storage = JournalStorage(JournalFileBackend(str(temporary)))
        study = optuna.create_study(study_name="sweep", storage=storage, directions=["maximize", "minimize"])
        for result in results:
            scored = result["auroc"] is not None
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE if scored else optuna.trial.TrialState.FAIL,
                    params={"lr": result["lr"]},
                    distributions={"lr": _distribution(cfg)},
                    values=[result["auroc"], result["loss"]] if scored else None,
                    user_attrs={"gave_up": result["gave_up"], "step": result["step"]},
                )
            )


def _distribution(cfg: SweepConfig) -> Any:
    from optuna.distributions import FloatDistribution

    return FloatDistribution(cfg.lowest, cfg.highest, log=True)
