"""One evaluation of two models and two baselines, shared by the tests that read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from small_benchmark import write_model, write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.remede import evaluate

CONFIG = EvaluateConfig(bootstrap_resamples=100, threads=1, batch_tokens=2000)
MODELS = ("lang1 zero-shot", "lang1 finetuned joint")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation read and wrote."""

    root: Path
    out: Path
    tasks: Path
    models: dict[str, Path]

    def json(self, name: str) -> Any:
        return runs.read_json(self.out / name)

    def again(self, out: str, cfg: EvaluateConfig = CONFIG, **changed: Any) -> Evaluation:
        """Evaluate into another folder, with other inputs."""
        given: dict[str, Any] = {"models": self.models, "tasks": self.tasks, "truth": self.root / "truth.parquet"}
        given |= changed
        evaluate(cfg, out=self.root / out, seed=5, **given)
        return replace(self, out=self.root / out)


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
