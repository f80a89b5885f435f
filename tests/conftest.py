"""Module state that a command sets is back where it was after every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lang1 import runs


@pytest.fixture(autouse=True)
def _state_of_runs() -> Iterator[None]:
    mode, quiet, mask = runs.file_mode, runs.quiet, os.umask(0o022)
    os.umask(mask)
    yield
    runs.file_mode, runs.quiet = mode, quiet
    os.umask(mask)
