"""Checks of the index note: signed after its prediction time, an addendum, a note of a later encounter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lang1.tasks.audit_rows import Finding, Rows, Scope, offend
from lang1.tasks.database import count, quote, run_sql

if TYPE_CHECKING:
    import duckdb

ADDENDUM = r"addend|amend|late entry|correct(ed|ion)|revis(ed|ion)"
"""in a note's type: an edit of another note"""
_CHECKS = (
    (
        "note_after_prediction",
        "is_after",
        "the note's signing time in the records with the row's prediction_time",
        ("note_id", "prediction_time"),
        "the records lack the note or when it was signed, or the row has no prediction_time",
    ),
    (
        "addendum",
        "is_addendum",
        "the note's type, and other notes of its encounter, type and author, begun when it was and signed earlier",
        ("note_id",),
        "the records lack the note, its encounter, or when it was written or signed",
    ),
    (
        "later_encounter",
        "is_later",
        "patient and encounter of the note with those of the row, and its signing with the next admission",
        ("note_id", "encounter_id", "patient_id"),
        "the records lack the note, its encounter or the row's, or their times",
    ),
)


def find_notes(database: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    """The tables `audit_used` and `audit_first_signed` of the notes that the rows name."""
    import pyarrow.parquet as pq

    paths = [path for task in scope.tasks for path in scope.files(task).values()]
    named = [quote(str(path)) for path in paths if "note_id" in pq.read_schema(path).names]
    ids = (
        f"SELECT note_id::VARCHAR AS note_id FROM read_parquet([{', '.join(named)}])"
        if named
        else "SELECT '' WHERE false"
    )
    database.execute(f"CREATE OR REPLACE TEMP TABLE audit_note_ids AS SELECT DISTINCT * FROM ({ids}) AS t(note_id)")
    run_sql(database, "audit_used")
    database.execute("DROP TABLE audit_note_ids")


def check_notes(database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows) -> list[Finding]:
    """The three checks of a task's index notes against the records."""
    lacks_note = rows.lacks("note_id")
    if lacks_note is None:
        database.execute("SET VARIABLE audit_addendum = ?", [ADDENDUM])
        run_sql(database, "audit_notes")
    findings = []
    for check, column, compared, needed, unknown in _CHECKS:
        lacking = lacks_note or rows.lacks(*needed)
        if lacking is not None:
            findings.append(scope.unknown(check, rows.task, compared, rows.n, lacking))
            continue
        checked = count(database, f"SELECT count({column}) FROM audit_notes")
        found = offend(database, check, rows.task, f"SELECT split, row_id FROM audit_notes WHERE {column}")
        why = f"{rows.n - checked:,} of {rows.n:,} rows: {unknown}" if checked < rows.n else ""
        findings.append(scope.judge(check, rows.task, compared, rows.n, checked, found, why))
    return findings
