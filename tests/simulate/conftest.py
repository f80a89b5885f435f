"""One small hospital for the room's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from lang1.config import SimulateConfig
from lang1.simulate import simulate_hospital
from lang1.simulate.course import Stays, _join, simulate_stays
from lang1.simulate.population import HOSPITALS, draw_patients


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a simulated hospital of 4,000 encounters."""
    out = tmp_path_factory.mktemp("hospital") / "warehouse"
    simulate_hospital(SimulateConfig(encounters=4_000, workers=1), seed=11, out=out)
    return out


@pytest.fixture
def warehouse(hospital: Path) -> Any:
    """A connection to it."""
    with duckdb.connect(str(hospital / "warehouse.duckdb"), read_only=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def many_stays() -> Stays:
    """About 90,000 stays of the main hospital, without notes."""
    parts = []
    for chunk in range(50):
        streams = np.random.SeedSequence([23, chunk]).spawn(3)
        people, facts, outcomes = (np.random.Generator(np.random.Philox(stream)) for stream in streams)
        patients = draw_patients(1000, HOSPITALS["main"], people)
        parts.append(simulate_stays(patients, HOSPITALS["main"], facts, outcomes)[0])
    return _join(parts)
