"""The whole way in one command, and the commands about the configuration and the package itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lang1 import __version__
from lang1.cli.options import (
    Arguments,
    AsJson,
    Force,
    PrintConfig,
    Quiet,
    Seed,
    configure,
)
from lang1.errors import ConfigError


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
    config = configure(arguments, None, seed, quiet)
    if print_config:
        from lang1.config import dump_yaml

        print(dump_yaml(config), end="")
        return
    from lang1 import pipeline

    root = pipeline.run(config, out or Path("runs") / config.name, first, last, force)
    done = pipeline.facts(root)
    ended = f"report: {done['report']}" if Path(done["report"]).exists() else f"run: {done['run']}"
    print(json.dumps(done, sort_keys=True) if as_json else ended)


def show_config(arguments: Arguments = None, as_json: AsJson = False) -> None:
    """Check a recipe and show its resolved configuration; every fault at once."""
    from lang1.config import dump, dump_yaml

    config = configure(arguments, None, None, False)
    print(
        json.dumps(dump(config), sort_keys=True) if as_json else dump_yaml(config),
        end="\n" if as_json else "",
    )


def version() -> None:
    """Print the version."""
    print(__version__)
