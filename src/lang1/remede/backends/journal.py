"""Answers as they come, a line a row, flushed at each: what a killed run does not ask again. No text stands in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lang1 import runs
from lang1.errors import InputError


@dataclass(frozen=True)
class RowAnswer:
    """What is kept of a row's answer."""

    row: str
    """row_id"""
    method: str
    p: list[float]
    logits: list[float] | None
    missing: int | None
    refused: int | None
    prompt_tokens: int | None


def read_journal(path: Path) -> dict[str, RowAnswer]:
    """The answers that are there, by row_id; what a kill left half-written is cut off. Raises InputError."""
    lines = runs.read_lines(path)
    try:
        found = [RowAnswer(**line) for line in lines]
    except TypeError:
        raise InputError(f"{path}: not the answers of this version; delete it, or run again with --force") from None
    if path.exists():
        runs.write_lines(path, lines)
    return {answer.row: answer for answer in found}


@contextlib.contextmanager
def append_answers(path: Path) -> Iterator[Callable[[RowAnswer], None]]:
    """Add answers to a journal."""
    with runs.append_lines(path) as append:
        yield lambda answer: append(asdict(answer))
