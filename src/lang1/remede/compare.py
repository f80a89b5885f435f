"""Two models on the same rows, from score files alone: paired differences, p values, Holm over tasks.

The files may be of two evaluations, on two machines, a year apart: what must agree is which rows were scored and their
labels. Where they do not, nothing is compared, and what differs is said. Each pair is resampled together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.errors import InputError
from lang1.metrics.bootstrap import interval, paired_p
from lang1.metrics.calibration import LOWER_IS_BETTER
from lang1.remede import measure
from lang1.remede.details import Scored
from lang1.remede.folders import ModelScores, open_model
from lang1.remede.scores import read_scores

if TYPE_CHECKING:
    import pyarrow as pa

METRICS = ("auroc", "auprc", *LOWER_IS_BETTER)
"""what is compared; auroc is the headline: one-versus-rest macro where a task has more than two options"""


def compare_models(a: Path, b: Path, *, resamples: int, seed: int, by: measure.By = "patient") -> dict[str, Any]:
    """Paired differences, A less B, on every task and split that both scored; what `lang1 evaluate --compare` prints.

    `a` and `b` are `scores/<model>`, a scores folder or a run. Raises InputError when they have no task and split in
    common, or not the same rows there.
    """
    sides = {"a": open_model(a), "b": open_model(b)}
    files = {side: found.files() for side, found in sides.items()}
    common = [key for key in files["a"] if key in files["b"]]
    if not common:
        raise InputError(
            f"{a} and {b}: no task and split in common ({_listed(files['a'])} against {_listed(files['b'])}); "
            "evaluate both on the same tasks and splits"
        )
    rows = []
    for task, split in common:
        tables = {side: read_scores(files[side][task, split]) for side in sides}
        _require_same_rows(a, b, task, split, tables)
        rows += _differences(measure.group_scores(task, split, tables), sides, resamples, seed, by)
    measure.add_holm(rows, "split", "metric")
    return {
        **{side: _describe(found) for side, found in sides.items()},
        "rows": rows,
        "left_out": {
            f"only_{side}": sorted("/".join(key) for key in files[side].keys() - set(common)) for side in sides
        },
        "bootstrap_resamples": resamples,
        "interval": f"percentile, {by}s resampled",
        "resampled": by,
        "seed": seed,
    }


def _listed(keys: Any) -> str:
    return ", ".join("/".join(key) for key in keys) or "none"


def _describe(side: ModelScores) -> dict[str, Any]:
    return {
        "model": side.model,
        "checkpoint": side.checkpoint(),
        "evaluation": side.folder.name,
        "seed": side.folder.facts.get("seed"),
    }


def _require_same_rows(a: Path, b: Path, task: str, split: str, tables: dict[str, pa.Table]) -> None:
    """Raises InputError that says in numbers how two score files differ."""
    where = f"{a} and {b}: {task}, {split}"
    ids = {side: table["row_id"].to_pylist() for side, table in tables.items()}
    if ids["a"] != ids["b"]:
        both = len(set(ids["a"]) & set(ids["b"]))
        what = "in another order" if both == len(ids["a"]) == len(ids["b"]) else f"{both:,} in common"
        raise InputError(
            f"{where}: not the same rows ({len(ids['a']):,} against {len(ids['b']):,}, {what}); "
            "evaluate both on one tasks folder with the same seed and evaluate.max_rows"
        )
    for column in ("label", "patient_id"):
        values = {side: table[column].to_pylist() for side, table in tables.items()}
        other = [i for i, pair in enumerate(zip(values["a"], values["b"], strict=True)) if pair[0] != pair[1]]
        if other:
            raise InputError(
                f"{where}: {column} differs in {len(other):,} of {len(ids['a']):,} rows, first in row "
                f"{ids['a'][other[0]]}; evaluate both on one tasks folder"
            )
    if len({len([n for n in t.column_names if n.startswith("p_")]) for t in tables.values()}) > 1:
        raise InputError(f"{where}: another number of options; evaluate both on one tasks folder")


def _differences(
    group: measure.Group, sides: dict[str, ModelScores], resamples: int, seed: int, by: measure.By
) -> list[dict[str, Any]]:
    sampled = measure.resample(group, None, resamples, seed, by=by)
    said = {
        "task": group.task,
        "split": group.split,
        "n": len(group.labels),
        "events": {str(k): int(count) for k, count in enumerate(np.bincount(group.labels, minlength=group.options))},
        "patients": len(set(group.patients)),
        "contamination_a": _contamination(sides["a"], group),
        "contamination_b": _contamination(sides["b"], group),
    }
    rows = []
    for metric in METRICS:
        a, b = (_scored(sampled[side], metric) for side in ("a", "b"))
        difference = None if a.value is None or b.value is None else a.value - b.value
        draws = a.draws - b.draws
        bounds = interval(difference, draws)
        rows.append(
            {
                **said,
                "metric": metric,
                "average": "macro" if group.options > 2 and metric in ("auroc", "auprc") else None,
                **a.fields("a"),
                **b.fields("b"),
                "difference": difference,
                "ci_low": bounds.low,
                "ci_high": bounds.high,
                "ci_normal_low": bounds.normal_low,
                "ci_normal_high": bounds.normal_high,
                "undefined_resamples": bounds.undefined,
                "p": None if difference is None else paired_p(draws),
                "p_delong": measure.p_delong(sampled["a"], sampled["b"]) if metric == "auroc" else None,
            }
        )
    return rows


def _scored(one: measure.Resampled, metric: str) -> Scored:
    return Scored(one.value, one.draws) if metric == "auroc" else one.scores[metric]


def _contamination(side: ModelScores, group: measure.Group) -> str | None:
    for row in side.folder.rows:
        if (row["model"], row["task"], row["split"]) == (side.model, group.task, group.split):
            return row.get("contamination")
    return None


# --- as text -----------------------------------------------------------------------------------------------------


def comparison_text(found: dict[str, Any]) -> str:
    """The comparison as a table for a terminal."""
    head = (
        "split",
        "task",
        "metric",
        "n",
        "events",
        "A [95% CI]",
        "B [95% CI]",
        "A - B [95% CI]",
        "p",
        "Holm",
        "DeLong",
    )
    ordered = sorted(found["rows"], key=lambda row: (METRICS.index(row["metric"]), row["split"]))
    lines = [head, *map(_line, ordered)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    said = [
        f"{side.upper()}: {found[side]['model']} ({found[side]['checkpoint'] or 'checkpoint not known'}), "
        f"evaluation {found[side]['evaluation']}"
        for side in ("a", "b")
    ]
    notes = [
        f"95% CI: {found['interval']}, {found['bootstrap_resamples']:,} resamples, paired, seed {found['seed']}. "
        f"Holm: p corrected over the tasks of a split and metric. DeLong: paired, {found['resampled']}s as clusters.",
        f"Lower is better: {', '.join(LOWER_IS_BETTER)}. macro: mean of one-versus-rest over the classes with rows.",
    ]
    notes += [
        f"Left out, scored by {side[-1].upper()} alone: {', '.join(keys)}."
        for side, keys in found["left_out"].items()
        if keys
    ]
    tags = sorted({f"{row['task']}, {row['split']}" for row in found["rows"] if _is_tagged(row)})
    if tags:
        notes.append(f"Notes seen in training, or not known: {'; '.join(tags)}.")
    return "\n".join([*said, "", *table, "", *notes])


def _is_tagged(row: dict[str, Any]) -> bool:
    return any(row[key] in ("notes", "unknown") for key in ("contamination_a", "contamination_b"))


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    metric = row["metric"] if row["average"] is None else f"{row['metric']} ({row['average']})"
    events = "/".join(str(count) for count in row["events"].values())
    return (
        row["split"],
        row["task"],
        metric,
        f"{row['n']:,}",
        events,
        *(_number(row[side], row[f"{side}_ci_low"], row[f"{side}_ci_high"]) for side in ("a", "b")),
        _number(row["difference"], row["ci_low"], row["ci_high"], sign="+"),
        *(_p(row[name]) for name in ("p", "p_holm", "p_delong")),
    )


def _number(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    bounds = "" if low is None or high is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value:{sign}.3f}{bounds}"


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
