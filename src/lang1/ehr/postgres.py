"""PostgreSQL: the queries of a source, checked against the catalogue, cut into ranges, streamed as Arrow batches.

One transaction, REPEATABLE READ and READ ONLY, exports its snapshot; every connection reads within it, so that all
rows are of one moment. adbc-driver-postgresql reads binary COPY into Arrow; psycopg 3 asks the catalogue, and reads
what the other cannot. Nothing is created: tables that stand in for others (omop.py) are CTEs before the query.
Credentials are libpq's: the URL, the environment, ~/.pgpass or a service file.
"""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.ehr.omop import facts_of, substitutes
from lang1.ehr.pgaddress import options_in
from lang1.ehr.pgcatalog import Catalog, denied, histogram, read_catalog
from lang1.ehr.pgranges import ORDERED, WIDEST, between_bounds, spread, text_ranges, value_ranges
from lang1.ehr.pgreader import BEGIN, AdbcReader, PsycopgReader, fault_of
from lang1.ehr.plans import Fault, Plan, TablePlan
from lang1.ehr.queries import Query, Uses, column_problems, names_problem, parse
from lang1.ehr.rules import IDS, literal, quoted
from lang1.ehr.schema import FEATURES
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb
    import psycopg

    from lang1.ehr.plans import Reader

AS_THEY_ARE = {16: "BOOLEAN", 21: "SMALLINT", 23: "INTEGER", 20: "BIGINT", 700: "FLOAT", 701: "DOUBLE", 25: "VARCHAR",
               1043: "VARCHAR", 1082: "DATE", 1114: "TIMESTAMP"}  # fmt: skip
"""types (pg_type.oid) that Arrow, Parquet and DuckDB hold alike; every other one is read as text"""
NUMERIC, TIMESTAMPTZ = 1700, 1184
SAMPLED_A_CUT = 100
MOST_PARTITIONS = 4096
MOST_EXTRA_WORK = 3.0
"""partitions may cost the server so many times what one pass costs: without an index each reads the whole table"""
ALIVE = {"connect_timeout": "15", "keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "5"}
"""libpq's own wait for a dead peer is hours; the URL may say otherwise"""


@dataclass(frozen=True)
class _Statement:
    """A query as it is asked: what precedes its SELECT, what it selects from, its id and what the id shows."""

    query: Query
    before: str
    rows_of: str
    select: str
    key: str
    key_oid: int
    key_origin: tuple[int, int]
    """table (oid, 0 for none) and its column (number)"""


class Postgres:
    """A server, as databases.py reads one."""

    def __init__(self, url: str, kind: str) -> None:
        """`url` without its password; `kind` is the source: omop looks for the schema that holds `person`."""
        self.name, self._kind = url, kind
        self.at_once, self.digests = 64, True
        self._lock = threading.Lock()
        self._control: psycopg.Connection[Any] | None = None
        self._search_path = ""
        self._snapshot: dict[str, str] = {}
        self._exported: str | None = None
        self._adbc, self._declined = True, set[str]()
        in_url = options_in(url)
        from psycopg.conninfo import make_conninfo

        self._conninfo = make_conninfo(**{**ALIVE, "application_name": "lang1", **in_url})

    # --- the plan ---------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, and take the snapshot. Raises InputError with libpq's reason."""
        try:
            self._take_snapshot()
        except Fault as fault:
            raise InputError(
                f"{self.name}: cannot connect: {fault}; the password comes from PGPASSWORD, ~/.pgpass or a service file"
            ) from None

    def plan(self, con: duckdb.DuckDBPyConnection, queries: dict[str, Query], rows: int) -> Plan:
        """Every query checked and cut into ranges of its id; all that is missing or denied is named at once."""
        catalog = read_catalog(self._cursor(), self.name, self._kind)
        self._search_path = catalog.search_path
        self._cursor().execute(f"SET LOCAL search_path = {self._search_path}".encode())
        there = catalog.columns
        given = substitutes(there) if self._kind == "omop" else {}
        uses = {table: _parsed(con, query) for table, query in queries.items()}
        missing, absent = names_problem(uses, there)
        problems = [] if missing is None else [f"{self.name}: {missing}{catalog.hint(missing)}"]
        wanted = sorted({name for use in uses.values() if use for name in use.columns})
        refused = denied(catalog, wanted)
        if refused:
            problems.append(f"{self.name}: {refused}")
        if problems:
            raise InputError("; ".join(problems))
        tables: dict[str, TablePlan] = {}
        self._cursor().execute(b"SAVEPOINT before_query")
        for table, query in queries.items():
            if table not in absent:
                try:
                    tables[table] = self._table(query, given, uses[table], catalog, rows)
                except InputError as error:
                    problems.append(str(error))
                    if not self._snapshot_lives("ROLLBACK TO SAVEPOINT before_query"):
                        break
        if problems:
            raise InputError("; ".join(problems))
        facts = facts_of(given, f"schema {catalog.schema}") if self._kind == "omop" else {}
        facts["database"] = self._about(catalog, wanted)
        return Plan(tables, absent, facts, [])

    def resume(self, plan: Plan) -> None:
        """Read where an earlier run began to."""
        self._search_path = plan.facts["database"]["search_path"]

    def _about(self, catalog: Catalog, wanted: list[str]) -> dict[str, Any]:
        assert self._control is not None
        info = self._control.info
        filtered = sorted(catalog.filtered & set(wanted))
        if filtered:
            runs.say(f"extract: row-level security shows this user only a part of {', '.join(filtered)}")
        return {
            "kind": "postgresql",
            "server_version": info.server_version,
            "host": info.host,
            "port": info.port,
            "database": info.dbname,
            "schema": catalog.schema,
            "search_path": catalog.search_path,
            "user": info.user,
            "transaction": "repeatable read, read only",
            "snapshot": "exported, shared by all connections" if self._exported else "of the one connection",
            "row_level_security": filtered,
        }

    def _table(
        self, query: Query, given: dict[str, dict[str, str]], uses: Uses | None, catalog: Catalog, rows: int
    ) -> TablePlan:
        """A query with its stand-ins before it, its columns in types that Arrow holds, and its partitions."""
        ctes = [
            f"{quoted(table)} AS {catalog.inline}(SELECT t.*, "
            + ", ".join(f"{expression} AS {quoted(column)}" for column, expression in columns.items())
            + f" FROM {quoted(catalog.schema_of[table])}.{quoted(table)} AS t)"
            for table, columns in given.items()
            if uses is None or table in uses.columns
        ]
        before = f"WITH {', '.join(ctes)}\n" if ctes else ""
        rows_of = f"(\n{query.text.strip().rstrip(';')}\n) AS q"
        described, origins = self._described(query, f"{before}SELECT * FROM {rows_of} LIMIT 0", catalog)
        types = {
            name: "TIMESTAMP WITH TIME ZONE" if oid == TIMESTAMPTZ else AS_THEY_ARE.get(oid, "VARCHAR")
            for name, oid in described
        }
        problems = column_problems(query.table, types)
        twice = sorted({name for name, _ in described if [n for n, _ in described].count(name) > 1})
        problems += [f"column {name} twice" for name in twice]
        if problems:
            raise InputError(f"{query.name}: {'; '.join(problems)}")
        columns = ", ".join(_read_as(name, oid, query.table) for name, oid in described)
        key = IDS[query.table] or "patient_id"
        select = f"{before}SELECT {columns} FROM {rows_of}"
        of_key = [name for name, _ in described].index(key)
        oid, origin = described[of_key][1], origins[of_key]
        return self._cut(_Statement(query, before, rows_of, select, key, oid, origin), rows)

    def _described(
        self, query: Query, sql: str, catalog: Catalog
    ) -> tuple[list[tuple[str, int]], list[tuple[int, int]]]:
        """Name and type of each column; and the table (oid, 0 for none) and its column (number) that it shows."""
        import psycopg

        try:
            cursor = self._cursor().execute(sql.encode())
        except psycopg.Error as error:
            raise InputError(f"{query.name}: {_explained(error, sql, query, catalog)}") from None
        result, found = cursor.pgresult, cursor.description or []
        assert result is not None
        origins = [(result.ftable(i), result.ftablecol(i)) for i in range(len(found))]
        return [(column.name, column.type_code) for column in found], origins

    def _cut(self, asked: _Statement, rows: int) -> TablePlan:
        """Conditions that share out the rows: ranges of the id with about as many rows each, and a null id apart."""
        query, select, column = asked.query, asked.select, f"q.{quoted(asked.key)}"
        estimate, cost = self._estimate(query, select)
        n = min(math.ceil(estimate / rows), MOST_PARTITIONS)
        if n < 2:
            return TablePlan(select, [""])
        [[kind]] = self._rows(query, f"SELECT format_type({asked.key_oid}, NULL)")
        sample = self._known_ids(asked, kind, estimate, n * SAMPLED_A_CUT)
        if not sample:
            of_key = f"SELECT {column} AS k FROM {asked.rows_of} WHERE {column} IS NOT NULL"
            some = f"{of_key} AND random() < {min(1.0, n * SAMPLED_A_CUT / estimate)!r}"
            found = self._rows(query, f"{asked.before}SELECT CAST(s.k AS text) FROM ({some}) AS s ORDER BY s.k")
            sample = [row[0] for row in found]
        cuts = spread(sample, n)
        if len(cuts) > 1:
            # of a plain range: what the planner thinks of several at once is far from what they cost
            [_, plain, *_] = value_ranges(column, kind, cuts[len(cuts) // 2 - 1 :][:2])
            _, of_one = self._estimate(query, f"{select}\nWHERE {plain}")
            few = max(2, int(MOST_EXTRA_WORK * cost / max(of_one, 1e-9)))
            if few < len(cuts) + 1:
                runs.say(
                    f"extract: {query.table}: no index leads from {asked.key} to its rows: {few} partitions, "
                    f"not {len(cuts) + 1}"
                )
                n = few
        if kind in WIDEST:
            wheres = text_ranges(column, kind, spread(sorted(sample), n))
        else:
            wheres = value_ranges(column, kind, spread(sample, n))
        return TablePlan(select, wheres, ordered=kind in ORDERED)

    def _known_ids(self, asked: _Statement, kind: str, estimate: float, n: int) -> list[str]:
        """About how `n` of the ids lie, sorted, if the server's statistics tell; else none: a sample costs a scan."""
        import psycopg

        if kind not in WIDEST:
            return []
        try:
            return between_bounds(histogram(self._cursor(), *asked.key_origin, estimate), n)
        except psycopg.Error:  # a relative of PostgreSQL without these views
            self._snapshot_lives("ROLLBACK TO SAVEPOINT before_query")
            return []

    def _estimate(self, query: Query, sql: str) -> tuple[float, float]:
        """Rows and cost as the server's planner sees them."""
        [[answer]] = self._rows(query, f"EXPLAIN (FORMAT JSON) {sql}")
        plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
        return float(plan["Plan Rows"]), float(plan["Total Cost"])

    def _rows(self, query: Query, sql: str) -> list[Any]:
        import psycopg

        try:
            return self._cursor().execute(sql.encode()).fetchall()
        except psycopg.Error as error:
            raise InputError(f"{self.name} ({query.name}): {fault_of(error)}") from None

    # --- connections ------------------------------------------------------------------------------------------

    def reader(self) -> Reader:
        """A connection within the snapshot. Raises Fault."""
        import psycopg

        with self._lock:
            if not self._snapshot_lives():
                self._take_snapshot()
            snapshot, exported = self._snapshot, self._exported
        session = [*BEGIN, *([f"SET TRANSACTION SNAPSHOT {literal(exported)}"] if exported else [])]
        session += self._settings()
        first = None
        if self._adbc:
            try:
                return AdbcReader(
                    self._conninfo, session, snapshot, lambda: self._psycopg_reader(session, snapshot), self._declined
                )
            except ImportError:
                runs.say("extract: adbc-driver-postgresql is not installed; psycopg reads, slower")
                self._adbc = False
            except Fault as fault:
                first = fault
        try:
            reader = self._psycopg_reader(session, snapshot)
        except psycopg.Error as error:
            raise fault_of(error, connecting=True) from None
        if first is not None:
            runs.say(f"extract: adbc cannot open this connection ({first}); psycopg reads, slower")
        return reader

    def _psycopg_reader(self, session: list[str], snapshot: dict[str, str]) -> PsycopgReader:
        return PsycopgReader(self._conninfo, session, snapshot)

    def _settings(self) -> list[str]:
        # as pg_dump does: a limit meant for interactive work would cut a long read
        wanted = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
        assert self._control is not None
        if self._control.info.server_version >= 170000:
            wanted.append("transaction_timeout")
        settings = [f"SET LOCAL {name} = 0" for name in wanted]
        settings += ["SET LOCAL client_encoding = 'UTF8'", "SET LOCAL datestyle = 'ISO'", "SET LOCAL TimeZone = 'UTC'"]
        settings += ["SET LOCAL standard_conforming_strings = on", "SET LOCAL extra_float_digits = 1"]
        # every partition runs the whole query: what depends on the order of a scan must not change between them
        settings += ["SET LOCAL synchronize_seqscans = off", "SET LOCAL max_parallel_workers_per_gather = 0"]
        return settings + ([f"SET LOCAL search_path = {self._search_path}"] if self._search_path else [])

    def _snapshot_lives(self, statement: str = "SELECT 1") -> bool:
        import psycopg

        if self._control is None or self._control.closed:
            return False
        try:
            self._control.execute(statement.encode())
        except psycopg.Error:
            return False
        return True

    def _take_snapshot(self) -> None:
        """Open the transaction that others share. Raises Fault."""
        import psycopg

        self._close_control()
        try:
            self._control = psycopg.connect(self._conninfo, autocommit=True)
            for statement in (*BEGIN, *self._settings()):
                self._control.execute(statement.encode())
            taken = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._exported, state = self._export(self._control)
        except psycopg.Error as error:
            raise fault_of(error, connecting=True) from None
        self._snapshot = {"taken": taken, "state": state}

    def _export(self, control: psycopg.Connection[Any]) -> tuple[str | None, str]:
        """The snapshot's name for other connections, if the server gives one, and what names the state it shows."""
        import psycopg

        newer = control.info.server_version >= 130000
        seen = "pg_current_snapshot()" if newer else "txid_current_snapshot()"
        try:
            [[name, state]] = control.execute(f"SELECT pg_export_snapshot(), CAST({seen} AS text)").fetchall()
        except psycopg.Error:
            if control.broken:
                raise
            # a pooler or a relative of PostgreSQL: one connection reads everything, in its own snapshot
            self.at_once = 1
            for statement in ("ROLLBACK", *BEGIN, *self._settings()):
                control.execute(statement.encode())
            return None, ""
        return name, state

    def _cursor(self) -> psycopg.Cursor[Any]:
        assert self._control is not None
        return self._control.cursor()

    def close(self) -> None:
        """End the transaction that holds the snapshot."""
        with self._lock:
            self._close_control()

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


def _parsed(con: duckdb.DuckDBPyConnection, query: Query) -> Uses | None:
    """The names that a query reads; None for SQL that only PostgreSQL understands: it names its own faults then."""
    try:
        return parse(con, query)
    except InputError:
        return None


def _read_as(name: str, oid: int, table: str) -> str:
    column = f"q.{quoted(name)}"
    if oid in AS_THEY_ARE:
        return column
    number = oid == NUMERIC and table in FEATURES and name != "encounter_id"
    kind = "double precision" if number else "text"
    return f"CAST({column} AS {kind}) AS {quoted(name)}"


def _explained(error: psycopg.Error, sql: str, query: Query, catalog: Catalog) -> str:
    """A fault of a statement that read no row: PostgreSQL's words, with the line of the user's file."""
    message = (error.diag.message_primary or str(error)).split("\n")[0]
    if error.sqlstate == "42501":
        table = message.rpartition(" ")[2]
        return f"{message}; {denied(catalog, [table]) or 'its owner grants it'}"
    position = error.diag.statement_position
    if not position:
        return f"{message} ({error.diag.message_hint})" if error.diag.message_hint else message
    first = sql.index(query.text.strip().rstrip(";"))
    skipped = query.text[: query.text.index(query.text.strip()[:1])].count("\n") if query.text.strip() else 0
    line = sql[first : int(position) - 1].count("\n") + 1 + skipped
    return f"line {line}: {message}"
