"""From a note and an encoder to the logits of a task's options: a classifier on [CLS] (NYUTron), no prompt.

A finetuned encoder is a plain `BertForSequenceClassification`. Its one classifier holds the heads of all its tasks
behind each other; `heads` in lang1.json names the place of each. A note keeps its head, as many tokens as
`max_note_tokens` and the model's positions allow; what is cut is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lang1 import runs
from lang1.errors import InputError
from lang1.models.encoder import SpecialIds
from lang1.models.origin import CARD
from lang1.scoring.options import batches, evaluating, longest_first, padded, plain_ids

METHOD = "encoder"
"""how the probabilities of a score file were read: a classifier on the encoder's first position"""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EncodedNote:
    """[CLS] note [SEP]."""

    ids: list[int]
    truncated_tokens: int
    """tokens of the note that were cut from its end"""


def encode_notes(
    tokenizer: Any, texts: Sequence[str], special: SpecialIds, max_note_tokens: int, positions: int
) -> list[EncodedNote]:
    """The notes in their order. Text is never read as special tokens. Raises InputError without room for a note."""
    room = min(max_note_tokens, positions - 2)
    if room < 1:
        raise InputError(f"the encoder's {positions} positions leave no room for a note")
    return [
        EncodedNote([special.cls, *note[:room], special.sep], max(0, len(note) - room))
        for note in plain_ids(tokenizer, texts)
    ]


def class_logits(model: Any, rows: Sequence[Sequence[int]], pad: int) -> Any:
    """Logits (B, S) of every head for sequences of tokens, right-padded; padding is masked."""
    import torch

    lengths_B = torch.tensor([len(ids) for ids in rows], device=model.device)
    return masked_logits(model, padded(rows, pad, model.device), lengths_B)


def masked_logits(model: Any, tokens_BT: Any, lengths_B: Any) -> Any:
    """The same for rows that are padded already, of which so many tokens are real; not rounded to bf16."""
    import torch

    from lang1.models.head import output_in_fp32

    mask_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < lengths_B[:, None]
    with output_in_fp32(getattr(model, "classifier", None) or model.score):
        return model(input_ids=tokens_BT, attention_mask=mask_BT.long()).logits


def read_heads(folder: Path) -> dict[str, tuple[int, int]]:
    """First and end output of each task's head. Raises InputError for an encoder that was not finetuned by lang1."""
    path = folder / CARD
    heads = runs.read_json(path).get("heads") if path.is_file() else None
    if not isinstance(heads, dict):
        raise InputError(
            f"{folder}: an encoder without the head of a task ({CARD} names none); finetune it first: "
            f"lang1 finetune --model {folder}"
        )
    return {task: (int(first), int(end)) for task, (first, end) in heads.items()}


def score_notes(model: Any, notes: Sequence[EncodedNote], *, batch_tokens: int, pad: int) -> Floats:
    """Logits (notes, S) of every head."""
    logits = np.zeros((len(notes), int(model.config.num_labels)))
    lengths = [len(note.ids) for note in notes]
    with evaluating(model):
        for places in batches(longest_first(lengths), lengths, batch_tokens):
            found = class_logits(model, [notes[i].ids for i in places], pad)
            logits[places] = found.double().cpu().numpy()
    return logits
