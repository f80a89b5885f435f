"""Environments of peers that cannot share lang1's: one venv a list of pins, made once under benchmarks/.peers."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PEERS = Path(__file__).parent
CACHE = PEERS.parent / ".peers"


def python_of(peer: str) -> Path:
    """The interpreter of `peer`'s environment, which holds exactly the pins of peers/PEER.txt; made where it is not.

    pip's own settings (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS) say which build of torch comes.
    """
    pins = PEERS / f"{peer}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    home = CACHE / peer
    python, marker = home / "bin" / "python", home / "made-from"
    if marker.exists() and marker.read_text() == digest:
        return python
    print(f"making {home} from {pins.name}, once", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--requirement", pins]
    if subprocess.run(pip).returncode != 0:
        sys.exit(f"{home}: pip could not install {pins.name}; its lines above say why")
    marker.write_text(digest)
    return python
