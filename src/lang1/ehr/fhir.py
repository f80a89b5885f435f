"""Source `fhir`: the NDJSON files of a FHIR R4 bulk export, as one view a resource type for the SQL of sql/fhir/.

    *.ndjson --lines checked, text decoded--> Parquet in the scratch folder --newest version an id--> views

A view has `id`, `resource` (JSON), `file`, `line`, and for documents `content` (format, binary_id, problem, digest) and
`texts`, an item a representation. The SQL reads JSON by explicit columns (`from_json`): nothing is guessed from the
first lines, and an absent field is null. The price is the export a second time on disk, compressed, without the types
that no SQL reads.
"""

from __future__ import annotations

import importlib.resources
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.ehr.fhir_files import TYPES, Files, find_files
from lang1.ehr.fhir_staging import ASIDE, DOCUMENTS, stage
from lang1.ehr.files import exact
from lang1.ehr.rules import literal, quoted
from lang1.errors import ConfigError, InputError

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

CLAIMS = ("Claim", "ClaimResponse", "ExplanationOfBenefit")
TRIED = 100
"""lines of each file that --check reads"""
LEFT_OUT = "fhir_resources"
"""rejects/<this>.parquet: lines that are no resource, and versions that a newer one replaces"""


def open_export(source: Source, path: Path, scratch: Path) -> dict[str, set[str]]:
    """A view a resource type; returns their columns. Raises InputError for a folder without patients or encounters."""
    if not path.is_dir():
        raise InputError(f"{path}: not a folder; source fhir reads the folder of a bulk export's NDJSON files")
    _set_time_zone(source)
    files = find_files(path)
    missing = [kind for kind in ("Patient", "Encounter") if not files.of_type.get(kind)]
    if missing:
        there = ", ".join(sorted([*files.of_type, *files.others])) or "none at all"
        raise InputError(f"{path}: no file of {' and no file of '.join(missing)} resources (resources there: {there})")
    staged = scratch / "fhir"
    counts, problems = stage(source.con, path, files, staged, TRIED if source.only_try else None)
    source.con.execute(_sql("macros"))
    _keep_newest(source, staged, problems)
    unread = [kind for kind in ("Patient", "Encounter") if kind not in _there(staged)]
    if unread:
        raise InputError(f"{path}: no line of the {' and '.join(unread)} files is a {' or '.join(unread)} resource")
    there_are = {kind.lower(): _view(source.con, kind, staged) for kind in TYPES}
    if not any(files.of_type.get(kind) for kind in CLAIMS):
        for kind in CLAIMS:
            del there_are[kind.lower()]
    if not source.only_try:
        _tell(source, path, files, counts, problems)
    return there_are


def _set_time_zone(source: Source) -> None:
    zone = source.time_zone
    known = zone is None or source.con.execute("SELECT 1 FROM pg_timezone_names() WHERE name = ?", [zone]).fetchone()
    if not known:
        raise ConfigError(f"extract.time_zone: no time zone {zone}; a name such as America/New_York")
    source.con.execute(f"SET VARIABLE time_zone = {'NULL' if zone is None else literal(zone)}")


# --- views -----------------------------------------------------------------------------------------------------

_RANKED = """
SELECT s.row, s.resource_type, CASE
    WHEN s.md5 = s.best_md5 THEN 'repeated resource'
    WHEN coalesce(s.updated < s.best_updated, s.updated IS NULL AND s.best_updated IS NOT NULL) THEN 'older version'
    ELSE 'duplicate id'
END AS rule
FROM (
    SELECT t.row, {kind} AS resource_type, t.md5, TRY_CAST(t.updated AS TIMESTAMPTZ) AS updated,
        first_value(t.md5) OVER newest AS best_md5,
        first_value(TRY_CAST(t.updated AS TIMESTAMPTZ)) OVER newest AS best_updated,
        row_number() OVER newest AS place
    FROM read_parquet({path}) AS t
    SEMI JOIN (SELECT u.id FROM read_parquet({path}) AS u GROUP BY u.id HAVING count(*) > 1) AS again ON again.id = t.id
    WINDOW newest AS (PARTITION BY t.id ORDER BY TRY_CAST(t.updated AS TIMESTAMPTZ) DESC NULLS LAST, t.md5, t.row)
) AS s
WHERE s.place > 1
"""
"""Versions of a resource that another stands for: the newest meta.lastUpdated wins; without one, the smallest hash"""


def _path(staged: Path, name: str) -> str:
    return literal(exact(staged / f"{name}.parquet"))


def _sql(name: str) -> str:
    return importlib.resources.files("lang1.ehr").joinpath("sql", "fhir", f"{name}.sql").read_text("utf-8")


def _keep_newest(source: Source, staged: Path, problems: Counter[str]) -> None:
    con = source.con
    con.execute("CREATE TEMP TABLE fhir_replaced (row BIGINT, resource_type VARCHAR, rule VARCHAR)")
    aside = [f"SELECT s.* FROM read_parquet({_path(staged, ASIDE)}) AS s"] if problems else []
    for kind in _there(staged):
        con.execute(f"INSERT INTO fhir_replaced {_RANKED.format(kind=literal(kind), path=_path(staged, kind))}")
        aside.append(
            "SELECT f.rule, f.resource_type, t.id, t.file, t.line, t.patient_id, t.resource, "
            "array_to_string(t.texts, chr(10)) AS text "
            f"FROM read_parquet({_path(staged, kind)}) AS t JOIN fhir_replaced AS f ON f.row = t.row"
        )
    for rule, rows in con.execute("SELECT rule, count(*) FROM fhir_replaced GROUP BY rule ORDER BY rule").fetchall():
        problems[rule] += rows
    if problems:
        # of a line whose patient is not known, nobody can say that it holds no excluded patient
        source.aside[LEFT_OUT] = (
            "SELECT r.* REPLACE (CASE WHEN r.patient_id IS NULL AND EXISTS (FROM excluded_patients) THEN NULL "
            f"ELSE r.resource END AS resource) FROM ({' UNION ALL BY NAME '.join(aside)}) AS r "
            "ORDER BY r.file, r.line, r.resource_type, r.id"
        )


def _there(staged: Path) -> list[str]:
    return [kind for kind in TYPES if (staged / f"{kind}.parquet").exists()]


def _view(con: duckdb.DuckDBPyConnection, kind: str, staged: Path) -> set[str]:
    """The view of a type, without rows where the export has none."""
    columns = ["id", "resource", "file", "line", *(["content", "texts"] if kind in DOCUMENTS else [])]
    there = kind in _there(staged)
    path = _path(staged, kind if there else "Patient")
    con.execute(
        f"CREATE TEMP VIEW {quoted(kind)} AS SELECT {', '.join(f't.{c}' for c in columns)} FROM read_parquet({path}) "
        f"AS t {'ANTI JOIN fhir_replaced AS f ON f.row = t.row' if there else 'WHERE false'}"
    )
    return set(columns)


# --- what the manifest says ------------------------------------------------------------------------------------


def _tell(source: Source, path: Path, files: Files, counts: dict[str, dict[str, int]], problems: Counter[str]) -> None:
    for kind in TYPES:
        [(counts[kind]["kept"],)] = source.con.execute(f"SELECT count(*) FROM {quoted(kind)}").fetchall()
    found: dict[str, dict[str, int]] = {}
    for fact, value, rows in source.con.execute(_sql("facts")).fetchall():
        found.setdefault(fact, {})[value] = rows
    source.facts |= {
        "resources": {kind: count for kind, count in counts.items() if count["files"] or count["kept"]},
        "resources_left_out": dict(sorted(problems.items())),
        "files_of_other_types": dict(sorted(files.others.items())),
        "time_zone": source.time_zone or "as written",
        **found,
    }
    if problems:
        what = ", ".join(f"{rows:,} {rule}" for rule, rows in sorted(problems.items()))
        runs.say(f"extract: resources set aside in rejects/{LEFT_OUT}.parquet: {what}")
    if "OperationOutcome" in files.others:
        runs.say(f"extract: {path} holds OperationOutcome files: the server could not export everything; read them")
    in_utc = found.get("encounter_time_offsets", {}).get("Z", 0)
    if in_utc and source.time_zone is None:
        runs.say(
            f"extract: {in_utc:,} encounters give their time in UTC (Z) and are taken as written; "
            "extract.time_zone=America/New_York, for one, brings them to local time"
        )
    away = sum(rows for problem, rows in found.get("attachment_problems", {}).items() if "server" in problem)
    if away:
        runs.say(f"extract: {away:,} attachments lead to a server: nothing is fetched; export Binary resources as well")
