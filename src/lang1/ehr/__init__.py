"""The EHR room: a warehouse or files -> canonical records (docs/extract.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lang1.config import ExtractConfig


def extract(cfg: ExtractConfig, *, source: str | Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Write the canonical records of `source` to `out`; returns the manifest. See lang1.ehr.extraction."""
    from lang1.ehr.extraction import extract as work

    return work(cfg, source=source, out=out, seed=seed, force=force)


def check_source(cfg: ExtractConfig, *, source: str | Path) -> str:
    """Run every query of the source for no row; returns a table of columns and types. See lang1.ehr.checking."""
    from lang1.ehr.checking import check, described

    return described(check(cfg, source=source))
