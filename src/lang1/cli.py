"""Every command: parse, load the configuration, call one function, print. Nothing heavy is imported early.

Exit codes: 0 done, 1 a fault of ours, 2 bad input or configuration, 3 training gave up, 143 stopped by a signal.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TYPER_USE_RICH", "0")  # plain help, in half the time
# A hospital's machine has no hub to talk to, and must not try.
for _name in (
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "DO_NOT_TRACK",
    "HF_HUB_DISABLE_TELEMETRY",
):
    os.environ.setdefault(_name, "1")

import typer

from lang1 import __version__, runs
from lang1.config import RunConfig, dump, dump_yaml, load_config
from lang1.errors import EXIT_BAD_INPUT, ConfigError, InputError, LangError

app = typer.Typer(
    name="lang1",
    help="From a hospital's warehouse to a benchmark report: pretrain, finetune and measure a small language model.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", help="A YAML recipe, then dotted overrides.", show_default=False),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.", show_default=False)]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed; the recipe's when absent.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress lines.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what was made with other settings or inputs.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show the resolved configuration and stop.")]


def _folder(name: str, meaning: str) -> Any:
    return typer.Option(f"--{name}", help=meaning, show_default=False)


def _configure(arguments: list[str] | None, section: str | None, seed: int | None, quiet: bool) -> RunConfig:
    recipes = [a for a in arguments or [] if "=" not in a]
    overrides = [a for a in arguments or [] if "=" in a]
    if len(recipes) > 1:
        raise ConfigError(f"{recipes[1]}: one recipe at a time; an override is written key=value")
    if seed is not None:
        overrides.append(f"seed={seed}")
    config = load_config(Path(recipes[0]) if recipes else None, overrides, section)
    runs.set_quiet(quiet)
    runs.set_file_mode(config.file_mode)
    return config


def _show(manifest: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(manifest, sort_keys=True))
    else:
        counts = ", ".join(f"{key} {value:,}" for key, value in manifest.get("counts", {}).items())
        print(f"{out}" + (f": {counts}" if counts else ""))


def _print_section(config: RunConfig, section: str) -> None:
    print(dump_yaml(getattr(config, section)), end="")


@app.command()
def run(
    arguments: Arguments = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/<name> when absent.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First stage to run.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last stage to run.")] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Walk the whole way of RECIPE, warehouse to report. Complete stages are skipped; killed ones resume."""
    if not arguments or "=" in arguments[0]:
        raise ConfigError("lang1 run RECIPE: name a recipe, such as recipes/demo.yaml")
    config = _configure(arguments, None, seed, quiet)
    if print_config:
        print(dump_yaml(config), end="")
        return
    from lang1 import pipeline

    root = pipeline.run(config, out or Path("runs") / config.name, first, last, force)
    done = pipeline.facts(root)
    ended = f"report: {done['report']}" if Path(done["report"]).exists() else f"run: {done['run']}"
    print(json.dumps(done, sort_keys=True) if as_json else ended)


@app.command()
def simulate(
    out: Out,
    arguments: Arguments = None,
    hospital: Annotated[
        str | None, typer.Option("--hospital", help="main or external; the recipe's when absent.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Write the embedded hospital: an OMOP warehouse in DuckDB and, apart, the truth behind its outcomes."""
    named = [] if hospital is None else [f"simulate.hospital={hospital}"]
    config = _configure([*(arguments or []), *named], "simulate", seed, quiet)
    assert config.simulate is not None  # load_config gives the section its defaults
    if print_config:
        _print_section(config, "simulate")
        return
    from lang1.simulate import simulate_hospital

    _show(simulate_hospital(config.simulate, seed=config.seed, out=out, force=force), out, as_json)


@app.command()
def extract(
    source: Annotated[str, typer.Argument(help="omop or sql.")],
    path: Annotated[Path, typer.Argument(help="The warehouse file, or the file or folder that your SQL reads.")],
    out: Out,
    arguments: Arguments = None,
    sql: Annotated[Path | None, typer.Option("--sql", help="Folder of <table>.sql files.")] = None,
    exclude_patients: Annotated[Path | None, typer.Option("--exclude-patients", help="One patient_id a line.")] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Read a warehouse by SQL files into canonical records (Parquet); rows that break a rule are kept aside."""
    options = [f"extract.source={source}", f"extract.path={json.dumps(str(path))}"]  # in quotes: a path is text
    options += [f"extract.sql_dir={json.dumps(str(sql))}"] if sql else []
    options += [f"extract.exclude_patients={json.dumps(str(exclude_patients))}"] if exclude_patients else []
    config = _configure([*(arguments or []), *options], "extract", seed, quiet)
    if print_config:
        _print_section(config, "extract")
        return
    from lang1.ehr import extract as extract_records

    _show(extract_records(config.extract, source=path, out=out, seed=config.seed, force=force), out, as_json)


@app.command()
def clean(
    records: Annotated[Path, _folder("records", "Canonical records from `lang1 extract`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Clean the notes (paper section 5.1) on Dask; rejects are kept with their reasons."""
    config = _configure(arguments, "clean", seed, quiet)
    if print_config:
        _print_section(config, "clean")
        return
    from lang1.corpus import clean as clean_notes

    _show(clean_notes(config.clean, records=records, out=out, seed=config.seed, force=force), out, as_json)


@app.command()
def tokenize(
    corpus: Annotated[Path, _folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Select a corpus version and write it as shards of token ids, with its tokenizer (5.2.1, 5.3)."""
    config = _configure(arguments, "tokenize", seed, quiet)
    if print_config:
        _print_section(config, "tokenize")
        return
    from lang1.corpus import tokenize as tokenize_corpus

    _show(tokenize_corpus(config.tokenize, corpus=corpus, out=out, seed=config.seed, force=force), out, as_json)


@app.command()
def pretrain(
    tokens: Annotated[Path, _folder("tokens", "Token shards from `lang1 tokenize`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Pretrain a Llama-style decoder on a weighted mix of sources (5.3); resumes exactly after a kill."""
    config = _configure(arguments, "pretrain", seed, quiet)
    if print_config:
        _print_section(config, "pretrain")
        return
    from lang1.training import pretrain as pretrain_model

    _show(pretrain_model(config.pretrain, tokens=tokens, out=out, seed=config.seed, force=force), out, as_json)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A step-XXXXXXXX folder that `lang1 pretrain` wrote.")],
    out: Out,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder that plain transformers loads."""
    runs.set_quiet(quiet)
    from lang1.models import export_checkpoint

    print(export_checkpoint(checkpoint=checkpoint, out=out))


@app.command()
def tasks(
    records: Annotated[Path, _folder("records", "Canonical records from `lang1 extract`.")],
    corpus: Annotated[Path, _folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Build ReMedE's five tasks: cohorts, labels, splits, attrition (5.2.2)."""
    config = _configure(arguments, "tasks", seed, quiet)
    if print_config:
        _print_section(config, "tasks")
        return
    from lang1.tasks import build_tasks

    manifest = build_tasks(config.tasks, records=records, corpus=corpus, out=out, seed=config.seed, force=force)
    _show(manifest, out, as_json)


@app.command()
def finetune(
    tasks: Annotated[Path, _folder("tasks", "Task rows from `lang1 tasks`.")],
    model: Annotated[Path, _folder("model", "Hugging Face folder to start from.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Finetune any causal language model on one task or jointly on several (5.4)."""
    config = _configure(arguments, "finetune", seed, quiet)
    if print_config:
        _print_section(config, "finetune")
        return
    from lang1.training import finetune as finetune_model

    manifest = finetune_model(config.finetune, tasks=tasks, model=model, out=out, seed=config.seed, force=force)
    _show(manifest, out, as_json)


@app.command()
def evaluate(
    tasks: Annotated[Path, _folder("tasks", "Task rows from `lang1 tasks`.")],
    model: Annotated[list[str], typer.Option("--model", help="Hugging Face folder, or NAME=FOLDER; may be repeated.")],
    out: Out,
    arguments: Arguments = None,
    tokens: Annotated[Path | None, _folder("tokens", "Token shards: what the model saw in pretraining.")] = None,
    records: Annotated[Path | None, _folder("records", "Records, for the columns+xgboost baseline.")] = None,
    truth: Annotated[
        Path | None, _folder("truth", "truth.parquet of the simulated hospital: gives the ceiling.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Score models and baselines on ReMedE: AUROC with intervals, comparisons on the same rows (5.5)."""
    config = _configure(arguments, "evaluate", seed, quiet)
    if print_config:
        _print_section(config, "evaluate")
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
    _show(manifest, out, as_json)


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


@app.command()
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
    config = _configure(arguments, "report", seed, quiet)
    from lang1.report import build_report

    target = out or run_folder / "report"
    manifest = build_report(config.report, run=run_folder, out=target, seed=config.seed, force=force)
    _show(manifest, target / "report.html", as_json)


@app.command("config")
def show_config(arguments: Arguments = None, as_json: AsJson = False) -> None:
    """Check a recipe and show its resolved configuration; every fault at once."""
    config = _configure(arguments, None, None, False)
    print(
        json.dumps(dump(config), sort_keys=True) if as_json else dump_yaml(config),
        end="\n" if as_json else "",
    )


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run a command; a fault that the user can mend ends as one line on stderr."""
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except LangError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from here", 130)
    except BrokenPipeError:
        sys.exit(1)
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; check the path and its permissions", EXIT_BAD_INPUT)
    except Exception as error:
        # click's own errors (a missing option, an unknown command) know how to say what is wrong
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        _fail(describe(), EXIT_BAD_INPUT)


def _fail(message: str, code: int) -> None:
    print(f"lang1: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
