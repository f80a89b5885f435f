"""`lang1 remede table`: many evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lang1 import runs
from lang1.errors import InputError


def table(
    runs_: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Scores folders, or runs that hold one.")],
    how: Annotated[Literal["html", "md", "latex"], typer.Option("--format", help="What to write.")] = "md",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; the terminal when absent.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split to show; the first evaluation's headline when absent.")
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="auroc, auprc, brier, log_loss, ece, smece or accuracy.")
    ] = "auroc",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """A leaderboard over many evaluations: values with intervals, n and events, and what is comparable."""
    from lang1.remede.table import make_table

    text = make_table(runs_, how, split, metric)
    if out is None:
        print(text, end="")
    else:
        if out.exists() and not force and not (out.is_file() and out.read_bytes() == text.encode()):
            raise InputError(f"--out {out}: is there already; choose another name, or --force to replace it")
        runs.write_text(out, text)
        print(out)
