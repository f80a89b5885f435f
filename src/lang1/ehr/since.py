"""`lang1 extract --since`: what is new, corrected or late in a source, merged into records that are there.

    rows of the source + rows of the records that the source does not give again --> rules, sort, write (extraction.py)

The source wins: of a row with an id that the source gives again, what the records had is left; a row that only the
records have stays, as in a source that hands out changes alone (a bulk export, a nightly file). Diagnoses have no id:
those of an encounter are replaced together. Rows that broke a rule are asked again, as the source wrote them: a note
whose patient came late finds its place. All pass the same rules, order and writer as in a whole extraction, so that
merged records are those of a whole extraction, byte for byte, unless the source has deleted rows.

From PostgreSQL the texts of unchanged notes do not travel: the server gives id, times and a digest of each row, and
only notes that the records lack, whose digest differs, or which were written or signed since are fetched (`choose`).
Other tables are read whole: they are a fiftieth of the bytes, and dispositions, codes and claims change long after
their own dates. The merged folder is made beside the old one and takes its place whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lang1.ehr.files import exact
from lang1.ehr.queries import OWN_RULE, relation_name
from lang1.ehr.rules import IDS, RULE, literal, quoted, rule_names
from lang1.ehr.schema import NOTES
from lang1.ehr.writing import REJECTS

if TYPE_CHECKING:
    import duckdb

    from lang1.ehr.sources import Source

IDS_A_CONDITION = 2_000
"""note ids that one statement asks for"""
MOST_CONDITIONS = 2_048
"""more changed notes than these hold: the whole table is read, which costs less than asking id by id"""


# --- a table of the source, with what the records had ------------------------------------------------------------


def add_records(source: Source, table: str, base: Path, since: datetime) -> dict[str, int]:
    """Make `incoming_<table>` the source's rows and those that only `base` has; returns counts for the manifest.

    new: ids (of diagnoses: encounters) that only the source has; again: that both have; before: that only the records
    have. Of notes also late: new, but written and signed before `since`; changed: both have them, not word for word.
    """
    parts = sorted((base / table).glob("part-*.parquet"))
    if not parts:
        return {}
    con, view = source.con, relation_name(table)
    in_records = _view_of_records(con, table, base, parts)
    if table not in source.types:  # the source has no such table this time
        columns = con.execute(f"DESCRIBE SELECT * FROM read_parquet({_list(parts[:1])})").fetchall()
        source.types[table] = {str(row[0]): str(row[1]) for row in columns}
        source.absent = [name for name in source.absent if name != table]
        con.execute(f"CREATE OR REPLACE TEMP VIEW given_{table} AS SELECT * FROM {in_records} LIMIT 0")
    else:
        con.execute(f"ALTER VIEW {view} RENAME TO given_{table}")
    names = list(source.types[table])
    as_text = ", ".join(f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in names)
    had = set(_columns(con, in_records))
    from_records = ", ".join(quoted(name) if name in had else f"NULL AS {quoted(name)}" for name in names)
    key = _key(table)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE ids_{table} AS SELECT DISTINCT {key} AS k "
        f"FROM (SELECT {as_text} FROM given_{table}) AS r"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {as_text} FROM given_{table} UNION ALL "
        f"SELECT {from_records} FROM {in_records} AS r WHERE {key} NOT IN (SELECT k FROM ids_{table})"
    )
    return _counts(con, table, in_records, key, since)


def _key(table: str) -> str:
    """What makes a row the same row, as SQL over its text columns `r`; never null."""
    name = IDS[table]
    if name is not None:
        return f"coalesce(nullif(r.{quoted(name)}, ''), 'row ' || md5(CAST(r AS VARCHAR)))"
    # diagnoses: an encounter's are replaced together; without an encounter, a patient's
    encounter, patient = "nullif(r.encounter_id, '')", "coalesce(r.patient_id, '')"
    return f"CASE WHEN {encounter} IS NOT NULL THEN 'e ' || {encounter} ELSE 'p ' || {patient} END"


def _view_of_records(con: duckdb.DuckDBPyConnection, table: str, base: Path, parts: list[Path]) -> str:
    """Rows that were kept and rows that broke a rule, all as text; with the name of a rule that only the SQL knows."""
    columns = [
        str(row[0]) for row in con.execute(f"DESCRIBE SELECT * FROM read_parquet({_list(parts[:1])})").fetchall()
    ]
    kept = ", ".join(f"CAST({quoted(c)} AS VARCHAR) AS {quoted(c)}" for c in columns)
    sql = f"SELECT {kept}, NULL AS {OWN_RULE} FROM read_parquet({_list(parts)})"
    rejects = base / REJECTS / f"{table}.parquet"
    if rejects.exists():
        ours = ", ".join(literal(rule) for rule in rule_names(table))
        own = f"CASE WHEN {RULE} NOT IN ({ours}) THEN {RULE} END AS {OWN_RULE}" if ours else f"NULL AS {OWN_RULE}"
        sql += f" UNION ALL SELECT {', '.join(map(quoted, columns))}, {own} FROM read_parquet({_list([rejects])})"
    con.execute(f"CREATE OR REPLACE TEMP VIEW had_{table} AS {sql}")
    return f"had_{table}"


def _list(files: Iterable[Path]) -> str:
    return f"[{', '.join(literal(exact(file)) for file in files)}]"


def _columns(con: duckdb.DuckDBPyConnection, relation: str) -> list[str]:
    return [str(row[0]) for row in con.execute(f"DESCRIBE {relation}").fetchall()]


def _counts(con: duckdb.DuckDBPyConnection, table: str, in_records: str, key: str, since: datetime) -> dict[str, int]:
    con.execute(f"CREATE OR REPLACE TEMP TABLE had_ids AS SELECT DISTINCT {key} AS k FROM {in_records} AS r")
    [(new, again)] = con.execute(
        f"SELECT count(*) FILTER (h.k IS NULL), count(h.k) FROM ids_{table} AS i LEFT JOIN had_ids AS h ON h.k = i.k"
    ).fetchall()
    [(before,)] = con.execute(
        f"SELECT count(*) FROM had_ids AS h LEFT JOIN ids_{table} AS i ON h.k = i.k WHERE i.k IS NULL"
    ).fetchall()
    counts = {f"{table}_new": new, f"{table}_again": again, f"{table}_before": before}
    if table == "notes":
        clock = "greatest(TRY_CAST(written_time AS TIMESTAMP), TRY_CAST(signed_time AS TIMESTAMP))"
        [(late,)] = con.execute(
            f"SELECT count(*) FROM given_notes WHERE {clock} < ? "
            "AND CAST(note_id AS VARCHAR) NOT IN (SELECT k FROM had_ids)",
            [since],
        ).fetchall()
        had = f"SELECT r.note_id AS id, md5({_digested('r', 'VARCHAR')}) AS d FROM {in_records} AS r"
        given = f"SELECT CAST(g.note_id AS VARCHAR) AS id, md5({_digested('g', 'VARCHAR')}) AS d FROM given_notes AS g"
        [(changed,)] = con.execute(
            f"SELECT count(*) FROM ({had}) AS h JOIN ({given}) AS g ON h.id = g.id WHERE h.d <> g.d"
        ).fetchall()
        counts |= {"notes_late": late, "notes_changed": changed}
    con.execute("DROP TABLE had_ids")
    return {name: int(n) for name, n in counts.items()}


# --- which notes a server must send -------------------------------------------------------------------------------


def scan_statement(select: str, since: datetime) -> str:
    """What a PostgreSQL server is asked of every note: its id, and a digest of the row unless it is recent."""
    recent = " OR ".join(
        f"CAST(s.{name} AS timestamp) >= {literal(since.isoformat(' '))}" for name in ("written_time", "signed_time")
    )
    return (
        f"SELECT CAST(s.note_id AS text) AS id, CASE WHEN {recent} THEN NULL ELSE md5({_digested('s', 'text')}) END "
        f"AS digest FROM (\n{select}\n) AS s"
    )


def _digested(alias: str, kind: str) -> str:
    """The columns of a note as one text; PostgreSQL and DuckDB write ids, words and timestamps alike."""
    parts = [
        f"coalesce(CAST({alias}.{quoted(name)} AS {kind}), '')"
        if name != "text"
        else f"coalesce({alias}.text, '\x1e')"  # a note without text is not one whose text is empty
        for name in NOTES.names
    ]
    return " || '\x1f' || ".join(parts)


def choose(con: duckdb.DuckDBPyConnection, base: Path, scanned: Path) -> list[str] | None:
    """Conditions that fetch the notes to be read; None when reading the whole table is cheaper.

    `scanned`: a Parquet file of (id, digest), as `scan_statement` gives them. A note is fetched when its digest is
    null (recent), when the records lack its id or have it with another digest, when its id is not one row's alone, and
    when it has no id.
    """
    parts = sorted((base / "notes").glob("part-*.parquet"))
    in_records = _view_of_records(con, "notes", base, parts)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE noted AS SELECT r.note_id AS id, md5({_digested('r', 'VARCHAR')}) AS digest "
        f"FROM {in_records} AS r"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE scanned AS SELECT id, digest FROM read_parquet({_list([scanned])})")
    ids = con.execute(
        "SELECT id FROM (SELECT DISTINCT s.id FROM scanned AS s WHERE s.id IS NOT NULL AND ("
        "s.digest IS NULL OR NOT EXISTS (SELECT 1 FROM noted AS n WHERE n.id = s.id AND n.digest = s.digest)) "
        "UNION SELECT id FROM scanned WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1 "
        "UNION SELECT id FROM noted WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1) ORDER BY id"
    )
    conditions = []
    while chunk := ids.fetchmany(IDS_A_CONDITION):
        # in quotes: a literal takes the type of the column, number or text
        listed = ", ".join(literal(str(row[0])) for row in chunk)
        conditions.append(f"q.note_id IN ({listed})")
        if len(conditions) > MOST_CONDITIONS:
            return None
    con.execute("DROP TABLE noted; DROP TABLE scanned")
    return [*conditions, "q.note_id IS NULL"]
