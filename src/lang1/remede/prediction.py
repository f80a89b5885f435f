"""Option probabilities for a file of notes: `lang1 predict`, what a team runs before it wants a server.

One model, one question, the prompt and the reading of the answer as in evaluation. The output has the notes' ids, in
their order, and no text; it appears whole when all is done, with a JSON file beside it that says what it is. The file
of notes is looked through first, so that a bad row is named before the model runs, and read again in small pieces. A
finished piece is kept in the folder OUT.part until all are there (remede/parts.py): a killed run goes on after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.config import TASK_IDS, EvaluateConfig
from lang1.config.files import read_mapping
from lang1.errors import ConfigError, InputError
from lang1.models.origin import CARD
from lang1.remede.note_files import NoteFile
from lang1.remede.parts import Parts, open_parts
from lang1.scoring.options import (
    METHOD,
    check_finite,
    encode_prompts,
    in_precision,
    option_probabilities,
    option_token_ids,
    pad_id_of,
    score_prompts,
)
from lang1.tasks.prompts import LETTERS, QUESTIONS, Question, built_in, read_questions, render_question

if TYPE_CHECKING:
    import pyarrow as pa

NOTE_TOKENS = 512
"""of a note that are read where the model's folder names no other number (5.4)"""
SAID_EVERY_S = 10.0


def predict(
    cfg: EvaluateConfig,
    *,
    model: Path,
    notes: NoteFile,
    task: str,
    out: Path,
    question: Path | None = None,
    max_note_tokens: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write the probabilities of the options for every note to `out` (.parquet or .csv); returns what OUT.json says.

    The question is that of the file `question`, else of the model's folder, else of the task as ReMedE asks it. Of
    `cfg` the batch size, the number format and the threads are read. Raises InputError for notes, a model or a question
    that cannot be used, and where `out` is there already.
    """
    _check_out(out, notes.path, force)
    if max_note_tokens is not None and max_note_tokens < 1:
        raise ConfigError(f"--max-note-tokens {max_note_tokens}: at least 1")
    asked, source = find_question(model, task, question)
    rows = notes.check()
    net, tokenizer, dtype = _open(cfg, model)
    most = max_note_tokens or _note_tokens(model)
    about = {
        "task": task,
        "question": {"text": asked.text, "options": list(asked.options), "from": source},
        "columns": {f"p_{k}": option for k, option in enumerate(asked.options)},
        "prompt_sha256": hashlib.sha256(render_question(asked).encode()).hexdigest(),
        "method": METHOD,
        "model": model.resolve().name,
        "model_id": runs.identify(model),
        "notes_sha256": runs.sha256_file(notes.path),
        "max_note_tokens": most,
        "precision": str(dtype).removeprefix("torch."),
        "versions": runs.versions(),
    }
    options = option_token_ids(tokenizer, asked)
    asker = _Asker(model, net, tokenizer, asked, options, most, cfg.batch_tokens, dtype)
    way = {"id": notes.id_column, "text": notes.text_column, "batch_tokens": cfg.batch_tokens, "threads": cfg.threads}
    with open_parts(out, about | way | {"device": net.device.type}) as parts:
        counts = _score_missing(asker, notes, rows, parts)
        facts = about | counts
        with _writer(out, len(options)) as write:
            for part in parts.read():
                write(part)
        runs.write_json(described(out), facts)
        parts.finish()
    return facts


@dataclass(frozen=True)
class _Asker:
    """A model and the one question that it is asked."""

    folder: Path
    net: Any
    tokenizer: Any
    question: Question
    options: list[int]
    """the token of each"""
    max_note_tokens: int
    batch_tokens: int
    dtype: Any

    def ask(self, ids: list[str], texts: list[str], which: str) -> pa.Table:
        """The rows of some notes; `which` says which they are."""
        context = getattr(self.net.config, "max_position_embeddings", None)
        encoded = encode_prompts(self.tokenizer, texts, self.question, self.max_note_tokens, context)
        with in_precision(self.net, self.dtype):
            logits_NK = score_prompts(
                self.net, encoded, self.options, batch_tokens=self.batch_tokens, pad_id=pad_id_of(self.tokenizer)
            )
        check_finite(self.folder, logits_NK, which)
        return _table(ids, option_probabilities(logits_NK), encoded)


def _score_missing(asker: _Asker, notes: NoteFile, rows: int, parts: Parts) -> dict[str, int]:
    """Ask about the notes whose part is not there; counts over all of them."""
    said, done, cut_rows, cut_tokens = time.monotonic(), 0, 0, 0
    for number, (ids, texts) in enumerate(notes.chunks()):
        if not parts.has(number):
            parts.write(number, asker.ask(ids, texts, f" of {notes.path.name} from row {done + 1:,} on"))
        truncated = parts.column(number, "truncated_tokens")
        done += len(ids)
        cut_rows += sum(tokens > 0 for tokens in truncated)
        cut_tokens += sum(truncated)
        if time.monotonic() - said > SAID_EVERY_S:
            runs.say(f"predict: {done:,} of {rows:,} notes")
            said = time.monotonic()
    return {"rows": done, "rows_truncated": cut_rows, "tokens_truncated": cut_tokens}


def described(out: Path) -> Path:
    """The file that says what `out` is."""
    return out.with_name(f"{out.name}.json")


def find_question(model: Path, task: str, own: Path | None) -> tuple[Question, str]:
    """What is asked, and where that stands. Raises InputError for a task that nothing here has a question for."""
    if own is not None:
        return _own_question(own, task), own.name
    known: dict[str, Question] = {}
    if (model / QUESTIONS).is_file():
        known = read_questions(model)
        if task in known:
            return known[task], "the model's folder"
    if task in TASK_IDS:
        return built_in(task, "recommended").question, "the prompt set recommended"
    there = ", ".join(dict.fromkeys((*known, *TASK_IDS)))
    raise InputError(f"--task {task}: no question of that name (there are {there}); give your own with --question FILE")


def _own_question(path: Path, task: str) -> Question:
    """A YAML or JSON file with `text` and `options`, or such by task as in a tasks folder's questions.json."""
    found = read_mapping(path, "question", "it holds `text` and `options`")
    entry = found.get(task, found)
    text, options = (entry.get("text"), entry.get("options")) if isinstance(entry, dict) else (None, None)
    if (
        not isinstance(text, str)
        or not text.strip()
        or not isinstance(options, list)
        or not 2 <= len(options) <= len(LETTERS)
        or not all(isinstance(option, str) and option.strip() for option in options)
    ):
        raise InputError(
            f"{path}: must hold `text`, the question, and `options`, 2 to {len(LETTERS)} answers in quotes; "
            f"or such under the key {task}"
        )
    return Question(text.strip(), tuple(option.strip() for option in options))


def _open(cfg: EvaluateConfig, model: Path) -> tuple[Any, Any, Any]:
    """Model, tokenizer and number format."""
    from lang1.models.fast import use_fast_attention
    from lang1.models.load import on_device
    from lang1.training.base_model import BaseModel
    from lang1.training.numerics import prepare_torch

    dtype = prepare_torch(cfg.threads, cfg.precision)
    base = BaseModel(model, is_random=False)
    net = on_device(base.load(0).eval())
    use_fast_attention(net, dtype)
    return net, base.tokenizer(), dtype


def _note_tokens(model: Path) -> int:
    said = runs.read_json(model / CARD).get("max_note_tokens") if (model / CARD).is_file() else None
    return int(said) if said else NOTE_TOKENS


def _schema(options: int) -> pa.Schema:
    import pyarrow as pa

    probabilities = [pa.field(f"p_{k}", pa.float64()) for k in range(options)]
    counts = [pa.field(name, pa.int32()) for name in ("prompt_tokens", "truncated_tokens")]
    return pa.schema([pa.field("note_id", pa.string()), *probabilities, *counts])


def _table(ids: list[str], p_NK: Any, encoded: list[Any]) -> pa.Table:
    import pyarrow as pa

    counts = [[len(prompt.ids) for prompt in encoded], [prompt.truncated_tokens for prompt in encoded]]
    return pa.table([ids, *(column.tolist() for column in p_NK.T), *counts], schema=_schema(p_NK.shape[1]))


@contextlib.contextmanager
def _writer(out: Path, options: int) -> Iterator[Callable[[pa.Table], None]]:
    """Takes tables; the file appears when the block ends."""
    import pyarrow.csv

    if out.suffix.lower() == ".parquet":
        with runs.parquet_writer(out, _schema(options)) as writer:
            yield writer.write_table
    else:
        with runs.atomic_write(out) as sink, pyarrow.csv.CSVWriter(sink, _schema(options)) as writer:
            yield writer.write_table


def _check_out(out: Path, notes: Path, force: bool) -> None:
    if out.suffix.lower() not in {".parquet", ".csv"}:
        raise InputError(f"--out {out}: a .parquet or .csv file")
    if out.resolve() == notes.resolve():
        raise InputError(f"--out {out}: is the file of notes itself; choose another name")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; give the name of a file")
    if out.exists() and not force:
        raise InputError(f"--out {out}: is there already; choose another name, or --force to replace it")
