"""`clean` on Dask processes that are not its own, or that die: the same bytes, or one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from corpus_records import file_hashes, note, prose, write_records

from lang1 import runs
from lang1.config import CleanConfig
from lang1.corpus import clean, cluster
from lang1.errors import InputError, Unfinished

LANG1 = Path(sys.executable).with_name("lang1")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    runs.set_quiet(True)


@pytest.mark.slow
def test_a_cluster_left_without_workers_is_given_up(tmp_path: Path, monkeypatch: Any) -> None:
    from distributed import Client, Nanny

    monkeypatch.setattr(cluster, "LONELY_S", 2.0)
    monkeypatch.setattr(cluster, "CHECK_S", 0.2)
    with cluster.open_client(None, 1, "1GB", tmp_path) as client:
        assert isinstance(client, Client)
        assert all(isinstance(worker, Nanny) for worker in client.cluster.workers.values())
        client.cluster.scale(0)
        with pytest.raises(
            InputError, match=r"no Dask worker for 2 s, while waiting for rows 0 to 9 of x; out of memory"
        ):
            cluster.wait_for(client, client.submit(pow, 2, 3), "rows 0 to 9 of x")


def test_a_scheduler_without_workers_is_said_at_once_and_given_up_with_advice_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:  # of a scheduler elsewhere
        cluster = None

        def nthreads(self) -> dict[str, int]:
            return {}

    class Future:
        status = "pending"

        def result(self, timeout: float) -> None:
            time.sleep(timeout)
            raise TimeoutError

    monkeypatch.setattr(cluster, "LONELY_S", 0.2)
    monkeypatch.setattr(cluster, "CHECK_S", 0.02)
    runs.set_quiet(False)
    with pytest.raises(Unfinished, match=r"while waiting for rows 0 to 9 of x; start `dask worker`s; ") as caught:
        cluster.wait_for(Client(), Future(), "rows 0 to 9 of x")
    assert "--memory-limit" in str(caught.value) and "worker_memory" not in str(caught.value)
    assert capsys.readouterr().err.count("the scheduler has no worker") == 1


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine so slow that a nanny hears of its worker, and starts the next one, after the worker has died."""
    from multiprocessing.context import SpawnProcess

    from distributed.nanny import WorkerProcess

    hear, start = WorkerProcess._wait_until_connected, SpawnProcess.start

    async def hear_late(process: WorkerProcess, *args: Any) -> Any:
        heard = await hear(process, *args)
        await asyncio.sleep(0.5)
        return heard

    def start_late(process: SpawnProcess) -> None:
        time.sleep(1.0)
        start(process)

    monkeypatch.setattr(WorkerProcess, "_wait_until_connected", hear_late)
    monkeypatch.setattr(SpawnProcess, "start", start_late)
    with cluster.open_client(None, 1, "1GB", tmp_path) as client:
        assert cluster.wait_for(client, client.submit(pow, 2, 3), "the first") == 8
        with pytest.raises(ZeroDivisionError):
            cluster.wait_for(client, client.submit(divmod, 1, 0), "the second")
        with pytest.raises(InputError, match="the workers that took the third died"):
            cluster.wait_for(client, client.submit(os._exit, 1), "the third")


def test_two_runs_of_one_process_id_share_no_task(tmp_path: Path, monkeypatch: Any) -> None:
    """On one scheduler, drivers in containers often have the same process id."""
    keys: list[str] = []

    class Done:
        def __init__(self, counts: Any) -> None:
            self.counts = counts

        def release(self) -> None:
            pass

    class Client:
        def submit(self, work: Any, *args: Any, key: str, pure: bool, **settings: Any) -> Done:
            keys.append(key)
            return Done(work(*args, **settings))

    @contextlib.contextmanager
    def open_client(*_: Any) -> Iterator[Client]:
        yield Client()

    monkeypatch.setattr(cluster, "open_client", open_client)
    monkeypatch.setattr(cluster, "wait_for", lambda client, future, what: future.counts)
    records = write_records(tmp_path / "r", [note(i, prose(i)) for i in range(60)])
    for out in ("a", "b"):
        clean(CleanConfig(partition_rows=30, scheduler="tcp://x:1"), records=records, out=tmp_path / out, seed=1)
    assert len(keys) == len(set(keys)) == 4
    assert {key.split("-")[1] for key in keys} == {"0", "1"}
    assert file_hashes(tmp_path / "a") == file_hashes(tmp_path / "b")


@contextlib.contextmanager
def dask_processes(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, each a process: the address, the scheduler and the workers."""
    file = folder / "scheduler.json"
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *common]
    worker += ["--local-directory", str(folder)]
    started = [subprocess.Popen(scheduler, stderr=subprocess.DEVNULL)]
    try:
        while not file.exists():
            time.sleep(0.1)
        started += [subprocess.Popen(worker, stderr=subprocess.DEVNULL) for _ in range(2)]
        yield json.loads(file.read_text())["address"], started[0], started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(20)


def records_of(folder: Path, count: int = 3_000) -> Path:
    return write_records(folder, [note(i, prose(i, 150)) for i in range(count)])


def when_under_way(out: Path, done: int, act: Any) -> threading.Thread:
    """Do `act` once some partitions are whole."""

    def watch() -> None:
        while len(list((out / runs.SCRATCH).glob("*.json"))) < done:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_scheduler_that_runs_elsewhere_is_used_and_a_worker_killed_on_the_way_changes_nothing(tmp_path: Path) -> None:
    records = records_of(tmp_path / "r")
    clean(CleanConfig(workers=1), records=records, out=tmp_path / "here", seed=1)
    with dask_processes(tmp_path) as (address, _, workers):
        command = [LANG1, "clean", "clean.partition_rows=30", "--scheduler", address, "--records", records, "--out"]
        done = subprocess.run([*command, tmp_path / "there"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert file_hashes(tmp_path / "there") == file_hashes(tmp_path / "here")
        assert runs.read_manifest(tmp_path / "there")["facts"]["run_with"]["scheduler"] == address
        killer = when_under_way(tmp_path / "again", 3, lambda: workers[0].send_signal(signal.SIGKILL))
        done = subprocess.run([*command, tmp_path / "again"], capture_output=True, text=True)
        killer.join(1)
        assert not killer.is_alive() and workers[0].wait(5) == -signal.SIGKILL
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert file_hashes(tmp_path / "again") == file_hashes(tmp_path / "here")


@pytest.mark.slow
def test_a_scheduler_that_goes_away_is_one_line_and_the_run_goes_on_without_it(tmp_path: Path) -> None:
    records = records_of(tmp_path / "r")
    out = tmp_path / "c"
    with dask_processes(tmp_path) as (address, scheduler, _):
        killer = when_under_way(out, 3, scheduler.kill)
        command = [LANG1, "clean", "clean.partition_rows=30", "--seed", "1", "--scheduler", address]
        command += ["--records", records, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        killer.join(1)
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert told[-1].startswith("lang1: clean: the Dask scheduler went away"), done.stderr
    assert "Traceback" not in done.stderr
    # What the workers that are left still write is this run's, and it goes on from there.
    assert (out / runs.STARTED).exists() and len(list((out / runs.SCRATCH).glob("*.json"))) >= 3
    clean(CleanConfig(partition_rows=30, workers=1), records=records, out=out, seed=1)
    clean(CleanConfig(), records=records, out=tmp_path / "d", seed=1)
    assert file_hashes(out) == file_hashes(tmp_path / "d")


@pytest.mark.slow
def test_a_worker_that_takes_more_than_its_memory_is_ended_and_named(tmp_path: Path) -> None:
    with (
        cluster.open_client(None, 1, "300MB", tmp_path) as client,
        pytest.raises(InputError, match=r"the workers that took rows 1 to 9 of x died; .*raise clean\.worker_memory"),
    ):
        cluster.wait_for(client, client.submit(fill_memory, 400_000_000), "rows 1 to 9 of x")


def fill_memory(size: int) -> int:
    """Hold memory until somebody looks."""
    held = bytearray(os.urandom(1000) * (size // 1000))
    time.sleep(30)
    return len(held)
