"""Commands that measure and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from lang1.errors import InputError

if TYPE_CHECKING:
    from lang1.config import RunConfig
    from lang1.remede import Server


AnyModel = typer.Option("--model", help="[NAME=]FOLDER, or [NAME=]ADDRESS#MODEL; repeatable.")
Tokenizers = Annotated[
    list[str] | None,
    typer.Option("--tokenizer", help="Tokenizer folder of served models, or NAME=FOLDER; repeatable."),
]


def evaluate(
    arguments: Arguments = None,
    tasks: Annotated[Path | None, folder("tasks", "Task rows from `lang1 tasks`.")] = None,
    model: Annotated[list[str] | None, AnyModel] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.", show_default=False)] = None,
    tokenizer: Tokenizers = None,
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
        given: dict[str, object] = {"--tasks": tasks, "--model": model, "--out": out, "--tokenizer": tokenizer}
        given |= {"--tokens": tokens, "--records": records, "--truth": truth, "--force": force}
        idle = ", ".join(name for name, value in given.items() if value)
        if idle:
            raise InputError(f"--compare scores nothing and writes nothing; leave out {idle}")
        _compare(config, compare, as_json)
        return
    if tasks is None or out is None or not model:
        missing = [name for name, value in (("--tasks", tasks), ("--model", model), ("--out", out)) if not value]
        raise InputError(f"missing {', '.join(missing)}; lang1 evaluate --help shows what each is")
    from lang1.remede import evaluate as evaluate_models

    manifest = evaluate_models(
        config.evaluate,
        models=named_models(model, tokenizer or []),
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


def named_folders(values: list[str]) -> dict[str, Path]:
    """Models by name where only those in memory can be asked. Raises InputError for an address."""
    models = named_models(values, [])
    served = [value for value, model in zip(values, models.values(), strict=True) if not isinstance(model, Path)]
    if served:
        raise InputError(f"--model {served[0]}: this command reads models from folders and GGUF files only")
    return {name: model for name, model in models.items() if isinstance(model, Path)}


def named_models(values: list[str], tokenizers: list[str]) -> dict[str, Path | Server]:
    """Models by name: folders, and served models with the folder of their tokenizer."""
    from lang1.remede import is_server, parse_server

    for_all, for_one = None, dict[str, Path]()
    for value in tokenizers:
        name, separator, folder = value.partition("=")
        if separator:
            for_one[name] = Path(folder)
        else:
            for_all = Path(value)
    models: dict[str, Path | Server] = {}
    for value in values:
        name, separator, where = ("", "", value) if is_server(value) else value.partition("=")
        where = where if separator or is_server(value) else value
        if is_server(where):
            name = name or where.rpartition("#")[2]
            found: Path | Server = parse_server(where, for_one.get(name, for_all))
        else:
            found = Path(where)
            name = name if separator else found.name
        if name in models:
            raise InputError(f"--model {value}: the name {name} is taken; write NAME=FOLDER")
        models[name] = found
    unknown = sorted(set(for_one) - set(models))
    if unknown:
        raise InputError(f"--tokenizer {unknown[0]}=...: there is no --model of this name")
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
