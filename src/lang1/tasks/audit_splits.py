"""Checks of the splits: no patient on two sides of train, val and test; who is in the temporal windows too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lang1.tasks.audit_rows import Finding, Rows, Scope, offend
from lang1.tasks.database import count, quote

if TYPE_CHECKING:
    import duckdb

SIDES = "('train', 'val', 'test')"


def check_splits(database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows) -> list[Finding]:
    """A task's own patients."""
    compared = "the patients of train, val and test with each other"
    lacking = rows.lacks("patient_id")
    if lacking is not None:
        return [
            scope.unknown("patient_in_two_splits", rows.task, compared, rows.n, lacking),
            scope.unknown("patients_in_temporal", rows.task, _TEMPORAL, rows.n, lacking),
        ]
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE audit_torn AS SELECT patient_id FROM audit_patients WHERE task = ? "
        f"AND split IN {SIDES} GROUP BY patient_id HAVING count(*) > 1",
        [rows.task],
    )
    n = count(database, f"SELECT count(*) FROM audit_rows WHERE split IN {SIDES}")
    checked = count(database, f"SELECT count(patient_id) FROM audit_rows WHERE split IN {SIDES}")
    torn = f"SELECT split, row_id FROM audit_rows JOIN audit_torn USING (patient_id) WHERE split IN {SIDES}"
    found = offend(database, "patient_in_two_splits", rows.task, torn)
    patients = count(database, "SELECT count(*) FROM audit_torn")
    why = f"{patients:,} patients have these rows" if found else ""
    why = why or (f"{n - checked:,} of {n:,} rows have no patient_id" if checked < n else "")
    finding = scope.judge("patient_in_two_splits", rows.task, compared, n, checked, found, why)
    return [_allowed(scope, finding), _temporal(database, scope, rows)]


def _allowed(scope: Scope, finding: Finding) -> Finding:
    """Splits that are drawn by note tear patients, as the configuration says: allowed, and said."""
    if finding.verdict == "failed" and scope.made is not None and scope.made.split_unit == "note":
        return replace(finding, verdict="allowed", why=f"{finding.why}; split_unit is note, as the paper's seem to be")
    return finding


_TEMPORAL = "the patients of the temporal windows with those of train, val and test"


def _temporal(database: duckdb.DuckDBPyConnection, scope: Scope, rows: Rows) -> Finding:
    details = [
        {"split": split, "rows": int(n), "rows_of_known_patients": int(known or 0)}
        for split, n, known in database.execute(
            f"SELECT split, count(*), count(*) FILTER (patient_id IN (SELECT patient_id FROM audit_patients "
            f"WHERE task = ? AND split IN {SIDES})) FROM audit_rows WHERE split NOT IN {SIDES} GROUP BY ALL ORDER BY 1",
            [rows.task],
        ).fetchall()
    ]
    n, found = sum(d["rows"] for d in details), sum(d["rows_of_known_patients"] for d in details)
    why = "as in use, and as the paper has it (Appendix L): no fault, but said" if found else ""
    return scope.report("patients_in_temporal", rows.task, _TEMPORAL, n, found, None, details, found > 0, why)


def check_across_tasks(database: duckdb.DuckDBPyConnection, scope: Scope) -> list[Finding]:
    """Patients on two sides when tasks are trained jointly: one task's train, another's val or test."""
    known = [t for (t,) in database.execute("SELECT DISTINCT task FROM audit_patients ORDER BY 1").fetchall()]
    tasks = _sharing(scope)
    if len(tasks) < 2:
        return []
    check, name = "patient_in_two_splits_across_tasks", ", ".join(tasks)
    compared = "the patients of one task's train with those of another's val and test, and so on"
    n = count(
        database,
        f"SELECT count(DISTINCT patient_id) FROM audit_patients WHERE split IN {SIDES} AND task IN {_listed(tasks)}",
    )
    unknown = [task for task in tasks if task not in known]
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE audit_torn AS SELECT patient_id FROM audit_patients WHERE split IN {SIDES} "
        f"AND task IN {_listed(tasks)} GROUP BY patient_id HAVING count(DISTINCT split) > 1"
    )
    found = count(database, "SELECT count(*) FROM audit_torn")
    if unknown:
        return [scope.unknown(check, name, compared, n, f"no patient_id in the rows of {', '.join(unknown)}")]
    torn = "SELECT task, count(DISTINCT patient_id) FROM audit_patients JOIN audit_torn USING (patient_id) "
    details = [{"task": t, "patients": int(p)} for t, p in database.execute(f"{torn} GROUP BY 1 ORDER BY 1").fetchall()]
    why = f"{found:,} patients; joint training on these tasks learns patients of a test" if found else ""
    finding = scope.judge(check, name, compared, n, n, found, why)
    return [_allowed(scope, replace(finding, details=details))]


def _sharing(scope: Scope) -> list[str]:
    """The tasks that share one assignment: not denial where its other half trains, as the paper's 18:1:1 has it."""
    apart = scope.made is not None and scope.made.denial_other_half == "train"
    return [task for task in scope.tasks if not (apart and task == "denial")]


def _listed(tasks: list[str]) -> str:
    return f"({', '.join(quote(task) for task in tasks)})"
