from collections.abc import Iterator
from pathlib import Path

import pytest

from lang1 import runs
from lang1.config import SimulateConfig
from lang1.simulate import simulate_hospital

from .server import Server


@pytest.fixture(autouse=True)
def _quiet() -> None:
    runs.set_quiet(True)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated hospital, a few hundred encounters."""
    folder = tmp_path_factory.mktemp("hospital")
    simulate_hospital(SimulateConfig(encounters=300, workers=1), seed=3407, out=folder)
    return folder / "warehouse.duckdb"


@pytest.fixture(scope="session")
def hospital(server: Server, simulated: Path) -> Iterator[str]:
    """A database whose schema cdm holds the simulated hospital."""
    with server.database() as database:
        server.load(database, simulated)
        yield database
