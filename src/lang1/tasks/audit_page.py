"""The audit as files: audit.json for programs, audit.md for people, and apart the ids of offending rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.tasks.audit_rows import Finding, Scope
from lang1.tasks.schema import OFFENDING

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 50_000


def write_findings(database: duckdb.DuckDBPyConnection, scope: Scope, findings: list[Finding], folder: Path) -> None:
    """Write the three files to `folder`. No note text, and no id but in offending.parquet, which is mode 0600."""
    import pyarrow as pa

    runs.write_json(folder / "audit.json", {"findings": [_as_json(f) for f in findings], "tasks": list(scope.tasks)})
    runs.write_text(folder / "audit.md", _page(findings))
    reader = database.sql(
        'SELECT check_name AS "check", task, split, row_id FROM audit_offending ORDER BY ALL'
    ).to_arrow_reader(_BATCH_ROWS)
    with runs.parquet_writer(folder / "offending.parquet", OFFENDING, 0o600) as writer:
        for batch in reader:
            writer.write_table(pa.Table.from_batches([batch]).cast(OFFENDING), row_group_size=_BATCH_ROWS)


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "task": finding.task,
        "compared": finding.compared,
        "n": finding.n,
        "checked": finding.checked,
        "found": finding.found,
        "threshold": finding.threshold,
        "verdict": finding.verdict,
        "why": finding.why,
        "accepted": finding.reason,
        "details": finding.details,
    }


def _page(findings: list[Finding]) -> str:
    failed = [f for f in findings if f.verdict == "failed"]
    unknown = [f for f in findings if f.verdict == "not checkable"]
    verdict = f"{len(failed)} checks fail." if failed else "No check fails."
    parts = [
        "# Leakage audit",
        f"{verdict} {len(unknown)} could not be made. Ids of offending rows: offending.parquet.",
        _table(
            ("check", "severity", "task", "n", "checked", "found", "threshold", "verdict", "why", "accepted"),
            [
                (f.check, f.severity, f.task, f.n, f.checked, f.found, f.threshold, f.verdict, f.why, f.reason)
                for f in findings
            ],
        ),
        "## What was compared",
        *dict.fromkeys(f"- {f.check}: {f.compared}." for f in findings),
    ]
    for check in dict.fromkeys(f.check for f in findings if f.details):
        rows = [{"task": f.task, **d} for f in findings if f.check == check for d in f.details]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        parts += [f"## {check}", _table(tuple(columns), [tuple(row.get(c) for c in columns) for row in rows])]
    return "\n\n".join(parts).replace(".\n\n- ", ".\n- ") + "\n"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number:,}" for key, number in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")
