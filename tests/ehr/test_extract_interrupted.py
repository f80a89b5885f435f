"""A connection that drops, a server that dies, a process that is killed: the same command ends with the same bytes."""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import crew, databases, extract
from lang1.ehr.crew import Crew
from lang1.errors import InputError, Unfinished

from .server import Proxy, Server
from .test_extract_postgres import data_files

ROWS = 100
"""rows a partition: the simulated hospital gives about thirty"""


@pytest.fixture(scope="module")
def whole(server: Server, hospital: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an extraction that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "records"
    return data_files(extract(ExtractConfig(), source=server.url(hospital), out=out, seed=1))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "FIRST_WAIT_S", 0.05)


@pytest.fixture
def proxied(server: Server, hospital: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server, and the URL through it."""
    if server.named is not None:
        pytest.skip("cuts the connections of its own server only")
    with tempfile.TemporaryDirectory(prefix="lang1-proxy-") as folder:  # a socket's path is short
        proxy = Proxy(server.socket_folder, Path(folder), [])
        yield proxy, f"postgresql://postgres@/{hospital}?host={folder}"
        proxy.close()


def read_files(out: Path) -> set[Path]:
    """What a run that was cut off has kept: raw partitions, and the parts of tables that are written."""
    return {*(out / runs.SCRATCH).glob("raw/*/*.parquet"), *out.glob("*/part-*.parquet")}


# bytes after which a connection is cut: while it logs in, while adbc reads the types (262 kB), within the rows
@pytest.mark.parametrize("cut", [60, 1_000, 100_000, 262_700, 266_000, 300_000])
def test_a_dropped_connection_is_taken_up_again(
    proxied: tuple[Proxy, str], whole: dict[str, str], tmp_path: Path, cut: int
) -> None:
    proxy, url = proxied
    proxy.cuts += [0, cut, cut, 0, cut]  # the first connection plans
    cfg = ExtractConfig(workers=2, partition_rows=ROWS, tries=8)
    assert data_files(extract(cfg, source=url, out=tmp_path / "out", seed=1)) == whole
    assert not proxy.cuts


def test_when_it_keeps_dropping_what_was_read_stays_for_the_same_command(
    proxied: tuple[Proxy, str], whole: dict[str, str], tmp_path: Path
) -> None:
    proxy, url = proxied
    proxy.cuts += [0, 400_000, *[20_000] * 60]  # the first connection plans, the second reads a little
    cfg, out = ExtractConfig(workers=2, partition_rows=ROWS, tries=2), tmp_path / "out"
    with pytest.raises(Unfinished) as caught:
        extract(cfg, source=url, out=out, seed=1)
    assert "the connection was lost 2 times while" in str(caught.value)
    assert str(caught.value).endswith("when the server answers, the same command goes on from there")
    kept = {path: path.stat().st_mtime_ns for path in read_files(out)}
    assert kept and not runs.is_complete(out)
    proxy.cuts.clear()
    with_other_workers = ExtractConfig(workers=1, partition_rows=9, tries=3)  # how, not what: no reason to refuse
    seen: list[Path] = []
    plain = Crew._write

    def write(self: Any, job: Any, reader: Any) -> int:
        seen.append(job.file)
        return plain(self, job, reader)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "_write", write)
        manifest = extract(with_other_workers, source=url, out=out, seed=1)
    assert data_files(manifest) == whole and not set(seen) & kept.keys()
    assert not {file.parent.name for file in seen} & {file.parent.name for file in kept if "part-" in file.name}
    snapshots = manifest["facts"]["database"]["snapshots"]
    assert len(snapshots) == 2 and manifest["facts"]["database"]["one_state"]  # nobody wrote in between


def test_backends_that_an_administrator_ends(
    server: Server, hospital: str, whole: dict[str, str], tmp_path: Path
) -> None:
    done = threading.Event()
    ended = 0

    def end() -> None:
        nonlocal ended
        with psycopg.connect(server.url(hospital), autocommit=True) as con:
            while not done.is_set() and ended < 6:
                ended += len(
                    con.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lang1' "
                        "AND datname = current_database() AND query LIKE 'COPY%' LIMIT 1"
                    ).fetchall()
                )
                time.sleep(0.01)

    thread = threading.Thread(target=end)
    thread.start()
    cfg = ExtractConfig(workers=3, partition_rows=ROWS, tries=10)
    try:
        assert data_files(extract(cfg, source=server.url(hospital), out=tmp_path / "out", seed=1)) == whole
    finally:
        done.set()
        thread.join()
    assert ended


def test_a_change_between_two_halves_is_recorded(
    server: Server, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cfg = tmp_path / "out", ExtractConfig(workers=1, partition_rows=ROWS)
    with server.database() as database:
        server.load(database, simulated)
        plain = Crew._write
        begun = itertools.count(1)

        def fail_at_the_tenth(self: Any, job: Any, reader: Any) -> int:
            if next(begun) > 10:  # not by the files that are there: a table that is whole takes the place of its pieces
                raise OSError(28, "No space left on device")
            return plain(self, job, reader)

        with monkeypatch.context() as patch:
            patch.setattr(Crew, "_write", fail_at_the_tenth)
            with pytest.raises(OSError):
                extract(cfg, source=server.url(database), out=out, seed=1)
        server.run(database, "DELETE FROM cdm.claim WHERE claim_id = (SELECT max(claim_id) FROM cdm.claim)")
        about = extract(cfg, source=server.url(database), out=out, seed=1)["facts"]["database"]
    assert not about["one_state"] and len({snapshot["state"] for snapshot in about["snapshots"]}) == 2


SCRIPT = (
    "import sys; from lang1.config import ExtractConfig; from lang1.ehr import extract; from pathlib import Path\n"
    "extract(ExtractConfig(workers=2, partition_rows=60), source=sys.argv[1], out=Path(sys.argv[2]), seed=1)"
)


@pytest.mark.parametrize("until", ["raw/notes/*.parquet", "written/encounters.json"])
def test_kill_9_costs_what_was_under_way(
    server: Server, hospital: str, whole: dict[str, str], tmp_path: Path, until: str
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url(hospital), str(out)], stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list((out / runs.SCRATCH).glob(until)):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(out), "it ended before the kill: nothing was tested"
    kept = {path for path in read_files(out) if not path.name.startswith(".")}
    done = (out / runs.SCRATCH / "written" / "patients.json").exists()
    written = sorted((out / "patients").glob("part-*")) if done else []
    before = {path: path.stat().st_ino for path in (*kept, *written)}
    assert before
    cfg = ExtractConfig(workers=2, partition_rows=60)
    inodes: dict[Path, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        plain = databases.forget

        def forget(scratch: Path, table: str) -> None:
            inodes.update({path: path.stat().st_ino for path in kept if path.parent.name == table})
            plain(scratch, table)

        patch.setattr("lang1.ehr.extraction.forget", forget)
        manifest = extract(cfg, source=server.url(hospital), out=out, seed=1)
    assert data_files(manifest) == whole and not list(out.rglob(".*"))
    assert inodes == {path: before[path] for path in inodes}
    assert {path: path.stat().st_ino for path in written} == {path: before[path] for path in written}


def test_a_server_that_dies_and_comes_back(
    server: Server, hospital: str, whole: dict[str, str], tmp_path: Path
) -> None:
    if server.named is not None:
        pytest.skip("stops its own server only")
    out, cfg = tmp_path / "out", ExtractConfig(workers=2, partition_rows=ROWS, tries=2)
    plain = Crew._write
    begun = itertools.count(1)

    def crash_at_the_fifth(self: Any, job: Any, reader: Any) -> int:
        if next(begun) == 6:
            server.crash()
        return plain(self, job, reader)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Crew, "_write", crash_at_the_fifth)
            with pytest.raises(Unfinished, match="the same command goes on from there"):
                extract(cfg, source=server.url(hospital), out=out, seed=1)
        kept = read_files(out)
        with pytest.raises(Unfinished, match=r"cannot connect: .*the partitions that are there are kept"):
            extract(cfg, source=f"postgresql://postgres@/{hospital}?host={server.folder}", out=out, seed=1)
    finally:
        server.start()
    assert kept and read_files(out) == kept
    assert data_files(extract(cfg, source=server.url(hospital), out=out, seed=1)) == whole


def test_a_full_disk_keeps_what_was_read(
    server: Server, hospital: str, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cfg = tmp_path / "out", ExtractConfig(workers=1, partition_rows=ROWS)
    plain, write = Path.replace, Crew._write
    pieces = itertools.count(1)

    def full(self: Path, target: Path) -> Path:
        if (out / runs.SCRATCH / "raw") in target.parents and next(pieces) > 6:
            raise OSError(28, "No space left on device")
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match="cannot be written: the disk is full"):
            extract(cfg, source=server.url(hospital), out=out, seed=1)
    kept, again = read_files(out), set[Path]()
    assert kept

    def remember(self: Any, job: Any, reader: Any) -> int:
        again.add(job.file)
        return write(self, job, reader)

    monkeypatch.setattr(Crew, "_write", remember)
    assert data_files(extract(cfg, source=server.url(hospital), out=out, seed=1)) == whole
    assert again and not again & kept
