"""Baselines on the same rows, tuned on validation only: TF-IDF or table columns, boosting or logistic regression.

| baseline | features | model | tuned on validation |
|---|---|---|---|
| tfidf+xgboost | words and word pairs of the note, TF-IDF | boosted trees (hist) | depth, number of trees |
| tfidf+logistic | the same | L2 logistic regression, multinomial | C |
| columns+xgboost | the source's own columns, known at the time of the note | boosted trees | depth, number of trees |

The budget is in `DEPTHS` and `STRENGTHS`: every candidate is fitted on train and the one with the highest
validation AUROC is kept, as the language models are selected. No row is weighted: probabilities are those of the
cohort. A split that is reported is only ever predicted on. Left out: stop-word lists and stemming (negations are
stop words), and more than `FEATURES` word pairs, which cost minutes and gained nothing on the simulated hospital.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang1.metrics.ranking import Ints, headline_auroc
from lang1.remede.rows import TaskRows
from lang1.remede.scores import Floats

FEATURES = 20_000
DEPTHS = (2, 5)
TREES, PATIENCE = 400, 20
STRENGTHS = (0.3, 3.0)
LEVELS = 100
"""most frequent values of a text column that keep a code of their own"""
FEATURE_TABLES = {"H&P": "features_admission", "discharge summary": "features_discharge"}
"""which table of the records holds what was known when a note of this type was written"""

Predict = Callable[[Any], Floats]


@dataclass(frozen=True)
class Fitted:
    """A baseline that can predict, and how it was chosen."""

    predict: Predict
    """features to probabilities (rows, options)"""
    facts: dict[str, Any]


@dataclass(frozen=True)
class Labelled:
    """Features with their labels."""

    features: Any
    labels: Ints


def fit(name: str, train: Labelled, val: Labelled, options: int, seed: int, threads: int) -> Fitted | str:
    """The baseline `name`, chosen on `val`; or, as a text, why it cannot be fitted."""
    if len(np.unique(train.labels)) < 2:
        return "the training rows are all of one class"
    if headline_auroc(val.labels, np.ones((len(val.labels), options))) is None:
        return "the validation rows are all of one class: nothing to tune on"
    candidates = (
        [_logistic(train, options, c) for c in STRENGTHS]
        if name.endswith("logistic")
        else [_boosting(train, val, options, depth, seed, threads) for depth in DEPTHS]
    )
    scored = [(headline_auroc(val.labels, c.predict(val.features)) or 0.0, c) for c in candidates]
    best, chosen = max(scored, key=lambda pair: pair[0])
    return Fitted(chosen.predict, {**chosen.facts, "validation": round(best, 6), "train_rows": len(train.labels)})


def tfidf(train: TaskRows) -> Callable[[TaskRows], Any]:
    """TF-IDF of words and word pairs, vocabulary and weights from the training notes."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=5, max_features=FEATURES, sublinear_tf=True, dtype=np.float32,
        token_pattern=r"(?u)\b\w+\b",
    )
    try:
        vectorizer.fit(train.strings("text"))
    except ValueError:  # too few notes for min_df: take every word
        vectorizer.set_params(min_df=1).fit(train.strings("text"))
    return lambda rows: vectorizer.transform(rows.strings("text"))


def columns(records: Path, train: TaskRows) -> Callable[[TaskRows], Any] | str:
    """The source's columns as numbers, levels of text columns as codes by frequency in train; or why there are none."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    note_type = train.table["note_type"][0].as_py()
    folder = records / FEATURE_TABLES.get(note_type, "features")
    if not folder.is_dir():
        return f"the records have no table {folder.name}"
    table = ds.dataset(folder, format="parquet").to_table()
    names = [name for name in table.column_names if name != "encounter_id"]
    place = {encounter: i for i, encounter in enumerate(table["encounter_id"].to_pylist())}

    def take(rows: TaskRows) -> pa.Table:
        return table.take(pa.array([place.get(e) for e in rows.strings("encounter_id")], pa.int64()))

    known = take(train)
    codes = {name: _codes(known[name]) for name in names if _is_text(known[name].type)}

    def features(rows: TaskRows) -> tuple[Floats, list[str]]:
        taken = take(rows)
        values = [
            np.array([codes[name].get(value, np.nan) for value in taken[name].to_pylist()], dtype=np.float64)
            if name in codes
            else taken[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in names
        ]
        return np.column_stack(values), ["c" if name in codes else "q" for name in names]

    return features


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _codes(column: Any) -> dict[str, float]:
    values = [value for value in column.to_pylist() if value is not None]
    levels, counts = np.unique(values, return_counts=True) if values else (np.array([]), np.array([]))
    order = np.lexsort((levels, -counts))[:LEVELS]
    return {str(levels[i]): float(code) for code, i in enumerate(order)}


def _logistic(train: Labelled, options: int, strength: float) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    model.fit(train.features, train.labels)

    def predict(features: Any) -> Floats:
        p_NK = np.zeros((features.shape[0], options))
        p_NK[:, model.classes_] = model.predict_proba(features)
        return p_NK

    return Fitted(predict, {"C": strength})


def _boosting(train: Labelled, val: Labelled, options: int, depth: int, seed: int, threads: int) -> Fitted:
    import xgboost as xgb

    def matrix(features: Any, labels: Ints | None = None) -> xgb.DMatrix:
        if isinstance(features, tuple):
            values, types = features
            return xgb.DMatrix(values, labels, feature_types=types, enable_categorical=True, nthread=threads)
        return xgb.DMatrix(features, labels, nthread=threads)

    settings = {
        "tree_method": "hist", "max_bin": 64, "max_depth": depth, "eta": 0.1, "subsample": 0.8,
        "colsample_bytree": 0.5, "min_child_weight": 2, "nthread": threads, "seed": seed, "verbosity": 0,
        **({"objective": "binary:logistic", "eval_metric": "logloss"} if options == 2
           else {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": options}),
    }
    model = xgb.train(
        settings, matrix(train.features, train.labels), TREES, evals=[(matrix(val.features, val.labels), "val")],
        early_stopping_rounds=PATIENCE, verbose_eval=False,
    )
    rounds = model.best_iteration + 1

    def predict(features: Any) -> Floats:
        p = model.predict(matrix(features), iteration_range=(0, rounds)).astype(np.float64)
        return np.column_stack([1 - p, p]) if options == 2 else p

    return Fitted(predict, {"depth": depth, "trees": rounds})
