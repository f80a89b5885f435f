"""What the texts give away: outcome words by label, and the same text in train and in what is measured.

A distinct text is scanned once for all tasks, by one regular expression of all words; of two words that overlap, the
first is counted. Near-equal is equal without case, digits, spaces and punctuation: a copy with
another date or number. A copy with another word is not found (a MinHash over all notes would be).
"""

from __future__ import annotations

import csv
import re
import string
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lang1.tasks.audit_rows import Finding, Rows, Scope
from lang1.tasks.database import quote

if TYPE_CHECKING:
    import duckdb

_NOT_LETTERS = string.digits + string.punctuation + string.whitespace
_ADDED_ROWS = 5
_COMPARED_WORDS = "how often each outcome word stands in the rows of each label"
_COMPARED_TEXTS = "the texts of train with those of the other splits"


def read_words(scope: Scope) -> list[tuple[str, str]]:
    """(word, pattern) of every outcome word: outcome_words.csv, then those that own tasks name."""
    lines = (files("lang1.tasks") / "outcome_words.csv").read_text(encoding="utf-8").splitlines()
    words = [(row[0], row[1]) for row in csv.reader(lines[1:])]
    named = dict.fromkeys(word.strip().lower() for task in scope.own for word in task.outcome_words)
    return words + [(w, rf"\b{re.escape(w)}\b") for w in named if w not in {known for known, _ in words}]


def check_texts(
    database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows, words: list[tuple[str, str]]
) -> list[Finding]:
    """Both checks of a task, after one scan of the texts that no task before had."""
    lacking = rows.lacks("text")
    if lacking is not None:
        return [
            scope.unknown("outcome_words", rows.task, _COMPARED_WORDS, rows.n, lacking),
            scope.unknown("same_text", rows.task, _COMPARED_TEXTS, rows.n, lacking),
        ]
    _scan(database, words)
    lacking = rows.lacks("label")
    return [
        scope.unknown("outcome_words", rows.task, _COMPARED_WORDS, rows.n, lacking)
        if lacking
        else _outcome_words(database, scope, rows, words),
        _same_text(database, scope, rows),
    ]


def _scan(database: duckdb.DuckDBPyConnection, words: list[tuple[str, str]]) -> None:
    """Add the texts of `audit_text` that are not there yet to `audit_shapes` and `audit_words`."""
    database.execute("CREATE TEMP TABLE IF NOT EXISTS audit_shapes (text_key UBIGINT, shape UBIGINT)")
    database.execute("CREATE TEMP TABLE IF NOT EXISTS audit_words (text_key UBIGINT, word INTEGER)")
    # longer words first: 'readmitted on' is told as both, 'readmitted' as one
    anything = quote("|".join(f"(?:{pattern})" for _, pattern in sorted(words, key=lambda word: -len(word[1]))))
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE audit_new AS
        SELECT DISTINCT text_key, hash(translate(text, $letters, '')) AS shape,
            CASE WHEN regexp_matches(text, {anything})
                 THEN list_distinct(regexp_extract_all(text, {anything})) END AS said
        FROM (
            SELECT hash(text) AS text_key, lower(text) AS text FROM audit_text
            WHERE text IS NOT NULL AND hash(text) NOT IN (SELECT text_key FROM audit_shapes)
        )
        """,
        {"letters": _NOT_LETTERS},
    )
    database.execute("INSERT INTO audit_shapes SELECT text_key, shape FROM audit_new")
    # what was said is a short list: each entry is asked for every word once
    each = ", ".join(
        f"CASE WHEN regexp_matches(said, {quote(pattern)}) THEN {i} END" for i, (_, pattern) in enumerate(words)
    )
    database.execute(
        f"""
        INSERT INTO audit_words
        WITH said AS (SELECT text_key, unnest(said) AS said FROM audit_new WHERE said IS NOT NULL),
        meant AS (SELECT said, unnest([{each}]) AS word FROM (SELECT DISTINCT said FROM said))
        SELECT DISTINCT text_key, word FROM said JOIN meant USING (said) WHERE word IS NOT NULL
        """
    )
    database.execute("DROP TABLE audit_new")


def _outcome_words(
    database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows, words: list[tuple[str, str]]
) -> Finding:
    totals = dict(database.execute("SELECT label, count(*) FROM audit_rows GROUP BY 1").fetchall())
    hits: dict[int, dict[int, int]] = {}
    for word, label, n in database.execute(
        "SELECT word, label, count(*) FROM audit_rows JOIN audit_words USING (text_key) GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        hits.setdefault(word, {})[label] = n
    labels = sorted(k for k in totals if k is not None)
    details: list[dict[str, Any]] = []
    for word, by_label in sorted(hits.items()):
        lifts = {k: _lift(k, by_label, totals) for k in labels}
        judged = {k: v for k, v in lifts.items() if by_label.get(k, 0) >= scope.cfg.outcome_word_rows}
        details.append(
            {
                "word": words[word][0],
                "rows": {str(k): by_label.get(k, 0) for k in labels},
                "share": round(sum(by_label.values()) / rows.n, 6),
                "lift": round(max(judged.values(), default=0.0), 3),
                "of_label": max(judged, key=lambda k: judged[k]) if judged else None,
            }
        )
    high = [d for d in details if d["lift"] >= scope.cfg.outcome_word_lift]
    most = max((d["lift"] for d in details), default=0.0)
    why = ", ".join(f"{d['word']} ({d['lift']:.1f} times in label {d['of_label']})" for d in high[:6])
    return scope.report(
        "outcome_words", rows.task, _COMPARED_WORDS, rows.n, most, scope.cfg.outcome_word_lift, details, bool(high), why
    )


def _lift(label: int, hits: dict[int, int], totals: dict[int, int]) -> float:
    """The word's share in the rows of `label` over its share in the rows of the other labels.

    Over all rows it would be at most 1 / prevalence: a label of 42 % could not reach 3. A few rows with the
    word's share in all rows join the others: where none has it by chance is no finding, and nothing is divided by 0.
    """
    known = [k for k in totals if k is not None]
    n, elsewhere = (sum(of.get(k, 0) for k in known if k != label) for of in (totals, hits))
    if n == 0:
        return 1.0  # nothing to compare with
    overall = sum(hits.get(k, 0) for k in known) / sum(totals[k] for k in known)
    expected = (elsewhere + _ADDED_ROWS * overall) / (n + _ADDED_ROWS)
    return hits.get(label, 0) / totals[label] / expected if expected else 0.0


def _same_text(database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows) -> Finding:
    details = [
        {"split": split, "rows": int(n), "same": int(same), "near": int(near)}
        for split, n, same, near in database.execute(
            """
            WITH shaped AS (SELECT split, text_key, shape FROM audit_rows JOIN audit_shapes USING (text_key)),
            trained AS (SELECT DISTINCT text_key FROM shaped WHERE split = 'train'),
            near AS (SELECT DISTINCT shape FROM shaped WHERE split = 'train')
            SELECT split, count(*), count(*) FILTER (text_key IN (SELECT text_key FROM trained)),
                count(*) FILTER (shape IN (SELECT shape FROM near))
            FROM shaped WHERE split != 'train' GROUP BY 1 ORDER BY 1
            """
        ).fetchall()
    ]
    if not details:
        return scope.unknown("same_text", rows.task, _COMPARED_TEXTS, rows.n, "there are no rows beside train")
    share = max(d["near"] / d["rows"] for d in details)
    n = sum(d["rows"] for d in details)
    over = share > scope.cfg.same_text_share
    why = "; ".join(f"{d['split']}: {d['same']:,} equal, {d['near']:,} near-equal of {d['rows']:,}" for d in details)
    return scope.report(
        "same_text", rows.task, _COMPARED_TEXTS, n, round(share, 6), scope.cfg.same_text_share, details, over,
        why if any(d["near"] for d in details) else "",
    )  # fmt: skip
