"""Commands that make task sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def tasks(
    records: Annotated[Path, folder("records", "Canonical records from `lang1 extract`.")],
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Build ReMedE's five tasks: cohorts, labels, splits, attrition (5.2.2)."""
    config = configure(arguments, "tasks", seed, quiet)
    if print_config:
        print_section(config, "tasks")
        return
    from lang1.tasks import build_tasks

    manifest = build_tasks(config.tasks, records=records, corpus=corpus, out=out, seed=config.seed, force=force)
    show(manifest, out, as_json)
    if not as_json:
        _print_cautions(manifest["facts"].get("cautions", {}))


def _print_cautions(cautions: dict[str, list[str]]) -> None:
    """Each line once, with the tasks that it is about."""
    for caution in dict.fromkeys(line for lines in cautions.values() for line in lines):
        print(f"{', '.join(task for task, lines in cautions.items() if caution in lines)}: note: {caution}")


def statistics(
    tasks: Annotated[Path, folder("tasks", "Task rows from `lang1 tasks`.")],
    out: Out,
    tokens: Annotated[Path | None, folder("tokens", "Token shards: the pretraining notes in Figure A1.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write Tables B1-B7 and Figures A1 and F6 of the task sets, the paper's values beside ours."""
    runs.set_quiet(quiet)
    from lang1.tasks import write_statistics

    show(write_statistics(tasks=tasks, tokens=tokens, out=out, force=force), out, as_json)
