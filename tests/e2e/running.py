"""Whole runs as a user makes them: the command in a process of its own, on a hospital of a few hundred stays."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import warm

HERE = Path(__file__).parent
RECIPE = HERE / "small.yaml"
LANG1 = Path(sys.executable).with_name("lang1")
TRIMMED = bool(os.environ.get("LANG1_TRIM"))
"""true in CI: fewer kills, smaller hospitals"""
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}

# A network namespace of its own has no way out, not even DNS; Dask needs the loopback device, which starts down.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1 | 64))
os.execv(sys.argv[1], sys.argv[1:])
"""
# Where namespaces are not allowed, every Python process refuses to connect anywhere but to this machine.
NO_WAY_OUT = """
import socket
def _only_here(connect):
    def checked(self, address):
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost", ""):
            raise OSError(f"the network is cut off in this test: {address}")
        return connect(self, address)
    return checked
socket.socket.connect = _only_here(socket.socket.connect)
socket.socket.connect_ex = _only_here(socket.socket.connect_ex)
_resolve = socket.getaddrinfo
def _resolve_only_here(host, *arguments, **named):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
        raise OSError(f"the network is cut off in this test: {host}")
    return _resolve(host, *arguments, **named)
socket.getaddrinfo = _resolve_only_here
"""


def cut_off(folder: Path) -> tuple[list[str | Path], dict[str, str]]:
    """What to put before a command, and its environment, so that it has no network."""
    prefix: list[str | Path] = ["unshare", "-rn", sys.executable, "-c", LOOPBACK_UP]
    try:
        allowed = subprocess.run([*prefix, "/bin/true"], capture_output=True, timeout=30).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        return prefix, ALONE
    (folder / "sitecustomize.py").write_text(NO_WAY_OUT)
    return [], {**ALONE, "PYTHONPATH": str(folder)}


@dataclass(frozen=True)
class Run:
    """A run that ended: its folder and what the command printed."""

    folder: Path
    stdout: str
    stderr: str


def lang1(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command to its end, in a process that has its imports already; with an environment as a user starts it."""
    if environment is None:
        return warm.run("-m", "lang1.cli", *arguments, env=ALONE, timeout=900)
    return subprocess.run([LANG1, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=900)
