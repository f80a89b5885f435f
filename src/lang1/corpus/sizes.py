"""How large a corpus version is: patients, notes, words and tokens by source and split, as in 5.2.1, beside the paper.

Patients are those with a note in the split; the splits share none, so `all` is their sum. Words are separated by white
space, after cleaning. Tokens hold the separator of each document. Web text has documents for notes, and no patients.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.corpus.shards import SPLITS

COUNTS = ("patients", "notes", "words", "tokens")
PAPER: dict[str, tuple[int, int, int, int | None]] = {
    "NYUNotes": (387_144, 7_247_694, 4_112_249_482, None),
    "NYUNotes+": (11_689_342, 180_487_092, 59_917_646_788, 80_000_000_000),
}
"""what 5.2.1 says of its versions, in the order of COUNTS; the tokens, 80 billion, are from the introduction"""


@dataclass(frozen=True)
class Size:
    """One row: a split of a source, or `all` of it."""

    version: str
    source: str
    split: str
    counts: tuple[int | None, ...]
    paper: tuple[int | None, ...]


def find(version: str, sources: dict[str, dict[str, dict[str, Any]]]) -> list[Size]:
    """The rows from index.json's sources; the paper's values stand beside `all` notes of a version of its name."""
    rows = []
    for source, splits in sources.items():
        counted = {
            split: tuple(splits[split][key] for key in ("patients", "documents", "words", "tokens")) for split in SPLITS
        }
        both = zip(*counted.values(), strict=True)
        counted["all"] = tuple(None if None in pair else sum(pair) for pair in both)
        for split, counts in counted.items():
            is_papers = split == "all" and source == "clinical" and version in PAPER
            rows.append(Size(version, source, split, counts, PAPER[version] if is_papers else (None,) * len(COUNTS)))
    return rows


def write(out: Path, rows: list[Size]) -> None:
    """Write corpus.csv and corpus.md, and print the table."""
    names = ["version", "source", "split", *COUNTS, *(f"paper_{name}" for name in COUNTS)]
    plain = io.StringIO()
    writer = csv.writer(plain, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([r.version, r.source, r.split, *r.counts, *r.paper] for r in rows)
    runs.write_text(out / "corpus.csv", plain.getvalue())
    has_paper = any(value is not None for row in rows for value in row.paper)
    head = ["source", "split", *COUNTS, *(f"paper's {name}" for name in COUNTS if has_paper)]
    body = [[r.source, r.split, *map(_shown, (*r.counts, *(r.paper if has_paper else ())))] for r in rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in (head, *body)]
    rule = "|" + "|".join("-" * (w + 2) if i < 2 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    table = [lines[0], rule, *lines[1:]]
    runs.write_text(out / "corpus.md", f"# Corpus version {rows[0].version}\n\n" + "\n".join(table) + "\n")
    runs.say(f"tokenize: corpus version {rows[0].version}")
    for row in (head, *body):
        runs.say("  " + "  ".join(_aligned(row, widths)))


def _shown(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    return [f"{cell:<{w}}" if i < 2 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
