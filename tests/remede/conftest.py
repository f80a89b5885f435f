"""One evaluation of two models and two baselines, shared by the tests that read it."""

from __future__ import annotations

import pytest
from evaluation import CONFIG, MODELS, Evaluation
from small_benchmark import write_model, write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig


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
