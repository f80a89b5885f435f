"""What the audit reads and what it finds: the rows of any folder of task sets, and one finding a check and task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1.config import AuditConfig, OwnTask, TasksConfig
from lang1.config.audit import FAILING
from lang1.errors import InputError
from lang1.tasks.database import count, quote
from lang1.tasks.prompts import Question, read_questions
from lang1.tasks.schema import SPLITS

if TYPE_CHECKING:
    import duckdb

_COLUMNS = {
    "row_id": "VARCHAR",
    "patient_id": "VARCHAR",
    "encounter_id": "VARCHAR",
    "note_id": "VARCHAR",
    "note_type": "VARCHAR",
    "prediction_time": "TIMESTAMP",
    "label": "BIGINT",
    "author_role": "VARCHAR",
    "department": "VARCHAR",
}


@dataclass(frozen=True)
class Finding:
    """What one check found in one task."""

    check: str
    task: str
    compared: str
    """what was compared, in words"""
    n: int
    """rows, or patients, that there are"""
    checked: int
    """of these, what could be checked"""
    found: float
    """how many, or how much, of what the check looks for"""
    threshold: float | None
    """above this a report is made; a failing check allows none"""
    verdict: str
    """passed, failed, accepted, below threshold, reported, allowed, not checkable"""
    why: str = ""
    reason: str | None = None
    """why it was accepted"""
    details: list[dict[str, Any]] = field(default_factory=list)

    @property
    def severity(self) -> str:
        """fails, or reports."""
        return "fails" if self.check in FAILING else "reports"


@dataclass(frozen=True)
class Scope:
    """A folder of task sets, and how it was made where that is known."""

    folder: Path
    tasks: tuple[str, ...]
    """tasks with rows"""
    cfg: AuditConfig
    seed: int
    made: TasksConfig | None
    own: tuple[OwnTask, ...]
    questions: dict[str, Question]
    no_facts: str | None = None
    """why the cohort cannot be made again; None: it can, the database holds `facts`"""

    def without_facts(self, why: str) -> Scope:
        """The same where the cohort cannot be made again."""
        return replace(self, no_facts=why)

    def files(self, task: str) -> dict[str, Path]:
        """The files of a task by split."""
        return {s: path for s in SPLITS if (path := self.folder / task / f"{s}.parquet").is_file()}

    def judge(self, check: str, task: str, compared: str, n: int, checked: int, found: int, why: str = "") -> Finding:
        """The finding of a failing check: any case fails; without one, all must have been checked to pass."""
        reason = self.cfg.accept.get(check)
        verdict = "passed" if checked == n else "not checkable"
        if found:
            verdict = "failed" if reason is None else "accepted"
        return Finding(check, task, compared, n, checked, found, 0, verdict, why, reason)

    def report(
        self,
        check: str,
        task: str,
        compared: str,
        n: int,
        found: float,
        threshold: float | None,
        details: list[dict[str, Any]],
        over: bool,
        why: str = "",
    ) -> Finding:
        """The finding of a reporting check."""
        reason = self.cfg.accept.get(check)
        verdict = ("reported" if reason is None else "accepted") if over else "below threshold"
        return Finding(check, task, compared, n, n, found, threshold, verdict, why, reason, details)

    def unknown(self, check: str, task: str, compared: str, n: int, why: str) -> Finding:
        """The finding of a check that cannot be made."""
        reason = self.cfg.accept.get(check)
        return Finding(check, task, compared, n, 0, 0, 0 if check in FAILING else None, "not checkable", why, reason)


@dataclass(frozen=True)
class Rows:
    """The task whose rows are in the table `audit_rows`."""

    task: str
    n: int
    missing: tuple[str, ...]
    """columns that a file of it lacks"""
    options: tuple[str, ...]
    """the answers; numbers where there is no question"""

    def lacks(self, *columns: str) -> str | None:
        """Which of the columns are missing, as a reason; None when all are there."""
        lacking = [name for name in columns if name in self.missing]
        return f"the rows have no column {', '.join(lacking)}" if lacking else None


def find_tasks(folder: Path) -> list[str]:
    """Names of the task folders, those of ReMedE first."""
    found = {p.parent.name for s in SPLITS for p in folder.glob(f"*/{s}.parquet")}
    from lang1.config import TASK_IDS

    return [*(t for t in TASK_IDS if t in found), *sorted(found - set(TASK_IDS))]


def open_scope(folder: Path, cfg: AuditConfig, seed: int, made: TasksConfig | None, own: list[OwnTask]) -> Scope:
    """The task sets of a folder that have rows. Raises InputError for files that are not readable."""
    questions = read_questions(folder) if (folder / "questions.json").exists() else {}
    scope = Scope(folder, (), cfg, seed, made, tuple(own), questions)
    filled = [task for task in find_tasks(folder) if any(_rows_in(path) for path in scope.files(task).values())]
    return replace(scope, tasks=tuple(filled))


def _rows_in(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as Parquet ({type(error).__name__}); write it again") from None


def open_rows(database: duckdb.DuckDBPyConnection, scope: Scope, task: str) -> Rows:
    """Make `audit_rows` (all but the text, with its hash and length) and the view `audit_text` of a task."""
    import pyarrow.parquet as pq

    files = scope.files(task)
    names = {split: set(pq.read_schema(path).names) for split, path in files.items()}
    missing = tuple(c for c in (*_COLUMNS, "text") if any(c not in found for found in names.values()))
    parts, texts = [], []
    for split, path in files.items():
        columns = [
            f"TRY_CAST({name} AS {kind}) AS {name}" if name in names[split] else f"NULL::{kind} AS {name}"
            for name, kind in _COLUMNS.items()
        ]
        if "row_id" not in names[split]:
            columns[0] = f"'{split}:' || file_row_number AS row_id"
        text = "text::VARCHAR" if "text" in names[split] else "NULL::VARCHAR"
        source = f"read_parquet({quote(str(path))}, file_row_number = true)"
        parts.append(f"SELECT '{split}' AS split, {', '.join(columns)}, hash({text}) AS text_key, "
                     f"length({text}) AS characters FROM {source}")  # fmt: skip
        texts.append(f"SELECT {text} AS text FROM {source}")
    database.execute(f"CREATE OR REPLACE TEMP TABLE audit_rows AS {' UNION ALL '.join(parts)}")
    database.execute(f"CREATE OR REPLACE TEMP VIEW audit_text AS {' UNION ALL '.join(texts)}")
    if "patient_id" not in missing:
        database.execute(
            "INSERT INTO audit_patients SELECT DISTINCT ?, split, patient_id FROM audit_rows "
            "WHERE patient_id IS NOT NULL",
            [task],
        )
    n = count(database, "SELECT count(*) FROM audit_rows")
    if task in scope.questions:
        options = scope.questions[task].options
    else:
        options = tuple(str(k) for k in range(count(database, "SELECT max(label) FROM audit_rows") + 1))
    return Rows(task, n, missing, options)


def offend(database: duckdb.DuckDBPyConnection, check: str, task: str, query: str) -> int:
    """Set the rows of a query (split, row_id) aside under the check's name. Returns how many."""
    before = count(database, "SELECT count(*) FROM audit_offending")
    database.execute(f"INSERT INTO audit_offending SELECT ?, ?, split, row_id FROM ({query})", [check, task])
    return count(database, "SELECT count(*) FROM audit_offending") - before
