"""What a run folder promises: whole files, honest manifests, work done once, one writer, one line a fault."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.errors import InputError


@pytest.fixture(autouse=True)
def _aloud() -> None:
    runs.set_quiet(False)


def write_letters(letters: str) -> Callable[[runs.Stage], None]:
    def work(stage: runs.Stage) -> None:
        runs.write_text(stage.out / "letters.txt", letters)
        stage.count(letters=len(letters))
        stage.record(first=letters[:1])

    return work


def stage(out: Path, letters: str = "abc", force: bool = False, **inputs: Path) -> dict[str, Any]:
    return runs.run_stage(
        out, "letters", {"letters": letters, "deep": {"x": 1}}, 1, inputs, write_letters(letters), force
    )


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def child(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


HOLD = """
import sys, time
from pathlib import Path
from lang1 import runs
with runs.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder: Path) -> Any:
    process = child(HOLD, folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.communicate()


# --- files


def test_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.bin"
    with runs.atomic_write(path) as sink:
        sink.write(b"half")
        sink.flush()
        assert not path.exists()
        sink.write(b"whole")
    assert path.read_bytes() == b"halfwhole"
    assert names(path.parent) == ["data.bin"]


def test_failure_while_writing_leaves_the_earlier_file_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    runs.write_text(path, "before")
    with pytest.raises(ZeroDivisionError), runs.atomic_write(path) as sink:
        sink.write(b"torn")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert names(tmp_path) == ["data.txt"]


def test_kill_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    runs.write_text(path, "before")
    code = """
import sys, time
from pathlib import Path
from lang1 import runs
with runs.atomic_write(Path(sys.argv[1])) as sink:
    sink.write(b"x" * 100_000)
    sink.flush()
    print("writing", flush=True)
    time.sleep(60)
"""
    process = child(code, path)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.glob(".*.tmp")], "the torn file has a temporary name"


@pytest.mark.parametrize(("octal", "mode"), [("0640", 0o640), ("0600", 0o600), ("0644", 0o644)])
def test_files_have_the_configured_mode(tmp_path: Path, octal: str, mode: int) -> None:
    runs.set_file_mode(octal)
    runs.write_text(tmp_path / "a.txt", "a")
    runs.write_table(tmp_path / "b.parquet", pa.table({"x": [1]}))
    with runs.append_lines(tmp_path / "c.jsonl") as append:
        append({"step": 1})
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {mode}


def test_file_that_is_being_written_is_never_world_readable(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from lang1 import runs
runs.set_file_mode("0640")
with runs.atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("a note")
    print(oct(temporary.stat().st_mode & 0o777))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True, umask=0o022)
    assert done.stdout == "0o640\n"


def test_a_stricter_mode_can_be_asked_for_one_file(tmp_path: Path) -> None:
    runs.write_table(tmp_path / "rejects.parquet", pa.table({"x": [1]}), mode=0o600)
    assert stat.S_IMODE((tmp_path / "rejects.parquet").stat().st_mode) == 0o600


def test_a_stricter_mode_holds_while_the_file_is_written_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)  # of a worker that `dask worker` started
    try:
        with runs.atomic_write(tmp_path / "a.kept", 0o600) as sink:
            sink.write(b"a note")
            sink.flush()
            (temporary,) = tmp_path.iterdir()
            assert temporary.stat().st_mode & 0o777 == 0o600 and temporary.stat().st_size == 6
    finally:
        os.umask(before)
    assert (tmp_path / "a.kept").read_bytes() == b"a note"


def test_mode_that_is_no_octal_number_is_refused() -> None:
    with pytest.raises(InputError, match="file_mode: 'rw' is not an octal mode such as 0640"):
        runs.set_file_mode("rw")


def test_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "a.json", {"b": 1, "a": [2.5, None, "é"]})
    runs.write_json(tmp_path / "b.json", {"a": [2.5, None, "é"], "b": 1})
    table = pa.table({"x": list(range(1000)), "y": ["ab"] * 1000})
    runs.write_table(tmp_path / "a.parquet", table)
    runs.write_table(tmp_path / "b.parquet", table)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet").equals(table)


def test_nan_never_reaches_a_json_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(tmp_path / "a.json", {"auroc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_torn_last_line_of_a_log_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "curve.jsonl"
    with runs.append_lines(log) as append:
        append({"step": 1})
        append({"step": 2})
    with log.open("a") as torn:
        torn.write('{"step": 3, "lo')
    assert runs.read_lines(log) == [{"step": 1}, {"step": 2}]
    assert runs.read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("content", ["", "{", "\x00\x00", '{"a": '])
def test_broken_json_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: not readable as JSON; delete its folder") as caught:
        runs.read_json(path)
    assert "\n" not in str(caught.value)


# --- stages


def test_manifest_says_what_was_made_from_what(tmp_path: Path) -> None:
    first = stage(tmp_path / "first")
    second = stage(tmp_path / "second", "xyz", corpus=tmp_path / "first")
    written = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert written == second
    assert written["stage"] == "letters"
    assert written["config"] == {"letters": "xyz", "deep": {"x": 1}}
    assert written["inputs"] == {"corpus": first["identity"]}
    assert written["counts"] == {"letters": 3}
    assert written["facts"] == {"first": "x"}
    letters = tmp_path / "second" / "letters.txt"
    assert written["files"] == {"letters.txt": {"bytes": 3, "sha256": runs.sha256_file(letters)}}
    assert {"lang1", "python", "numpy", "pyarrow"} <= written["versions"].keys()
    assert written["seconds"] >= 0
    assert written["peak_memory_mib"] > 1
    assert names(tmp_path / "second") == ["letters.txt", "manifest.json"]


def test_identity_follows_content_and_not_place_or_time(tmp_path: Path) -> None:
    a, b, c = stage(tmp_path / "a"), stage(tmp_path / "b"), stage(tmp_path / "c", "abd")
    assert a["identity"] == b["identity"] != c["identity"]


def test_complete_stage_is_not_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = stage(tmp_path / "out")
    changed = (tmp_path / "out" / "letters.txt").stat().st_mtime_ns
    capsys.readouterr()
    assert stage(tmp_path / "out") == first
    assert (tmp_path / "out" / "letters.txt").stat().st_mtime_ns == changed
    assert capsys.readouterr().err == f"letters: up to date ({tmp_path / 'out'})\n"


def test_other_settings_are_refused_by_name_and_nothing_is_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage(out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(InputError, match=r"made with other settings or inputs \(letters: abc -> abd\)"):
        stage(out, "abd")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_changed_input_is_refused_by_name(tmp_path: Path) -> None:
    stage(tmp_path / "in")
    stage(tmp_path / "out", corpus=tmp_path / "in")
    stage(tmp_path / "in2", "abd")
    with pytest.raises(InputError, match=r"inputs\.corpus changed"):
        stage(tmp_path / "out", corpus=tmp_path / "in2")


def test_folder_of_another_stage_is_refused(tmp_path: Path) -> None:
    stage(tmp_path / "out")
    with pytest.raises(InputError, match="belongs to the stage letters, not numbers; choose another --out"):
        runs.run_stage(tmp_path / "out", "numbers", {}, 1, {}, write_letters("abc"))


@pytest.mark.parametrize("force", [False, True])
def test_folder_that_no_stage_wrote_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that no lang1 stage wrote"):
        stage(tmp_path, force=force)
    assert names(tmp_path) == ["thesis.txt"]


def test_force_makes_a_changed_stage_again_and_leaves_an_unchanged_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage(out)
    (out / "leftover.txt").write_text("of the first run")
    assert stage(out, "abd", force=True)["config"]["letters"] == "abd"
    assert (out / "letters.txt").read_text() == "abd"
    assert not (out / "leftover.txt").exists()
    made = (out / "letters.txt").stat().st_mtime_ns
    stage(out, "abd", force=True)
    assert (out / "letters.txt").stat().st_mtime_ns == made


def test_killed_stage_resumes_with_what_it_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def dies(at: runs.Stage) -> None:
        runs.write_text(at.out / "letters.txt", "a")
        (at.scratch() / "half").write_text("x")
        (at.out / ".part.123.tmp").write_text("torn")
        raise KeyboardInterrupt

    def goes_on(at: runs.Stage) -> None:
        assert (at.out / "letters.txt").read_text() == "a"
        assert not list(at.out.glob(".*.tmp")), "torn files are gone"
        runs.write_text(at.out / "letters.txt", "ab")

    with pytest.raises(KeyboardInterrupt):
        runs.run_stage(tmp_path / "out", "letters", {}, 1, {}, dies)
    assert not runs.is_complete(tmp_path / "out")
    capsys.readouterr()
    runs.run_stage(tmp_path / "out", "letters", {}, 1, {}, goes_on)
    assert "letters: resuming" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["letters.txt", "manifest.json"]


KILLED_AS_IT_STARTS = """
import os, signal, sys
from pathlib import Path
from lang1 import runs
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
runs.run_stage(Path(sys.argv[1]), "letters", {"letters": "abc", "deep": {"x": 1}}, 1, {}, lambda stage: None)
"""


def test_a_stage_killed_before_its_first_file_has_a_name_starts_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert child(KILLED_AS_IT_STARTS, out).wait() == -signal.SIGKILL
    assert any(name.endswith(".tmp") for name in names(out)) and runs.STARTED not in names(out)
    assert stage(out)["facts"] == {"first": "a"}
    assert not any(name.endswith(".tmp") for name in names(out))


def test_bad_input_forgets_a_stage_that_wrote_nothing_and_keeps_a_log_of_answers(tmp_path: Path) -> None:
    def asks(answers: int) -> Any:
        def work(at: runs.Stage) -> None:
            (at.scratch() / "half").write_text("x")
            with runs.append_lines(at.scratch() / "api" / "answers.jsonl") as append:
                for number in range(answers):
                    append(number)
            raise InputError("the key is not set")

        return work

    for answers in (0, 3):
        with pytest.raises(InputError, match="the key is not set"):
            runs.run_stage(tmp_path / "out", "letters", {}, 1, {}, asks(answers))
        assert runs.read_lines(tmp_path / "out" / ".scratch" / "api" / "answers.jsonl") == list(range(answers))
        assert (tmp_path / "out" / ".scratch").exists() == (answers > 0)
    with pytest.raises(InputError, match="made with other settings"):
        runs.run_stage(tmp_path / "out", "letters", {"lr": 2}, 1, {}, write_letters("abc"))


def test_a_stage_whose_workers_write_on_after_its_end_starts_again(tmp_path: Path, monkeypatch: Any) -> None:
    """A worker elsewhere does not know that the run has ended."""
    remove = shutil.rmtree

    def outrun(path: Path, **settings: Any) -> None:
        remove(path, **settings)
        (path / "late").mkdir(parents=True)

    def work(at: runs.Stage) -> None:
        (at.scratch() / "half").write_text("x")
        raise InputError("row 7 has no patient")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="row 7"):
        patch.setattr(shutil, "rmtree", outrun)
        runs.run_stage(tmp_path / "out", "letters", {}, 1, {}, work)
    assert (tmp_path / "out" / runs.SCRATCH / "late").exists()
    assert runs.run_stage(tmp_path / "out", "letters", {}, 1, {}, write_letters("abc"))["facts"] == {"first": "a"}
    assert not (tmp_path / "out" / runs.SCRATCH).exists()


def test_killed_stage_is_not_resumed_with_other_settings(tmp_path: Path) -> None:
    def dies(_: runs.Stage) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run_stage(tmp_path / "out", "letters", {"lr": 1}, 1, {}, dies)
    with pytest.raises(InputError, match="lr: 1 -> 2"):
        runs.run_stage(tmp_path / "out", "letters", {"lr": 2}, 1, {}, write_letters("abc"))


def test_unfinished_stage_is_no_input(tmp_path: Path) -> None:
    def dies(_: runs.Stage) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run_stage(tmp_path / "in", "letters", {}, 1, {}, dies)
    with pytest.raises(InputError, match="not complete"):
        stage(tmp_path / "out", corpus=tmp_path / "in")
    with pytest.raises(InputError, match="none: not found"):
        stage(tmp_path / "out", corpus=tmp_path / "none")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_damaged_input_is_named(tmp_path: Path, damage: str) -> None:
    stage(tmp_path / "in")
    path = tmp_path / "in" / "letters.txt"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("ab" if damage == "truncated" else "abX")
    with pytest.raises(InputError, match=r"letters\.txt: (missing|changed since its stage ended)"):
        stage(tmp_path / "out", corpus=tmp_path / "in")


def test_files_checked_as_they_are_read_are_compared_by_size_alone(tmp_path: Path) -> None:
    stage(tmp_path / "in")
    path = tmp_path / "in" / "letters.txt"
    before = runs.identify(tmp_path / "in")
    path.write_text(path.read_text().swapcase())
    assert runs.identify(tmp_path / "in", "*.txt") == before
    with pytest.raises(InputError, match="changed since"):
        runs.identify(tmp_path / "in", "*.bin")
    path.write_text("a")
    with pytest.raises(InputError, match="changed since"):
        runs.identify(tmp_path / "in", "*.txt")


def test_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    stage(tmp_path / "in")
    manifest = json.loads((tmp_path / "in" / "manifest.json").read_text())
    (tmp_path / "in" / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match="format 99 is not the 1 that this version reads"):
        runs.read_manifest(tmp_path / "in")


# --- locks


def test_second_writer_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        with pytest.raises(InputError, match=rf"in use by process {process.pid} on .*; wait for it"):
            stage(tmp_path / "out")
        assert names(tmp_path / "out") == [".lock"]


def test_lock_of_a_killed_owner_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "out" / ".lock").exists()
        stage(tmp_path / "out")
    assert not (tmp_path / "out" / ".lock").exists()


def test_lock_whose_owner_number_now_belongs_to_another_process_is_taken_over(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        process.kill()
        process.wait()
        left = json.loads((tmp_path / "out" / ".lock").read_text())
        (tmp_path / "out" / ".lock").write_text(json.dumps({**left, "pid": os.getppid()}))
        stage(tmp_path / "out")


def test_children_of_a_killed_owner_do_not_keep_the_lock(tmp_path: Path) -> None:
    code = HOLD.replace(
        'print("held"', 'import os\n    if os.fork() == 0: time.sleep(20); os._exit(0)\n    print("held"'
    )
    process = child(code, tmp_path / "out")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    stage(tmp_path / "out")
    process.stdout.close()


def test_torn_lock_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text('{"pid": 1')
    stage(tmp_path)
    assert runs.is_complete(tmp_path)


RACE = """
import sys, time
from pathlib import Path
from lang1 import runs
from lang1.errors import InputError
folder, start = Path(sys.argv[1]), float(sys.argv[2])
inside = folder.with_suffix(".inside")
time.sleep(max(0.0, start - time.time()))
try:
    with runs.lock(folder):
        inside.mkdir()   # fails when another holder is inside
        time.sleep(0.01)
        inside.rmdir()
    print("held")
except InputError:
    print("refused")
"""


def test_of_many_writers_at_once_only_one_is_inside(tmp_path: Path) -> None:
    for round_number in range(4):
        folder = tmp_path / f"round-{round_number}"
        folder.mkdir()
        dead = {"pid": 999999999, "host": socket.gethostname(), "boot": ""}
        (folder / ".lock").write_text(json.dumps(dead))
        start = str(time.time() + 1.0)
        racers = [child(RACE, folder, start) for _ in range(6)]
        told = [racer.communicate(timeout=60) for racer in racers]
        assert [error for _, error in told if error] == []
        assert "held\n" in [said for said, _ in told]
        assert not folder.with_suffix(".inside").exists()


# --- disks that refuse


def unwritable(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("a file")
    return {
        "a file stands where a folder is needed": tmp_path / "file",
        "below": tmp_path / "file" / "below",
        "/proc/lang1": Path("/proc/lang1"),
    }


@pytest.mark.parametrize("case", [0, 1, 2])
def test_path_that_cannot_be_written_is_one_line(tmp_path: Path, case: int) -> None:
    expected, path = list(unwritable(tmp_path).items())[case]
    with pytest.raises(InputError, match=r"cannot be written: .*; choose another --out or make room") as caught:
        stage(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_full_disk_is_one_line_and_the_stage_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 900_000)
        work = write_letters("a" * 300_000)
        with pytest.raises(InputError, match=r"letters\.txt: cannot be written: the disk is full \(\d MiB free\)"):
            runs.run_stage(disk / "out", "letters", {}, 1, {}, work)
        assert not runs.is_complete(disk / "out")
        assert not (disk / "out" / "letters.txt").exists()
        ballast.unlink()
        runs.run_stage(disk / "out", "letters", {}, 1, {}, work)
        assert runs.is_complete(disk / "out")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_bad_input_refused_before_anything_is_written_does_not_bind_the_folder_to_it(tmp_path: Path) -> None:
    def refuse(stage: runs.Stage) -> None:
        raise InputError("no such thing")

    out = tmp_path / "stage"
    with pytest.raises(InputError, match="no such thing"):
        runs.run_stage(out, "clean", {"key": "wrong"}, 1, {}, refuse)
    manifest = runs.run_stage(out, "clean", {"key": "right"}, 1, {}, lambda stage: stage.count(rows=1))
    assert manifest["counts"] == {"rows": 1}


def test_a_folder_is_known_to_be_written_without_taking_its_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not runs.is_locked(out)
    with holder(out) as process:
        assert runs.is_locked(out)
        process.kill()
        process.wait()
        assert (out / runs.LOCK).exists()
        assert not runs.is_locked(out), "a killed owner holds nothing"
    with runs.lock(out):
        assert runs.is_locked(out)
        code = "import sys; from pathlib import Path; from lang1 import runs; print(runs.is_locked(Path(sys.argv[1])))"
        asked = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
        assert asked.stdout == "True\n", "to ask is not to let go"
    assert not runs.is_locked(out)


def test_a_log_is_written_whole_as_it_grows_line_by_line(tmp_path: Path) -> None:
    rows = [{"step": 2, "loss": 1.5}, {"step": 4}]
    runs.write_lines(tmp_path / "whole.jsonl", rows)
    with runs.append_lines(tmp_path / "grown.jsonl") as append:
        for row in rows:
            append(row)
    assert (tmp_path / "whole.jsonl").read_bytes() == (tmp_path / "grown.jsonl").read_bytes()
    assert runs.read_lines(tmp_path / "whole.jsonl") == rows
