"""Score Hugging Face folders and GGUF files on the tasks: zero-shot, few-shot and finetuned alike (5.4, 5.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.models.load import is_encoder, load_config, load_scorer, load_tokenizer
from lang1.remede.contamination import ModelSeen
from lang1.remede.encoders import score_encoder
from lang1.remede.rows import TaskRows
from lang1.remede.scores import score_path, write_scores
from lang1.scoring.options import (
    METHOD,
    PromptSet,
    check_finite,
    encode_prompts,
    in_precision,
    option_probabilities,
    option_token_ids,
    pad_id_of,
    score_prompt_sets,
)
from lang1.scoring.shots import NO_EXAMPLES, Examples


def score_language_model(
    cfg: EvaluateConfig,
    name: str,
    folder: Path,
    rows: dict[tuple[str, str], TaskRows],
    seen: ModelSeen,
    out: Path,
    dtype: Any,
    examples: Mapping[str, Examples] | None = None,
) -> None:
    """Write a score file for each (task, split) of `rows`; those of a split whose files are all there are kept.

    The tasks of a split are scored together, because they share notes; so a resumed run makes the same batches, and
    the same numbers, as an undisturbed one. `examples` gives the shots by task. Raises InputError for a folder that
    cannot answer the questions.
    """
    splits = dict.fromkeys(split for _, split in rows)
    waiting = {
        split: [part for (_, s), part in rows.items() if s == split]
        for split in splits
        if not all(score_path(out, name, t, s).exists() for t, s in rows if s == split)
    }
    if not waiting:
        return
    if is_encoder(folder):
        score_encoder(cfg, name, folder, list(waiting.values()), seen, out, dtype)
        return
    model, tokenizer = load_scorer(folder, dtype)
    for split, parts in waiting.items():
        runs.say(f"evaluate: {name}, {split}")
        with in_precision(model, dtype):
            _score_split(cfg, name, folder, model, tokenizer, parts, seen, out, examples or {})


def check_language_model(
    cfg: EvaluateConfig,
    name: str,
    folder: Path,
    rows: dict[tuple[str, str], TaskRows],
    out: Path,
    examples: Mapping[str, Examples],
) -> None:
    """Refuse a folder that cannot be asked, by its tokenizer and configuration, before others are scored for hours.

    Raises InputError as `score_language_model` would, for options of several tokens and for shots that do not fit.
    """
    if is_encoder(folder) or all(score_path(out, name, task, split).exists() for task, split in rows):
        return
    tokenizer, context = load_tokenizer(folder), getattr(load_config(folder), "max_position_embeddings", None)
    check_questions(cfg, folder, tokenizer, context, rows.values(), examples)


def check_questions(
    cfg: EvaluateConfig,
    model: object,
    tokenizer: Any,
    context: int | None,
    parts: Iterable[TaskRows],
    examples: Mapping[str, Examples],
) -> list[int]:
    """Refuse a tokenizer without the tokens of the options, and a context without room for a note behind the examples.

    Returns the tokens of the options of all tasks. Raises InputError, which names the model.
    """
    tokens: set[int] = set()
    try:
        for part in {part.task: part for part in parts}.values():
            tokens.update(option_token_ids(tokenizer, part.question))
            encode_prompts(tokenizer, [""], part.question, cfg.max_note_tokens, context, examples[part.task].text)
    except InputError as error:
        raise InputError(f"{model}: {error}") from None
    return sorted(tokens)


def _score_split(
    cfg: EvaluateConfig,
    name: str,
    folder: Path,
    model: Any,
    tokenizer: Any,
    parts: list[TaskRows],
    seen: ModelSeen,
    out: Path,
    examples: Mapping[str, Examples],
) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    before = {part.task: examples.get(part.task, NO_EXAMPLES) for part in parts}
    sets = {
        part.task: PromptSet(
            encode_prompts(
                tokenizer,
                part.strings("text"),
                part.question,
                cfg.max_note_tokens,
                context,
                before[part.task].text,
            ),
            option_token_ids(tokenizer, part.question),
        )
        for part in parts
    }
    logits = score_prompt_sets(model, sets, batch_tokens=cfg.batch_tokens, pad_id=pad_id_of(tokenizer))
    for part in parts:
        check_finite(folder, logits[part.task], f" of {part.task}, {part.split}")
    for part in parts:
        write_scores(
            out,
            name,
            part,
            option_probabilities(logits[part.task]),
            method=METHOD,
            logits_NK=logits[part.task],
            prompt_tokens=[len(prompt.ids) for prompt in sets[part.task].encoded],
            truncated_tokens=[prompt.truncated_tokens for prompt in sets[part.task].encoded],
            examples=before[part.task],
            seen=seen,
        )
