"""One small run, without a network, that the end-to-end tests read."""

from __future__ import annotations

import subprocess

import pytest
from running import LANG1, RECIPE, Run, cut_off


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole way, without a network: every test here reads it, none changes it."""
    folder = tmp_path_factory.mktemp("small")
    prefix, environment = cut_off(folder)
    (folder / "home").mkdir()
    done = subprocess.run(
        [*prefix, str(LANG1), "run", str(RECIPE), "--out", str(folder / "run")],
        env={**environment, "HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return Run(folder / "run", done.stdout, done.stderr)
