"""One feature alone: how well note length, hour of signing, author role or department predicts the label.

None of them is a reason; one that predicts well says that how the note came to be depends on the outcome. The model is
the label's rate by value (numbers in twenty quantile bins), smoothed towards the overall rate, learnt on train and
measured on the test split; several classes are set one against the rest and averaged. The interval resamples patients.
At most TRAIN_ROWS and TEST_ROWS are read, drawn by hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lang1.metrics.bootstrap import bootstrap_auroc, interval, rank
from lang1.metrics.ranking import Floats, Ints, auroc
from lang1.tasks.audit_rows import Finding, Rows, Scope

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

FEATURES = {"note length": "text", "hour of signing": "", "author role": "author_role", "department": "department"}
"""feature: the column of the rows that it needs; the hour may come from the records"""
TRAIN_ROWS, TEST_ROWS = 100_000, 20_000
BINS = 20
SMOOTHING = 20.0
"""rows of the overall rate that each value starts with"""
RESAMPLES = 200
_COMPARED = "what each feature alone says of the label, learnt on train"


def check_one_feature(database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows) -> Finding:
    """The best of the features that the rows and records have."""
    lacking = rows.lacks("label", "patient_id")
    measured = None if lacking else _measured_split(database)
    if lacking or measured is None:
        why = lacking or "there are no rows in train, or none in test and temporal_2"
        return scope.unknown("one_feature", rows.task, _COMPARED, rows.n, why)
    train, test = _read(database, "train", TRAIN_ROWS), _read(database, measured, TEST_ROWS)
    details = [_measure(name, train, test, len(rows.options), scope.seed) for name in FEATURES]
    known = [d for d in details if d["auroc"] is not None]
    if not known:
        why = "no feature varies, or the labels are all of one class"
        return scope.unknown("one_feature", rows.task, _COMPARED, rows.n, why)
    threshold = scope.cfg.one_feature_auroc
    high = [d for d in known if d["ci_low"] is not None and d["ci_low"] >= threshold]
    best = max(known, key=lambda d: d["auroc"])
    why = f"{best['feature']} is the best: AUROC {best['auroc']:.3f} on {measured}"
    return scope.report("one_feature", rows.task, _COMPARED, rows.n, best["auroc"], threshold, details, bool(high), why)


def _measured_split(database: duckdb.DuckDBPyConnection) -> str | None:
    """The split to measure on: test, or where it has no rows the latest window."""
    found = {str(s) for (s,) in database.execute("SELECT DISTINCT split FROM audit_rows").fetchall()}
    return next((s for s in ("test", "temporal_2", "temporal_1", "val") if s in found and "train" in found), None)


def _read(database: duckdb.DuckDBPyConnection, split: str, most: int) -> dict[str, Any]:
    """Arrays by name, of at most so many rows."""
    found: dict[str, Any] = database.sql(
        """
        SELECT label, audit_rows.patient_id, characters, hour(coalesce(notes.signed_time, prediction_time)) AS hour,
            coalesce(audit_rows.author_role, notes.author_role) AS author_role, audit_rows.department
        FROM (SELECT * FROM audit_rows WHERE split = ? AND label IS NOT NULL AND patient_id IS NOT NULL
              ORDER BY md5(row_id), row_id LIMIT ?) AS audit_rows
        LEFT JOIN audit_used AS notes USING (note_id)
        ORDER BY row_id
        """,
        params=[split, most],
    ).to_arrow_table()
    return {
        "labels": found["label"].to_numpy().astype(np.int64),
        "patients": np.array(found["patient_id"].to_pylist(), dtype=object),
        "note length": _numbers(found["characters"]),
        "hour of signing": _numbers(found["hour"]),
        "author role": _levels(found["author_role"]),
        "department": _levels(found["department"]),
    }


def _numbers(column: Any) -> Floats:
    import pyarrow as pa

    values: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _levels(column: Any) -> NDArray[np.object_]:
    return np.array(["" if value is None else value for value in column.to_pylist()], dtype=object)


def _measure(name: str, train: dict[str, Any], test: dict[str, Any], options: int, seed: int) -> dict[str, Any]:
    """AUROC of one feature with its interval; null where it has one value only or the labels one class."""
    blank: dict[str, Any] = {"feature": name, "auroc": None, "ci_low": None, "ci_high": None}
    known, asked = _codes(train[name], test[name])
    if len(np.unique(known)) < 2 or not len(test["labels"]):
        return blank
    _, clusters = np.unique(test["patients"].astype(str), return_inverse=True)
    values, rankings = [], []
    for k in [1] if options == 2 else range(options):
        positive = test["labels"] == k
        scores = _rates(known, train["labels"] == k)[asked]
        values.append(auroc(positive, scores))
        rankings.append(rank(positive, scores, clusters.astype(np.int64)))
    present = [i for i, value in enumerate(values) if value is not None]
    if not present:
        return blank
    draws = bootstrap_auroc(rankings, int(clusters.max()) + 1, resamples=RESAMPLES, seed=seed, name=f"audit/{name}")
    value = float(np.mean([values[i] for i in present]))
    bounds = interval(value, draws[:, present].mean(axis=1))
    rounded = [None if bound is None else round(bound, 4) for bound in (value, bounds.low, bounds.high)]
    return dict(zip(blank, [name, *rounded], strict=True))


def _codes(train: NDArray[Any], test: NDArray[Any]) -> tuple[Ints, Ints]:
    """The values as whole numbers from 0; the last is for what train does not have."""
    if train.dtype == object:
        levels = np.unique(train.astype(str))
        place = np.searchsorted(levels, test.astype(str))
        found = levels[np.minimum(place, len(levels) - 1)] == test.astype(str)
        return np.searchsorted(levels, train.astype(str)), np.where(found, place, len(levels))
    filled = train[~np.isnan(train)]
    edges = np.unique(np.quantile(filled, np.linspace(0, 1, BINS + 1)[1:-1])) if len(filled) else np.array([])
    sides = [np.where(np.isnan(v), len(edges) + 1, np.searchsorted(edges, v, "right")) for v in (train, test)]
    return sides[0].astype(np.int64), sides[1].astype(np.int64)


def _rates(codes: Ints, positive: NDArray[np.bool_]) -> Floats:
    """Smoothed rate of each code, and of one more code that no row has."""
    size = int(codes.max()) + 2
    n = np.bincount(codes, minlength=size + 1)
    hits = np.bincount(codes, weights=positive.astype(np.float64), minlength=size + 1)
    rates: Floats = (hits + SMOOTHING * positive.mean()) / (n + SMOOTHING)
    return rates
