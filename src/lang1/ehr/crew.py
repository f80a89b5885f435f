"""Partitions of a plan read at once: threads with a connection each, and a file a partition.

They read while the main thread checks, sorts and writes what has come: `wait` gives it each partition in its turn.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr.plans import Database, Fault, Plan, Reader
from lang1.ehr.queries import Query
from lang1.errors import InputError, Unfinished

LONGEST_WAIT_S = 30.0
FIRST_WAIT_S = 1.0
SAY_EVERY_S = 10.0


@dataclass(frozen=True)
class Job:
    """One partition to read, and the file that it becomes."""

    table: str
    n: int
    file: Path


class _Stop(Exception):
    """Another partition failed, or the user interrupted: this one ends at its next batch."""


class Crew:
    """Threads with a connection each; Arrow, Parquet and the drivers leave the interpreter's lock while they work."""

    def __init__(
        self,
        database: Database,
        cfg: ExtractConfig,
        plan: Plan,
        queries: dict[str, Query],
        jobs: list[Job],
        keep: Callable[[], None],
    ) -> None:
        """`jobs` in the order in which they will be waited for; `keep` writes the plan down when it has changed."""
        self._database, self._cfg, self._plan, self._queries = database, cfg, plan, queries
        self._keep, self._all, self._rows, self._unread = keep, len(jobs), 0, len(jobs)
        self._open = {(job.table, job.n) for job in jobs}
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._jobs.put(job)
        self._ended: queue.SimpleQueue[tuple[Job, int] | BaseException] = queue.SimpleQueue()
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"extract-{i}", daemon=True)
            for i in range(min(cfg.workers, database.at_once, self._all))
        ]

    def start(self) -> None:
        """Begin to read."""
        self._said = time.monotonic()
        for thread in self._threads:
            thread.start()

    def wait(self, table: str, n: int) -> None:
        """Until partition `n` of `table` is on disk. Raises the first fault of any partition."""
        while (table, n) in self._open:
            self._next()

    def finish(self) -> None:
        """Until every partition is on disk. Raises the first fault."""
        while self._open:
            self._next()

    def close(self) -> None:
        """Stop what is under way; never raises."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5)

    def _next(self) -> None:
        outcome = self._ended.get()
        if isinstance(outcome, BaseException):
            raise outcome
        job, rows = outcome
        self._rows += rows
        self._open.remove((job.table, job.n))
        if not self._open:
            runs.say(f"extract: {self._all} partitions read, {self._rows:,} rows")
        elif time.monotonic() - self._said > SAY_EVERY_S:
            runs.say(f"extract: {self._all - len(self._open)} of {self._all} partitions, {self._rows:,} rows")
            self._said = time.monotonic()

    def _run(self) -> None:
        reader: Reader | None = None
        try:
            while not self._stop.is_set():
                job = self._jobs.get_nowait()
                rows, reader = self._fetch(job, reader)
                self._ended.put((job, rows))
                with self._lock:
                    self._unread -= 1
                    was_last = not self._unread
                if was_last:  # the server is free while the rest is sorted
                    reader.close()
                    reader = None
                    self._database.close()
        except (queue.Empty, _Stop):
            pass  # nothing left to do
        except BaseException as error:  # handed to the main thread, which raises it
            self._ended.put(error)
            self._stop.set()
        finally:
            if reader is not None:
                reader.close()

    def _fetch(self, job: Job, reader: Reader | None) -> tuple[int, Reader]:
        for attempt in range(self._cfg.tries):
            try:
                if reader is None:
                    reader = self._connected()
                return self._write(job, reader), reader
            except BaseException as error:
                if reader is not None:
                    reader.close()
                    reader = None
                if not isinstance(error, Fault):  # a full disk, an end that somebody else brought
                    raise
                if not error.lost:
                    raise InputError(f"{self._database.name} ({self._queries[job.table].name}): {error}") from None
                last = error
            if attempt + 1 < self._cfg.tries:
                wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt)
                runs.say(f"extract: {job.table}: connection lost ({last}); again in {wait:g} s")
                if self._stop.wait(wait):
                    raise _Stop
        raise Unfinished(
            f"{self._database.name}: the connection was lost {self._cfg.tries} times while {job.table} was read "
            f"({last}); what was read is kept: when the server answers, the same command goes on from there"
        )

    def _connected(self) -> Reader:
        try:
            reader = self._database.reader()
        except Fault as fault:
            if fault.lost:
                raise
            # a password that was changed meanwhile, say: no reason to throw away what was read
            raise Unfinished(f"{self._database.name}: cannot connect: {fault}; what was read is kept") from None
        self._note_snapshot(reader.snapshot)
        return reader

    def _write(self, job: Job, reader: Reader) -> int:
        schema, batches = reader.read(self._plan.tables[job.table].sql(job.n))
        rows = 0
        with runs.parquet_writer(job.file, schema, 0o600, fleeting=True) as writer:
            for batch in batches:
                if self._stop.is_set():
                    raise _Stop
                writer.write_batch(batch)
                rows += batch.num_rows
            if reader.kinds:
                writer.add_key_value_metadata({"kinds": json.dumps(reader.kinds)})
        return rows

    def _note_snapshot(self, snapshot: dict[str, str]) -> None:
        with self._lock:
            known = self._plan.snapshots
            if snapshot in known:
                return
            if known and (snapshot["state"] != known[-1]["state"] or not snapshot["state"]):
                runs.say(
                    f"extract: the rows read so far are the database's as of {known[-1]['taken']}, the others as of "
                    f"{snapshot['taken']} (see database.snapshots in the manifest); --force reads all at one time"
                )
            known.append(snapshot)
            self._keep()
