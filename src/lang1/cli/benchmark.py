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
    records: Annotated[Path | None, folder("records", "Records, for the columns+xgboost baseline.")] = None,
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


def predict(
    model: Annotated[Path, typer.Argument(help="Hugging Face folder, or checkpoint of `lang1 pretrain`.")],
    notes: Annotated[Path, typer.Argument(help="Parquet, CSV or TSV file of notes.")],
    task: Annotated[str, typer.Option("--task", help="What is asked: a task's id, or any name with --question.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, .parquet or .csv.", show_default=False)],
    arguments: Arguments = None,
    id_column: Annotated[str, typer.Option("--id", help="Column of the notes' ids.")] = "note_id",
    text_column: Annotated[str, typer.Option("--text", help="Column of the notes' texts.")] = "text",
    question: Annotated[
        Path | None, folder("question", "YAML or JSON with `text` and `options`: a question of your own.")
    ] = None,
    max_note_tokens: Annotated[
        int | None,
        typer.Option("--max-note-tokens", help="Tokens of a note that are read; as in finetuning when absent."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Probabilities of a task's options for a file of notes: ids and numbers out, no text."""
    config = configure(arguments, "evaluate", None, quiet)
    from lang1.remede import predict as predict_notes

    facts = predict_notes(
        config.evaluate,
        model=model,
        notes=notes,
        id_column=id_column,
        text_column=text_column,
        task=task,
        out=out,
        question=question,
        max_note_tokens=max_note_tokens,
        force=force,
    )
    if as_json:
        print(json.dumps(facts, sort_keys=True))
    else:
        print(f"{out}: rows {facts['rows']:,}, of which {facts['rows_truncated']:,} were cut to their first "
              f"{facts['max_note_tokens']:,} tokens")  # fmt: skip


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
