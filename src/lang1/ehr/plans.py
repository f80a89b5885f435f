"""What is read from a database server, and what postgres.py and alchemy.py each have so that it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lang1.ehr.queries import Query

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ONE_PARTITION = 2**62
"""rows a partition when a table is not to be cut, and so not to be looked at"""


class Fault(Exception):
    """What a server answered instead of rows: safe to show, it quotes no row."""

    def __init__(self, message: str, lost: bool = False) -> None:
        """`lost`: the connection or the server went away; asking again may help."""
        super().__init__(message)
        self.lost = lost


@dataclass
class TablePlan:
    """How one table is read: a SELECT, and the condition of each partition ("" for all rows)."""

    select: str
    wheres: list[str]
    ordered: bool = False
    """partitions come in the order of the ids' text, a null id last: each can be sorted alone"""
    rows: int | None = None
    """rows of the query in the state that the partitions are read in, where they were counted"""

    def sql(self, n: int) -> str:
        """The statement of partition `n`."""
        return self.select + (f"\nWHERE {self.wheres[n]}" if self.wheres[n] else "")


@dataclass
class Plan:
    """What is read from a database; kept in the scratch folder while the stage is not complete."""

    tables: dict[str, TablePlan]
    absent: list[str]
    facts: dict[str, Any]
    snapshots: list[dict[str, str]]
    """when a state of the database was taken, and what names it; one unless a run was cut off"""


class Reader(Protocol):
    """One connection that reads partitions, in one read-only transaction where the server has such."""

    snapshot: dict[str, str]
    kinds: dict[str, list[str]]
    """where every value is read as text: what Python types the last statement's columns had"""

    def read(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """Rows as Arrow batches of bounded size. It and the iterator raise Fault."""

    def close(self) -> None:
        """Never raises."""


class Database(Protocol):
    """A server: postgres.py and alchemy.py have one each."""

    name: str
    """as errors name it: no password"""
    at_once: int
    """connections that may read the same state of the database"""
    digests: bool
    """the server can tell changed rows from unchanged ones without sending them (since.py)"""

    def connect(self) -> None:
        """Try the server once. Raises InputError in the user's words."""

    def plan(self, con: duckdb.DuckDBPyConnection, queries: dict[str, Query], rows: int) -> Plan:
        """Check every query and cut it into partitions of about `rows` rows. Raises InputError with all faults."""

    def resume(self, plan: Plan) -> None:
        """Take up a plan that an earlier run made."""

    def reader(self) -> Reader:
        """A new connection. Raises Fault."""

    def close(self) -> None:
        """Never raises."""
