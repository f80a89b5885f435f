"""Score a model behind an API on SciQ and PubMedQA: canary, journal and limits as on the tasks (score.py).

A completions server is asked for the likelihood of the options' own text, as a model in memory is; options of several
tokens need its echo. A chat tells nothing of a text that it did not write: it is asked for a letter, as on the tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.models.load import load_tokenizer
from lang1.remede.backends.canary import try_completions
from lang1.remede.backends.chat import ChatRow, RemedeChat
from lang1.remede.backends.chat_canary import try_chat
from lang1.remede.backends.completions import Asked, RemedeCompletions
from lang1.remede.backends.journal import read_journal
from lang1.remede.backends.limits import is_greedy
from lang1.remede.backends.probes import say_known
from lang1.remede.backends.score import ask_chat, ask_completions, context_length, counted, cut_note, keep_facts
from lang1.remede.backends.servers import Server
from lang1.remede.backends.transport import Line
from lang1.remede.comprehension import WHOLE, ask_rows, write_answers
from lang1.remede.scores import score_path, slug
from lang1.tasks.prompts import Question, render_question

if TYPE_CHECKING:
    from lang1.remede.comprehension import ReadingSet


def score_served_reading(
    cfg: EvaluateConfig, name: str, server: Server, sets: list[ReadingSet], stage: runs.Stage, seed: int
) -> dict[str, Any]:
    """Write the score files of `sets` that are not there yet; returns what the canary found and what was counted.

    Raises InputError for a server that the canary refuses, Unfinished for one that does not answer: what was answered
    is kept.
    """
    folder = stage.scratch() / "api" / slug(name)
    told = folder / "facts.json"
    waiting = [part for part in sets if not score_path(stage.out, name, part.task, part.split).exists()]
    journals = {part.task: folder / f"{part.task}-{part.split}.jsonl" for part in waiting}
    if waiting:
        answered = len(waiting) < len(sets) or any(read_journal(path) for path in journals.values())
        runs.say(f"comprehension: {sum(len(part.rows) for part in waiting)} rows go to {server.url}")
        line = Line(server, cfg.api)
        line.headers()  # a key that is not set is told before anything is sent
        if server.kind == "chat":
            _chat(cfg, name, line, waiting, journals, stage.out, seed, told, answered)
        else:
            _completions(cfg, name, line, waiting, journals, stage.out, told, answered)
    facts: dict[str, Any] = runs.read_json(told)
    return facts | counted(stage.out, name, [(part.task, part.split) for part in sets])


def _completions(
    cfg: EvaluateConfig,
    name: str,
    line: Line,
    sets: list[ReadingSet],
    journals: dict[str, Path],
    out: Path,
    told: Path,
    answered: bool,
) -> None:
    folder = line.server.tokenizer
    if folder is None:
        raise InputError(f"{line.server}: needs the folder of its tokenizer; give --tokenizer FOLDER")
    context = context_length(cfg, line, folder)
    model = RemedeCompletions(line, context)
    prompts = {part.task: ask_rows(model.tokenizer, part, context) for part in sets}
    asked = {task: [Asked(item.prompt.ids, item.answers) for item in items] for task, items in prompts.items()}
    rows = [row for of_set in asked.values() for row in of_set]
    longest = max(len(row.ids) + max(map(len, row.options)) - 1 for row in rows)
    first = sorted({option[0] for option in rows[0].options})
    tried = try_completions(model, first, longest)
    say_known(line.server, tried.facts)
    facts = {"server": str(line.server), "context_length": context, "canary": tried.facts}
    keep_facts(told, facts, line.server, answered)
    model.dialect = tried.dialect
    model.dialect_for(rows)  # a server that cannot answer one of the sets is told before any row is sent
    for part in sets:
        what = f"comprehension: {part.task}, {part.split}"
        answers = ask_completions(model, what, part.row_ids, asked[part.task], journals[part.task])
        cut = [item.prompt.truncated_tokens for item in prompts[part.task]]
        write_answers(out, name, part, answers, cut, part.examples)


def _chat(
    cfg: EvaluateConfig,
    name: str,
    line: Line,
    sets: list[ReadingSet],
    journals: dict[str, Path],
    out: Path,
    seed: int,
    told: Path,
    answered: bool,
) -> None:
    model = RemedeChat(line, seed)
    tokenizer = load_tokenizer(line.server.tokenizer) if line.server.tokenizer else None
    notes = {part.task: [cut_note(tokenizer, row["text"], WHOLE) for row in part.rows] for part in sets}
    rows = {
        part.task: [
            ChatRow(
                str(row["row_id"]),
                part.lettered.text + note.text + render_question(Question(row["question"], tuple(row["options"]))),
                row["options"],
                is_greedy(cfg.api, part.task),
            )
            for row, note in zip(part.rows, notes[part.task], strict=True)
        ]
        for part in sets
    }
    longest, tokens = max(
        ((row.text, note.tokens) for part in sets for row, note in zip(rows[part.task], notes[part.task], strict=True)),
        key=lambda pair: len(pair[0]),
    )
    tried = try_chat(model, longest, tokens)
    say_known(line.server, tried.facts)
    keep_facts(told, {"server": str(line.server), "canary": tried.facts}, line.server, answered)
    model.dialect = tried.dialect
    for part in sets:
        answers = ask_chat(model, f"comprehension: {part.task}, {part.split}", rows[part.task], journals[part.task])
        write_answers(out, name, part, answers, [note.truncated for note in notes[part.task]], part.lettered)
