"""One example run and its report, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_run import write_run

from lang1.config import ReportConfig
from lang1.report import build_report


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every stage, on the simulated hospital, with its report."""
    run = write_run(tmp_path_factory.mktemp("report") / "run")
    build_report(
        ReportConfig(title="ReMedE <on> the hospital", example_prompts=True), run=run, out=run / "report", seed=1
    )
    return run


@pytest.fixture(scope="session")
def page(whole_run: Path) -> str:
    """The report of `whole_run`."""
    return (whole_run / "report" / "report.html").read_text(encoding="utf-8")
