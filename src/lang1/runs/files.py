"""Files that appear whole: under a temporary name, flushed to disk, then renamed.

The only module that opens an output for writing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lang1.errors import InputError, Unfinished

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_mode = 0o640


def set_file_mode(octal: str) -> None:
    """Take the mode of written files from the configuration, such as "0640"; temporary files are no more open."""
    global _mode
    try:
        _mode = int(octal, 8)
    except ValueError:
        raise InputError(f"file_mode: {octal!r} is not an octal mode such as 0640") from None
    os.umask(os.umask(0o077) | (0 if _mode & 0o007 else 0o007))


def file_mode() -> int:
    """Mode of every file written; `set_file_mode` changes it from the configuration."""
    return _mode


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
        temporary.chmod(_mode if mode is None else mode)
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
            path.chmod(_mode)

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


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
