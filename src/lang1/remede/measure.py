"""Every number of a task and split: each model's metrics with intervals, the ceiling, paired differences.

All models of a task and split are resampled together: the same patients are drawn for each model, each class and the
ceiling, so differences and shares are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lang1.errors import InputError
from lang1.metrics import delong
from lang1.metrics.additive import ratio
from lang1.metrics.bootstrap import (
    Ranking,
    Statistic,
    bootstrap,
    bootstrap_auroc,
    holm,
    interval,
    paired_p,
    rank,
    resampled_auroc,
    resampled_ranking,
)
from lang1.metrics.ranking import Floats, Ints, auroc, auroc_ovr, average_precision, headline_metric
from lang1.remede import details
from lang1.remede.ceiling import MIN_COVERED, share_of_achievable
from lang1.remede.details import OperatingPoint, Scored, Wanted
from lang1.remede.scores import probabilities

if TYPE_CHECKING:
    import pyarrow as pa

By = Literal["patient", "row"]
"""what is resampled"""


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
    precision: list[Scored]
    """AUPRC of each class; empty for the truth"""
    scores: dict[str, Scored]
    """every other score by its name in metrics.json; empty for the truth"""
    points: list[OperatingPoint]
    influence: Floats | None = None
    """each cluster's share of the error of the headline (metrics/delong.py); None for the truth"""
    row_draws: Floats | None = None
    """the headline with rows resampled instead of patients, where it was asked for"""


def clusters_of(group: Group, by: By) -> Ints:
    """What is resampled, as a number for each row: its patient, or the row itself."""
    if by == "row":
        return np.arange(len(group.labels))
    return np.unique(np.array(group.patients), return_inverse=True)[1]


def resample(
    group: Group,
    truth_NK: Floats | None,
    resamples: int,
    seed: int,
    *,
    by: By = "patient",
    wanted: Wanted | None = None,
    also_by_row: bool = False,
) -> dict[str | None, Resampled]:
    """All scores of every model, and the AUROC of the truth under the key None, on shared resamples.

    `also_by_row` adds the headline of each model with rows resampled, to stand beside.
    """
    clusters = clusters_of(group, by)
    readers: dict[str | None, _Reader] = {
        model: _reader_of_model(group, p_NK, clusters, wanted or Wanted()) for model, p_NK in group.p.items()
    }
    if truth_NK is not None:
        known = np.flatnonzero(~np.isnan(truth_NK).any(axis=1))
        readers[None] = _reader_of_truth(group.labels[known], truth_NK[known], clusters[known])
    found = bootstrap(
        [statistic for reader in readers.values() for statistic in reader.statistics],
        int(clusters.max()) + 1,
        resamples=resamples,
        seed=seed,
        name=f"{group.task}/{group.split}",
        longest=len(group.labels) * group.options,
    )
    draws = iter(found)
    sampled = {model: reader.read([next(draws) for _ in reader.statistics]) for model, reader in readers.items()}
    if also_by_row:
        for model, row_draws in _by_row(group, resamples, seed).items():
            sampled[model] = replace(sampled[model], row_draws=row_draws)
    return sampled


def _by_row(group: Group, resamples: int, seed: int) -> dict[str, Floats]:
    """The headline of every model with each row as another patient."""
    classes, n = _classes(group.options), len(group.labels)
    each = np.arange(n)
    rankings = [rank(group.labels == k, p_NK[:, k], each) for p_NK in group.p.values() for k in classes]
    name = f"{group.task}/{group.split}/rows"
    draws = bootstrap_auroc(rankings, n, resamples=resamples, seed=seed, name=name)
    present = [i for i, ranking in enumerate(rankings[: len(classes)]) if ranking is not None]
    if not present:
        return dict.fromkeys(group.p, draws[:, 0])
    width = len(classes)
    return {model: draws[:, [m * width + i for i in present]].mean(axis=1) for m, model in enumerate(group.p)}


@dataclass(frozen=True)
class _Reader:
    """What is resampled of one model, and how to read it."""

    statistics: list[Statistic]
    read: Callable[[list[Floats]], Resampled]


def _classes(options: int) -> list[int]:
    """The classes with an AUROC of their own: option 1, or each against the rest."""
    return [1] if options == 2 else list(range(options))


def _ranked(ranking: Ranking | None, what: Callable[[Ranking, Ints], Floats], width: tuple[int, ...]) -> Statistic:
    """The statistic of a ranking; NaN throughout where all rows are of one class."""
    if ranking is None:
        return lambda counts_BC: np.full((len(counts_BC), *width), np.nan)
    return partial(what, ranking)


def _reader_of_truth(labels: Ints, p_NK: Floats, clusters: Ints) -> _Reader:
    classes = _classes(p_NK.shape[1])
    rankings = [rank(labels == k, p_NK[:, k], clusters) for k in classes]
    per_class = [auroc(labels == k, p_NK[:, k]) for k in classes]

    def read(draws: list[Floats]) -> Resampled:
        class_draws = np.stack(draws, axis=1)
        value, combined = _mean_of_present(per_class, class_draws)
        return Resampled(value, per_class, combined, class_draws, [], {}, [])

    return _Reader([_ranked(ranking, resampled_auroc, ()) for ranking in rankings], read)


def _reader_of_model(group: Group, p_NK: Floats, clusters: Ints, wanted: Wanted) -> _Reader:
    labels, options = group.labels, group.options
    classes = _classes(options)
    cells = (labels[:, None] == np.arange(options)).ravel()
    rankings = [rank(labels == k, p_NK[:, k], clusters) for k in classes]
    statistics = [_ranked(ranking, resampled_ranking, (2,)) for ranking in rankings]
    statistics.append(_ranked(rank(cells, p_NK.ravel(), np.repeat(clusters, options)), resampled_auroc, ()))
    planned = details.plan(group.task, labels, p_NK, clusters, wanted)
    ovr = auroc_ovr(labels, p_NK)
    per_class = [ovr.per_class[k] for k in classes]
    precision = [average_precision(labels == k, p_NK[:, k]) for k in classes]

    def read(draws: list[Floats]) -> Resampled:
        ranked = np.stack(draws[: len(classes)], axis=1)
        beside = planned.read(draws[len(classes) + 1 :])
        value, combined = _mean_of_present(per_class, ranked[:, :, 0])
        auprc, auprc_draws = _mean_of_present(precision, ranked[:, :, 1])
        scores = {"auprc": Scored(auprc, auprc_draws), "auroc_micro": Scored(ovr.micro, draws[len(classes)])}
        if options > 2:
            weights = np.where(np.isnan(ranked[:, :, 0]), np.nan, beside.class_rows)[:, ovr.present]
            weighted = ratio((ranked[:, ovr.present, 0] * weights).sum(axis=1), weights.sum(axis=1))
            scores["auroc_weighted"] = Scored(ovr.weighted, weighted)
        else:  # one class has an AUROC: every average is it
            scores["auroc_weighted"] = Scored(value, combined)
        return Resampled(
            value=value,
            per_class=per_class,
            draws=combined,
            class_draws=ranked[:, :, 0],
            precision=[Scored(v, ranked[:, i, 1]) for i, v in enumerate(precision)],
            scores=scores | beside.scores,
            points=beside.points,
            influence=delong.influence_ovr(labels, p_NK, clusters),
        )

    return _Reader([*statistics, *planned.statistics], read)


def _mean_of_present(values: list[float | None], draws_BK: Floats) -> tuple[float | None, Floats]:
    """The plain mean over the classes that have a value, and that of each resample."""
    present = [i for i, value in enumerate(values) if value is not None]
    if not present:
        return None, np.full(len(draws_BK), np.nan)
    return float(np.mean([values[i] for i in present])), draws_BK[:, present].mean(axis=1)


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
        "average": None if group.options == 2 else "macro",
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
    """What metrics.json holds beside a row of `results`: every other score with its interval, every class."""
    labels, p_NK, mine = group.labels, group.p[model], sampled[model]
    beside = {name: scored for name, scored in mine.scores.items() if not name[0].isdigit()}
    row: dict[str, Any] = {}
    for name, scored in beside.items():
        row |= scored.fields(name)
    row |= {
        "per_class": _per_class(group, mine),
        "operating": [point.fields() for point in mine.points],
        "tied_pairs": _tied_pairs(labels, p_NK),
        "by_row": _by_row_interval(mine),
        "delong": _delong(mine),
    }
    named = {"value": mine.value} | row
    return row | {"undefined": details.undefined(named, ["value", *beside, "tied_pairs"], len(np.unique(labels)) < 2)}


def _by_row_interval(mine: Resampled) -> dict[str, float | None] | None:
    """The headline's interval with rows resampled; null where it was not asked for."""
    if mine.row_draws is None:
        return None
    bounds = interval(mine.value, mine.row_draws)
    return {
        "ci_low": bounds.low,
        "ci_high": bounds.high,
        "ci_normal_low": bounds.normal_low,
        "ci_normal_high": bounds.normal_high,
    }


def _per_class(group: Group, mine: Resampled) -> dict[str, dict[str, Any]]:
    rows = {}
    for i, k in enumerate(_classes(group.options)):
        bounds = interval(mine.per_class[i], mine.class_draws[:, i])
        row: dict[str, Any] = {
            "auroc": mine.per_class[i],
            "ci_low": bounds.low,
            "ci_high": bounds.high,
            **mine.precision[i].fields("auprc"),
            "events": int((group.labels == k).sum()),
            "undefined_resamples": bounds.undefined,
        }
        for name in ("calibration_slope", "calibration_intercept"):
            if (scored := mine.scores.get(f"{k} {name}")) is not None:
                row |= scored.fields(name)
        rows[str(k)] = row
    return rows


def _tied_pairs(labels: Ints, p_NK: Floats) -> float | None:
    """Share of the pairs behind the AUROC that have one score and count half; the mean over classes with rows."""
    shares = []
    for k in _classes(p_NK.shape[1]):
        positives, negatives = p_NK[labels == k, k], np.sort(p_NK[labels != k, k])
        if len(positives) and len(negatives):
            tied = np.searchsorted(negatives, positives, "right") - np.searchsorted(negatives, positives, "left")
            shares.append(tied.sum() / (len(positives) * len(negatives)))
    return float(np.mean(shares)) if shares else None


def _delong(mine: Resampled) -> dict[str, float | None]:
    """DeLong's interval of the headline, of what is resampled; null where fewer than two patients have a class."""
    if mine.value is None or mine.influence is None:
        return {"se": None, "ci_low": None, "ci_high": None}
    se = delong.standard_error(mine.influence)
    low, high = delong.interval(mine.value, se)
    return {"se": se, "ci_low": low, "ci_high": high}


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
        "p_delong": p_delong(mine, other),
        "undefined_resamples": bounds.undefined,
    }


def p_delong(a: Resampled, b: Resampled) -> float | None:
    """DeLong's paired p of the headline, of what is resampled: patients, or rows."""
    if a.value is None or b.value is None or a.influence is None or b.influence is None:
        return None
    return delong.p_value(a.value - b.value, delong.standard_error(a.influence - b.influence))


def add_holm(rows: list[dict[str, Any]], *family: str) -> None:
    """Give each row `p_holm`: `p` corrected over the rows that agree in the columns `family`, which differ in task."""
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(tuple(row[column] for column in family), []).append(row)
    for members in families.values():
        for row, p in zip(members, holm([row["p"] for row in members]), strict=True):
            row["p_holm"] = p
