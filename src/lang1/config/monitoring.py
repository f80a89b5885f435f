"""What watches a pretraining run: loss spikes, sample generations, few-shot evaluation, and who is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from lang1.config.checks import STRICT, TaskId, require


@dataclass(frozen=True)
class SpikeConfig:
    """A loss far above the recent ones; a loss or gradient that is not finite counts always."""

    window: int = 128
    """accepted losses that the median is taken over, steps"""
    threshold: float = 9.0
    """a spike is a loss so many MADs above the median: 9 are 6 standard deviations of even noise"""
    least: int = 64
    """losses in the window before any is called a spike, steps"""
    action: Literal["alert", "skip", "rollback"] = "alert"
    """alert: say so and go on; skip: leave the batch out; rollback: back to the last stable checkpoint, and past the
    data that led here"""
    max_rollbacks: int = 3
    """rollbacks before the run gives up (exit code 3)"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A window that holds its least number of points."""
        require(
            (self.window >= 8, "window", "at least 8"),
            (self.threshold > 0, "threshold", "above 0"),
            (4 <= self.least <= self.window, "least", f"between 4 and window ({self.window})"),
            (self.max_rollbacks >= 0, "max_rollbacks", "0 or more"),
        )


@dataclass(frozen=True)
class GenerationConfig:
    """Texts that the model writes after fixed prompts."""

    every: int = 0
    """steps between generations; 0: none"""
    prompts: str | None = None
    """JSON file, a list of {"id": ..., "text": ...}; null: the prompts that come with lang1, simulated or public"""
    allow_phi: bool = False
    """true: `prompts` may be used, though it may hold patients' text; it is copied into generations.jsonl"""
    max_new_tokens: int = 64
    """tokens written a prompt; a forward each"""
    temperature: float = 0.7
    """drawn, by seed and step; 0: the likeliest token each time, which makes sound small models repeat themselves"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Prompts of one's own are a decision."""
        require(
            (self.every >= 0, "every", "0 or more"),
            (self.max_new_tokens >= 8, "max_new_tokens", "at least 8"),
            (self.temperature >= 0, "temperature", "0 or more"),
            (
                self.prompts is None or self.allow_phi,
                "prompts",
                "null unless allow_phi is true (--allow-phi): prompts of your own may hold patients' text",
            ),
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """Few-shot scores on a sample of rows (5.3)."""

    every: int = 0
    """steps between evaluations; 0: none"""
    tasks: str | None = None
    """folder of `lang1 tasks`: rows of ReMedE"""
    comprehension: str | None = None
    """folder of `lang1 comprehension`: rows of SciQ and PubMedQA"""
    names: tuple[TaskId, ...] = ()
    """tasks that are scored; empty: all that the folders hold"""
    split: Literal["val", "test"] = "val"
    """where the scored rows come from; val keeps test unseen by the choice of a checkpoint"""
    rows: int = 200
    """rows a task, drawn by hash"""
    shots: int = 2
    """answered rows of train before the question; 0: zero-shot. Fewer where the context is short, and said"""
    max_note_tokens: int = 512
    """the head of a text, shots' too, is kept to so many tokens, the question never cut"""
    batch_tokens: int = 8192
    """prompt tokens a forward, padding included"""
    resamples: int = 1000
    """bootstrap resamples of patients behind every interval"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Something to score."""
        require(
            (self.every >= 0, "every", "0 or more"),
            (
                not self.every or self.tasks is not None or self.comprehension is not None,
                "tasks",
                "a folder of lang1 tasks, or comprehension one of lang1 comprehension, when every is above 0",
            ),
            *((getattr(self, name) >= 1, name, "at least 1") for name in ("rows", "max_note_tokens", "batch_tokens")),
            (self.shots >= 0, "shots", "0 or more"),
            (self.resamples >= 20, "resamples", "at least 20: a 95 % interval needs tails"),
        )


@dataclass(frozen=True)
class SinksConfig:
    """Who is told beside the terminal and the run folder: nobody, unless named here. No note text is ever sent."""

    tensorboard: bool = False
    """write event files to RUN-sinks/tensorboard"""
    wandb: Literal["offline", "online"] | None = None
    """null: nothing (YAML reads the word off as false); offline: written to RUN-sinks/wandb, to be synced by hand;
    online: sent to WANDB_BASE_URL"""
    wandb_project: str = "lang1"
    """where Weights & Biases files the run"""
    alerts_env: str | None = None
    """name of the environment variable that holds apprise URLs (Slack, mail, any webhook): the URLs hold secrets and
    stay out of recipes and manifests"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A name, not a secret."""
        name = self.alerts_env
        require(
            (
                name is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None,
                "alerts_env",
                "the name of an environment variable, not a URL",
            ),
            (bool(self.wandb_project), "wandb_project", "a name"),
        )


@dataclass(frozen=True)
class MonitorConfig:
    """The monitor of pretraining (5.3; docs/monitor.md)."""

    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    generations: GenerationConfig = field(default_factory=GenerationConfig)
    evaluations: EvaluationConfig = field(default_factory=EvaluationConfig)
    sinks: SinksConfig = field(default_factory=SinksConfig)

    __pydantic_config__ = STRICT
