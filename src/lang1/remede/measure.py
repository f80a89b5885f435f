"""Every number of a task and split: each model's metrics with intervals, the ceiling, paired differences.

All models of a task and split are resampled together: the same patients are drawn for each model, each class and the
ceiling, so differences and shares are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.errors import InputError
from lang1.metrics.bootstrap import Ranking, bootstrap_auroc, interval, paired_p, rank
from lang1.metrics.calibration import (
    BINS,
    brier_score,
    calibration_curve,
    expected_calibration_error,
    log_loss,
)
from lang1.metrics.ranking import Floats, Ints, auroc, auroc_ovr, average_precision, headline_metric
from lang1.remede.ceiling import MIN_COVERED, share_of_achievable
from lang1.remede.scores import probabilities

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Group:
    """The score files of one task and split, rows in the same order, by model."""

    task: str
    split: str
    labels: Ints
    patients: list[str]
    encounters: list[str]
    p: dict[str, Floats]
    """option probabilities, (rows, options)"""

    @property
    def options(self) -> int:
        """Answers of the question."""
        return next(iter(self.p.values())).shape[1]


def group_scores(task: str, split: str, tables: dict[str, pa.Table]) -> Group:
    """Put score files side by side. Raises InputError when they are not of the same rows."""
    first = next(iter(tables.values()))
    for model, table in tables.items():
        if not table["row_id"].equals(first["row_id"]):
            raise InputError(
                f"scores of {model} on {task}, {split}: other rows than those of {next(iter(tables))}; "
                "run lang1 evaluate with --force"
            )
    return Group(
        task,
        split,
        labels=first["label"].to_numpy().astype(np.int64),
        patients=first["patient_id"].to_pylist(),
        encounters=first["encounter_id"].to_pylist(),
        p={model: probabilities(table) for model, table in tables.items()},
    )


@dataclass(frozen=True)
class Resampled:
    """Values and resampled values of one model (or of the truth) on a group."""

    value: float | None
    per_class: list[float | None]
    draws: Floats
    class_draws: Floats
    """(resamples, classes)"""


def resample(group: Group, truth_NK: Floats | None, resamples: int, seed: int) -> dict[str | None, Resampled]:
    """AUROC of every model, and of the truth under the key None, on shared resamples of patients."""
    _, clusters = np.unique(np.array(group.patients), return_inverse=True)
    sets: dict[str | None, tuple[Floats, Ints]] = {
        model: (p_NK, np.arange(len(p_NK))) for model, p_NK in group.p.items()
    }
    if truth_NK is not None:
        sets[None] = (truth_NK, np.flatnonzero(~np.isnan(truth_NK).any(axis=1)))
    classes = [1] if group.options == 2 else list(range(group.options))
    rankings: list[Ranking | None] = []
    values: dict[str | None, list[float | None]] = {}
    for model, (p_NK, rows) in sets.items():
        positive_NK = group.labels[rows, None] == np.arange(group.options)
        rankings += [rank(positive_NK[:, k], p_NK[rows, k], clusters[rows]) for k in classes]
        values[model] = [auroc(positive_NK[:, k], p_NK[rows, k]) for k in classes]
    draws = bootstrap_auroc(
        rankings, int(clusters.max()) + 1, resamples=resamples, seed=seed, name=f"{group.task}/{group.split}"
    )
    found = {}
    for number, (model, per_class) in enumerate(values.items()):
        mine = draws[:, number * len(classes) : (number + 1) * len(classes)]
        present = [i for i, value in enumerate(per_class) if value is not None]
        value = float(np.mean([per_class[i] for i in present])) if present else None
        combined = mine[:, present].mean(axis=1) if present else np.full(resamples, np.nan)
        found[model] = Resampled(value, per_class, combined, mine)
    return found


def usable_truth(truth_NK: Floats | None) -> Floats | None:
    """The truth where it knows enough of the rows, or None."""
    if truth_NK is None or not len(truth_NK):
        return None
    covered = (~np.isnan(truth_NK).any(axis=1)).mean()
    return truth_NK if covered >= MIN_COVERED else None


def result_of(
    group: Group, model: str, sampled: dict[str | None, Resampled], truth_NK: Floats | None
) -> dict[str, Any]:
    """A row of `results`: the fields of scoring/schema.py first, then what stands beside them."""
    mine, ceiling = sampled[model], sampled.get(None)
    bounds = interval(mine.value, mine.draws)
    events = np.bincount(group.labels, minlength=group.options)
    row: dict[str, Any] = {
        "task": group.task,
        "model": model,
        "split": group.split,
        "metric": headline_metric(group.options),
        "value": mine.value,
        "ci_low": bounds.low,
        "ci_high": bounds.high,
        "n": len(group.labels),
        "events": {str(k): int(count) for k, count in enumerate(events)},
        "ceiling": ceiling.value if ceiling else None,
        "share": share_of_achievable(mine.value, ceiling.value) if ceiling else None,
        "ci_normal_low": bounds.normal_low,
        "ci_normal_high": bounds.normal_high,
        "patients": len(set(group.patients)),
        "undefined_resamples": bounds.undefined,
        "classes_present": [k for k, count in enumerate(events) if 0 < count < len(group.labels)],
        "classes_absent": [k for k, count in enumerate(events) if count == 0],
    }
    if ceiling is not None and truth_NK is not None:
        limits = interval(ceiling.value, ceiling.draws)
        above = np.where(ceiling.draws > 0.5, ceiling.draws - 0.5, np.nan)
        shares = interval(row["share"], (mine.draws - 0.5) / above)
        row |= {
            "ceiling_ci_low": limits.low,
            "ceiling_ci_high": limits.high,
            "share_ci_low": shares.low,
            "share_ci_high": shares.high,
            "ceiling_n": int((~np.isnan(truth_NK).any(axis=1)).sum()),
        }
    return row


def metrics_of(group: Group, model: str, sampled: dict[str | None, Resampled]) -> dict[str, Any]:
    """What metrics.json holds beside a row of `results`: every average, every class, calibration."""
    labels, p_NK, mine = group.labels, group.p[model], sampled[model]
    ovr = auroc_ovr(labels, p_NK)
    precision = [average_precision(labels == k, p_NK[:, k]) for k in range(group.options)]
    known = [value for value in precision if value is not None]
    classes = [1] if group.options == 2 else list(range(group.options))
    per_class = {}
    for i, k in enumerate(classes):
        bounds = interval(mine.per_class[i], mine.class_draws[:, i])
        per_class[str(k)] = {
            "auroc": mine.per_class[i],
            "ci_low": bounds.low,
            "ci_high": bounds.high,
            "auprc": precision[k],
            "events": int((labels == k).sum()),
            "undefined_resamples": bounds.undefined,
        }
    return {
        "per_class": per_class,
        "auroc_micro": ovr.micro,
        "auroc_weighted": ovr.weighted if group.options > 2 else mine.value,
        "auprc": precision[1] if group.options == 2 else (float(np.mean(known)) if known else None),
        "brier": brier_score(labels, p_NK),
        "log_loss": log_loss(labels, p_NK),
        "ece": expected_calibration_error(labels, p_NK),
    }


def calibration_of(group: Group, model: str) -> dict[str, Any]:
    """15-bin curve: of option 1 for two options, of the most likely option for more."""
    labels, p_NK = group.labels, group.p[model]
    if group.options == 2:
        curve, of = calibration_curve(labels == 1, p_NK[:, 1]), "option 1"
    else:
        curve, of = calibration_curve(labels == p_NK.argmax(axis=1), p_NK.max(axis=1)), "most likely option"
    return {
        "task": group.task,
        "model": model,
        "split": group.split,
        "of": of,
        "width": 1 / BINS,
        "bins": [
            {"low": b.low, "high": b.high, "predicted": b.predicted, "observed": b.observed, "n": b.n} for b in curve
        ],
        "ece": expected_calibration_error(labels, p_NK),
    }


def compare(group: Group, a: str, b: str, sampled: dict[str | None, Resampled]) -> dict[str, Any]:
    """A row of `comparisons`: model a minus model b on the same rows and resamples."""
    mine, other = sampled[a], sampled[b]
    difference = None if mine.value is None or other.value is None else mine.value - other.value
    draws = mine.draws - other.draws
    bounds = interval(difference, draws)
    return {
        "task": group.task,
        "split": group.split,
        "model_a": a,
        "model_b": b,
        "difference": difference,
        "ci_low": bounds.low,
        "ci_high": bounds.high,
        "p": None if difference is None else paired_p(draws),
        "undefined_resamples": bounds.undefined,
    }
