"""The embedded hospital: an OMOP warehouse in DuckDB with notes, claims and known truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lang1.config import SimulateConfig


def simulate_hospital(cfg: SimulateConfig, *, seed: int, out: Path, force: bool = False) -> dict[str, Any]:
    """Write `warehouse.duckdb` (OMOP CDM 5.4 + extensions) and `truth.parquet` into `out`; returns the manifest."""
    from lang1.simulate.warehouse import simulate

    return simulate(cfg, seed=seed, out=out, force=force)
