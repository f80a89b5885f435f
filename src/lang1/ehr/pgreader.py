"""Connections that read rows of a PostgreSQL server as Arrow batches: adbc's binary COPY, or psycopg's text COPY.

Both give the same types and values: infinite dates become DuckDB's own, text is UTF-8.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lang1.ehr.plans import Fault

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

BEGIN = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",)
EPOCH_US, EPOCH_DAYS = 946_684_800_000_000, 10_957
"""1970 to 2000: PostgreSQL counts from the latter"""
BATCH_ROWS = 20_000
BATCH_BYTES = 16 * 2**20
_CONNECTION = re.compile(
    r"closed the connection|connection (?:refused|reset|timed out|is bad|failed|not open)|"
    r"could not (?:receive|send)|no connection|terminat|timeout expired|starting up|shutting down|broken pipe|"
    r"PQgetCopyData\(\) failed|SSL|EOF detected|consuming input failed|network|failed to begin transaction",
    re.IGNORECASE,
)
_LASTING = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba.conf entry|permission denied|"
    r"definition of service|not permitted to log in",
    re.IGNORECASE,
)
"""words of libpq for a refusal that asking again does not change: it gives no code while it connects"""
_AGAIN = {"40001", "40P01", "57P01", "57P02", "57P03", "57P05", "53300", "25P03", "25P02"}
"""server restarts, too many connections, a standby that had to cancel, a transaction that was ended"""


def fault_of(error: Exception, connecting: bool = False) -> Fault:
    """A driver's error as a Fault: the server's words where they cannot quote a row, else the name of the error."""
    import psycopg

    text = str(error)
    found = re.search(r"SQLSTATE: (\w{5})", text)
    state = getattr(error, "sqlstate", None) or (found[1] if found else None)
    if state is None:
        words = " ".join(text.split("\n")[0].removeprefix("IO: ").split())
        if connecting:
            return Fault(words, lost=not _LASTING.search(text))
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) or bool(_CONNECTION.search(text))
        return Fault("the server closed the connection" if lost else error.__class__.__name__, lost)
    if state in _AGAIN or state[:2] == "08":
        return Fault(f"the server ended it, SQLSTATE {state}", lost=True)
    if connecting:
        return Fault(" ".join(text.split("\n")[0].split()), lost=False)
    try:
        name = psycopg.errors.lookup(state).__name__
    except KeyError:
        name = "error"
    told = {
        "22": "a CAST or a computation fails on some row; give the text as it is: a value that does not fit its column "
        "then goes to rejects",
        "57": "the server cancelled the query: somebody stopped it, or a time limit of the server did",
        "53": "the server is short of disk, memory or connections",
    }.get(state[:2], "the server refuses it")
    if state in {"22021", "22P05"}:
        told = (
            "a text is no valid UTF-8 and cannot be made so (is the database's encoding SQL_ASCII?); mend it in the SQL"
        )
    if state == "42501":
        told = f"{_primary(text)}; its owner runs GRANT SELECT ON that table TO this user"
    return Fault(f"{told} ({name}, SQLSTATE {state})")


def _primary(text: str) -> str:
    found = re.search(r"permission denied for [\w ]+", text)
    return found[0] if found else "permission denied"


class AdbcReader:
    """Binary COPY straight into Arrow."""

    def __init__(
        self,
        conninfo: str,
        session: list[str],
        snapshot: dict[str, str],
        other: Callable[[], PsycopgReader],
        declined: set[str],
    ) -> None:
        """`other` opens the connection that reads what adbc cannot; `declined` holds the statements that it has
        already given up. Raises Fault."""
        # without their dbapi module, which imports pyarrow.dataset, pandas and polars: a third of a second
        import adbc_driver_manager
        import adbc_driver_postgresql

        self.snapshot = snapshot
        self.kinds: dict[str, list[str]] = {}
        self._other, self._declined = other, declined
        self._second: PsycopgReader | None = None
        self._database: Any = None
        self._connection: Any = None
        self._statement: Any = None
        try:
            self._database = adbc_driver_postgresql.connect(conninfo)
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
            for sql in session:
                with adbc_driver_manager.AdbcStatement(self._connection) as statement:
                    statement.set_sql_query(sql)
                    statement.execute_update()
        except adbc_driver_manager.Error as error:
            self.close()
            raise fault_of(error, connecting=True) from None
        except BaseException:
            self.close()
            raise

    def read(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows as Arrow batches; a statement that adbc cannot read goes to psycopg, which also names faults better."""
        import adbc_driver_manager
        import pyarrow as pa

        if sql in self._declined:
            return self._through_psycopg(sql)
        self._end_statement()
        try:
            self._statement = adbc_driver_manager.AdbcStatement(self._connection)
            self._statement.set_sql_query(sql)
            stream, _ = self._statement.execute_query()
            reader = pa.RecordBatchReader.from_stream(stream)
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            fault = fault_of(error)
            if fault.lost:
                raise fault from None
            self._declined.add(sql)
            return self._through_psycopg(sql)
        return reader.schema, self._batches(sql, reader)

    def _through_psycopg(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        import psycopg

        if self._second is None:
            try:
                self._second = self._other()
            except psycopg.Error as error:
                raise fault_of(error, connecting=True) from None
        return self._second.read(sql)

    def _batches(self, sql: str, reader: Any) -> Iterator[pa.RecordBatch]:
        import adbc_driver_manager
        import pyarrow as pa

        try:
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                yield _finite(batch)
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            # after the first rows adbc tells no code: what is no lost connection is read again by psycopg
            fault = fault_of(error)
            if not fault.lost:
                self._declined.add(sql)
                fault = Fault("adbc stopped within the rows; psycopg reads them again", lost=True)
            raise fault from None

    def _end_statement(self) -> None:
        import adbc_driver_manager

        if self._statement is not None:
            with contextlib.suppress(adbc_driver_manager.Error, OSError):
                self._statement.close()
            self._statement = None

    def close(self) -> None:
        """Never raises."""
        import adbc_driver_manager

        if self._second is not None:
            self._second.close()
        self._end_statement()
        for opened in (self._connection, self._database):
            if opened is not None:
                with contextlib.suppress(adbc_driver_manager.Error, OSError):
                    opened.close()


def _finite(batch: pa.RecordBatch) -> pa.RecordBatch:
    """adbc counts from 1970 without a look at infinity, which wraps around: give DuckDB's infinities instead."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = list(batch.columns)
    for i, column in enumerate(columns):
        if pa.types.is_timestamp(column.type):
            wide, most, shift, whole = pa.int64(), 2**63 - 1, EPOCH_US, 2**64
        elif pa.types.is_date32(column.type):
            wide, most, shift, whole = pa.int32(), 2**31 - 1, EPOCH_DAYS, 2**32
        else:
            continue
        numbers = column.view(wide)
        after, before = most + shift - whole, -most - 1 + shift
        lowest = pc.min(numbers).as_py()
        if lowest is not None and lowest <= max(after, before):
            for wrapped, infinity in ((after, most), (before, -most)):
                is_it = pc.equal(numbers, pa.scalar(wrapped, wide))
                numbers = pc.if_else(is_it, pa.scalar(infinity, wide), numbers)
            columns[i] = numbers.view(column.type)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


class PsycopgReader:
    """Text COPY, parsed here: slower, for what adbc cannot."""

    def __init__(self, conninfo: str, session: list[str], snapshot: dict[str, str]) -> None:
        """Raises psycopg.Error."""
        import psycopg

        self.snapshot = snapshot
        self.kinds: dict[str, list[str]] = {}
        self._connection: psycopg.Connection[Any] = psycopg.connect(conninfo, autocommit=True)
        try:
            for statement in session:
                self._connection.execute(statement.encode())
        except BaseException:
            self.close()
            raise

    def read(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows as Arrow batches of bounded size."""
        import psycopg
        import pyarrow as pa

        try:
            described = self._connection.execute(f"SELECT * FROM ({sql}) AS r LIMIT 0".encode()).description or []
        except psycopg.Error as error:
            raise fault_of(error) from None
        schema = pa.schema([pa.field(column.name, _arrow(column.type_code)) for column in described])
        return schema, self._batches(sql, schema)

    def _batches(self, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        import psycopg

        rows: list[tuple[str | None, ...]] = []
        size = 0
        try:
            with self._connection.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT".encode()) as copy:
                copy.set_types(["text"] * len(schema))
                for row in copy.rows():
                    rows.append(row)
                    size += sum(len(value) for value in row if value is not None)
                    if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
                        yield _batch(rows, schema)
                        rows, size = [], 0
        except psycopg.Error as error:
            raise fault_of(error) from None
        yield _batch(rows, schema)

    def close(self) -> None:
        """Never raises."""
        self._connection.close()


def _arrow(oid: int) -> pa.DataType:
    import pyarrow as pa

    kinds = {16: pa.bool_(), 21: pa.int16(), 23: pa.int32(), 20: pa.int64(), 700: pa.float32(), 701: pa.float64(),
             1082: pa.date32(), 1114: pa.timestamp("us")}  # fmt: skip
    return kinds.get(oid, pa.string())


def _batch(rows: list[tuple[str | None, ...]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = []
    for i, field in enumerate(schema):
        values = [row[i] for row in rows]
        if pa.types.is_boolean(field.type):
            columns.append(pa.array([None if value is None else value == "t" for value in values], field.type))
        elif pa.types.is_temporal(field.type):
            columns.append(_times(values, field.type))
        else:
            columns.append(pa.array(values, pa.string()).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _times(values: list[str | None], kind: pa.DataType) -> pa.Array:
    """Dates and times from PostgreSQL's ISO style, those that Python cannot hold included."""
    import numpy as np
    import pyarrow as pa

    unit, wide, most = ("us", pa.int64(), 2**63 - 1) if pa.types.is_timestamp(kind) else ("D", pa.int32(), 2**31 - 1)

    def number(text: str) -> int:
        if text in {"infinity", "-infinity"}:
            return most if text == "infinity" else -most
        date, _, clock = text.removesuffix(" BC").partition(" ")
        year, rest = date.split("-", 1)
        if text.endswith(" BC"):  # 1 BC is the year 0 of ISO 8601
            year = f"{1 - int(year):05d}"
        moment = np.array([f"{year}-{rest}" + (f"T{clock}" if clock else "")], f"datetime64[{unit}]")
        return int(moment.astype(np.int64)[0])

    return pa.array([None if value is None else number(value) for value in values], wide).view(kind)
