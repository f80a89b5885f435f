"""`lang1 scan`: how many phone numbers, MRNs, SSNs, e-mail addresses, dates and names stand in files that may leave.

Counts only: no text, no place in a text. A file is read as what its name says: Parquet column by column (a time or
date column counts as dates), CSV, JSON and JSON Lines field by field, HTML without its tags, a tokens folder decoded by
its own tokenizer, a tokenizer's vocabulary, other text line by line. What cannot be read as text, model weights above
all, is listed as not read: a scan that is clean says nothing of it. Parts of large files are counted in parallel
processes and added up in the order of the paths, so the counts do not depend on how many there are.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.corpus.identifiers import NAMES, count_matches
from lang1.corpus.processes import map_in_processes
from lang1.corpus.reading import Unit, list_units, read_unit
from lang1.errors import InputError

PARALLEL_BYTES = 32 * 2**20
"""less than this is counted in the command's own process"""


@dataclass
class Counts:
    """What was counted in a column of a file. A document is a row, a record, a line or a note."""

    documents: int = 0
    words: int = 0
    matches: Counter[str] = field(default_factory=Counter)
    documents_with: Counter[str] = field(default_factory=Counter)

    def add(self, found: dict[str, int], words: int, documents: int = 1) -> None:
        """Count one document, or several that are alike."""
        self.documents += documents
        self.words += words
        self.matches.update(found)
        self.documents_with.update(dict.fromkeys(found, documents))

    def merge(self, other: Counts) -> None:
        """Add what another part of the same column held."""
        self.documents += other.documents
        self.words += other.words
        self.matches.update(other.matches)
        self.documents_with.update(other.documents_with)

    def row(self, name: str) -> dict[str, Any]:
        """A pattern's counts, as they are reported."""
        per_1000 = round(1000 * self.matches[name] / self.words, 4) if self.words else None
        return {
            "matches": self.matches[name],
            "documents_with_a_match": self.documents_with[name],
            "per_1000_words": per_1000,
        }


def scan(paths: list[Path], *, presidio: str | None = None, workers: int = 0) -> dict[str, Any]:
    """Count the patterns in files and folders. Raises InputError for a path that is not there or is broken.

    `presidio` names a spaCy model that is installed: its entities are counted beside our patterns. The result:
    `files`, a list by file, column and pattern; `totals` by pattern; `not_read`, files with the reason.
    """
    if not paths:
        raise InputError("scan: give a file or a folder")
    units, not_read = list_units(paths)
    analyze = open_presidio(presidio) if presidio else None
    files: dict[tuple[str, str], Counts] = {}
    for unit, columns in _iter_counted(units, workers, analyze):
        for column, counts in columns.items():
            files.setdefault((unit.shown, column), Counts()).merge(counts)
    names = [*NAMES, *sorted({name for counts in files.values() for name in counts.matches} - set(NAMES))]
    total = Counts()
    for counts in files.values():
        total.merge(counts)
    return {
        "files": [
            {
                "file": file,
                "column": column,
                "documents": counts.documents,
                "words": counts.words,
                "patterns": {name: counts.row(name) for name in names if counts.matches[name]},
            }
            for (file, column), counts in files.items()
        ],
        "totals": {name: total.row(name) for name in names},
        "matches": sum(total.matches.values()),
        "documents": total.documents,
        "words": total.words,
        "not_read": [{"file": file, "why": why} for file, why in not_read],
        "presidio": presidio,
    }


def _iter_counted(units: list[Unit], workers: int, analyze: Any) -> Iterator[tuple[Unit, dict[str, Counts]]]:
    """Units with their counts, in order."""
    number = min(workers or os.cpu_count() or 1, len(units))
    if analyze is not None or number < 2 or sum(unit.size for unit in units) < PARALLEL_BYTES:
        for unit in units:
            yield unit, count_unit(unit, analyze)
        return
    runs.say(f"scan: {len(units):,} parts, {number} processes")
    killed = "scan: a worker process was killed (out of memory?); fewer --workers take less memory"
    counted = map_in_processes(count_unit, [(unit,) for unit in units], number, killed)
    yield from zip(units, counted, strict=True)


def count_unit(unit: Unit, analyze: Any = None) -> dict[str, Counts]:
    """Counts by column of one unit: a file, or a row group of one."""
    columns: dict[str, Counts] = {}
    for column, text, dates in read_unit(unit):
        counts = columns.setdefault(column, Counts())
        if text is None:
            counts.add({"date": 1} if dates else {}, words=0)
            continue
        found = count_matches(text)
        if analyze is not None:
            found |= analyze(text)
        counts.add(found, words=len(text.split()))
    return columns


# --- a model of names, where a site has one ------------------------------------------------------------------------

ENTITIES = ("PERSON", "LOCATION", "NRP", "DATE_TIME")
"""what a spaCy model finds; presidio's own recognizers are not asked: one of them fetches a list from the network"""
LONGEST = 50_000
"""characters that the model reads at once: it takes 10 kB a character and refuses a million of them"""
REPEATED = 64
"""characters of a text whose counts are kept: a category, a service, an id, which stand in many rows"""


def open_presidio(model: str) -> Any:
    """A function from text to counts by entity. Raises InputError when presidio or the model is not installed."""
    try:
        import spacy  # type: ignore[import-not-found, unused-ignore]
        from presidio_analyzer import (  # type: ignore[import-not-found, unused-ignore]
            AnalyzerEngine,
            RecognizerRegistry,
        )
        from presidio_analyzer.nlp_engine import NlpEngineProvider  # type: ignore[import-not-found, unused-ignore]
        from presidio_analyzer.predefined_recognizers import (  # type: ignore[import-not-found, unused-ignore]
            SpacyRecognizer,
        )
    except ImportError:
        raise InputError(
            "--presidio: presidio-analyzer and spacy are not installed; install them with a spaCy model, or leave "
            "--presidio out"
        ) from None
    if not (spacy.util.is_package(model) or Path(model).is_dir()):  # presidio would download it
        raise InputError(f"--presidio: no spaCy model {model} is installed; nothing is downloaded here")
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    try:
        engine = AnalyzerEngine(
            registry=RecognizerRegistry(recognizers=[SpacyRecognizer()]),
            nlp_engine=NlpEngineProvider(nlp_configuration=settings).create_engine(),
            supported_languages=["en"],
        )
    except Exception as error:  # spaCy's loaders raise what they like
        why = str(error).partition("\n")[0]
        raise InputError(f"--presidio: {model} cannot be opened as a spaCy model: {why}") from None
    pipeline = engine.nlp_engine.nlp["en"]
    if not any("doc.ents" in pipeline.get_pipe_meta(name).assigns for name in pipeline.pipe_names):
        raise InputError(f"--presidio: the spaCy model {model} has no component that finds entities")

    def analyze(text: str) -> dict[str, int]:
        found: Counter[str] = Counter()
        for piece in _cut(text):
            results = engine.analyze(text=piece, language="en", entities=list(ENTITIES))
            found.update(f"presidio {result.entity_type}" for result in results)
        return dict(found)

    again = functools.lru_cache(4096)(analyze)
    return lambda text: again(text) if len(text) <= REPEATED else analyze(text)


def _cut(text: str) -> Iterator[str]:
    """A text in pieces of at most LONGEST characters, cut behind a space where there is one."""
    while len(text) > LONGEST:
        end = text.rfind(" ", 0, LONGEST) + 1 or LONGEST
        yield text[:end]
        text = text[end:]
    yield text


# --- as a table ------------------------------------------------------------------------------------------------------


def as_lines(result: dict[str, Any]) -> Iterable[str]:
    """The result for a terminal: a line a file, column and pattern, then totals and what was not read."""
    rows = [("file", "column", "pattern", "matches", "documents", "of", "per 1,000 words")]
    for found in result["files"]:
        for name, counts in found["patterns"].items():
            rows.append((found["file"], found["column"], name, *_numbers(counts, found["documents"])))
    for name, counts in result["totals"].items():
        rows.append(("all", "", name, *_numbers(counts, result["documents"])))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if i > 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    yield f"{result['matches']:,} matches in {result['documents']:,} documents of {result['words']:,} words"
    for found in result["not_read"]:
        yield f"not read: {found['file']} ({found['why']})"


def _numbers(counts: dict[str, Any], documents: int) -> tuple[str, str, str, str]:
    rate = counts["per_1000_words"]
    return (
        f"{counts['matches']:,}",
        f"{counts['documents_with_a_match']:,}",
        f"{documents:,}",
        "-" if rate is None else f"{rate:.3f}",
    )
