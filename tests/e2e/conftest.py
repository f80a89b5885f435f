"""One small run, without a network, that the end-to-end tests read."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest
from running import LANG1, RECIPE, Run, cut_off


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole way, without a network: every test here reads it, none changes it.

    One for all processes of xdist; where LANG1_SMALL_RUN names a folder, one for the next call of pytest too.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = Path(os.environ.get("LANG1_SMALL_RUN") or folder / "small")
    folder.mkdir(exist_ok=True)
    said = folder / "said.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = _make(folder)
            said.write_text(json.dumps([done.stdout, done.stderr]))
    return Run(folder / "run", *json.loads(said.read_text()))


def _make(folder: Path) -> subprocess.CompletedProcess[str]:
    prefix, environment = cut_off(folder)
    (folder / "home").mkdir(exist_ok=True)
    done = subprocess.run(
        [*prefix, str(LANG1), "run", str(RECIPE), "--out", str(folder / "run")],
        env={**environment, "HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done
