"""What an evaluation of the small benchmark read and wrote."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
