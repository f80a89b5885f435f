from pathlib import Path

import pytest

from lang1 import runs


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "quiet", True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "records"
