"""Commands that measure and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lang1.cli.options import (
    Arguments,
    AsJson,
    Force,
    PrintConfig,
    Quiet,
    Seed,
    configure,
    folder,
    print_section,
    show,
)
from lang1.config import RunConfig
from lang1.errors import InputError


def evaluate(
    arguments: Arguments = None,
    tasks: Annotated[Path | None, folder("tasks", "Task rows from `lang1 tasks`.")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Hugging Face folder, or NAME=FOLDER; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.", show_default=False)] = None,
    tokens: Annotated[Path | None, folder("tokens", "Token shards: what the model saw in pretraining.")] = None,
    records: Annotated[Path | None, folder("records", "Records, for the columns+xgboost baseline.")] = None,
    truth: Annotated[
        Path | None, folder("truth", "truth.parquet of the simulated hospital: gives the ceiling.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A B", help="Score nothing: two models of scores that are there, paired."),
    ] = None,
) -> None:
    """Score models and baselines on ReMedE: AUROC with intervals, comparisons on the same rows (5.5)."""
    config = configure(arguments, "evaluate", seed, quiet)
    if print_config:
        print_section(config, "evaluate")
        return
    if compare is not None:
        _compare(config, compare, as_json)
        return
    if tasks is None or out is None or not model:
        missing = [name for name, value in (("--tasks", tasks), ("--model", model), ("--out", out)) if not value]
        raise InputError(f"missing {', '.join(missing)}; lang1 evaluate --help shows what each is")
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


def _compare(config: RunConfig, sides: tuple[Path, Path], as_json: bool) -> None:
    from lang1.remede.compare import compare_models, comparison_text

    cfg = config.evaluate
    found = compare_models(*sides, resamples=cfg.bootstrap_resamples, seed=config.seed, by=cfg.resample)
    print(json.dumps(found, sort_keys=True) if as_json else comparison_text(found))


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
