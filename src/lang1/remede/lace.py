"""The LACE index (0 to 19) of a stay, from the canonical records, as a baseline of the readmission task.

van Walraven C et al., Derivation and validation of an index to predict early death or unplanned readmission after
discharge from hospital to the community, CMAJ 2010;182:551-7:

| letter | what | points |
|---|---|---|
| L | length of stay, days | below 1: 0; 1, 2, 3: as many; 4 to 6: 4; 7 to 13: 5; 14 and more: 7 |
| A | acute admission | 3 |
| C | comorbidity, sum of `WEIGHTS` | 0 to 3: the sum; 4 and more: 5 |
| E | emergency visits in the six months before admission | as many, 4 at most |

The comorbidity has LACE's own weights (its table's footnote, after Schneeweiss 2003), not Charlson's. ICD codes find
the diseases by Quan's map (tasks/charlson.py), whose one category of renal disease takes the 2 points that the tools in
use give the milder form. Codes of the stay and of earlier encounters count: a clinician knows the diseases at
discharge, though the codes may be written down later. Days are midnights passed. The emergency visit that led to the
stay, which ended less than `tasks.transfer_hours` before it, is no earlier visit. LACE was made for death or unplanned
readmission; here it is asked for the task's own label.

What the records do not hold has 0 points, and the facts of the baseline count the rows without it by letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lang1 import runs
from lang1.config import TasksConfig
from lang1.remede.baselines import Fitted, Labelled
from lang1.remede.rows import TaskRows
from lang1.remede.scores import Floats
from lang1.tasks.charlson import score_codes
from lang1.tasks.database import open_database, run_sql, set_variables

if TYPE_CHECKING:
    import duckdb

TASK = "readmission"
ELSEWHERE = "LACE is a score for readmission only"
WEIGHTS = {
    "myocardial infarction": 1,
    "cerebrovascular disease": 1,
    "peripheral vascular disease": 1,
    "diabetes without complication": 1,
    "congestive heart failure": 2,
    "diabetes with complication": 2,
    "chronic pulmonary disease": 2,
    "mild liver disease": 2,
    "renal disease": 2,
    "malignancy": 2,
    "dementia": 3,
    "rheumatic disease": 3,
    "AIDS": 4,
    "moderate or severe liver disease": 4,
    "metastatic solid tumor": 6,
}
"""points of a comorbidity, by the categories of charlson.csv; a category that is not here has none"""
LETTERS = {"L": "length of stay", "A": "admission type", "C": "diagnosis codes", "E": "emergency visits"}
PARTS = ("days", "is_acute", "comorbidity", "visits")


@dataclass(frozen=True)
class Lace:
    """The index of the stays of some records."""

    scores: dict[str, int]
    """points by encounter_id of a stay's first encounter"""
    missing: dict[str, frozenset[str]]
    """by letter, the stays of which the records do not hold it"""

    def features(self, rows: TaskRows) -> Floats:
        """The index of each row, (rows, 1); a row without a stay in the records has 0."""
        return np.array([[float(self.scores.get(e, 0))] for e in rows.strings("encounter_id")])

    def gaps(self, rows: Sequence[TaskRows]) -> dict[str, str]:
        """By letter, how many of these rows the records say nothing of; empty where they say all."""
        encounters = [encounter for part in rows for encounter in part.strings("encounter_id")]
        found = {}
        for letter, what in LETTERS.items():
            count = sum(e in self.missing[letter] or e not in self.scores for e in encounters)
            if count:
                found[letter] = f"the records give no {what} for {count:,} of {len(encounters):,} rows: 0 points"
        return found


def points(days: Floats, is_acute: Floats, comorbidity: Floats, visits: Floats) -> NDArray[np.int64]:
    """The points (rows, 4) for L, A, C and E; NaN is not known and has 0 points.

    `is_acute` is 0 or 1, `comorbidity` the sum of WEIGHTS, the others are counts.
    """
    length = np.array([0, 1, 2, 3, 4, 5, 7])[np.searchsorted([1, 2, 3, 4, 7, 14], np.nan_to_num(days), "right")]
    acuity = np.where(np.nan_to_num(is_acute) > 0, 3, 0)
    disease = np.nan_to_num(comorbidity)
    disease = np.where(disease >= 4, 5, disease)
    emergency = np.minimum(np.nan_to_num(visits), 4)
    return np.column_stack([length, acuity, disease, emergency]).astype(np.int64)


def score_stays(records: Path, tasks: Path, scratch: Path) -> Lace:
    """The index of every stay in `records`, merged from encounters as the tasks folder merged them.

    Raises InputError for records that lack a table or a column.
    """
    rules = runs.read_manifest(tasks).get("config", {})
    kept = {key: rules[key] for key in ("transfer_hours", "exclude_post_death") if key in rules}
    scratch.mkdir(parents=True, exist_ok=True)
    database = open_database(records, None, scratch)
    try:
        set_variables(database, TasksConfig(**kept))
        run_sql(database, "stays")
        run_sql(database, "spelled_codes")
        has_emergency = "SELECT count(*) > 0 FROM checked WHERE encounter_class = 'emergency' AND NOT is_untimed"
        database.execute(f"SET VARIABLE has_emergency = ({has_emergency})")
        _run(database, "lace_inputs")
        score_codes(database, WEIGHTS)
        _run(database, "lace_parts")
        columns = ", ".join(f"{part}::DOUBLE AS {part}" for part in PARTS)
        found = database.sql(f"SELECT stay_id, {columns} FROM lace_parts ORDER BY stay_id").to_arrow_table()
    finally:
        database.close()
    ids: list[str] = found["stay_id"].to_pylist()
    parts = [found[part].to_numpy().astype(np.float64) for part in PARTS]
    totals = points(*parts).sum(axis=1)
    gaps = {
        letter: frozenset(ids[i] for i in np.flatnonzero(np.isnan(part)))
        for letter, part in zip(LETTERS, parts, strict=True)
    }
    return Lace(dict(zip(ids, totals.tolist(), strict=True)), gaps)


def _run(database: duckdb.DuckDBPyConnection, name: str) -> None:
    database.execute((files("lang1.remede") / f"{name}.sql").read_text(encoding="utf-8"))


def fit(train: Labelled, val: Labelled) -> Fitted | str:
    """Points to probability by logistic regression on train, or why not; `val` has no say: there is nothing to tune."""
    from sklearn.linear_model import LogisticRegression

    from lang1.metrics.ranking import headline_auroc

    if len(np.unique(train.labels)) < 2:
        return "the training rows are all of one class"
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(train.features, train.labels)

    def predict(features: Any) -> Floats:
        p_NK: Floats = model.predict_proba(features)
        return p_NK

    value = headline_auroc(val.labels, predict(val.features))
    facts = {
        "log_odds_a_point": round(float(model.coef_[0, 0]), 6),
        "log_odds_at_0": round(float(model.intercept_[0]), 6),
        "points_in_train": np.bincount(train.features[:, 0].astype(int), minlength=20).tolist(),
        "validation": None if value is None else round(value, 6),
        "train_rows": len(train.labels),
    }
    return Fitted(predict, facts)
