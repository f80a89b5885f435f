"""Score a model behind an API on the tasks: canary, requests, journal, score files.

Rows are asked once: their answers are kept in a journal as they come, and a run that was killed, or that a server left
in the lurch, goes on with the rows that are missing. The score files are the same in form as a folder's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError, Unfinished
from lang1.models.load import is_gguf, load_config, load_tokenizer
from lang1.remede.backends.canary import try_completions
from lang1.remede.backends.chat import ChatAnswered, ChatRow, RemedeChat
from lang1.remede.backends.chat_canary import try_chat
from lang1.remede.backends.completions import Answered, Asked, RemedeCompletions
from lang1.remede.backends.journal import RowAnswer, append_answers, read_journal
from lang1.remede.backends.limits import is_greedy
from lang1.remede.backends.models import served_context
from lang1.remede.backends.probes import changed_since, say_known
from lang1.remede.backends.servers import Server
from lang1.remede.backends.transport import Line
from lang1.remede.contamination import ModelSeen
from lang1.remede.language_models import check_questions
from lang1.remede.rows import TaskRows
from lang1.remede.scores import read_scores, score_path, slug, write_scores
from lang1.scoring.options import encode_prompts, option_probabilities, option_token_ids
from lang1.scoring.shots import Examples
from lang1.tasks.prompts import render_question

CHARACTERS_PER_TOKEN = 4
"""of a note, where a chat is asked without a tokenizer at hand"""
FEW = 20
"""rows: of fewer it says nothing that each was answered alike ten times"""


def score_served_model(
    cfg: EvaluateConfig,
    name: str,
    server: Server,
    rows: dict[tuple[str, str], TaskRows],
    seen: ModelSeen,
    stage: runs.Stage,
    seed: int,
    examples: Mapping[str, Examples],
) -> dict[str, Any]:
    """Write a score file for each (task, split) of `rows`; returns what the canary found and what was counted.

    `examples` gives the shots by task, as for a model in memory.

    Raises InputError for a server that the canary refuses, Unfinished for one that does not answer: what was answered
    is kept.
    """
    folder = stage.scratch() / "api" / slug(name)
    told = folder / "facts.json"
    waiting = [part for part in rows.values() if not score_path(stage.out, name, part.task, part.split).exists()]
    journals = {(part.task, part.split): folder / f"{part.task}-{part.split}.jsonl" for part in waiting}
    if waiting:
        answered = len(waiting) < len(rows) or any(read_journal(path) for path in journals.values())
        runs.say(f"evaluate: the notes of {sum(len(part.table) for part in waiting)} rows go to {server.url}")
        line = Line(server, cfg.api)
        line.headers()  # a key that is not set is told before anything is sent
        if server.kind == "chat":
            _score_chat(cfg, name, line, waiting, journals, seen, stage.out, seed, told, answered, examples)
        else:
            _score_completions(cfg, name, line, waiting, journals, seen, stage.out, told, answered, examples)
    facts: dict[str, Any] = runs.read_json(told)
    return facts | counted(stage.out, name, rows)


def check_served_model(
    cfg: EvaluateConfig,
    name: str,
    server: Server,
    rows: dict[tuple[str, str], TaskRows],
    stage: runs.Stage,
    seed: int,
    examples: Mapping[str, Examples],
) -> None:
    """Refuse a server before other models are scored for hours: key, tokenizer, options, shots, and a canary with
    short prompts. The whole canary is sent when its turn comes.

    Raises InputError and Unfinished as `score_served_model` does; writes nothing.
    """
    if all(score_path(stage.out, name, task, split).exists() for task, split in rows):
        return
    line = Line(server, cfg.api)
    line.headers()
    if server.kind == "chat":
        if server.tokenizer:
            load_tokenizer(server.tokenizer)
        try_chat(RemedeChat(line, seed), render_question(next(iter(rows.values())).question), 1)
        return
    model = _completions_model(cfg, line)
    options = check_questions(cfg, server, model.tokenizer, model.context_length, rows.values(), examples)
    try_completions(model, options, 0)


def _completions_model(cfg: EvaluateConfig, line: Line) -> RemedeCompletions:
    folder = line.server.tokenizer
    if folder is None:
        raise InputError(f"{line.server}: needs the folder of its tokenizer; give --tokenizer FOLDER")
    tokenizer = load_tokenizer(folder)
    return RemedeCompletions(line, context_length(cfg, line, folder), tokenizer)


def keep_facts(told: Path, facts: dict[str, Any], server: Server, answered: bool) -> None:
    """Write what the canary found; where rows were answered before, it must be what it was then.

    Raises Unfinished for a server that changed in between: rows of two models, or cut for two contexts, are no score.
    """
    if not answered:
        runs.write_json(told, facts)
        return
    before = runs.read_json(told)
    changes = changed_since(_flat(before), _flat(facts))
    if changes:
        raise Unfinished(
            f"{server}: no longer what answered the finished rows ({'; '.join(changes)}); serve that one again, or "
            "give --force to ask all rows anew"
        )


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, **facts["canary"]}


def counted(out: Path, name: str, rows: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Bounds, refused answers and methods of a model's score files."""
    missing, refused, methods = 0, 0, dict[str, int]()
    for task, split in rows:
        table = read_scores(score_path(out, name, task, split))
        missing += sum(value or 0 for value in table["options_missing"].to_pylist())
        refused += sum(value or 0 for value in table["answers_refused"].to_pylist())
        for method in table["method"].to_pylist():
            methods[method] = methods.get(method, 0) + 1
    return {"options_missing": missing, "answers_refused": refused, "rows_by_method": dict(sorted(methods.items()))}


# --- completions -------------------------------------------------------------------------------------------------


def _score_completions(
    cfg: EvaluateConfig,
    name: str,
    line: Line,
    parts: Sequence[TaskRows],
    journals: dict[tuple[str, str], Path],
    seen: ModelSeen,
    out: Path,
    told: Path,
    answered: bool,
    examples: Mapping[str, Examples],
) -> None:
    """`told`: the file that gets what the canary found, before a row is asked; `answered`: some rows are already."""
    model = _completions_model(cfg, line)
    tokenizer, context = model.tokenizer, model.context_length
    prompts = {
        (part.task, part.split): encode_prompts(
            tokenizer, part.strings("text"), part.question, cfg.max_note_tokens, context, examples[part.task].text
        )
        for part in parts
    }
    options = {part.task: option_token_ids(tokenizer, part.question) for part in parts}
    longest = max(len(prompt.ids) for encoded in prompts.values() for prompt in encoded)
    tried = try_completions(model, sorted({token for ids in options.values() for token in ids}), longest)
    say_known(line.server, tried.facts)
    facts = {"server": str(line.server), "context_length": context, "canary": tried.facts}
    keep_facts(told, facts, line.server, answered)
    model.dialect = tried.dialect
    for part in parts:
        key = (part.task, part.split)
        asked = [Asked(prompt.ids, [[token] for token in options[part.task]]) for prompt in prompts[key]]
        answers = ask_completions(
            model, f"evaluate: {part.task}, {part.split}", part.strings("row_id"), asked, journals[key]
        )
        _write(
            out, name, part, answers, [prompt.truncated_tokens for prompt in prompts[key]], seen, examples[part.task]
        )


def ask_completions(
    model: RemedeCompletions, what: str, row_ids: list[str], asked: list[Asked], journal: Path
) -> list[RowAnswer]:
    """The answers to all rows, in their order; those that the journal lacks are asked for. `what` names the rows."""
    done = read_journal(journal)
    missing = [place for place, row in enumerate(row_ids) if row not in done]
    runs.say(f"{what}: {len(missing)} of {len(row_ids)} rows to ask")
    with append_answers(journal) as append:
        waiting = [asked[place] for place in missing]
        method = model.dialect_for(waiting).method(model.line.api.top_logprobs) if waiting else ""

        def keep(number: int, answer: Answered) -> None:
            place = missing[number]
            p = option_probabilities(np.array([answer.logprobs]))[0].tolist()
            length = len(asked[place].ids)
            found = RowAnswer(row_ids[place], method, p, answer.logprobs, answer.missing, None, length)
            append(found)
            done[found.row] = found

        if waiting:
            model.score(waiting, keep)
    return [done[row] for row in row_ids]


def context_length(cfg: EvaluateConfig, line: Line, folder: Path) -> int:
    """Tokens that the served model takes: as configured, as the server says, or as the tokenizer's folder does."""
    found = cfg.api.context_length or served_context(line)
    if found is None and (is_gguf(folder) or (folder / "config.json").is_file()):
        found = getattr(load_config(folder), "max_position_embeddings", None)
    if found is None:
        raise InputError(f"{line.server}: does not say what context its model has; set evaluate.api.context_length")
    return int(found)


# --- chat --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CutNote:
    """A note as a chat gets it."""

    text: str
    tokens: int
    """of what is left, at least"""
    truncated: int


def _score_chat(
    cfg: EvaluateConfig,
    name: str,
    line: Line,
    parts: Sequence[TaskRows],
    journals: dict[tuple[str, str], Path],
    seen: ModelSeen,
    out: Path,
    seed: int,
    told: Path,
    answered: bool,
    examples: Mapping[str, Examples],
) -> None:
    model = RemedeChat(line, seed)
    tokenizer = load_tokenizer(line.server.tokenizer) if line.server.tokenizer else None
    notes = {
        (part.task, part.split): [cut_note(tokenizer, text, cfg.max_note_tokens) for text in part.strings("text")]
        for part in parts
    }
    longest, tokens = max(
        (
            (examples[part.task].text + note.text + render_question(part.question), note.tokens)
            for part in parts
            for note in notes[part.task, part.split]
        ),
        key=lambda pair: len(pair[0]),
    )
    tried = try_chat(model, longest, tokens)
    say_known(line.server, tried.facts)
    keep_facts(told, {"server": str(line.server), "canary": tried.facts}, line.server, answered)
    model.dialect = tried.dialect
    for part in parts:
        key = (part.task, part.split)
        greedy, question = is_greedy(cfg.api, part.task), render_question(part.question)
        texts = [examples[part.task].text + note.text + question for note in notes[key]]
        rows = [
            ChatRow(row, text, part.question.options, greedy)
            for row, text in zip(part.strings("row_id"), texts, strict=True)
        ]
        answers = ask_chat(model, f"evaluate: {part.task}, {part.split}", rows, journals[key])
        _write(out, name, part, answers, [note.truncated for note in notes[key]], seen, examples[part.task])


def ask_chat(model: RemedeChat, what: str, rows: list[ChatRow], journal: Path) -> list[RowAnswer]:
    """The answers to all rows, whose keys are their ids, in their order; see `ask_completions`."""
    done = read_journal(journal)
    missing = [row for row in rows if row.key not in done]
    runs.say(f"{what}: {len(missing)} of {len(rows)} rows to ask")
    dialect, api = model.dialect, model.line.api
    assert dialect is not None
    with append_answers(journal) as append:

        def keep(number: int, answer: ChatAnswered) -> None:
            row = missing[number]
            found = RowAnswer(
                row.key,
                dialect.method(api.top_logprobs, api.samples, row.greedy),
                answer.p,
                answer.logprobs,
                answer.missing,
                answer.refused,
                answer.prompt_tokens,
            )
            append(found)
            done[found.row] = found

        if missing:
            model.score(missing, keep)
    answers = [done[row.key] for row in rows]
    drawn = [answer for answer, row in zip(answers, rows, strict=True) if dialect.way == "samples" and not row.greedy]
    if api.samples > 1 and len(drawn) >= FEW and all(_is_one(answer, api.samples) for answer in drawn):
        runs.say(
            f"{what}: the {api.samples} answers drawn to a row are one answer in every row: "
            "does the server draw at temperature 1?"
        )
    return answers


def _is_one(answer: RowAnswer, samples: int) -> bool:
    """Whether all that was drawn named one option, or nothing."""
    return answer.refused == samples or (not answer.refused and max(answer.p) == 1)


def cut_note(tokenizer: Any, text: str, most: int) -> CutNote:
    """The head of a note, as text: `most` tokens of the tokenizer given, or four characters for each."""
    if tokenizer is None:
        kept = text[: most * CHARACTERS_PER_TOKEN]
        lost = math.ceil((len(text) - len(kept)) / CHARACTERS_PER_TOKEN)
        return CutNote(kept, len(kept.split()), lost)  # no tokenizer makes fewer tokens than there are words
    found = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    ends = [int(end) for _, end in found["offset_mapping"]]
    if len(ends) <= most:
        return CutNote(text, _fewest(len(ends)), 0)
    return CutNote(text[: ends[most - 1]], _fewest(most), len(ends) - most)


def _fewest(tokens: int) -> int:
    """Where a note is cut, its last tokens may join otherwise."""
    return max(1, tokens - 2)


def _write(
    out: Path,
    name: str,
    part: TaskRows,
    answers: list[RowAnswer],
    truncated: list[int],
    seen: ModelSeen,
    examples: Examples,
) -> None:
    logits = [answer.logits for answer in answers]
    write_scores(
        out,
        name,
        part,
        np.array([answer.p for answer in answers], dtype=np.float64),
        method=[answer.method for answer in answers],
        logits_NK=np.array(logits, dtype=np.float64) if all(row is not None for row in logits) else None,
        prompt_tokens=[answer.prompt_tokens for answer in answers],
        truncated_tokens=truncated,
        examples=examples,
        options_missing=[answer.missing for answer in answers],
        answers_refused=[answer.refused for answer in answers],
        seen=seen,
    )
