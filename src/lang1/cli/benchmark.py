"""Commands that measure and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lang1.cli.options import (
    Arguments,
    AsJson,
    Force,
    Out,
    PrintConfig,
    Quiet,
    Seed,
    configure,
    folder,
    print_section,
    show,
)
from lang1.errors import InputError


def evaluate(
    tasks: Annotated[Path, folder("tasks", "Task rows from `lang1 tasks`.")],
    model: Annotated[list[str], typer.Option("--model", help="Hugging Face folder, or NAME=FOLDER; may be repeated.")],
    out: Out,
    arguments: Arguments = None,
    tokens: Annotated[Path | None, folder("tokens", "Token shards: what the model saw in pretraining.")] = None,
    records: Annotated[Path | None, folder("records", "Records, for the baselines columns+xgboost and lace.")] = None,
    truth: Annotated[
        Path | None, folder("truth", "truth.parquet of the simulated hospital: gives the ceiling.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Score models and baselines on ReMedE: AUROC with intervals, comparisons on the same rows (5.5)."""
    config = configure(arguments, "evaluate", seed, quiet)
    if print_config:
        print_section(config, "evaluate")
        return
    from lang1.remede import evaluate as evaluate_models

    manifest = evaluate_models(
        config.evaluate,
        models=_named_models(model),
        tasks=tasks,
        tokens=tokens,
        records=records,
        truth=truth,
        out=out,
        seed=config.seed,
        force=force,
    )
    show(manifest, out, as_json)


def _named_models(values: list[str]) -> dict[str, Path]:
    models: dict[str, Path] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        path = Path(folder if separator else value)
        name = name if separator else path.name
        if name in models:
            raise InputError(f"--model {value}: the name {name} is taken; write NAME=FOLDER")
        models[name] = path
    return models


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/demo.")],
    arguments: Arguments = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; RUN/report when absent.")] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write one self-contained HTML report of a run."""
    config = configure(arguments, "report", seed, quiet)
    from lang1.report import build_report

    target = out or run_folder / "report"
    manifest = build_report(config.report, run=run_folder, out=target, seed=config.seed, force=force)
    show(manifest, target / "report.html", as_json)
