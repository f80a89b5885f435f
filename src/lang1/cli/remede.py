"""`lang1 remede ...`: the benchmark as a task pack, comprehension and perplexity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lang1.cli.benchmark import AnyModel, Tokenizers, named_folders, named_models
from lang1.cli.options import Arguments, AsJson, Force, Out, Quiet, Seed, configure, folder, show

Model = Annotated[
    list[str],
    typer.Option("--model", help="Hugging Face folder or GGUF file, or NAME=PATH; may be repeated."),
]


def export_pack(
    tasks: Annotated[Path, folder("tasks", "Task rows from `lang1 tasks`.")],
    out: Out,
    arguments: Arguments = None,
    comprehension: Annotated[
        Path | None, folder("comprehension", "SciQ and PubMedQA from `lang1 comprehension`, to go in too.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write ReMedE as a task pack that lm-evaluation-harness runs from --include_path, without a note in it."""
    config = configure(arguments, "evaluate", seed, quiet)
    from lang1.remede.pack import export_pack as export

    manifest = export(config.evaluate, tasks=tasks, comprehension=comprehension, out=out, seed=config.seed, force=force)
    show(manifest, out, as_json)


def comprehension(
    sets: Annotated[Path, folder("comprehension", "SciQ and PubMedQA from `lang1 comprehension`.")],
    model: Annotated[list[str], AnyModel],
    out: Out,
    arguments: Arguments = None,
    tokenizer: Tokenizers = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Accuracy on SciQ and PubMedQA, answers scored by their text, with intervals (5.2.4)."""
    config = configure(arguments, "evaluate", seed, quiet)
    from lang1.remede.comprehension import evaluate_comprehension

    manifest = evaluate_comprehension(
        config.evaluate,
        models=named_models(model, tokenizer or []),
        comprehension=sets,
        out=out,
        seed=config.seed,
        force=force,
    )
    _show(manifest, out, as_json)


def perplexity(
    tasks: Annotated[Path, folder("tasks", "Task rows from `lang1 tasks`.")],
    model: Model,
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Perplexity of the true answer given note and question, by task and model (Figure 4c)."""
    config = configure(arguments, "evaluate", seed, quiet)
    from lang1.remede.perplexity import measure_perplexity

    manifest = measure_perplexity(
        config.evaluate, models=named_folders(model), tasks=tasks, out=out, seed=config.seed, force=force
    )
    _show(manifest, out, as_json)


def _show(manifest: dict[str, object], out: Path, as_json: bool) -> None:
    """What was done, then a line a result."""
    show(manifest, out, as_json)
    if as_json:
        return
    from lang1 import runs

    for row in runs.read_json(out / "metrics.json")["rows"]:
        print(
            f"{row['model']}: {row['task']}, {row['split']}: {row['metric']} {row['value']:.4f} "
            f"[{row['ci_low']:.4f}, {row['ci_high']:.4f}], n {row['n']:,}"
        )


def add_to(app: typer.Typer) -> None:
    """The commands of this file under `lang1 remede`."""
    app.command("export-pack")(export_pack)
    app.command()(comprehension)
    app.command()(perplexity)
