"""All numbers of an evaluation from its score files alone: metrics.json, summary.json, calibration and decision curves.

Every row of metrics.json says what it is: model, prompt, rows, shots, contamination, what was cut, the average used;
`facts` holds what all rows share. Recalibrated models are rows of their own, named so, beside the models as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.ranking import Floats
from lang1.metrics.recalibration import Recalibration, fit
from lang1.remede import measure
from lang1.remede.ceiling import true_probabilities
from lang1.remede.contamination import count_seen
from lang1.remede.details import Wanted
from lang1.remede.model_curves import calibration_of, decisions_of
from lang1.remede.provenance import describe_prompt
from lang1.remede.rows import TaskRows
from lang1.remede.scores import probabilities, read_scores, score_path

if TYPE_CHECKING:
    import pyarrow as pa

SUBJECTS = ("lang1 finetuned joint", "lang1 finetuned")
"""the model that is compared with the others: the first of these that is evaluated"""

WITHOUT_PROMPT = ("classifier", "encoder")
"""methods of models that are given the note and no question"""
COUNTED = ("options_missing", "answers_refused")
"""columns of a score file whose sums stand in metrics.json, where the file has them"""

Rows = dict[tuple[str, str], TaskRows]


def check_recalibration(cfg: EvaluateConfig, rows: Rows) -> None:
    """Refuse, before anything is scored, to recalibrate a task without validation rows. Raises InputError."""
    if cfg.recalibrate == "none":
        return
    for task in dict.fromkeys(task for task, _ in rows):
        val = rows.get((task, "val"))
        if val is None:
            raise InputError(
                f"evaluate.recalibrate: {cfg.recalibrate}: {task} has no validation rows to fit it on; "
                "put val into evaluate.splits, leave the task out, or set evaluate.recalibrate=none"
            )
        if len(np.unique(val.labels)) < 2:
            raise InputError(
                f"evaluate.recalibrate: {cfg.recalibrate}: the {len(val.labels)} validation rows of {task} are all of "
                "one class; raise evaluate.max_rows, leave the task out, or set evaluate.recalibrate=none"
            )


def write_numbers(
    cfg: EvaluateConfig,
    stage: runs.Stage,
    models: list[str],
    rows: Rows,
    truths: dict[str, Any] | None,
    skipped: list[dict[str, str]],
    seed: int,
    known: dict[str, Any],
) -> None:
    """Write metrics.json, summary.json, calibration.json and decision_curves.json of the score files in `stage.out`.

    `known` are facts of the models and the tasks folder: `seen`, `models`, `tasks`, `headline_is_future_window`.
    """
    subject = next((name for name in (*SUBJECTS, *models) if name in models), None)
    made = Made()
    maps = {task: _fit_maps(cfg, stage.out, models, task) for task, split in rows if split == "val"}
    for (task, split), part in rows.items():
        tables = _read_tables(stage.out, models, task, split)
        if not tables:  # every model was skipped, and said so
            continue
        group = measure.group_scores(task, split, tables)
        found = true_probabilities(truths, task, group.encounters, group.options) if truths else None
        truth_NK = measure.usable_truth(found)
        if truths and truth_NK is None:
            skipped.append({"task": task, "split": split, "why": "the truth file knows too few rows: no ceiling"})
        fitted = {} if split == "val" else maps.get(task, {})
        said = _said_of_rows(part, known)
        _measure_group(cfg, group, truth_NK, tables, fitted, subject, seed, made, said, known.get("models", {}))
    measure.add_holm(made.comparisons, "split", "model_b")
    facts = _facts(cfg, stage, made, subject, truths is not None, skipped, seed, known)
    runs.write_json(stage.out / "metrics.json", {"rows": made.details, "facts": facts})
    runs.write_json(stage.out / "calibration.json", made.curves)
    runs.write_json(stage.out / "decision_curves.json", made.decisions)
    runs.write_json(
        stage.out / "summary.json", {"results": made.results, "comparisons": made.comparisons, "facts": facts}
    )
    stage.count(
        results=len(made.results),
        comparisons=len(made.comparisons),
        skipped=len(skipped),
        rows=sum(len(part.table) for part in rows.values()),
    )
    stage.record(skipped=skipped, subject=subject)


@dataclass(frozen=True)
class Made:
    """Rows of the four files, as they are gathered."""

    results: list[dict[str, Any]] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)


def _read_tables(out: Path, models: list[str], task: str, split: str) -> dict[str, pa.Table]:
    paths = {model: score_path(out, model, task, split) for model in models}
    return {model: read_scores(path) for model, path in paths.items() if path.exists()}


def _measure_group(
    cfg: EvaluateConfig,
    group: measure.Group,
    truth_NK: Floats | None,
    tables: dict[str, pa.Table],
    fitted: dict[str, Recalibration],
    subject: str | None,
    seed: int,
    made: Made,
    said: dict[str, Any],
    models: dict[str, dict[str, Any]],
) -> None:
    """All numbers of one task and split.

    Models after recalibration stand beside those before in metrics.json and the two files of curves, where
    `recalibration` says so; they are no results and are not compared.
    """
    before = list(group.p)
    after = {after_name(model, cfg.recalibrate): (model, one) for model, one in fitted.items() if model in group.p}
    group = replace(group, p=group.p | {name: one.apply(group.p[model]) for name, (model, one) in after.items()})
    wanted = Wanted(cfg.operating_points, cfg.alert_rates)
    sampled = measure.resample(
        group,
        truth_NK,
        cfg.bootstrap_resamples,
        seed,
        by=cfg.resample,
        wanted=wanted,
        also_by_row=cfg.resample == "patient",
    )
    met = {model: count_seen(table) for model, table in tables.items()}
    is_headline = group.split == cfg.headline_split
    decisions = decisions_of(group, cfg.bootstrap_resamples, seed, cfg.resample) if is_headline else {}
    for model in group.p:
        source, one = after.get(model, (model, None))
        result = measure.result_of(group, model, sampled, truth_NK)
        result["contamination"] = met[source]["contamination"]
        result["recalibration"] = None if one is None else one.facts | {"fitted_on": "val", "of": source}
        if model in before:
            made.results.append(result)
        more = measure.metrics_of(group, model, sampled) | met[source] | said | _said_of_scores(tables[source])
        made.details.append(result | more | _said_of_model(models.get(source), group.task))
        named = {"recalibration": result["recalibration"]}
        if is_headline:
            made.curves.append(calibration_of(group, model) | named)
        if model in decisions:
            made.decisions.append(decisions[model] | named)
    if subject in before:
        made.comparisons.extend(
            measure.compare(group, subject, m, sampled)
            | {"contamination_a": met[subject]["contamination"], "contamination_b": met[m]["contamination"]}
            for m in before
            if m != subject
        )


def after_name(model: str, method: str) -> str:
    """How a model is called after recalibration."""
    return f"{model}, {method} on val"


def _fit_maps(cfg: EvaluateConfig, out: Path, models: list[str], task: str) -> dict[str, Recalibration]:
    """The map of each model for a task, fitted on its validation scores; none where none is asked for."""
    maps: dict[str, Recalibration] = {}
    if cfg.recalibrate == "none":
        return maps
    for model, table in _read_tables(out, models, task, "val").items():
        labels = table["label"].to_numpy().astype(np.int64)
        one = fit(cfg.recalibrate, labels, probabilities(table))
        if isinstance(one, str):
            raise InputError(f"evaluate.recalibrate: {cfg.recalibrate}: {task}: {one}")
        maps[model] = one
    return maps


def _said_of_rows(part: TaskRows, known: dict[str, Any]) -> dict[str, Any]:
    """What every metrics.json row of a task says of its question and rows."""
    tasks = known.get("tasks", {})
    return {
        "prompt": describe_prompt(part, tasks.get("prompt_sets", {}).get(part.task)),
        "tasks_identity": tasks.get("identity"),
        "rows_sha256": _hash_rows(part),
    }


def _said_of_model(facts: dict[str, Any] | None, task: str) -> dict[str, Any]:
    """Checkpoint and weights of a language model, those of the task where each has its own; a baseline has neither."""
    if facts is None:
        return {"checkpoint": "fitted on the training rows", "weights_sha256": None}
    facts = facts.get("by_task", {}).get(task, facts)
    return {key: facts.get(key) for key in ("checkpoint", "weights_sha256")}


def _hash_rows(part: TaskRows) -> str:
    """One hash of which rows were scored and their labels: equal hashes, comparable results."""
    pairs = "\n".join(f"{row} {label}" for row, label in zip(part.strings("row_id"), part.labels, strict=True))
    return hashlib.sha256(pairs.encode()).hexdigest()


def _said_of_scores(table: pa.Table) -> dict[str, Any]:
    """How a model's rows were scored: methods, shots, prompt tokens, how much was cut, and what a server left open.

    What reads no prompt has no prompt; its scores hold no shots either.
    """
    import pyarrow.compute as pc

    cut = table["truncated_tokens"]
    has = cut.null_count < len(cut)
    methods = sorted(table["method"].unique().to_pylist())
    return {
        **({"prompt": None} if set(methods) <= set(WITHOUT_PROMPT) else {}),
        "shots": table["shots"][0].as_py() if len(table) else None,  # the same for every row
        "methods": methods,
        "prompt_tokens": _total(table["prompt_tokens"]),
        "truncated_tokens": _total(cut),
        "truncated_rows": int(pc.sum(pc.greater(cut, 0)).as_py() or 0) if has else None,
        # one set of examples stands before every row, and each row tells of it: told once, not summed
        **(
            {"shots_cut_words": pc.max(table[words]).as_py()}
            if (words := "shots_cut_words") in table.column_names
            else {}
        ),
        **{name: _total(table[name]) for name in COUNTED if name in table.column_names},
    }


def _total(column: pa.ChunkedArray) -> int | None:
    import pyarrow.compute as pc

    total = pc.sum(column).as_py()
    return None if total is None else int(total)


def _facts(
    cfg: EvaluateConfig,
    stage: runs.Stage,
    made: Made,
    subject: str | None,
    has_truth: bool,
    skipped: list[dict[str, str]],
    seed: int,
    known: dict[str, Any],
) -> dict[str, Any]:
    return {
        "headline_split": cfg.headline_split,
        "subject": subject,
        "bootstrap_resamples": cfg.bootstrap_resamples,
        "interval": f"percentile, {cfg.resample}s resampled",
        "recalibrate": cfg.recalibrate,
        "seed": seed,
        "truth": has_truth,
        "precision": stage.facts.get("precision"),
        "skipped": skipped,
        "versions": runs.versions(),
        **known,
        "contamination": _contamination_by_split(made.results),
        "baselines": stage.facts.get("baselines", {}),
    }


def _contamination_by_split(details: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Results of each split by their word: notes, patients, none or unknown."""
    counts: dict[str, dict[str, int]] = {}
    for row in details:
        split = counts.setdefault(row["split"], {})
        split[row["contamination"]] = split.get(row["contamination"], 0) + 1
    return counts
