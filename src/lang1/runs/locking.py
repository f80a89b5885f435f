"""One writer a folder: a lock that the kernel keeps, so that a dead owner holds nothing.

What is left out: protection against two machines that share a folder over a network file system without POSIX locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from lang1.errors import InputError
from lang1.runs.files import disk_error

LOCK = ".lock"
_held: set[Path] = set()
"""folders that this process holds the lock of"""


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
