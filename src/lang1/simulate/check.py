"""What can be read from the simulated notes, and how: ceilings, one-word rules, bags of words, length, hour, author.

`python -m lang1.simulate.check FOLDER` prints a table for the folder that `lang1 simulate` wrote; with `--rates`, only
the shares of the classes, over all rows. The labels are made here from the warehouse by the plain rules of
reference/field.md section 4, apart from the code of the tasks room, so that a fault in either shows. Shares are
(AUROC - 0.5) / (ceiling - 0.5), macro one-versus-rest where there are more than two classes; a model is fitted on two
thirds of the patients and measured on the rest, three times.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lang1.errors import InputError

Array = npt.NDArray[Any]
TASKS = ("readmission", "mortality", "los", "cci", "denial")
OPTIONS = {"readmission": 2, "mortality": 2, "los": 4, "cci": 5, "denial": 2}
EXCLUDED = ("rehabilitation", "dialysis", "palliative care")
_MARKUP = re.compile(r"<[^>]+>|\\par\n?|\\u\d+\?|\{\\rtf1.*?\\fs20 |\\|[{}]", re.S)


@dataclass(frozen=True)
class Rows:
    """A task's rows: text, label, true probabilities, and what must not help to guess the label."""

    texts: list[str]
    labels: Array
    truth: Array
    patients: Array
    years: Array
    hours: Array
    authors: Array


def read_rows(folder: Path, limit: int | None = None) -> Iterator[tuple[str, Rows]]:
    """Rows of each task in turn; `limit` keeps the first so many encounters by patient."""
    import duckdb

    for name in ("warehouse.duckdb", "truth.parquet"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: not found; give the folder that lang1 simulate wrote")
    connection = duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True)
    try:
        stays = connection.execute(_STAYS).fetchnumpy()
        notes: dict[int, tuple[Any, ...]] = {}
        read = ""
        for task in TASKS:  # one kind of note in memory at a time: readmission's comes first
            kind = "discharge summary" if task == "readmission" else "H&P"
            if kind != read:
                notes, read = dict(_notes(connection, kind)), kind
            yield task, _rows(task, stays, _labels(connection, task, stays), _truth(folder, task), notes, limit)
    finally:
        connection.close()


# One row a stay: visits less than a day apart are one (transfers). The end of an open stay is null.
_STAYS = """
WITH v AS (
    SELECT *, lag(visit_end_datetime) OVER w AS last_end FROM visit_occurrence WHERE visit_concept_id = 9201
    WINDOW w AS (PARTITION BY person_id ORDER BY visit_start_datetime, visit_occurrence_id)
), m AS (
    SELECT *, sum(CASE WHEN last_end IS NULL OR visit_start_datetime - last_end >= INTERVAL 24 HOUR THEN 1 ELSE 0 END)
        OVER (PARTITION BY person_id ORDER BY visit_start_datetime, visit_occurrence_id) AS stay FROM v
)
SELECT person_id, min(visit_occurrence_id) AS visit, max(visit_occurrence_id) AS last_visit,
    min(visit_start_datetime) AS admit, max(visit_end_datetime) AS discharge,
    arg_max(m.discharged_to_source_value, visit_start_datetime) AS place,
    arg_min(c.place_of_service_source_value, visit_start_datetime) AS service,
    date_diff('day', min(visit_start_datetime), max(visit_end_datetime)) AS days
FROM m JOIN care_site c USING (care_site_id) GROUP BY person_id, stay ORDER BY person_id, admit
"""


def _notes(connection: Any, kind: str) -> list[tuple[int, tuple[Any, ...]]]:
    rows = connection.execute(
        "SELECT n.visit_occurrence_id, note_text, note_signed_datetime, p.specialty_source_value FROM note n "
        "JOIN provider p USING (provider_id) WHERE note_title = ? AND note_signed_datetime IS NOT NULL "
        "ORDER BY note_id", [kind]
    ).fetchall()  # fmt: skip
    return [(visit, (_MARKUP.sub(" ", text), signed, role)) for visit, text, signed, role in rows]


def _labels(connection: Any, task: str, stays: dict[str, Array]) -> Array:
    """Label of each stay, -1 where it has none."""
    ended = ~_missing(stays["discharge"])
    if task == "mortality":
        return np.where(ended, stays["place"] == "Expired", -1)
    if task == "los":
        return np.where(ended, np.searchsorted([2, 3, 5], stays["days"]), -1)
    if task == "readmission":
        same = np.append(stays["person_id"][1:] == stays["person_id"][:-1], False)
        gap = np.append(stays["admit"][1:], stays["admit"][-1:]) - stays["discharge"]
        soon = same & (gap > np.timedelta64(0)) & (gap <= np.timedelta64(30 * 24, "h"))
        followed = stays["discharge"] <= stays["discharge"][ended].max() - np.timedelta64(30, "D")
        kept = ended & followed & (stays["place"] != "Expired") & ~np.isin(stays["service"].astype(str), EXCLUDED)
        return np.where(kept, soon, -1)
    found = dict(connection.execute(_CLAIMS if task == "denial" else _SCORES).fetchall())
    return np.array([found.get(int(visit), -1) for visit in stays["visit"]])


_CLAIMS = """
SELECT visit_occurrence_id, CASE WHEN claim_status LIKE 'final%' THEN 1 ELSE 0 END FROM claim
WHERE claim_status <> 'pending'
"""
_SCORES = """
WITH c AS (SELECT DISTINCT visit_occurrence_id AS visit, replace(condition_source_value, '.', '') AS code
           FROM condition_occurrence),
k AS (SELECT visit, {flags} FROM c GROUP BY visit)
SELECT visit, CASE WHEN s = 0 THEN 0 WHEN s <= 2 THEN 1 WHEN s <= 4 THEN 2 WHEN s <= 7 THEN 3 ELSE 4 END FROM
(SELECT visit, {score} AS s FROM k)
"""


def _score_sql() -> str:
    from lang1.simulate.tables import CHARLSON
    from lang1.simulate.truth import CCI_GROUPS

    weight = {condition.name: condition.weight for condition in CHARLSON}
    flags = []
    for condition in CHARLSON:
        codes = ", ".join("'" + code.replace(".", "") + "'" for code in (*condition.icd9, *condition.icd10))
        flags.append(f"bool_or(code IN ({codes})) AS {condition.name}")
    scores = []
    for group in CCI_GROUPS:
        cases = " ".join(f"WHEN {name} THEN {weight[name]}" for name in group)
        scores.append(f"CASE {cases} ELSE 0 END")
    return _SCORES.format(flags=", ".join(flags), score=" + ".join(scores))


_SCORES = _score_sql()


def _truth(folder: Path, task: str) -> dict[str, list[float]]:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "truth.parquet", filters=[("task", "=", task)])
    columns = [table.column(f"p_{k}").to_pylist() for k in range(OPTIONS[task])]
    return dict(zip(table.column("encounter_id").to_pylist(), map(list, zip(*columns, strict=True)), strict=True))


def _missing(times: Array) -> Array:
    mask = np.ma.getmaskarray(times)
    return mask | np.isnat(np.ma.getdata(times))


def _rows(
    task: str,
    stays: dict[str, Array],
    labels: Array,
    truth: dict[str, list[float]],
    notes: dict[int, tuple[Any, ...]],
    limit: int | None,
) -> Rows:
    kept: list[tuple[Any, ...]] = []
    ended = ~_missing(stays["discharge"])
    years = stays["admit"].astype("M8[Y]").astype(int) + 1970
    for k, label in enumerate(labels.tolist()):
        visit = int(stays["visit"][k])
        note = notes.get(int(stays["last_visit"][k]) if task == "readmission" else visit)
        if label < 0 or note is None or len(note[0].split()) < 10:
            continue
        text, signed, role = note
        if task != "readmission":
            late = np.datetime64(signed) - stays["admit"][k] > np.timedelta64(120, "h")
            if late or (ended[k] and np.datetime64(signed) >= stays["discharge"][k]):
                continue
        kept.append((text, label, truth[str(visit)], int(stays["person_id"][k]), years[k], signed.hour, role))
        if limit is not None and len(kept) >= limit:
            break
    texts, *columns = zip(*kept, strict=True)
    return Rows(list(texts), *map(np.array, columns))


# --- measures ------------------------------------------------------------------------------------------------------


def auroc(labels: Array, scores: Array) -> float:
    """Area under the curve by ranks; 0.5 where a class is absent."""
    from scipy.stats import rankdata

    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[labels.astype(bool)].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _classes(labels: Array) -> list[int]:
    present = np.unique(labels).tolist()
    return present if len(present) > 2 else [1]


def macro_auroc(labels: Array, probabilities: Array) -> float:
    """AUROC, or its mean over one-versus-rest where there are more than two classes."""
    return float(np.mean([auroc(labels == k, probabilities[:, k]) for k in _classes(labels)]))


def _common(labels: Array, least: int = 100) -> list[int]:
    """Classes with enough rows for a distance from 0.5 that is not chance alone."""
    return [k for k in _classes(labels) if (labels == k).sum() >= least] or _classes(labels)


def one_way(labels: Array, values: Array) -> float:
    """How far a single number can tell the classes apart: mean distance of its AUROC from 0.5, common classes."""
    return float(np.mean([abs(auroc(labels == k, values) - 0.5) for k in _common(labels)]))


def best_word(rows: Rows, least: int = 20) -> tuple[float, str]:
    """The best rule "the note has this word": mean distance of its AUROC from 0.5, and the word."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(binary=True, min_df=least, token_pattern=r"\b\w+\b")
    has = counter.fit_transform(rows.texts).tocsc().astype(np.float64)
    gain = np.zeros(has.shape[1])
    classes = _classes(rows.labels)
    for k in classes:
        inside = rows.labels == k
        within = np.asarray(has[inside].mean(axis=0)).ravel()
        outside = np.asarray(has[~inside].mean(axis=0)).ravel()
        gain += np.abs(within - outside) / 2 / len(classes)
    best = int(gain.argmax())
    return float(gain[best]), str(counter.get_feature_names_out()[best])


def by_author(rows: Rows) -> float:
    """What the author's role tells: each role scored by the other half's rate."""
    half = rows.patients % 2 == 0
    distance = []
    for k in _common(rows.labels):
        scores = np.zeros(len(rows.labels))
        for here, there in ((half, ~half), (~half, half)):
            for role in np.unique(rows.authors):
                other = there & (rows.authors == role)
                scores[here & (rows.authors == role)] = (rows.labels[other] == k).mean() if other.any() else 0.0
        distance.append(abs(auroc(rows.labels == k, scores) - 0.5))
    return float(np.mean(distance))


def bag_of_words(rows: Rows, kind: str) -> tuple[float, float]:
    """AUROC of a bag-of-words model ("logistic" or "boosting") and of the truth on the same rows, mean of 3 parts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    found, ceilings = [], []
    for part in range(3):
        held = rows.patients % 3 == part
        vectors = TfidfVectorizer(min_df=3, sublinear_tf=True)
        train = vectors.fit_transform([text for text, out in zip(rows.texts, held, strict=True) if not out])
        test = vectors.transform([text for text, out in zip(rows.texts, held, strict=True) if out])
        best = 0.0
        for model in _models(kind, rows.truth.shape[1]):
            model.fit(train, rows.labels[~held])
            probabilities = np.zeros((int(held.sum()), rows.truth.shape[1]))
            probabilities[:, model.classes_.astype(int)] = model.predict_proba(test)
            best = max(best, macro_auroc(rows.labels[held], probabilities))
        found.append(best)
        ceilings.append(macro_auroc(rows.labels[held], rows.truth[held]))
    return float(np.mean(found)), float(np.mean(ceilings))


def _models(kind: str, options: int) -> list[Any]:
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression

        return [LogisticRegression(C=c, max_iter=300) for c in ((1.0, 4.0) if options == 2 else (3.0,))]
    from xgboost import XGBClassifier

    return [XGBClassifier(n_estimators=200 if options == 2 else 80, max_depth=4, learning_rate=0.15, subsample=0.8,
                          colsample_bytree=0.3, tree_method="hist", n_jobs=1, random_state=0)]  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What one task's notes give away."""

    task: str
    rows: int
    rates: tuple[float, ...]
    expected: tuple[float, ...]
    """mean true probabilities: near `rates` when the truth is calibrated"""
    ceiling: float
    word: str
    word_share: float
    bag_share: float
    """the better bag of words"""
    length: float
    """mean distance of AUROC from 0.5"""
    hour: float
    author: float


def measure(task: str, rows: Rows, kinds: tuple[str, ...] = ("logistic", "boosting")) -> Reading:
    """All measures of one task."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        ceiling = macro_auroc(rows.labels, rows.truth)
        gain, word = best_word(rows, least=max(5, len(rows.labels) // 1000))
        bags = [(value - 0.5) / (top - 0.5) for value, top in (bag_of_words(rows, kind) for kind in kinds)]
    lengths = np.array([text.count(" ") for text in rows.texts])
    rates = np.bincount(rows.labels, minlength=rows.truth.shape[1]) / len(rows.labels)
    return Reading(
        task,
        len(rows.labels),
        tuple(rates.round(4).tolist()),
        tuple(rows.truth.mean(axis=0).round(4).tolist()),
        ceiling,
        word,
        gain / (ceiling - 0.5),
        max(bags, default=0.0),
        one_way(rows.labels, lengths),
        one_way(rows.labels, rows.hours),
        by_author(rows),
    )


def _print_rates(folder: Path) -> None:
    """Shares of the classes over all rows of the folder, beside the mean of their true probabilities."""
    print(f"{'task':12} {'rows':>8}  shares / expected")
    for task, rows in read_rows(folder):
        shares = np.bincount(rows.labels, minlength=rows.truth.shape[1]) / len(rows.labels)
        found, expected = (" ".join(f"{x:.5f}" for x in values) for values in (shares, rows.truth.mean(axis=0)))
        print(f"{task:12} {len(rows.labels):8d}  {found} / {expected}", flush=True)


def main(arguments: list[str]) -> None:
    """Print the table."""
    folder, *numbers = (argument for argument in arguments if not argument.startswith("--"))
    if "--rates" in arguments:
        _print_rates(Path(folder))
        return
    limit = int(numbers[0]) if numbers else 20_000
    kinds = ("logistic",) if "--fast" in arguments else ("logistic", "boosting")
    print(f"{'task':12} {'rows':>6} ceiling  word  bag   length hour  author  rates / expected")
    for task, rows in read_rows(Path(folder), limit):
        r = measure(task, rows, kinds)
        rates, expected = (" ".join(f"{x:.4f}" for x in values) for values in (r.rates, r.expected))
        print(
            f"{task:12} {r.rows:6d} {r.ceiling:7.3f} {r.word_share:5.2f} {r.bag_share:5.2f}  {r.length:6.3f} "
            f"{r.hour:5.3f} {r.author:6.3f}  {rates} / {expected}  best word: {r.word}",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"check: {error}")
