"""What a PostgreSQL server holds: tables and columns by the search path, the schema of an OMOP CDM, permissions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lang1.ehr.rules import quoted
from lang1.errors import InputError

if TYPE_CHECKING:
    import psycopg

# pg_catalog and not information_schema: the latter hides what the user may not read, and so hides why
COLUMNS = """
SELECT n.nspname, c.relname, array_agg(a.attname::text), has_schema_privilege(n.oid, 'USAGE'),
       has_table_privilege(c.oid, 'SELECT') OR bool_and(has_column_privilege(c.oid, a.attnum, 'SELECT')),
       c.relrowsecurity AND row_security_active(c.oid)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
GROUP BY n.oid, n.nspname, c.oid, c.relname, c.relrowsecurity
"""
HISTOGRAM = """
SELECT CAST(CAST(s.histogram_bounds AS text) AS text[]), c.reltuples,
       s.null_frac + coalesce((SELECT sum(f) FROM unnest(s.most_common_freqs) AS f), 0)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
WHERE c.oid = %s AND a.attnum = %s AND s.inherited = (c.relkind = 'p')
"""
MOST_DIFFERENT = 0.2
"""share by which a query's rows may differ from its table's for the table's histogram to speak for them"""
CHOSEN = {"client", "user", "database", "database user", "session"}
"""origins of a setting (pg_settings.source) that somebody gave for this connection"""


@dataclass
class Catalog:
    """Tables that the search path reaches."""

    schema: str
    search_path: str
    """as SET reads it"""
    inline: str
    """NOT MATERIALIZED where the server knows it: a CTE is then read through, with its index"""
    user: str
    columns: dict[str, set[str]] = field(default_factory=dict)
    schema_of: dict[str, str] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)
    """schemas of the path without USAGE"""
    unreadable: set[str] = field(default_factory=set)
    """tables without SELECT"""
    filtered: set[str] = field(default_factory=set)
    """tables whose row-level security applies to this user"""
    elsewhere: dict[str, set[str]] = field(default_factory=dict)
    """schemas outside the path by the tables that they hold"""

    def hint(self, missing: str) -> str:
        """Where missing tables are, if another schema has them."""
        tables = re.findall(r"table (\w+)", missing.partition(" (it has")[0])
        found = sorted({schema for table in tables for schema in self.elsewhere.get(table, ())})
        if not found:
            return ""
        return (
            f"; schema {', '.join(found)} has what is missing: name every schema, "
            f"?options=-csearch_path%3D{','.join([self.schema, *found])}"
        )


def read_catalog(cursor: psycopg.Cursor[Any], where: str, kind: str) -> Catalog:
    """The tables in reach. For `omop` without a search path of the user's: the one schema that holds `person`.

    Raises InputError when no schema or several hold it.
    """
    rows = cursor.execute(COLUMNS).fetchall()
    [[user, version, path, origin]] = cursor.execute(
        "SELECT current_user::text, current_setting('server_version_num')::int, setting, source "
        "FROM pg_catalog.pg_settings WHERE name = 'search_path'"
    ).fetchall()
    schemas = [user if name == "$user" else name for name in _names(path)]
    if kind == "omop":
        schemas = _omop_schemas({(row[0], row[1]) for row in rows}, schemas, origin in CHOSEN, where)
    known = {row[0] for row in rows}
    first = next((schema for schema in schemas if schema in known), schemas[0] if schemas else "public")
    catalog = Catalog(
        first, ", ".join(quoted(s) for s in schemas), "NOT MATERIALIZED " if version >= 120000 else "", user
    )
    for schema, table, columns, usable, readable, filtered in sorted(
        rows, key=lambda row: schemas.index(row[0]) if row[0] in schemas else len(schemas)
    ):
        if schema not in schemas:
            catalog.elsewhere.setdefault(table, set()).add(schema)
        elif table not in catalog.columns:
            catalog.columns[table], catalog.schema_of[table] = set(columns), schema
            if not usable:
                catalog.unusable.add(schema)
            if not readable:
                catalog.unreadable.add(table)
            if filtered:
                catalog.filtered.add(table)
    return catalog


def histogram(cursor: psycopg.Cursor[Any], table: int, column: int, rows: float) -> list[str]:
    """Values of a table's column between which lie about as many rows each, from the server's own statistics.

    `table`, `column`: oid and number (PQftable, PQftablecol); `rows`: what the planner expects of the query. Empty if
    there are none, or the query gives another number of rows than the table had when it was analysed.
    """
    found = cursor.execute(HISTOGRAM, (table, column)).fetchall()
    if len(found) != 1 or not found[0][0]:
        return []
    [(bounds, of_table, elsewhere)] = found
    if abs(rows - of_table) > MOST_DIFFERENT * of_table or elsewhere > MOST_DIFFERENT:
        return []
    return list(bounds)


def _names(search_path: str) -> list[str]:
    """The schemas of a search path: quoted names as they are, others in lower case."""
    found = re.findall(r'\s*(?:"((?:[^"]|"")*)"|([^,"]+))\s*(?:,|$)', search_path)
    return [quoted_name.replace('""', '"') if quoted_name else plain.strip().lower() for quoted_name, plain in found]


def _omop_schemas(tables: set[tuple[str, str]], path: list[str], chosen: bool, where: str) -> list[str]:
    holders = sorted({schema for schema, table in tables if table == "person"})
    # a table `person` alone is somebody else's
    holders = [schema for schema in holders if (schema, "visit_occurrence") in tables] or holders
    if chosen:
        if not set(path) & set(holders):
            raise InputError(
                f"{where}: no schema of the search path ({', '.join(path)}) holds a table person"
                + (f"; {', '.join(holders)} does" if holders else "; this database has none")
            )
        return path
    if len(holders) > 1:
        raise InputError(
            f"{where}: the schemas {', '.join(holders)} all hold a table person; name yours: "
            f"?options=-csearch_path%3D{holders[0]}"
        )
    if not holders:
        return path
    return [holders[0], *(schema for schema in path if schema != holders[0])]


def denied(catalog: Catalog, wanted: list[str]) -> str | None:
    """What the queries read and this user may not, with the statements that its owner would run."""
    tables = [name for name in wanted if name in catalog.unreadable]
    schemas = sorted({catalog.schema_of[name] for name in wanted if name in catalog.schema_of} & catalog.unusable)
    if not tables and not schemas:
        return None
    full = ", ".join(f"{quoted_if_odd(catalog.schema_of[name])}.{quoted_if_odd(name)}" for name in tables)
    what = [f"schema {', '.join(schemas)}"] if schemas else []
    what += [f"table {full}"] if tables else []
    role = quoted_if_odd(catalog.user)
    grants = [f"GRANT USAGE ON SCHEMA {', '.join(map(quoted_if_odd, schemas))} TO {role};"] if schemas else []
    grants += [f"GRANT SELECT ON {full} TO {role};"] if tables else []
    return f"user {catalog.user} may not read {' and '.join(what)}; its owner runs: {' '.join(grants)}"


def quoted_if_odd(name: str) -> str:
    """An identifier as a person would write it."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)
