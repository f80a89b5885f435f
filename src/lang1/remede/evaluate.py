"""The stage `evaluate`: scores of every model, task and split, then all numbers from the score files alone.

Order: language models, then baselines, then numbers. Score files are written one by one and kept by a resumed run;
metrics.json, summary.json and calibration.json are computed from them, so they do not depend on what was resumed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lang1 import config, runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.bootstrap import holm
from lang1.remede import baselines, lace, measure
from lang1.remede.ceiling import open_truth, true_probabilities
from lang1.remede.contamination import ModelSeen, count_seen, seen_by_a_baseline, what_was_seen
from lang1.remede.language_models import score_language_model
from lang1.remede.rows import TaskFolder, TaskRows, open_tasks
from lang1.remede.scores import read_scores, score_path, slug, write_scores
from lang1.tasks.prompts import require_known

SUBJECTS = ("lang1 finetuned joint", "lang1 finetuned")
"""the model that is compared with the others: the first of these that is evaluated"""

Rows = dict[tuple[str, str], TaskRows]


def evaluate(
    cfg: EvaluateConfig,
    *,
    models: dict[str, Path],
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
    if not {"columns+xgboost", "lace"} & set(cfg.baselines):
        records = None
    inputs = {"tasks": tasks, **{f"model {name}": folder for name, folder in models.items()}}
    inputs |= {key: path for key, path in (("tokens", tokens), ("records", records), ("truth", truth)) if path}

    def work(stage: runs.Stage) -> None:
        folder = open_tasks(tasks)
        require_known(cfg.tasks, folder.questions, tasks, "evaluate.tasks")
        rows, skipped = _read_rows(cfg, folder, seed)
        seen = {name: what_was_seen(path, tokens, rows.values()) for name, path in models.items()}
        dtype = _prepare_torch(cfg, stage) if models else None
        for name, path in models.items():
            score_language_model(cfg, name, path, rows, seen[name], stage.out, dtype)
        skipped += _score_baselines(cfg, folder, rows, records, seed, stage)
        truths = open_truth(truth) if truth else None
        facts = {
            "seen": {name: known.reasons() for name, known in seen.items()},
            "headline_is_future_window": folder.is_future_window(cfg.headline_split),
        }
        _write_numbers(cfg, stage, list[str]((*models, *cfg.baselines)), rows, truths, skipped, seed, facts)

    settings = {**config.dump(cfg), "models": list(models)}
    return runs.run_stage(out, "evaluate", settings, seed, inputs, work, force)


def _prepare_torch(cfg: EvaluateConfig, stage: runs.Stage) -> Any:
    """Set threads; the number format of the models' matrix products, recorded: it shows in the last digits."""
    from lang1.training.numerics import prepare_torch

    dtype = prepare_torch(cfg.threads, cfg.precision)
    stage.record(precision=str(dtype).removeprefix("torch."))
    return dtype


def _check_names(cfg: EvaluateConfig, models: dict[str, Path]) -> None:
    names = [*models, *cfg.baselines]
    if not names:
        raise InputError("nothing to evaluate: give a model or a baseline")
    taken: dict[str, str] = {}
    for name in names:
        if slug(name) in taken:
            raise InputError(
                f"models {taken[slug(name)]!r} and {name!r} would share the folder {slug(name)}; "
                "give them names that differ in letters or digits"
            )
        taken[slug(name)] = name


def _read_rows(cfg: EvaluateConfig, folder: TaskFolder, seed: int) -> tuple[Rows, list[dict[str, str]]]:
    rows: Rows = {}
    skipped = []
    for task in cfg.tasks:
        for split in cfg.splits:
            most = cfg.max_rows if split == cfg.headline_split else cfg.max_rows_elsewhere or cfg.max_rows
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


def _write_numbers(
    cfg: EvaluateConfig,
    stage: runs.Stage,
    models: list[str],
    rows: Rows,
    truths: dict[str, Any] | None,
    skipped: list[dict[str, str]],
    seed: int,
    known: dict[str, Any],
) -> None:
    results, details, comparisons, curves = [], [], [], []
    subject = next((name for name in (*SUBJECTS, *models) if name in models), None)
    for task, split in rows:
        paths = {model: score_path(stage.out, model, task, split) for model in models}
        tables = {m: read_scores(p) for m, p in paths.items() if p.exists()}
        if not tables:  # every model was skipped, and said so
            continue
        group = measure.group_scores(task, split, tables)
        found = true_probabilities(truths, task, group.encounters, group.options) if truths else None
        truth_NK = measure.usable_truth(found)
        met = {model: count_seen(table) for model, table in tables.items()}
        if truths and truth_NK is None:
            skipped.append({"task": task, "split": split, "why": "the truth file knows too few rows: no ceiling"})
        sampled = measure.resample(group, truth_NK, cfg.bootstrap_resamples, seed)
        for model in group.p:
            result = measure.result_of(group, model, sampled, truth_NK)
            result["contamination"] = met[model]["contamination"]
            results.append(result)
            details.append(result | measure.metrics_of(group, model, sampled) | met[model])
            if split == cfg.headline_split:
                curves.append(measure.calibration_of(group, model))
        if subject in group.p:
            comparisons += [
                measure.compare(group, subject, m, sampled)
                | {"contamination_a": met[subject]["contamination"], "contamination_b": met[m]["contamination"]}
                for m in group.p
                if m != subject
            ]
    _add_holm(comparisons)
    facts = {
        "headline_split": cfg.headline_split,
        "subject": subject,
        "bootstrap_resamples": cfg.bootstrap_resamples,
        "interval": "percentile, patients resampled",
        "seed": seed,
        "truth": truths is not None,
        "precision": stage.facts.get("precision"),
        "skipped": skipped,
        **known,
        "contamination": _contamination_by_split(details),
        "baselines": stage.facts.get("baselines", {}),
    }
    runs.write_json(stage.out / "metrics.json", {"rows": details, "facts": facts})
    runs.write_json(stage.out / "calibration.json", curves)
    runs.write_json(stage.out / "summary.json", {"results": results, "comparisons": comparisons, "facts": facts})
    stage.count(
        results=len(results),
        comparisons=len(comparisons),
        skipped=len(skipped),
        rows=sum(len(part.table) for part in rows.values()),
    )
    stage.record(skipped=skipped, subject=subject)


def _contamination_by_split(details: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Results of each split by their word: notes, patients, none or unknown."""
    counts: dict[str, dict[str, int]] = {}
    for row in details:
        split = counts.setdefault(row["split"], {})
        split[row["contamination"]] = split.get(row["contamination"], 0) + 1
    return counts


def _add_holm(comparisons: list[dict[str, Any]]) -> None:
    """Holm over the tasks of each split and alternative."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in comparisons:
        families.setdefault((row["split"], row["model_b"]), []).append(row)
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p
