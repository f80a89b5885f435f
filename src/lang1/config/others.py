"""Models that a run compares with its own: what stands in a recipe under `others`, by the names that results carry."""

from __future__ import annotations

from dataclasses import dataclass

from lang1.config.checks import STRICT, require
from lang1.config.data import TokenizeConfig
from lang1.config.training import FinetuneConfig, PretrainConfig


@dataclass(frozen=True)
class OtherModel:
    """A model beside the run's own, on the same rows (5.3.1, 5.5, Appendix I). A section of it names only what differs.

    Without `model` and `pretrain` it starts from the run's own pretraining; without `finetune` it answers as it is.
    """

    model: str | None = None
    """a Hugging Face folder or a GGUF file that is on this machine"""
    tokenize: TokenizeConfig | None = None
    """a corpus of its own for its pretraining (an encoder wants wordpiece); keys not named are the run's"""
    pretrain: PretrainConfig | None = None
    """a pretraining of its own; keys not named are the run's"""
    finetune: FinetuneConfig | None = None
    """a finetuning of its own, {} for the run's; keys not named are the run's"""
    single_task: bool = False
    """one model a task in place of a joint one; a task is answered by its own"""
    shots: int | None = None
    """answered examples before every question; null: evaluate.shots"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """What cannot be meant together."""
        require(
            (self.model is None or self.pretrain is None, "model", "left out where pretrain makes the model"),
            (self.tokenize is None or self.pretrain is not None, "tokenize", "of use to a pretrain section only"),
            (not self.single_task or self.finetune is not None, "single_task", "of use to a finetune section only"),
            (self.shots is None or self.shots >= 0, "shots", "0 or more"),
            (
                not (self.model is None and self.pretrain is None and self.finetune is None and self.shots is None),
                "model",
                "given, or pretrain, finetune or shots: otherwise this is the run's own model again",
            ),
        )
