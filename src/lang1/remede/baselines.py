"""Baselines on the same rows, tuned on validation only: TF-IDF or table columns, boosting or logistic regression.

| baseline | features | model | tuned on validation |
|---|---|---|---|
| tfidf+xgboost | words and word pairs of the note, TF-IDF | boosted trees (hist) | depth, leaf weight, trees |
| tfidf+logistic | the same | L2 logistic regression, multinomial | C |
| columns+xgboost | the source's own columns, known at the time of the note | boosted trees | the same |

The budget is in `SHAPES` and `STRENGTHS`: every candidate is fitted on train and the one with the highest
validation AUROC is kept, as the language models are selected. No row is weighted: probabilities are those of the
cohort. A split that is reported is only ever predicted on. Left out: stop-word lists and stemming, since negations
are stop words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang1.metrics.ranking import Ints, headline_auroc
from lang1.remede.rows import TaskRows
from lang1.remede.scores import Floats

FEATURES = 20_000
"""words and word pairs, the most frequent"""
BOOSTED_FEATURES = 1500
"""of these, what the trees see: the highest chi-squared with the training labels"""
SHAPES = ((2, 0.2), (4, 0.2), (2, 10.0))
"""(depth, least weight of a leaf): light leaves let trees find a class of a few rows, heavy ones keep out noise"""
TREES, PATIENCE = 400, 25
STRENGTHS = (0.3, 1.0, 3.0)
LEVELS = 100
"""most frequent values of a text column that keep a code of their own"""
FEATURE_TABLES = {"H&P": "features_admission", "discharge summary": "features_discharge"}
"""which table of the records holds what was known when a note of this type was written"""

Predict = Callable[[Any], Floats]
Features = Callable[[TaskRows], Any]
"""rows to a sparse matrix, or to (values, column kinds)"""


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
        else [_boosting(train, val, options, shape, seed, threads) for shape in SHAPES]
    )
    scored = [(headline_auroc(val.labels, c.predict(val.features)) or 0.0, c) for c in candidates]
    best, chosen = max(scored, key=lambda pair: pair[0])
    return Fitted(chosen.predict, {**chosen.facts, "validation": round(best, 6), "train_rows": len(train.labels)})


def tfidf(train: Sequence[TaskRows], others: Sequence[TaskRows]) -> Features:
    """TF-IDF of words and word pairs for tasks that read notes of one type: each note is read once for all of them.

    Vocabulary and weights come from the training notes alone.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = _notes(train)
    new = {note: text for note, text in _notes(others).items() if note not in known}
    settings = {"ngram_range": (1, 2), "max_features": FEATURES, "sublinear_tf": True, "dtype": np.float32}
    vectorizer = TfidfVectorizer(**settings, min_df=min(5, len(known)), token_pattern=r"(?u)\b\w+\b")
    try:
        learned = vectorizer.fit_transform(known.values())
    except ValueError:  # too few notes share a word: take every word
        learned = vectorizer.set_params(min_df=1).fit_transform(known.values())
    matrix = vstack([learned, vectorizer.transform(new.values())]).tocsr() if new else learned
    place = {note: i for i, note in enumerate([*known, *new])}
    return lambda rows: matrix[[place[note] for note in rows.strings("note_hash")]]


def _notes(parts: Sequence[TaskRows]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        found.update(zip(part.strings("note_hash"), part.strings("text"), strict=True))
    return dict(sorted(found.items()))


def columns(records: Path, train: Sequence[TaskRows]) -> Features | str:
    """The source's columns as numbers, levels of text columns as codes by frequency in train; or why there are none."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    folder = records / FEATURE_TABLES.get(train[0].note_type, "features")
    if not folder.is_dir():
        return f"the records have no table {folder.name}"
    table = ds.dataset(folder, format="parquet").to_table()
    names = [name for name in table.column_names if name != "encounter_id"]
    place = {encounter: i for i, encounter in enumerate(table["encounter_id"].to_pylist())}

    def take(rows: TaskRows) -> pa.Table:
        return table.take(pa.array([place.get(e) for e in rows.strings("encounter_id")], pa.int64()))

    known = pa.concat_tables([take(part) for part in train])
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

    # a looser tolerance stops before it has learnt a rare outcome: 0.60 for 0.82 on denial
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-4)
    model.fit(train.features, train.labels)

    def predict(features: Any) -> Floats:
        p_NK = np.zeros((features.shape[0], options))
        p_NK[:, model.classes_] = model.predict_proba(features)
        return p_NK

    return Fitted(predict, {"C": strength})


def _boosting(
    train: Labelled, val: Labelled, options: int, shape: tuple[int, float], seed: int, threads: int
) -> Fitted:
    import xgboost as xgb

    narrowed = _narrow(train)

    def matrix(features: Any, labels: Ints | None = None) -> xgb.DMatrix:
        if isinstance(features, tuple):
            values, kinds = features
            return xgb.DMatrix(values, labels, feature_types=kinds, enable_categorical=True, nthread=threads)
        return xgb.DMatrix(narrowed(features), labels, nthread=threads)

    settings = {
        "tree_method": "hist",
        "max_bin": 32,
        "max_depth": shape[0],
        "eta": 0.2,
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "min_child_weight": shape[1],
        "nthread": threads,
        "seed": seed,
        "verbosity": 0,
        **(
            {"objective": "binary:logistic", "eval_metric": "logloss"}
            if options == 2
            else {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": options}
        ),
    }
    model = xgb.train(
        settings,
        matrix(train.features, train.labels),
        TREES,
        evals=[(matrix(val.features, val.labels), "val")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    rounds = model.best_iteration + 1

    def predict(features: Any) -> Floats:
        p = model.predict(matrix(features), iteration_range=(0, rounds)).astype(np.float64)
        return np.column_stack([1 - p, p]) if options == 2 else p

    return Fitted(predict, {"depth": shape[0], "leaf_weight": shape[1], "trees": rounds})


def _narrow(train: Labelled) -> Callable[[Any], Any]:
    """The sparse columns that trees see: trees on all of them cost ten times as much and rank no better."""
    if isinstance(train.features, tuple) or train.features.shape[1] <= BOOSTED_FEATURES:
        return lambda features: features
    from sklearn.feature_selection import SelectKBest, chi2

    selected = SelectKBest(chi2, k=BOOSTED_FEATURES).fit(train.features, train.labels)
    return lambda features: selected.transform(features)
