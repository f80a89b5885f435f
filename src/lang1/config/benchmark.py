"""ReMedE: what is scored, and the report of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from lang1.config.checks import STRICT, TASK_IDS, TaskId, require

Baseline = Literal["tfidf+xgboost", "tfidf+logistic", "columns+xgboost", "lace"]


@dataclass(frozen=True)
class ApiConfig:
    """How a model behind an API is asked (docs/api-models.md)."""

    concurrency: int = 8
    """requests under way at once"""
    retries: int = 6
    """further tries of a request that met a 429, a 5xx, a lost connection or half an answer"""
    backoff_s: float = 1.0
    """seconds before the first further try, doubled each time up to 60; a server's Retry-After is kept to"""
    timeout_s: float = 120.0
    """seconds for one answer"""
    api_key_env: str | None = None
    """name of the environment variable that holds the key; null: none is sent"""
    context_length: int | None = None
    """tokens that the served model takes; null: as /v1/models says, else as the tokenizer's folder does"""
    top_logprobs: int = 20
    """likeliest tokens asked for, where a server names no token on request; vLLM allows 20 unless told otherwise"""
    chat_scores: Literal["auto", "top_logprobs", "samples"] = "auto"
    """how a chat API is read; auto: log-probabilities where the server gives them, else samples"""
    samples: int = 10
    """answers drawn a row at temperature 1, whose counts are the probabilities (Appendix J)"""
    max_rows: int = 1000
    """rows a task and split, at most, where answers may have to be drawn (Appendix J)"""
    greedy_tasks: tuple[TaskId, ...] = ("cci",)
    """tasks whose rare classes ask for many rows: one greedy answer each, as probabilities 0 and 1 (Appendix J)"""
    greedy_max_rows: int = 10_000
    """rows of those, at most"""
    instruction: str = ""
    """system message of a chat; empty: none, so that every model is asked with the same words"""
    max_answer_tokens: int = 16
    """tokens of a chat answer; a model that thinks first needs thousands"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A name, not a key; numbers that can be asked for."""
        name = self.api_key_env
        require(
            *(
                (getattr(self, key) >= 1, key, "at least 1")
                for key in (
                    *("concurrency", "top_logprobs", "samples"),
                    *("max_rows", "greedy_max_rows", "max_answer_tokens"),
                )
            ),
            (self.retries >= 0, "retries", "0 or more"),
            (self.backoff_s >= 0, "backoff_s", "0 or more"),
            (self.timeout_s > 0, "timeout_s", "more than 0"),
            (self.context_length is None or self.context_length >= 16, "context_length", "at least 16, or null"),
            (
                name is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None,
                "api_key_env",
                "the name of an environment variable, not a key",
            ),
        )


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
    shots: int = 0
    """answered examples of train before every question, classes in turn, none of an evaluated patient (5.5)"""
    shot_tokens: int = 512
    """budget that the notes of all examples share, in words (up to eight letters or digits, or one sign): counted
    without a tokenizer, so that examples are cut alike for every model"""
    batch_tokens: int = 1024
    """prompt tokens a forward: on a CPU more bring no speed and take memory; a GPU is better fed with 16384"""
    bootstrap_resamples: int = 1000
    """resamples behind every interval (5.5)"""
    resample: Literal["patient", "row"] = "patient"
    """what is drawn in a resample: patients with all their rows, or rows as if each were another patient"""
    recalibrate: Literal["none", "temperature", "platt", "isotonic"] = "none"
    """a map fitted on the validation rows of each model and task; metrics.json then has each model before and after"""
    operating_points: tuple[float, ...] = (0.5,)
    """probabilities of option 1 at which a binary task is cut: sensitivity, specificity, PPV, NPV, accuracy there"""
    alert_rates: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2)
    """shares of the rows that are flagged, highest probabilities first; the same numbers there"""
    api: ApiConfig = field(default_factory=ApiConfig)
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
            (self.shots >= 0, "shots", "0 or more"),
            (self.shot_tokens >= max(1, self.shots), "shot_tokens", "at least a word an example"),
            (self.bootstrap_resamples >= 20, "bootstrap_resamples", "at least 20: a 95 % interval needs tails"),
            *(
                (all(0 < level < 1 for level in getattr(self, name)), name, "between 0 and 1")
                for name in ("operating_points", "alert_rates")
            ),
            (
                self.recalibrate == "none" or "val" in self.splits,
                "recalibrate",
                "none where splits lack val: it is fitted on validation rows, never on a test split",
            ),
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
