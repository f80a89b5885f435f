"""One evaluation of two models and two baselines, shared by the tests that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_servers import write_letter_model
from evaluation import CONFIG, MODELS, Evaluation
from small_benchmark import write_model, write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig
from live import real_app


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    root = tmp_path_factory.mktemp("remede")
    runs.set_quiet(True)
    models = {name: write_model(root / f"model-{i}", i) for i, name in enumerate(MODELS)}
    return Evaluation(root, root / "none", write_tasks(root), models)


@pytest.fixture(scope="session")
def evaluation(inputs: Evaluation) -> Evaluation:
    return inputs.again("scores")


@pytest.fixture(scope="session")
def config() -> EvaluateConfig:
    return CONFIG


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests of served models serve; a file may have another of its own."""
    return write_letter_model(tmp_path_factory.mktemp("letters") / "model")


@pytest.fixture(scope="module")
def app(model: Path) -> Any:
    return real_app(model)
