"""The stage `evaluate`: scores of every model, task and split, then all numbers from the score files alone.

Order: language models, then baselines, then numbers. Score files are written one by one and kept by a resumed run;
metrics.json, summary.json and calibration.json are computed from them, so they do not depend on what was resumed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lang1 import config, runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.remede import baselines, lace
from lang1.remede.backends import Server
from lang1.remede.backends.limits import most_rows
from lang1.remede.ceiling import open_truth
from lang1.remede.contamination import ModelSeen, Seen, seen_by_a_baseline, what_was_seen
from lang1.remede.entrants import Entrant, check_entrant, describe_models, model_inputs, one_folder
from lang1.remede.examples import choose_examples
from lang1.remede.language_models import check_language_model, score_language_model
from lang1.remede.numbers import check_recalibration, write_numbers
from lang1.remede.provenance import describe_tasks
from lang1.remede.rows import TaskFolder, TaskRows, open_tasks
from lang1.remede.scores import check_names, slug, write_scores
from lang1.scoring.shots import Examples
from lang1.tasks.prompts import require_known

UNKNOWN = ModelSeen(*[Seen(unknown="a server does not say what its model was trained on")] * 2)
PACE = ("concurrency", "retries", "backoff_s", "timeout_s", "api_key_env")
"""settings of evaluate.api that change no score: a run that met a busy server goes on with others"""

Rows = dict[tuple[str, str], TaskRows]


def evaluate(
    cfg: EvaluateConfig,
    *,
    models: Mapping[str, Path | Server | Entrant],
    tasks: Path,
    out: Path,
    seed: int,
    tokens: Path | None,
    records: Path | None,
    truth: Path | None,
    force: bool,
) -> dict[str, Any]:
    """See lang1.remede.evaluate."""
    _check_names(cfg, models)
    served = {name: model for name, model in models.items() if isinstance(model, Server)}
    local = {
        name: model if isinstance(model, Entrant) else one_folder(model, cfg.tasks)
        for name, model in models.items()
        if not isinstance(model, Server)
    }
    if not {"columns+xgboost", "lace"} & set(cfg.baselines):
        records = None
    inputs: dict[str, Path | str] = {"tasks": tasks, **model_inputs(models)}
    inputs |= {key: path for key, path in (("tokens", tokens), ("records", records), ("truth", truth)) if path}

    def work(stage: runs.Stage) -> None:
        folder = open_tasks(tasks)
        require_known(cfg.tasks, folder.questions, tasks, "evaluate.tasks")
        for name, entrant in local.items():
            check_entrant(name, entrant, cfg.tasks)
        rows, skipped = _read_rows(cfg, folder, served, seed)
        check_recalibration(cfg, rows)
        seen = {name: _seen(entrant, tokens, rows) for name, entrant in local.items()}
        dtype = _prepare_torch(cfg, stage) if local else None
        examples = _choose_shots(cfg, folder, rows, local, seed)
        _check_models(cfg, models, rows, stage, seed, examples)
        api = {}
        for name in models:
            if name in served:
                before = examples[cfg.shots]
                api[name] = _score_served(cfg, name, served[name], rows, UNKNOWN, stage, seed, before)
            else:
                shots = _shots(cfg, local[name])
                for path, known in seen[name].items():
                    mine = _rows_of(path, local[name], rows)
                    score_language_model(cfg, name, path, mine, known, stage.out, dtype, examples[shots])
        stage.record(api=api)
        skipped += _score_baselines(cfg, folder, rows, records, seed, stage)
        truths = open_truth(truth) if truth else None
        facts = {
            "seen": {name: _reasons(seen[name].values()) if name in seen else UNKNOWN.reasons() for name in models},
            "shots": {task: before.facts() for task, before in examples[cfg.shots].items()} if cfg.shots else {},
            "shots_of": {
                name: {task: before.facts() for task, before in examples[entrant.shots].items()}
                for name, entrant in local.items()
                if entrant.shots not in (None, cfg.shots)
            },
            "headline_is_future_window": folder.is_future_window(cfg.headline_split),
            "models": describe_models(models),
            "tasks": describe_tasks(tasks),
            "api": api,
        }
        write_numbers(cfg, stage, list[str]((*models, *cfg.baselines)), rows, truths, skipped, seed, facts)

    return runs.run_stage(out, "evaluate", settings_of(cfg, models), seed, inputs, work, force)


def _check_models(
    cfg: EvaluateConfig,
    models: Mapping[str, Path | Server | Entrant],
    rows: Rows,
    stage: runs.Stage,
    seed: int,
    examples: Mapping[int, dict[str, Examples]],
) -> None:
    """Of several models, refuse each that its turn would: the last one's may come after hours. One alone has its turn
    at once."""
    if len(models) == 1:
        return
    for name, model in models.items():
        if isinstance(model, Server):
            from lang1.remede.backends.score import check_served_model

            check_served_model(cfg, name, model, rows, stage, seed, examples[cfg.shots])
            continue
        entrant = model if isinstance(model, Entrant) else one_folder(model, cfg.tasks)
        for path in entrant.by_folder(task for task, _ in rows):
            mine = _rows_of(path, entrant, rows)
            check_language_model(cfg, name, path, mine, stage.out, examples[_shots(cfg, entrant)])


def _rows_of(folder: Path, entrant: Entrant, rows: Rows) -> Rows:
    """Those that a folder of an entrant answers."""
    return {key: rows[key] for key in rows if entrant.folders.get(key[0]) == folder}


def settings_of(cfg: EvaluateConfig, models: Mapping[str, Path | Server | Entrant]) -> dict[str, Any]:
    """What a stage that asks models keeps of its configuration."""
    settings: dict[str, Any] = {**config.dump(cfg), "models": list(models)}
    shots = {name: model.shots for name, model in models.items() if isinstance(model, Entrant)}
    if own := {name: count for name, count in shots.items() if count is not None}:
        settings["shots_of"] = own
    settings["api"] = {key: value for key, value in settings["api"].items() if key not in PACE}
    return settings


def _shots(cfg: EvaluateConfig, entrant: Entrant) -> int:
    return cfg.shots if entrant.shots is None else entrant.shots


def _choose_shots(
    cfg: EvaluateConfig, folder: TaskFolder, rows: Rows, local: Mapping[str, Entrant], seed: int
) -> dict[int, dict[str, Examples]]:
    """By number of shots, then by task: the examples that stand before every question."""
    counts = dict.fromkeys((cfg.shots, *(_shots(cfg, entrant) for entrant in local.values())))
    tasks = dict.fromkeys(task for task, _ in rows)
    return {k: {task: choose_examples(folder, task, k, cfg.shot_tokens, seed) for task in tasks} for k in counts}


def _seen(entrant: Entrant, tokens: Path | None, rows: Rows) -> dict[Path, ModelSeen]:
    """By folder: what it met of the rows that it answers."""
    return {
        path: what_was_seen(path, entrant.tokens or tokens, [rows[key] for key in rows if key[0] in tasks])
        for path, tasks in entrant.by_folder(task for task, _ in rows).items()
    }


def _reasons(seen: Iterable[ModelSeen]) -> dict[str, str | None]:
    """Why nobody can tell what a model met; of one with several folders, the first reason."""
    found: dict[str, str | None] = {}
    for one in seen:
        for when, why in one.reasons().items():
            found[when] = found.get(when) or why
    return found


def _score_served(
    cfg: EvaluateConfig,
    name: str,
    server: Server,
    rows: Rows,
    seen: ModelSeen,
    stage: runs.Stage,
    seed: int,
    examples: dict[str, Examples],
) -> dict[str, Any]:
    from lang1.remede.backends.score import score_served_model  # lm-eval takes a second to import

    return score_served_model(cfg, name, server, rows, seen, stage, seed, examples)


def _prepare_torch(cfg: EvaluateConfig, stage: runs.Stage) -> Any:
    """Set threads; the number format of the models' matrix products, recorded: it shows in the last digits."""
    from lang1.training.numerics import prepare_torch

    dtype = prepare_torch(cfg.threads, cfg.precision)
    stage.record(precision=str(dtype).removeprefix("torch."))
    return dtype


def _check_names(cfg: EvaluateConfig, models: Iterable[str]) -> None:
    names = [*models, *cfg.baselines]
    if not names:
        raise InputError("nothing to evaluate: give a model or a baseline")
    check_names(names)


def _read_rows(
    cfg: EvaluateConfig, folder: TaskFolder, served: Mapping[str, Server], seed: int
) -> tuple[Rows, list[dict[str, str]]]:
    """The rows that every model is scored on: where a chat may be asked about so many only, the others are too."""
    rows: Rows = {}
    skipped = []
    has_chat = any(server.kind == "chat" for server in served.values())
    for task in cfg.tasks:
        for split in cfg.splits:
            most = cfg.max_rows if split == cfg.headline_split else cfg.max_rows_elsewhere or cfg.max_rows
            if has_chat:
                most = min((bound for bound in (most, most_rows(cfg.api, task)) if bound is not None), default=None)
            found = folder.read(task, split, most, seed)
            if isinstance(found, str):
                skipped.append({"task": task, "split": split, "why": found})
            else:
                rows[task, split] = found
    if not rows:
        whys = "; ".join(dict.fromkeys(f"{s['task']}: {s['why']}" for s in skipped))
        raise InputError(f"{folder.path}: no rows for any task and split that is asked for ({whys})")
    return rows, skipped


def _score_baselines(
    cfg: EvaluateConfig, folder: TaskFolder, rows: Rows, records: Path | None, seed: int, stage: runs.Stage
) -> list[dict[str, str]]:
    """Fit and score what is not there yet. Returns what could not be fitted, and why."""
    skipped, tasks = [], dict.fromkeys(task for task, _ in rows)
    learning: dict[str, tuple[TaskRows, TaskRows]] = {}
    for task in tasks:
        train, val = folder.read(task, "train", cfg.baseline_train_rows, seed), folder.read(task, "val")
        if isinstance(train, str) or isinstance(val, str):
            why = train if isinstance(train, str) else str(val)
            skipped += [
                {"task": task, "model": name, "why": f"nothing to fit or tune on: {why}"} for name in cfg.baselines
            ]
        else:
            learning[task] = train, val
    for kind in dict.fromkeys(name.partition("+")[0] for name in cfg.baselines):
        names = [str(name) for name in cfg.baselines if name.partition("+")[0] == kind]
        for note_type in dict.fromkeys(train.note_type for train, _ in learning.values()):
            alike = {task: pair for task, pair in learning.items() if pair[0].note_type == note_type}
            skipped += _score_kind(cfg, kind, names, alike, rows, records, folder.path, seed, stage)
    notes = sorted(stage.scratch().glob("*.json"))
    stage.record(baselines={key: facts for path in notes for key, facts in runs.read_json(path).items()})
    return skipped


def _score_kind(
    cfg: EvaluateConfig,
    kind: str,
    names: list[str],
    learning: dict[str, tuple[TaskRows, TaskRows]],
    rows: Rows,
    records: Path | None,
    tasks: Path,
    seed: int,
    stage: runs.Stage,
) -> list[dict[str, str]]:
    """Baselines that share their features, on tasks that share their note type."""
    scored = {task: [part for (t, _), part in rows.items() if t == task] for task in learning}
    elsewhere = [task for task in learning if kind == "lace" and task != lace.TASK]
    skipped = [{"task": task, "model": name, "why": lace.ELSEWHERE} for task in elsewhere for name in names]
    waiting = [t for t in learning if t not in elsewhere and not _fit_notes(stage, kind, t).exists()]
    if not waiting:
        return skipped
    trains = [train for train, _ in learning.values()]
    others = [*(val for _, val in learning.values()), *(part for parts in scored.values() for part in parts)]
    gaps = dict[str, str]()
    if kind == "tfidf":
        features: baselines.Features | str = baselines.tfidf(trains, others)
    elif records is None:
        features = "no records were given"
    elif kind == "lace":
        index = lace.score_stays(records, tasks, stage.scratch() / "lace")
        features, gaps = index.features, index.gaps([*trains, *others])
        for why in gaps.values():
            runs.say(f"evaluate: lace: {why}")
    else:
        features = baselines.columns(records, trains, others)
    if isinstance(features, str):
        return skipped + [{"task": task, "model": name, "why": features} for task in waiting for name in names]
    for task in waiting:
        runs.say(f"evaluate: {', '.join(names)}, {task}")
        seen = seen_by_a_baseline(trains)
        whys = _fit_and_write(cfg, kind, names, features, *learning[task], scored[task], seen, seed, stage, gaps)
        skipped += [{"task": task, "model": name, "why": why} for name, why in whys.items()]
    return skipped


def _fit_notes(stage: runs.Stage, kind: str, task: str) -> Path:
    """Written after the last score file of a task: how its baselines were chosen."""
    return stage.scratch() / f"{slug(kind)}-{task}.json"


def _fit_and_write(
    cfg: EvaluateConfig,
    kind: str,
    names: list[str],
    features: baselines.Features,
    train: TaskRows,
    val: TaskRows,
    scored: list[TaskRows],
    seen: ModelSeen,
    seed: int,
    stage: runs.Stage,
    gaps: dict[str, str],
) -> dict[str, str]:
    """Fit and score the baselines of a task; returns why some could not be. `gaps`: what their features lack."""
    threads = cfg.threads or os.cpu_count() or 1
    learn, tune = (baselines.Labelled(features(part), part.labels) for part in (train, val))
    inputs = {part.split: features(part) for part in scored}
    whys, facts = dict[str, str](), dict[str, Any]()
    for name in names:
        if kind == "lace":
            fitted = lace.fit(learn, tune)
        else:
            fitted = baselines.fit(name, learn, tune, train.options, seed, threads, cfg.baseline_trials)
        if isinstance(fitted, str):
            whys[name] = fitted
            continue
        facts[f"{name}, {train.task}"] = fitted.facts | ({"missing": gaps} if gaps else {})
        for part in scored:
            write_scores(stage.out, name, part, fitted.predict(inputs[part.split]), method="classifier", seen=seen)
    if not whys:
        runs.write_json(_fit_notes(stage, kind, train.task), facts)
    return whys
