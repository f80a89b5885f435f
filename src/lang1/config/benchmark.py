"""ReMedE: what is scored, and the report of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lang1.config.checks import STRICT, TASK_IDS, TaskId, require

Baseline = Literal["tfidf+xgboost", "tfidf+logistic", "columns+xgboost", "lace"]


@dataclass(frozen=True)
class EvaluateConfig:
    """ReMedE: option probabilities, metrics with intervals, comparisons (5.5)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    splits: tuple[Literal["val", "test", "temporal_1", "temporal_2"], ...] = (
        "val",
        "test",
        "temporal_1",
        "temporal_2",
    )
    headline_split: Literal["test", "temporal_1", "temporal_2"] = "temporal_2"
    """the split that comparisons and the report's first page speak of"""
    baselines: tuple[Baseline, ...] = ("tfidf+xgboost", "tfidf+logistic")
    """models of the same rows that are not language models, tuned on validation only"""
    baseline_train_rows: int = 50_000
    """training rows a baseline sees, at most, drawn by hash"""
    baseline_trials: int = 3
    """candidates a baseline and task: fitted on train, the best on validation is kept; above 3 drawn by the seed"""
    max_rows: int | None = None
    """rows scored a task and split, at most, drawn by hash of the encounter; null: all"""
    max_rows_elsewhere: int | None = None
    """the same for the splits that are not the headline; null: as max_rows"""
    max_note_tokens: int = 512
    batch_tokens: int = 4096
    """prompt tokens a forward"""
    bootstrap_resamples: int = 1000
    """resamples of patients behind every interval (5.5)"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """number format of the models' matrix products; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Something to score, and enough resamples for an interval."""
        require(
            (bool(self.tasks), "tasks", "at least one task"),
            (bool(self.splits), "splits", "at least one split"),
            *(
                (getattr(self, name) >= 1, name, "at least 1")
                for name in ("baseline_train_rows", "baseline_trials", "max_note_tokens", "batch_tokens")
            ),
            *(
                (getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1, or null for all")
                for name in ("max_rows", "max_rows_elsewhere")
            ),
            (self.bootstrap_resamples >= 20, "bootstrap_resamples", "at least 20: a 95 % interval needs tails"),
            (self.threads >= 0, "threads", "0 or more"),
        )


@dataclass(frozen=True)
class ReportConfig:
    """The self-contained HTML report."""

    title: str = "ReMedE report"
    """heading of the page"""
    example_prompts: bool = False
    """show a prompt a task; refused unless the manifests prove that the notes come from the simulated hospital"""

    __pydantic_config__ = STRICT
