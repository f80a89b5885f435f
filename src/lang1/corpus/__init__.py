"""From records to tokens: notes cleaned (5.1), a corpus version tokenised with web text beside it (5.2.1, 5.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import CleanConfig, DuplicatesConfig, ProfileConfig, TokenizeConfig


def clean(
    cfg: CleanConfig, *, out: Path, seed: int, records: Path | None = None, notes: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Clean every note of the records, or of CSV or Parquet files, into `out` (docs/clean.md); returns the manifest."""
    from lang1.corpus import cleaning

    return cleaning.clean(cfg, records=records, notes=notes, out=out, seed=seed, force=force)


def explain_cleaning(
    cfg: CleanConfig, note_id: str, *, records: Path | None = None, notes: Path | None = None
) -> list[str]:
    """Lines that show one note after each step of `clean`: note text, for a terminal only (docs/clean.md)."""
    from lang1.corpus import explain

    return list(explain.lines(explain.explain(cfg, note_id, records=records, notes=notes)))


def find_duplicates(
    cfg: DuplicatesConfig, *, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Find exact and near duplicates and passages copied forward (docs/duplicates.md); returns the manifest."""
    from lang1.corpus import duplicates

    return duplicates.find_duplicates(cfg, corpus=corpus, out=out, seed=seed, force=force)


def profile(
    cfg: ProfileConfig, *, corpus: Path, records: Path | None, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write tables and figures of what the cleaned notes are (docs/profile.md); returns the manifest."""
    from lang1.corpus import profiling

    return profiling.profile(cfg, corpus=corpus, records=records, out=out, seed=seed, force=force)


def scan_files(paths: list[Path], *, presidio: str | None = None, workers: int = 0) -> dict[str, Any]:
    """Count patterns of identifiers in files and folders (docs/scan.md); counts only, never text."""
    from lang1.corpus import scan

    return scan.scan(paths, presidio=presidio, workers=workers)


def tokenize(
    cfg: TokenizeConfig, *, corpus: Path, out: Path, seed: int, records: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Write a corpus version and web text as shards of token ids (docs/tokenize.md); returns the manifest."""
    from lang1.corpus import tokens

    return tokens.tokenize(cfg, corpus=corpus, out=out, seed=seed, records=records, force=force)
