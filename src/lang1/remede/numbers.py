"""All numbers of an evaluation from its score files alone: metrics.json, calibration.json, summary.json."""

from __future__ import annotations

from typing import Any

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.metrics.bootstrap import holm
from lang1.remede import measure
from lang1.remede.ceiling import true_probabilities
from lang1.remede.contamination import count_seen
from lang1.remede.rows import TaskRows
from lang1.remede.scores import read_scores, score_path

SUBJECTS = ("lang1 finetuned joint", "lang1 finetuned")
"""the model that is compared with the others: the first of these that is evaluated"""

Rows = dict[tuple[str, str], TaskRows]


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
    """Write metrics.json, calibration.json and summary.json of the score files in `stage.out`."""
    results, details, comparisons, curves = [], [], [], []
    subject = next((name for name in (*SUBJECTS, *models) if name in models), None)
    for task, split in rows:
        paths = {model: score_path(stage.out, model, task, split) for model in models}
        tables = {m: read_scores(p) for m, p in paths.items() if p.exists()}
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
