"""Commands that answer requests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lang1 import runs
from lang1.cli.options import Quiet
from lang1.errors import ConfigError


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Hugging Face folder.")],
    host: Annotated[str, typer.Option("--host", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0: any that is free.", min=0, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model in requests; the folder's when absent.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Environment variable that holds the key to ask for.")
    ] = None,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", help="Prompt tokens a forward.", min=1)] = 8192,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16 or auto.")] = "fp32",
    threads: Annotated[int, typer.Option("--threads", help="CPU threads; 0: one a core.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Serve a model on an OpenAI-compatible completions endpoint, this machine only unless told otherwise."""
    runs.set_quiet(quiet)
    from lang1.serving import ServeSettings
    from lang1.serving import serve as run

    run(ServeSettings(model, host, port, name, api_key_env, batch_tokens, _precision(precision), threads))


def _precision(value: str) -> Literal["auto", "fp32", "bf16"]:
    known: dict[str, Literal["auto", "fp32", "bf16"]] = {"fp32": "fp32", "bf16": "bf16", "auto": "auto"}
    if value in known:
        return known[value]
    raise ConfigError(f"--precision {value}: fp32, bf16 or auto")
