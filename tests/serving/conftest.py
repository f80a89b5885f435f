"""A small model behind `lang1 serve`'s application."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import real_app, serving

sys.path.append(str(Path(__file__).parents[1] / "remede"))
from small_benchmark import write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("served") / "model", 3)


@pytest.fixture(scope="session")
def url(folder: Path) -> Iterator[str]:
    with serving(real_app(folder)) as address:
        yield address
