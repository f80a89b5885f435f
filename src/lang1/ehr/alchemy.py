"""Any database that SQLAlchemy reads: the user's own SQL, in partitions, through a streaming cursor.

One connection and, where the database has them, one read-only transaction for all rows: no other database than
PostgreSQL lets connections share a snapshot. Every value comes as text, as from a CSV: databases and drivers differ in
types, and what a column must be the rules decide. Numbers of the feature tables stay numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1.config.addresses import masked, with_password
from lang1.ehr.plans import ONE_PARTITION, Fault, Plan, TablePlan
from lang1.ehr.queries import Query, column_problems
from lang1.ehr.rules import IDS, literal
from lang1.ehr.schema import TABLES
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lang1.ehr.plans import Reader

BATCH_ROWS = 20_000
BATCH_BYTES = 16 * 2**20
FETCH_ROWS = 1_000
MYSQL_BIT = 16
"""the type of a BIT column, true and false among others, in what MySQL's drivers say of a result"""
MYSQL_SHUTDOWN = 1053
"""the server is going down: SQLAlchemy does not count it among lost connections"""
START = {
    "sqlite": ("PRAGMA query_only = ON", "BEGIN"),
    "mysql": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
    "mariadb": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
    "oracle": ("SET TRANSACTION READ ONLY",),
}
"""what makes a connection read one state and write nothing; other databases: their own default isolation"""
NOT_TAKEN = (OSError, TypeError, ValueError, AttributeError, LookupError, OverflowError)
"""what drivers raise over an option of the URL that is none of theirs, or its value"""
TOLD = ("locked", "malformed", "not a database", "encrypted", "no such table", "unable to open")
"""words of SQLite that say what is wrong and quote no row"""


def address(url: str) -> Path | str:
    """What the manifest calls the database: the file of an SQLite URL, else server, port and database."""
    found = _parsed(url)
    if found.get_backend_name() == "sqlite":
        return _sqlite_file(url, found)
    if not found.host:
        return url
    return f"{found.get_backend_name()}://{found.host}{f':{found.port}' if found.port else ''}/{found.database or ''}"


def _parsed(url: str) -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise InputError(f"{url}: a database needs SQLAlchemy: pip install 'lang1[data]'") from None
    try:
        return sqlalchemy.make_url(with_password(url))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(f"{url}: not a database URL; it is dialect+driver://user@host:port/database") from None


def _sqlite_file(url: str, found: Any) -> Path:
    name = (found.database or "").removeprefix("file:")
    if name in {"", ":memory:"}:
        raise InputError(f"{url}: no file; write sqlite:///relative.db or sqlite:////absolute.db")
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file (extract.path)")
    return Path(name)


class Alchemy:
    """A database, as databases.py reads one."""

    def __init__(self, url: str) -> None:
        """`url` without its password."""
        import sqlalchemy

        self.name, self.at_once, self.digests = url, 1, False
        self._url = _parsed(url)
        self._backend = self._url.get_backend_name()
        if self._backend == "sqlite":
            _sqlite_file(url, self._url)
        try:
            # no pool: a connection is opened for a purpose, and again when it was lost
            self._engine = sqlalchemy.create_engine(
                self._url,
                poolclass=sqlalchemy.NullPool,
                hide_parameters=True,
                # a % in the SQL is the user's own: drivers of MySQL and others would fill in parameters there
                execution_options={"no_parameters": True},
            )
        except sqlalchemy.exc.NoSuchModuleError:
            raise InputError(
                f"{url}: SQLAlchemy knows no dialect {self._url.drivername}; install the package that brings it"
            ) from None
        except ImportError as error:
            raise InputError(f"{url}: its driver is not installed: pip install {error.name}") from None
        except NOT_TAKEN as error:
            raise InputError(f"{url}: {self._not_taken(error)}") from None
        self._open: AlchemyReader | None = None

    def connect(self) -> None:
        """Open the connection that plans. Raises InputError."""
        try:
            self._open = self._reader()
        except Fault as fault:
            raise InputError(f"{self.name}: cannot connect: {fault}") from None

    def plan(self, con: duckdb.DuckDBPyConnection, queries: dict[str, Query], rows: int) -> Plan:
        """Every query tried without rows, then cut into ranges of its id."""
        tables: dict[str, TablePlan] = {}
        problems: list[str] = []
        for table, query in queries.items():
            try:
                tables[table] = self._table(query, rows)
            except InputError as error:
                problems.append(str(error))
            except Fault as fault:
                raise InputError(f"{self.name}: {fault}; nothing was read, the same command begins again") from None
        if problems:
            raise InputError("; ".join(problems))
        about = {
            "kind": self._backend,
            "driver": self._url.get_driver_name(),
            "host": self._url.host,
            "port": self._url.port,
            "database": self._url.database,
            "transaction": "; ".join(START.get(self._backend, ("the database's default isolation",))),
        }
        return Plan(tables, [], {"database": about}, [])

    def _table(self, query: Query, rows: int) -> TablePlan:
        text = query.text.strip().rstrip(";")
        rows_of = f"(\n{text}\n) q"
        names, wrapped = self._columns(query, text, rows_of)
        found = {_canonical(name, query.table): name for name in names}
        problems = column_problems(query.table, dict.fromkeys(found, "VARCHAR"))
        problems += [f"column {name} twice" for name in sorted({n for n in names if names.count(n) > 1})]
        if problems:
            raise InputError(f"{query.name}: {'; '.join(problems)}")
        if not wrapped:
            return TablePlan(text, [""])
        quote = self._engine.dialect.identifier_preparer.quote
        columns = ", ".join(f"q.{quote(name)} AS {quote(ours)}" for ours, name in found.items())
        key = quote(found[IDS[query.table] or "patient_id"])
        wheres, count = self._cuts(rows_of, f"q.{key}", rows)
        # other databases may change while they are read
        return TablePlan(f"SELECT {columns} FROM {rows_of}", wheres, rows=count if self._backend in START else None)

    def _columns(self, query: Query, text: str, rows_of: str) -> tuple[list[str], bool]:
        """The columns, and whether the query may stand in another one (SQL Server: not one that begins with WITH)."""
        try:
            return self._rows(f"SELECT q.* FROM {rows_of} WHERE 1 = 0")[0], True
        except _Refused:
            pass  # the query alone tells more, in the lines of its file
        try:
            return self._rows(text, only_columns=True)[0], False
        except _Refused as refused:
            raise InputError(f"{query.name}: {refused}") from None

    def _cuts(self, rows_of: str, key: str, rows: int) -> tuple[list[str], int | None]:
        """Ranges of the id, and the rows that they share out; one range where there is nothing to cut."""
        if rows >= ONE_PARTITION:
            return [""], None
        try:
            [count] = self._rows(f"SELECT COUNT(*) FROM {rows_of}")[1][0]
            n = math.ceil(count / rows)
            if n < 2:
                return [""], None
            tiles = self._rows(
                f"SELECT MIN(r.k) FROM (SELECT {key} AS k, NTILE({n}) OVER (ORDER BY {key}) AS t FROM {rows_of} "
                f"WHERE {key} IS NOT NULL) r GROUP BY r.t ORDER BY r.t"
            )[1]
        except _Refused:
            return [""], None  # a database without NTILE: one partition
        cuts = [_as_cut(value) for value in list(dict.fromkeys(row[0] for row in tiles))[1:]]
        cuts = [cut for cut in cuts if cut]
        if not cuts:
            return [""], None
        middle = [f"{key} >= {a} AND {key} < {b}" for a, b in itertools.pairwise(cuts)]
        return [f"{key} < {cuts[0]}", *middle, f"{key} >= {cuts[-1]}", f"{key} IS NULL"], count

    def _rows(self, sql: str, only_columns: bool = False) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and rows of a small result. Raises _Refused with the database's words, Fault when it is gone."""
        import sqlalchemy

        assert self._open is not None
        try:
            result = self._open.connection.exec_driver_sql(sql, execution_options={"stream_results": True})
            names = [str(name) for name in result.keys()]  # noqa: SIM118 - a result is no dictionary
            rows = [] if only_columns else [tuple(row) for row in result.fetchall()]
            result.close()
        except sqlalchemy.exc.SQLAlchemyError as error:
            if getattr(error, "connection_invalidated", False):
                raise _fault(error) from None
            raise _Refused(" ".join(str(getattr(error, "orig", None) or error.__class__.__name__).split())) from None
        return names, rows

    def resume(self, plan: Plan) -> None:
        """Nothing to take up: the plan's SQL stands for itself."""

    def reader(self) -> Reader:
        """The connection that planned, or a new one when it was lost. Raises Fault."""
        opened, self._open = self._open or self._reader(), None
        return opened

    def _reader(self) -> AlchemyReader:
        import sqlalchemy

        try:
            return AlchemyReader(self._engine, START.get(self._backend, ()))
        except sqlalchemy.exc.DBAPIError as error:
            raise Fault(self._shown(error.orig), lost=True) from None
        except (sqlalchemy.exc.SQLAlchemyError, *NOT_TAKEN) as error:
            raise Fault(self._not_taken(error)) from None

    def _not_taken(self, error: Exception) -> str:
        return f"its driver does not take the URL ({error.__class__.__name__}: {self._shown(error)})"

    def _shown(self, error: object) -> str:
        words = masked(" ".join(str(error).split("\n")[0].split()))
        return words.replace(str(self._url.password), "***") if self._url.password else words

    def close(self) -> None:
        """Close what is still open."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self._engine.dispose()


class _Refused(Exception):
    """A statement that the database does not take; it read no row."""


def _canonical(name: str, table: str) -> str:
    """A column's name as we write it: some databases fold names to capitals."""
    ours = TABLES[table].names if table in TABLES else ["encounter_id"]
    return name.lower() if name.lower() in ours else name


def _as_cut(value: Any) -> str:
    """An id as SQL that every database reads alike; else "": a range less."""
    if isinstance(value, str):
        return "" if "\\" in value else literal(value)
    return str(_as_text(value, "")) if isinstance(value, int | Decimal) else ""


class AlchemyReader:
    """One connection; rows as text."""

    def __init__(self, engine: Any, start: tuple[str, ...]) -> None:
        """Raises SQLAlchemy's errors."""
        self.snapshot = {"taken": datetime.now(UTC).isoformat(timespec="milliseconds"), "state": ""}
        self.kinds: dict[str, list[str]] = {}
        self.connection = engine.connect()
        self._mysql = engine.dialect.name in {"mysql", "mariadb"}
        try:
            for statement in start:
                self.connection.exec_driver_sql(statement)
        except BaseException:
            self.close()
            raise

    def read(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows as Arrow batches of text. Raises Fault."""
        import pyarrow as pa
        import sqlalchemy

        try:
            result = self.connection.exec_driver_sql(sql, execution_options={"yield_per": FETCH_ROWS})
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise _fault(error) from None
        names = [str(name) for name in result.keys()]  # noqa: SIM118 - a result is no dictionary
        bits = {i for i, column in enumerate(result.cursor.description) if self._mysql and column[1] == MYSQL_BIT}
        return pa.schema([pa.field(name, pa.string()) for name in names]), self._batches(result, names, bits)

    def _batches(self, result: Any, names: list[str], bits: set[int]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import sqlalchemy

        kinds: list[set[str]] = [set() for _ in names]
        rows: list[list[str | None]] = []
        size = 0

        def batch() -> pa.RecordBatch:
            columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(len(names))]
            return pa.RecordBatch.from_arrays(columns, names=names)

        try:
            for given in result:
                values = [_as_number(value) if i in bits else value for i, value in enumerate(given)] if bits else given
                row = [_as_text(value, name) for value, name in zip(values, names, strict=True)]
                for kind, value in zip(kinds, values, strict=True):
                    if value is not None:
                        kind.add(type(value).__name__)
                rows.append(row)
                size += sum(len(text) for text in row if text is not None)
                if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
                    yield batch()
                    rows, size = [], 0
            yield batch()
        except sqlalchemy.exc.SQLAlchemyError as error:
            fault = _fault(error)
            if fault.lost:
                _end(result)
            raise fault from None
        except UnicodeError:
            raise Fault("a text is not Unicode; convert it in the SQL") from None
        finally:
            result.close()
        self.kinds = {name: sorted(kind) for name, kind in zip(names, kinds, strict=True)}

    def close(self) -> None:
        """Never raises."""
        import sqlalchemy

        try:
            self.connection.close()
        except sqlalchemy.exc.SQLAlchemyError:  # it was lost: there is nothing to close
            self.connection.invalidate()


def _end(result: Any) -> None:
    """PyMySQL would read a lost connection's rows to their end when they are closed, and print a traceback."""
    rows: Any = getattr(result.cursor, "_result", None)
    if hasattr(rows, "unbuffered_active"):
        rows.unbuffered_active = False


def _as_number(value: Any) -> Any:
    """A BIT: most drivers give its bytes."""
    return int.from_bytes(value) if isinstance(value, bytes) else value


def _as_text(value: Any, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise Fault(f"column {column} gives times with a zone; give local time without zone")
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            if column == "text":
                raise  # letters in another encoding
            return bytes(value).hex()
    return str(value)


def _fault(error: Any) -> Fault:
    """A database's error by its class and number: drivers quote values in their words."""
    orig = getattr(error, "orig", None) or error
    words, name = str(orig), orig.__class__.__name__
    number = orig.args[0] if orig.args and isinstance(orig.args[0], int) else None
    name += "" if number is None else f" {number}"
    told = next((word for word in TOLD if word in words), None)
    if getattr(error, "connection_invalidated", False) or told == "locked" or number == MYSQL_SHUTDOWN:
        return Fault("the database is locked" if told else f"the connection was closed ({name})", lost=True)
    return Fault(f"the database stopped: {name}" + (f" ({told})" if told else ""))
