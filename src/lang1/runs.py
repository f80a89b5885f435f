"""Run folders: manifests, atomic writes, locks, idempotent stages, progress lines.

The only module that opens an output for writing. A file appears under a temporary name, is flushed to disk, then
renamed; a folder is complete when its manifest.json is there, written last. One writer a folder: a lock that the
kernel keeps, so that a dead owner holds nothing. What is left out: protection against two machines that share a folder
over a network file system without POSIX locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lang1 import __version__
from lang1.errors import InputError, Unfinished

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MANIFEST = "manifest.json"
STARTED = ".started.json"
LOCK = ".lock"
SCRATCH = ".scratch"
FORMAT = 1
_PACKAGES = (
    "numpy",
    "scipy",
    "pyarrow",
    "duckdb",
    "dask",
    "tokenizers",
    "torch",
    "transformers",
    "scikit-learn",
    "xgboost-cpu",
    "lm-eval",
)

file_mode = 0o640
"""mode of every file written; `set_file_mode` changes it from the configuration"""
quiet = False
"""true: no progress lines"""
_held: set[Path] = set()
"""folders that this process holds the lock of"""


def set_file_mode(octal: str) -> None:
    """Take the mode of written files from the configuration, such as "0640"; temporary files are no more open."""
    global file_mode
    try:
        file_mode = int(octal, 8)
    except ValueError:
        raise InputError(f"file_mode: {octal!r} is not an octal mode such as 0640") from None
    os.umask(os.umask(0o077) | (0 if file_mode & 0o007 else 0o007))


def set_quiet(value: bool) -> None:
    """Silence progress lines."""
    global quiet
    quiet = value


def say(message: str) -> None:
    """One plain progress line on stderr. Never put note text into it."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)


# --- files -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A temporary name beside `path` for a library that writes by name; renamed to `path` when the block ends.

    Raises InputError when the disk refuses (full, read-only, no permission): the path, and what is free.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode is not None:  # from its first byte: a Dask worker of someone's cluster has any umask
            temporary.touch(mode)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(file_mode if mode is None else mode)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path`, whole, when the block ends."""
    with atomic_path(path, mode) as temporary, temporary.open("wb") as sink:
        yield sink
        sink.flush()


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """UTF-8 text, atomically."""
    with atomic_write(path, mode) as sink:
        sink.write(text.encode("utf-8"))


def write_json(path: Path, value: Any, mode: int | None = None) -> None:
    """JSON with sorted keys (same value, same bytes), atomically. NaN is refused: use None."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n", mode)


def read_json(path: Path) -> Any:
    """JSON from a file that an earlier stage wrote. Raises InputError when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the stage that writes it") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: not readable as JSON; delete its folder and run that stage again") from None


@contextlib.contextmanager
def parquet_writer(
    path: Path, schema: pa.Schema, mode: int | None = None, fleeting: bool = False
) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer whose file appears whole when the block ends. Same tables in the same order, same bytes.

    `fleeting`: read once and deleted, so written for speed and not for size.
    """
    import pyarrow.parquet as pq

    how = {"compression": "lz4", "use_dictionary": False, "write_statistics": False} if fleeting else {}
    with (
        atomic_path(path, mode) as temporary,
        pq.ParquetWriter(temporary, schema, **{"compression": "zstd", **how}) as writer,
    ):
        yield writer


def write_table(path: Path, table: pa.Table, mode: int | None = None) -> None:
    """One Arrow table as one Parquet file, atomically."""
    with parquet_writer(path, table.schema, mode) as writer:
        writer.write_table(table)


@contextlib.contextmanager
def append_lines(path: Path) -> Iterator[Callable[[Any], None]]:
    """A JSONL log that grows line by line and is flushed at each: for curves and events, not for results.

    A reader drops a torn last line; a resumed stage rewrites the file up to its checkpoint first (`write_text`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as sink:
            path.chmod(file_mode)

            def append(value: Any) -> None:
                sink.write(json.dumps(value, sort_keys=True) + "\n")
                sink.flush()

            yield append
    except OSError as error:
        raise disk_error(path, error) from None


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """A JSONL log, whole and atomically, line for line as `append_lines` writes it."""
    write_text(path, "".join(json.dumps(value, sort_keys=True) + "\n" for value in values))


def read_lines(path: Path) -> list[Any]:
    """The whole lines of a JSONL log; a torn last line is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def disk_error(path: Path, error: OSError) -> Unfinished:
    """An operating-system fault while writing `path`, as one line."""
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "no permission to write",
        errno.EPERM: "no permission to write",
        errno.ENOTDIR: "a file stands where a folder is needed",
        errno.EEXIST: "a file stands where a folder is needed",
    }.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
    free = ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free)"
    return Unfinished(f"{path}: cannot be written: {reason}{free}; choose another --out or make room")


def overwrite(path: Path, start: int, data: bytes) -> None:
    """Put other bytes into a file that nobody reads yet, and flush it to disk."""
    try:
        with path.open("r+b") as sink:
            sink.seek(start)
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
    except OSError as error:
        raise disk_error(path, error) from None


def link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`, in one step when it was another."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(old: Path, new: Path) -> None:
    """Put the folder `new` in the place of `old`, whole. Killed in between: `undo_replacing` mends it."""
    aside = _aside(old)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        old.rename(aside)
        new.rename(old)
        _sync_folder(old.parent)
    except OSError as error:
        raise disk_error(old, error) from None
    shutil.rmtree(aside, ignore_errors=True)


def undo_replacing(old: Path) -> None:
    """After a kill between the two renames of `replace_folder`: the folder as it was before."""
    if not old.exists() and _aside(old).exists():
        _aside(old).rename(old)


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


# --- locks -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` as its only writer. Raises InputError that names the owner when another process holds it.

    The kernel's record lock on the file .lock decides, so a killed owner holds nothing and its children inherit
    nothing; the file's text only names the owner.
    """
    path = folder / LOCK
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(folder, path)
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
    except OSError as error:
        raise disk_error(folder, error) from None
    _held.add(folder.resolve())
    try:
        yield
    finally:
        _held.discard(folder.resolve())
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """True while a process of this machine, or of one that shares POSIX locks, writes `folder`. Takes no lock."""
    if folder.resolve() in _held:
        return True  # closing the file in the process that holds the lock would let go of it
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        # struct flock of Linux: type, whence, start, length, process; the kernel answers with who holds it
        asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def _open_locked(folder: Path, path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o640)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            raise InputError(f"{folder}: in use by {_lock_owner(path)}; wait for it, or choose another --out") from None
        # An owner that ended between our two calls took the file away: what we hold has no name any more.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _lock_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"  # it has just begun, or just ended


# --- stages ----------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What a stage's work sees: where to write, and what to tell the manifest."""

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, **counts: int) -> None:
        """Rows in, out, left out by reason: whole numbers for the manifest."""
        self.counts.update({key: int(value) for key, value in counts.items()})

    def record(self, **facts: Any) -> None:
        """Other facts for the manifest (JSON values, never note text)."""
        self.facts.update(facts)

    def scratch(self) -> Path:
        """A folder for what a killed run may leave behind; removed when the stage ends."""
        path = self.out / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


def run_stage(
    out: Path,
    name: str,
    config: dict[str, Any],
    seed: int,
    inputs: Mapping[str, Path | str],
    work: Callable[[Stage], None],
    force: bool = False,
    read_checked: Mapping[str, str] | None = None,
    only: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """Do `work` once: complete and unchanged, it is skipped; killed, it resumes; changed or damaged, it is refused.

    `force` replaces what was changed or damaged instead. Returns the manifest. `inputs` are folders of earlier
    stages or files; the former are checked against the hashes in their manifests. An input that is text names
    something whose change cannot be seen, a database: `force` then makes the stage again in any case.
    `read_checked` gives, by input, a pattern of files whose bytes `work` checks as it reads them: of those only the
    sizes are compared here, so that 100 GB of tokens are not read before the first step. `only` gives, by input, the
    patterns of the files that `work` may read: no other file of it is opened, nor need it be there.
    Raises InputError for a changed input, a foreign folder or a lock held by another run.
    """
    wanted = {
        "stage": name,
        "config": config,
        "seed": seed,
        "inputs": {
            key: path
            if isinstance(path, str)
            else identify(path, (read_checked or {}).get(key), (only or {}).get(key, ("*",)))
            for key, path in inputs.items()
        },
    }
    with lock(out):
        if force and any(isinstance(path, str) for path in inputs.values()):
            _clear(out)
        try:
            done = _unchanged(out, wanted)
        except InputError:
            if not force:
                raise
            _clear(out)
            done = None
        if done is not None:
            say(f"{name}: up to date ({out})")
            return done
        resumed = (out / STARTED).exists()
        for leftover in out.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        write_json(out / STARTED, wanted)
        say(f"{name}: {'resuming' if resumed else 'started'} ({out})")
        started, clock = time.strftime("%FT%T"), time.monotonic()
        stage = Stage(out)
        try:
            work(stage)
        except InputError as error:
            _forget_if_empty(out, goes_on=isinstance(error, Unfinished))
            raise
        shutil.rmtree(out / SCRATCH, ignore_errors=True)
        manifest = _manifest(stage, wanted, started, time.monotonic() - clock)
        write_json(out / MANIFEST, manifest)
        (out / STARTED).unlink(missing_ok=True)
    say(f"{name}: done in {manifest['seconds']:.1f} s")
    return manifest


def _forget_if_empty(out: Path, goes_on: bool) -> None:
    """After bad input that was refused before anything was written: the mended command starts afresh.

    A log in the scratch folder counts as written: it holds answers that were paid for. So does every file there where
    the same command `goes_on`.
    """
    kept = [
        p
        for p in out.rglob("*")
        if p.is_file()
        and p.name not in {LOCK, STARTED}
        and (goes_on or SCRATCH not in p.parts or (p.suffix == ".jsonl" and p.stat().st_size))
    ]
    if kept:
        return
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    # What another process wrote meanwhile would otherwise be taken for a stranger's by the next run.
    if not (out / SCRATCH).exists():
        (out / STARTED).unlink(missing_ok=True)


def _unchanged(out: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest when the stage is complete and made from the same, None when it is still to be done."""
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        _refuse_if_changed(out, manifest, wanted)
        _check_files(out, manifest)
        return manifest
    if (out / STARTED).exists():
        _refuse_if_changed(out, read_json(out / STARTED), wanted)
    elif _holds_others_files(out):
        raise InputError(f"{out}: holds files that no lang1 stage wrote; choose an empty folder")
    return None


def _holds_others_files(out: Path) -> bool:
    """True with a file that no stage wrote; what a kill leaves before STARTED has its name is ours."""
    return any(
        not (p.name == LOCK or (p.name.startswith(f".{STARTED}.") and p.suffix == ".tmp")) for p in out.iterdir()
    )


def _clear(out: Path) -> None:
    if not ((out / MANIFEST).exists() or (out / STARTED).exists()) and _holds_others_files(out):
        raise InputError(f"{out}: holds files that no lang1 stage wrote; --force does not delete those")
    for path in out.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def is_complete(folder: Path) -> bool:
    """True when a stage ended here."""
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete stage. Raises InputError when the folder is missing or unfinished."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; run the stage that writes it")
    if not is_complete(folder):
        raise InputError(f"{folder}: not complete (no {MANIFEST}); run the stage that writes it to its end")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST}: format {manifest.get('format') if isinstance(manifest, dict) else '?'}"
            f" is not the {FORMAT} that this version reads"
        )
    return manifest


def identify(path: Path, read_checked: str | None = None, only: tuple[str, ...] = ("*",)) -> str:
    """What an input is: what a stage wrote by that stage's manifest, a foreign file or folder by its content.

    Files that match the pattern `read_checked` are compared with the manifest by size alone; those that match none of
    `only` are not looked at.
    Foreign input over 2 GiB (a warehouse) is known by sizes and change times instead: hashing it would cost minutes.
    """
    if not path.exists():
        raise InputError(f"{path}: not found")
    for folder in (path, *path.resolve().parents)[:4]:
        if folder.is_dir() and is_complete(folder) and not _is_foreign(folder / MANIFEST):
            inside = "" if folder == path else path.resolve().relative_to(folder).as_posix()
            manifest = read_manifest(folder)
            if not inside or any(name == inside or name.startswith(inside + "/") for name in manifest["files"]):
                _check_files(folder, manifest, inside, read_checked, only)
                return f"{manifest['identity']}{'/' if inside else ''}{inside}"
    if path.is_dir() and (path / STARTED).exists():
        raise InputError(f"{path}: not complete; run the stage that writes it to its end")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    sizes = {p: p.stat().st_size for p in files}
    by_content = sum(sizes.values()) <= 2 * 2**30
    facts = [
        (p.relative_to(path).as_posix(), size, sha256_file(p) if by_content else p.stat().st_mtime_ns)
        for p, size in sizes.items()
    ]
    return "files:" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _is_foreign(manifest: Path) -> bool:
    """A manifest.json that no stage wrote: a FHIR bulk export has one of its own."""
    content = manifest.read_bytes()
    return not (b'"stage"' in content and b'"identity"' in content)


def _check_files(
    folder: Path,
    manifest: dict[str, Any],
    inside: str = "",
    read_checked: str | None = None,
    only: tuple[str, ...] = ("*",),
) -> None:
    for name, facts in manifest["files"].items():
        if inside and name != inside and not name.startswith(inside + "/"):
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing, though {MANIFEST} lists it; run that stage again with --force")
        by_size = read_checked is not None and fnmatch.fnmatchcase(name, read_checked)
        if path.stat().st_size != facts["bytes"] or not (by_size or sha256_file(path) == facts["sha256"]):
            raise InputError(f"{path}: changed since its stage ended (hash differs); run that stage again with --force")


def _refuse_if_changed(out: Path, before: dict[str, Any], wanted: dict[str, Any]) -> None:
    if before.get("stage") != wanted["stage"]:
        raise InputError(
            f"{out}: belongs to the stage {before.get('stage')}, not {wanted['stage']}; choose another --out"
        )
    old, new = _flatten(before), _flatten(wanted)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        shown = ", ".join(_describe(key, old, new) for key in changed[:6]) + (" ..." if len(changed) > 6 else "")
        raise InputError(
            f"{out}: made with other settings or inputs ({shown}); choose another --out, or --force to make it again"
        )


def _describe(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    if key.startswith("inputs."):
        return f"{key} changed"
    return f"{key.removeprefix('config.')}: {old.get(key)} -> {new.get(key)}"


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in value.keys() & {"stage", "config", "seed", "inputs"} if not prefix else value.keys():
        item = value[key]
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _manifest(stage: Stage, wanted: dict[str, Any], started: str, seconds: float) -> dict[str, Any]:
    files = {
        str(p.relative_to(stage.out)): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(stage.out.rglob("*"))
        if p.is_file() and not p.name.startswith(".") and p.name != MANIFEST
    }
    # A DuckDB file's bytes depend on the order in which its threads flush; what it holds is fixed by config and seed.
    content = {name: facts["sha256"] for name, facts in files.items() if not name.endswith(".duckdb")}
    identity = hashlib.sha256(json.dumps({**wanted, "files": content}, sort_keys=True).encode()).hexdigest()
    return {
        **wanted,
        "format": FORMAT,
        "identity": identity,
        "counts": stage.counts,
        "facts": stage.facts,
        "files": files,
        "versions": versions(),
        "git": _git_revision(),
        "started": started,
        "seconds": round(seconds, 3),
        "peak_memory_mib": round(peak_memory_mib(), 1),
    }


def peak_memory_mib() -> float:
    """Largest resident size of this process or of one of its ended children, MiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def versions() -> dict[str, str]:
    """What lang1 and the libraries that decide its numbers are here."""
    found = {"lang1": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
