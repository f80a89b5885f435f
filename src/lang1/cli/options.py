"""The options of every command, and what commands share: load the configuration, show what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lang1 import runs
from lang1.errors import ConfigError

if TYPE_CHECKING:
    from lang1.config import RunConfig

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


def folder(name: str, meaning: str) -> Any:
    """The option of an input folder."""
    return typer.Option(f"--{name}", help=meaning, show_default=False)


def configure(arguments: list[str] | None, section: str | None, seed: int | None, quiet: bool) -> RunConfig:
    """The configuration of a command from its recipe, overrides and options. Raises ConfigError."""
    from lang1.config import load_config  # the help has no use for its sixty dataclasses

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


def show(manifest: dict[str, Any], out: Path, as_json: bool) -> None:
    """What a stage did: its manifest as JSON, or its folder and counts."""
    if as_json:
        print(json.dumps(manifest, sort_keys=True))
    else:
        counts = ", ".join(f"{key} {value:,}" for key, value in manifest.get("counts", {}).items())
        print(f"{out}" + (f": {counts}" if counts else ""))


def print_section(config: Any, section: str) -> None:
    """One section of the configuration, as a recipe would hold it."""
    from lang1.config import dump_yaml

    print(dump_yaml(getattr(config, section)), end="")
