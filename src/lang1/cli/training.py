"""Commands that make models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lang1 import runs
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
from lang1.errors import ConfigError


def pretrain(
    tokens: Annotated[Path, folder("tokens", "Token shards from `lang1 tokenize`.")],
    out: Out,
    arguments: Arguments = None,
    allow_phi: Annotated[
        bool, typer.Option("--allow-phi", help="Let monitor.generations.prompts name a file of your own.")
    ] = False,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Pretrain a Llama-style decoder, or an encoder, on a weighted mix of sources (5.3); resumes after a kill."""
    allowed = ["pretrain.monitor.generations.allow_phi=true"] if allow_phi else []
    config = configure([*(arguments or []), *allowed], "pretrain", seed, quiet)
    if print_config:
        print_section(config, "pretrain")
        return
    from lang1.training import pretrain as pretrain_model

    manifest = pretrain_model(config.pretrain, tokens=tokens, out=out, seed=config.seed, force=force)
    if manifest:  # of several processes the first has it
        show(manifest, out, as_json)


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `lang1 pretrain` writes.")],
    out: Annotated[Path | None, typer.Option("--out", help="PNG to write; RUN-watch.png when absent.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Refresh until the run ends.")] = False,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.1)] = 30.0,
    quiet: Quiet = False,
) -> None:
    """Draw a pretraining run's loss, throughput, events and evaluations, in the terminal and as a PNG."""
    runs.set_quiet(quiet)
    from lang1.training import watch as watch_run

    watch_run(run, out=out or run.resolve().with_name(f"{run.resolve().name}-watch.png"), follow=follow, every=every)


def plan(
    arguments: Arguments = None,
    gpus: Annotated[int, typer.Option("--gpus", help="Number of GPUs, all nodes together.")] = 8,
    gpu: Annotated[
        str, typer.Option("--gpu", help="h100, h100-pcie, h200, b200, a100, a100-40; cpu: this machine.")
    ] = "h100",
    tokens: Annotated[Path | None, folder("tokens", "Token shards: vocabulary, and epochs by source.")] = None,
    mfu: Annotated[
        float | None,
        typer.Option("--mfu", help="Share of the peak to reckon with; 0.4 when absent.", show_default=False),
    ] = None,
    prices: Annotated[Path | None, folder("prices", "Table of prices instead of ours (YAML).")] = None,
    gpus_file: Annotated[Path | None, folder("gpus-file", "Table of GPUs instead of ours (YAML).")] = None,
    loss: Annotated[str, typer.Option("--loss", help="chunked (ours), or plain: all logits at once.")] = "chunked",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON on stdout.")] = False,
) -> None:
    """Say what a pretraining run takes before it is started: FLOPs, memory a GPU, time, price, energy."""
    config = configure(arguments, "pretrain", None, False)
    if loss not in ("chunked", "plain"):
        raise ConfigError(f"--loss {loss}: chunked or plain")
    from lang1.training import plan as make_plan
    from lang1.training.planning.page import page

    made = make_plan(config, gpus=gpus, gpu=gpu, tokens=tokens, mfu=mfu, prices=prices, gpus_file=gpus_file, loss=loss)
    print(json.dumps(made, sort_keys=True) if as_json else page(made))


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A step-XXXXXXXX folder that `lang1 pretrain` wrote.")],
    out: Out,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder that plain transformers loads."""
    runs.set_quiet(quiet)
    from lang1.models import export_checkpoint

    print(export_checkpoint(checkpoint=checkpoint, out=out))


def finetune(
    tasks: Annotated[Path, folder("tasks", "Task rows from `lang1 tasks`.")],
    model: Annotated[Path, folder("model", "Hugging Face folder to start from.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Finetune any causal language model, or an encoder, on one task or jointly on several (5.4)."""
    config = configure(arguments, "finetune", seed, quiet)
    if print_config:
        print_section(config, "finetune")
        return
    from lang1.training import finetune as finetune_model

    manifest = finetune_model(config.finetune, tasks=tasks, model=model, out=out, seed=config.seed, force=force)
    show(manifest, out, as_json)
