"""Baselines on the same rows, tuned on validation only: TF-IDF or table columns, boosting or logistic regression.

| baseline | features | model | tuned on validation |
|---|---|---|---|
| tfidf+xgboost | words and word pairs of the note, TF-IDF | boosted trees (hist) | shape, sampling, penalty, trees |
| tfidf+logistic | the same | L2 logistic regression, multinomial | C |
| columns+xgboost | the source's own columns, known at the time of the note | boosted trees | the same |

LACE, the fourth baseline, is lace.py's. The budget is `evaluate.baseline_trials` candidates a baseline and task: the
first are fixed (`SHAPES`, `STRENGTHS`), the others drawn by the seed from the ranges of `draw`. Every candidate is
fitted on train and the one with the highest validation AUROC is kept, as the language models are selected; all of them
stand in the manifest. No row is weighted: probabilities are those of the cohort. A split that is reported is only ever
predicted on. Left out: stop-word lists and stemming, since negations are stop words.

Memory: the vocabulary is chosen on at most VOCABULARY_NOTES training notes, since counting every word pair of all of
them is what takes memory; the weights (IDF) then come from all. Notes go through the vectorizer in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
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
BOOSTING = {"eta": 0.2, "subsample": 0.8, "columns": 0.5, "penalty": 1.0}
"""what the fixed candidates share: step, rows and columns a tree sees, L2 penalty of the leaves"""
TREES, PATIENCE = 400, 25
"""trees at most; trees without a lower validation loss before boosting stops"""
STRENGTHS = (0.3, 1.0, 3.0)
"""C of logistic regression"""
VOCABULARY_NOTES = 20_000
"""training notes that the vocabulary is chosen on, at most, drawn by hash"""
NOTES_A_BATCH = 4096
"""notes turned into counts at once"""
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


def fit(
    name: str, train: Labelled, val: Labelled, options: int, seed: int, threads: int, trials: int = 3
) -> Fitted | str:
    """The baseline `name`, chosen among `trials` candidates on `val`; or, as a text, why it cannot be fitted.

    Of equally good candidates the first is taken. `facts`: the chosen one's settings, `validation` (its AUROC),
    `train_rows`, and `trials`, the settings and validation AUROC of every candidate in order.
    """
    if len(np.unique(train.labels)) < 2:
        return "the training rows are all of one class"
    if headline_auroc(val.labels, np.ones((len(val.labels), options))) is None:
        return "the validation rows are all of one class: nothing to tune on"
    best, chosen, tried = -1.0, Fitted(lambda _: np.zeros(0), {}), list[dict[str, Any]]()
    boosts = name.endswith("xgboost")
    fitted = _boosting(train, val, options, seed, threads) if boosts else partial(_logistic, train, options)
    for candidate in draw(name, trials, seed):
        found = fitted(candidate)
        value = headline_auroc(val.labels, found.predict(val.features)) or 0.0
        tried.append(found.facts | {"validation": round(value, 6)})
        if value > best:  # one model at a time is held beside the best
            best, chosen = value, found
    facts = {"validation": round(best, 6), "train_rows": len(train.labels), "trials": tried}
    return Fitted(chosen.predict, chosen.facts | facts)


def draw(name: str, trials: int, seed: int) -> list[dict[str, Any]]:
    """The candidates of a baseline: the fixed ones first, then draws that depend on seed and place alone."""
    if name.endswith("logistic"):
        fixed: list[dict[str, Any]] = [{"C": strength} for strength in STRENGTHS]
    else:
        fixed = [{"depth": depth, "leaf_weight": weight, **BOOSTING} for depth, weight in SHAPES]
    drawn = []
    for place in range(len(fixed), trials):
        random = np.random.default_rng([seed, place])
        if name.endswith("logistic"):
            drawn.append({"C": _log_uniform(random, 0.01, 100.0)})
        else:
            drawn.append(
                {
                    "depth": int(random.integers(2, 9)),
                    "leaf_weight": _log_uniform(random, 0.1, 30.0),
                    "eta": _log_uniform(random, 0.05, 0.3),
                    "subsample": round(float(random.uniform(0.5, 1.0)), 4),
                    "columns": round(float(random.uniform(0.2, 1.0)), 4),
                    "penalty": _log_uniform(random, 0.3, 20.0),
                }
            )
    return (fixed + drawn)[:trials]


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(f"{np.exp(random.uniform(np.log(low), np.log(high))):.4g}")


def tfidf(train: Sequence[TaskRows], others: Sequence[TaskRows]) -> Features:
    """TF-IDF of words and word pairs for tasks that read notes of one type: each note is read once for all of them.

    Vocabulary and weights come from the training notes alone.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    known = _notes(train)
    new = {note: text for note, text in _notes(others).items() if note not in known}
    settings = {"ngram_range": (1, 2), "dtype": np.float32, "token_pattern": r"(?u)\b\w+\b"}
    sample = list(islice(known.values(), VOCABULARY_NOTES))  # notes come in the order of their hashes
    counter = CountVectorizer(**settings, vocabulary=_vocabulary(sample, settings))

    def count(texts: Iterable[str]) -> Any:
        rest = iter(texts)
        return vstack([counter.transform(batch) for batch in iter(lambda: list(islice(rest, NOTES_A_BATCH)), [])])

    counted = count(known.values())
    weights = TfidfTransformer(sublinear_tf=True).fit(counted)
    matrix = weights.transform(vstack([counted, count(new.values())]) if new else counted, copy=False).tocsr()
    del counted
    place = {note: i for i, note in enumerate([*known, *new])}
    return lambda rows: matrix[[place[note] for note in rows.strings("note_hash")]]


def _vocabulary(texts: list[str], settings: dict[str, Any]) -> dict[str, int]:
    """The FEATURES most frequent words and word pairs of the texts, of those that at least five notes have."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(**settings, max_features=FEATURES, min_df=min(5, len(texts)))
    try:
        vectorizer.fit(texts)
    except ValueError:  # too few notes share a word: take every word
        vectorizer.set_params(min_df=1).fit(texts)
    vocabulary: dict[str, int] = vectorizer.vocabulary_
    return vocabulary


def _notes(parts: Sequence[TaskRows]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        found.update(zip(part.strings("note_hash"), part.strings("text"), strict=True))
    return dict(sorted(found.items()))


def columns(records: Path, train: Sequence[TaskRows], others: Sequence[TaskRows]) -> Features | str:
    """The source's columns as numbers, levels of text columns as codes by frequency in train; or why there are none.

    Only the rows of these tasks are read into memory.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    folder = records / FEATURE_TABLES.get(train[0].note_type, "features")
    if not folder.is_dir():
        return f"the records have no table {folder.name}"
    wanted = sorted({encounter for part in (*train, *others) for encounter in part.strings("encounter_id")})
    is_wanted = pc.field("encounter_id").isin(pa.array(wanted, pa.string()))
    table = ds.dataset(folder, format="parquet").to_table(filter=is_wanted)
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


def _logistic(train: Labelled, options: int, candidate: dict[str, Any]) -> Fitted:
    from sklearn.linear_model import LogisticRegression

    # a looser tolerance stops before it has learnt a rare outcome: 0.60 for 0.82 on denial
    model = LogisticRegression(C=candidate["C"], max_iter=1000, tol=1e-4)
    model.fit(train.features, train.labels)

    def predict(features: Any) -> Floats:
        p_NK = np.zeros((features.shape[0], options))
        p_NK[:, model.classes_] = model.predict_proba(features)
        return p_NK

    return Fitted(predict, candidate)


def _boosting(
    train: Labelled, val: Labelled, options: int, seed: int, threads: int
) -> Callable[[dict[str, Any]], Fitted]:
    """Candidate to fitted trees; the rows are binned once for all of them."""
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
        "nthread": threads,
        "seed": seed,
        "verbosity": 0,
        **(
            {"objective": "binary:logistic", "eval_metric": "logloss"}
            if options == 2
            else {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": options}
        ),
    }
    learned, tuned = matrix(train.features, train.labels), matrix(val.features, val.labels)

    def fitted(candidate: dict[str, Any]) -> Fitted:
        chosen = {
            "max_depth": candidate["depth"],
            "eta": candidate["eta"],
            "subsample": candidate["subsample"],
            "colsample_bytree": candidate["columns"],
            "min_child_weight": candidate["leaf_weight"],
            "lambda": candidate["penalty"],
        }
        model = xgb.train(
            settings | chosen,
            learned,
            TREES,
            evals=[(tuned, "val")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        rounds = model.best_iteration + 1

        def predict(features: Any) -> Floats:
            rows = tuned if features is val.features else matrix(features)
            p = model.predict(rows, iteration_range=(0, rounds)).astype(np.float64)
            return np.column_stack([1 - p, p]) if options == 2 else p

        return Fitted(predict, candidate | {"trees": rounds})

    return fitted


def _narrow(train: Labelled) -> Callable[[Any], Any]:
    """The sparse columns that trees see: trees on all of them cost ten times as much and rank no better."""
    if isinstance(train.features, tuple) or train.features.shape[1] <= BOOSTED_FEATURES:
        return lambda features: features
    from sklearn.feature_selection import SelectKBest, chi2

    selected = SelectKBest(chi2, k=BOOSTED_FEATURES).fit(train.features, train.labels)
    return lambda features: selected.transform(features)
