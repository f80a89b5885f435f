"""What finetuning an encoder has of its own: a classifier on [CLS] (NYUTron), which reads the note alone.

Rows, draws, balance, even mix, optimizer, validation, early stop and export are a decoder's (finetuning.py). Each task
has a head of its own. The heads are one linear map behind each other, so the folder is a plain
`BertForSequenceClassification`; `heads` in lang1.json gives the outputs of each task. A note that several tasks ask
about runs through the model once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lang1.config import FinetuneConfig
from lang1.errors import ConfigError, InputError
from lang1.models.build import draw_weights
from lang1.models.encoder import SpecialIds, draw_head, is_of_head, load_classifier, special_ids
from lang1.models.export import check_hashes, read_checkpoint
from lang1.models.load import check_vocabulary, load_config, without_dropout
from lang1.scoring.encoder import encode_notes, masked_logits
from lang1.tasks.prompts import Question
from lang1.training.asked import AskedTask, Encode
from lang1.training.base_model import BaseModel
from lang1.training.distributed import World
from lang1.training.packs import PackBatch, of_options


def check(cfg: FinetuneConfig, world: World) -> None:
    """Raises ConfigError for what a decoder's finetuning can and this cannot."""
    for key, wanted in (("method", "full"), ("activation_checkpointing", False), ("sharding", "gradients")):
        if getattr(cfg, key) != wanted:
            raise ConfigError(f"finetune.{key}: {getattr(cfg, key)}: an encoder is finetuned with {wanted} only")
    if world.size > 1:
        raise ConfigError("an encoder is finetuned in one process: start lang1 without torchrun")


@dataclass(frozen=True)
class EncoderBase(BaseModel):
    """An encoder before finetuning: a Hugging Face folder, or a checkpoint of `lang1 pretrain` at any point."""

    questions: Mapping[str, Question]
    """of the tasks that get a head, in the heads' order"""

    @property
    def heads(self) -> dict[str, tuple[int, int]]:
        """First and end output of each task."""
        ends = np.cumsum([len(question.options) for question in self.questions.values()]).tolist()
        return dict(zip(self.questions, zip([0, *ends], ends, strict=False), strict=True))

    @property
    def facts(self) -> dict[str, Any]:
        """What the model card says of it beside what every finetuned model says."""
        return {"heads": {name: list(place) for name, place in self.heads.items()}}

    def load(self, seed: int, is_empty: bool = False) -> Any:
        """The body with fresh heads, fp32 on the CPU; a fresh body too where it `is_random`. No dropout.

        Raises InputError where it cannot be had, or is not of its tokenizer.
        """
        labels = sum(len(question.options) for question in self.questions.values())
        if self.is_random or self.is_checkpoint:
            net = self._classifier(labels, seed)
        else:
            net = load_classifier(self.folder, labels)
        draw_head(net, seed)
        check_vocabulary(self.folder, net, self.tokenizer())
        net.config.problem_type = None
        net.config.id2label = {
            first + k: f"{name}: {option}"
            for name, (first, _) in self.heads.items()
            for k, option in enumerate(self.questions[name].options)
        }
        net.config.label2id = {label: index for index, label in net.config.id2label.items()}
        return net

    def _classifier(self, labels: int, seed: int) -> Any:
        from transformers import AutoModelForSequenceClassification

        config = without_dropout(load_config(self.folder))
        config.num_labels = labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        draw_weights(net, seed)
        if not self.is_random:
            check_hashes(self.folder)
            body = read_checkpoint(self.folder).base_model.state_dict()
            found = net.base_model.load_state_dict(body, strict=False)
            lacking = [name for name in found.missing_keys if not is_of_head(f"{net.base_model_prefix}.{name}")]
            if lacking or found.unexpected_keys:
                raise InputError(f"{self.folder}: not the weights of its configuration; the checkpoint is not whole")
        return net

    def special_ids(self) -> SpecialIds:
        """The tokens that are no text. Raises InputError."""
        return special_ids(self.tokenizer_folder)

    def asked(self) -> list[AskedTask]:
        """Its tasks: no question in tokens, the outputs of a task's head as its options."""
        return [
            AskedTask(
                name, self.questions[name], np.zeros(0, np.int64), list(range(*place)), [0.0] * (place[1] - place[0])
            )
            for name, place in self.heads.items()
        ]


def encode_alone(tokenizer: Any, special: SpecialIds, max_note_tokens: int, positions: int) -> Encode:
    """Texts to [CLS] note [SEP]."""
    return lambda texts: [note.ids for note in encode_notes(tokenizer, texts, special, max_note_tokens, positions)]


def head_logits(model: Any, batch: PackBatch, tasks: list[AskedTask]) -> torch.Tensor:
    """LogitsOf an encoder: the outputs of each answer's head."""
    note_of_M = batch.answer_rows // batch.answers.shape[1]
    return of_options(masked_logits(model, batch.tokens, batch.lengths)[note_of_M], batch.tasks, tasks)
