"""The leakage audit: `lang1 audit`, and the end of `lang1 tasks`.

It reads what was written, so that it judges task sets that lang1 did not write by the same code: any folder of
<task>/<split>.parquet files beside canonical records. A check whose columns or records are missing is "not checkable",
never "passed". What it writes holds counts; the ids of offending rows lie apart, mode 0600. Texts are scanned inside
DuckDB, task by task; nothing but ids, lengths and hashes stays.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from lang1 import config, runs
from lang1.config import AuditConfig, OwnTask, TasksConfig, read_own_task
from lang1.config.audit import FAILING
from lang1.errors import ConfigError, InputError
from lang1.tasks.audit_alone import check_one_feature
from lang1.tasks.audit_notes import check_notes, find_notes
from lang1.tasks.audit_page import write_findings
from lang1.tasks.audit_rows import Finding, Scope, find_tasks, open_rows, open_scope
from lang1.tasks.audit_splits import check_across_tasks, check_splits
from lang1.tasks.audit_texts import check_texts, read_words
from lang1.tasks.audit_window import check_windows
from lang1.tasks.database import open_database, run_sql, set_variables
from lang1.tasks.origin import read_origin

if TYPE_CHECKING:
    import duckdb


def audit_tasks(
    cfg: AuditConfig, *, tasks: Path, records: Path, corpus: Path | None, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Audit a folder of task sets against the records that they were made from. Returns the manifest.

    An earlier audit in `out` is replaced. Raises InputError, after the audit is written, when a check fails that is
    not accepted.
    """
    inputs = {"tasks": tasks, "records": records, **({"corpus": corpus} if corpus else {})}

    def work(stage: runs.Stage) -> None:
        database = open_database(records, corpus, stage.scratch())
        try:
            scope = _scope_of(database, cfg, tasks, records, corpus, seed)
            findings = _carry_failures(scope, _run_checks(database, scope))
            write_findings(database, scope, findings, stage.out)
        finally:
            database.close()
        stage.count(tasks=len(scope.tasks), findings=len(findings))
        stage.record(audit=summary(findings))

    again = runs.is_complete(out) and runs.read_manifest(out).get("stage") == "audit"
    manifest = runs.run_stage(out, "audit", config.dump(cfg), seed, inputs, work, force or again)
    _refuse(manifest["facts"]["audit"]["failed"], out)
    return manifest


def audit_built(
    database: duckdb.DuckDBPyConnection, cfg: TasksConfig, own: list[OwnTask], folder: Path, seed: int
) -> list[Finding]:
    """Audit what `lang1 tasks` has just written to `folder`, in the database that it was made in."""
    scope = open_scope(folder, cfg.audit, seed, cfg, own)
    findings = _run_checks(database, scope)
    write_findings(database, scope, findings, folder / "audit")
    return findings


def summary(findings: list[Finding]) -> dict[str, Any]:
    """What a manifest says of an audit: checks by verdict, and reasons."""
    verdicts: dict[str, int] = {}
    for finding in findings:
        verdicts[finding.verdict] = verdicts.get(finding.verdict, 0) + 1
    return {
        "verdicts": dict(sorted(verdicts.items())),
        "failed": [f"{f.check} ({f.task}: {f.found:,})" for f in findings if f.verdict == "failed"],
        "accepted": {f.check: f.reason for f in findings if f.reason is not None},
    }


def refuse_failed(findings: list[Finding], folder: Path) -> None:
    """Raise InputError that names the checks that failed."""
    _refuse(summary(findings)["failed"], folder)


def _refuse(failed: list[str], folder: Path) -> None:
    if failed:
        raise InputError(
            f"the leakage audit failed: {', '.join(failed)}; {folder / 'audit.md'} says what was compared; mend the "
            "records, the rules or the rows, or accept it: --accept CHECK=REASON (and --force where the folder is made)"
        )


def _run_checks(database: duckdb.DuckDBPyConnection, scope: Scope) -> list[Finding]:
    """Every check, task by task: one pass over each task's texts."""
    find_notes(database, scope)
    database.execute(
        "CREATE OR REPLACE TEMP TABLE audit_offending (check_name VARCHAR, task VARCHAR, split VARCHAR, row_id VARCHAR)"
    )
    database.execute("CREATE OR REPLACE TEMP TABLE audit_patients (task VARCHAR, split VARCHAR, patient_id VARCHAR)")
    words = read_words(scope)
    findings: list[Finding] = []
    for task in scope.tasks:
        rows = open_rows(database, scope, task)
        findings += check_notes(database, scope, rows)
        findings += check_splits(database, scope, rows)
        findings += check_texts(database, scope, rows, words)
        findings.append(check_one_feature(database, scope, rows))
    findings += check_across_tasks(database, scope)
    findings += check_windows(database, scope)
    order = {
        name: i
        for i, name in enumerate((*FAILING, "outcome_words", "same_text", "patients_in_temporal", "one_feature"))
    }
    return sorted(findings, key=lambda f: order[f.check])


def _carry_failures(scope: Scope, findings: list[Finding]) -> list[Finding]:
    """What failed when `lang1 tasks` ended here fails still where it cannot be checked again.

    The stage left no manifest then, so nothing says how the cohort was chosen: a folder copied without its marks would
    pass by its fault. What can be checked again is judged by what the rows say now.
    """
    path = scope.folder / "audit" / "audit.json"
    if runs.is_complete(scope.folder) or not path.exists():
        return findings
    failed = _read_failures(path)
    return [
        scope.judge(
            f.check, f.task, f.compared, f.n, f.checked, failed[f.check, f.task],
            f"failed when lang1 tasks ended here, which left no manifest; not to be checked again: {f.why}",
        )
        if f.verdict == "not checkable" and (f.check, f.task) in failed
        else f
        for f in findings
    ]  # fmt: skip


def _read_failures(path: Path) -> dict[tuple[str, str], int]:
    """How many were found by each (check, task) that failed in an audit.json."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["findings"]
        return {(f["check"], f["task"]): int(f["found"]) for f in found if f["verdict"] == "failed"}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: not readable as the audit of a stage ({type(error).__name__}); make the tasks again"
        ) from None


def _scope_of(
    database: duckdb.DuckDBPyConnection, cfg: AuditConfig, tasks: Path, records: Path, corpus: Path | None, seed: int
) -> Scope:
    """How the tasks were made, as far as their folder tells, and the tables that the checks read."""
    made, own, why, made_seed = _how_made(tasks, records, corpus)
    scope = open_scope(tasks, cfg, made_seed if made else seed, made, own)
    if made and why is None:
        from lang1.tasks.build import make_facts

        make_facts(database, made, made_seed, read_origin(records))
        return scope
    set_variables(database, made or TasksConfig())
    run_sql(database, "stays")
    return scope.without_facts(why) if why else scope


def _how_made(
    tasks: Path, records: Path, corpus: Path | None
) -> tuple[TasksConfig | None, list[OwnTask], str | None, int]:
    """Configuration, own tasks, why the cohort cannot be made again (or None), and the seed."""
    if not find_tasks(tasks):
        raise InputError(f"{tasks}: holds no <task>/<split>.parquet; give a tasks folder")
    if not runs.is_complete(tasks):
        return None, [], "lang1 did not write these task sets: nothing says how they were chosen", 0
    manifest = runs.read_manifest(tasks)
    if manifest.get("stage") != "tasks":
        return None, [], f"the stage {manifest.get('stage')} wrote this folder, not tasks", 0
    try:
        made: TasksConfig = TypeAdapter(TasksConfig).validate_python(manifest["config"])
        made = replace(made, exclude_newborns=read_origin(records).excludes_newborns(made))
        own = [read_own_task(path) for path in sorted((tasks / "own").glob("*.yaml"))]
    except (ValidationError, ConfigError):
        return None, [], "another version of lang1 wrote these task sets: its configuration does not load here", 0
    why = None
    if corpus is None:
        why = "no --corpus was given: the cohort cannot be made again"
    else:
        changed = [name for name, path in (("records", records), ("corpus", corpus)) if not _same(manifest, name, path)]
        if changed:
            why = f"the {' and '.join(changed)} are not those that the tasks were made from"
    return made, own, why, int(manifest["seed"])


def _same(manifest: dict[str, Any], name: str, path: Path) -> bool:
    return bool(manifest.get("inputs", {}).get(name) == runs.identify(path))
