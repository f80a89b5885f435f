"""Score finetuned encoders: a classifier on [CLS] reads the note alone (scoring/encoder.py).

The same rows and score files as for a language model; the method in the files is `encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.models.encoder import load_classifier, positions_of, special_ids
from lang1.models.load import load_tokenizer, on_device
from lang1.remede.contamination import ModelSeen
from lang1.remede.rows import TaskRows
from lang1.remede.scores import Floats, write_scores
from lang1.scoring.encoder import METHOD, EncodedNote, encode_notes, read_heads, score_notes
from lang1.scoring.options import check_finite, option_probabilities


def score_encoder(
    cfg: EvaluateConfig,
    name: str,
    folder: Path,
    splits: Sequence[Sequence[TaskRows]],
    seen: ModelSeen,
    out: Path,
    dtype: Any,
) -> None:
    """Write a score file for each task of the splits' rows that the encoder has a head for.

    A note that several tasks of a split ask about is read once. Raises InputError for an encoder without any of the
    tasks' heads, or whose head has other options than the question.
    """
    import torch

    from lang1.models.fast import use_fast_attention

    heads = read_heads(folder)
    model, tokenizer, special = load_classifier(folder), load_tokenizer(folder), special_ids(folder)
    _check_heads(folder, heads, int(model.config.num_labels), [part for parts in splits for part in parts])
    use_fast_attention(on_device(model), dtype)
    positions = positions_of(model.config)
    for parts in splits:
        asked = [part for part in parts if part.task in heads]
        if len(asked) < len(parts):
            missing = ", ".join(part.task for part in parts if part.task not in heads)
            runs.say(f"evaluate: {name}: has no head for {missing}: not scored")
        if not asked:
            continue
        runs.say(f"evaluate: {name}, {asked[0].split}")
        texts = {text: None for part in asked for text in part.strings("text")}
        notes = dict(
            zip(texts, encode_notes(tokenizer, list(texts), special, cfg.max_note_tokens, positions), strict=True)
        )
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = score_notes(model, list(notes.values()), batch_tokens=cfg.batch_tokens, pad=special.pad)
        place = {text: i for i, text in enumerate(notes)}
        for part in asked:
            first, end = heads[part.task]
            rows = [place[text] for text in part.strings("text")]
            _write(
                folder, name, part, [notes[text] for text in part.strings("text")], logits[rows, first:end], seen, out
            )


def _write(
    folder: Path,
    name: str,
    part: TaskRows,
    notes: Sequence[EncodedNote],
    logits_NK: Floats,
    seen: ModelSeen,
    out: Path,
) -> None:
    check_finite(folder, logits_NK, f" of {part.task}, {part.split}")
    write_scores(
        out,
        name,
        part,
        option_probabilities(logits_NK),
        method=METHOD,
        logits_NK=logits_NK,
        prompt_tokens=[len(note.ids) for note in notes],
        truncated_tokens=[note.truncated_tokens for note in notes],
        seen=seen,
    )


def _check_heads(folder: Path, heads: dict[str, tuple[int, int]], outputs: int, parts: Sequence[TaskRows]) -> None:
    asked = {part.task: part.options for part in parts}
    if not set(asked) & set(heads):
        raise InputError(
            f"{folder}: the encoder has heads for {', '.join(heads)}, not for {', '.join(asked)}; "
            "finetune it on these tasks, or set evaluate.tasks"
        )
    for task in sorted(set(asked) & set(heads)):
        (first, end), options = heads[task], asked[task]
        if end - first != options or end > outputs:
            raise InputError(
                f"{folder}: the encoder's head for {task} has {end - first} options, the question {options}; "
                "finetune it on this tasks folder"
            )
