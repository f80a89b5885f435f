"""What holds for all tests: a long one is a slow one that CI leaves out; module state is put back after every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from lang1 import runs


@pytest.hookimpl(tryfirst=True)  # before the slow ones are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.skipif("LANG1_TRIM" in os.environ, reason="CI runs the shorter ones"))


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at a million objects of it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _state_of_runs() -> Iterator[None]:
    mode, quiet, mask = runs.file_mode(), runs.is_quiet(), os.umask(0o022)
    os.umask(mask)
    yield
    runs.set_file_mode(f"{mode:o}")
    runs.set_quiet(quiet)
    os.umask(mask)
