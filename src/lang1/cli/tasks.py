"""Commands that make task sets."""

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

Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", help="CHECK=REASON: let a check of the audit pass, visibly; may be repeated."),
]


def tasks(
    records: Annotated[Path, folder("records", "Canonical records from `lang1 extract`.")],
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    accept: Accept = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Build ReMedE's five tasks, and your own: cohorts, labels, splits, attrition (5.2.2), leakage audit."""
    config = configure([*(arguments or []), *_accepted(accept)], "tasks", seed, quiet)
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


def comprehension(
    out: Out,
    sciq: Annotated[
        list[Path] | None, typer.Option("--sciq", help="SciQ, JSON, JSONL or Parquet; may be repeated.")
    ] = None,
    pubmedqa: Annotated[
        list[Path] | None,
        typer.Option("--pubmedqa", help="PubMedQA's labelled set, JSON, JSONL or Parquet; may be repeated."),
    ] = None,
    pubmedqa_test: Annotated[
        Path | None, typer.Option("--pubmedqa-test", help="JSON whose keys are the ids of PubMedQA's test split.")
    ] = None,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Make SciQ and PubMedQA (5.2.4) into task rows that the monitor of pretraining scores."""
    config = configure(arguments, "tasks", seed, quiet)
    from lang1.tasks import build_comprehension

    manifest = build_comprehension(
        sciq=tuple(sciq or ()), pubmedqa=tuple(pubmedqa or ()), pubmedqa_test=pubmedqa_test,
        out=out, seed=config.seed, force=force,
    )  # fmt: skip
    show(manifest, out, as_json)


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


def audit(
    tasks: Annotated[Path, folder("tasks", "Task sets: of `lang1 tasks`, or any in its format.")],
    records: Annotated[Path, folder("records", "Records that they were made from.")],
    arguments: Arguments = None,
    corpus: Annotated[Path | None, folder("corpus", "Cleaned notes: to make the cohort again.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; TASKS-audit when absent.")] = None,
    accept: Accept = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Look for leakage in task sets; a check that fails, and is not accepted, ends with exit code 2."""
    config = configure([*(arguments or []), *_accepted(accept)], "tasks", seed, quiet)
    if print_config:
        print_section(config.tasks, "audit")
        return
    from lang1.tasks import audit_tasks

    target = out or tasks.with_name(f"{tasks.name}-audit")
    manifest = audit_tasks(
        config.tasks.audit, tasks=tasks, records=records, corpus=corpus, out=target, seed=config.seed, force=force
    )
    show(manifest, target / "audit.md", as_json)


def meds(
    records: Annotated[Path, folder("records", "Canonical records from `lang1 extract`.")],
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    tasks: Annotated[Path | None, folder("tasks", "Task sets: their labels and splits go along.")] = None,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write records, notes and labels as a MEDS 0.4 dataset."""
    config = configure(arguments, "tasks", seed, quiet)
    from lang1.tasks import export_meds

    manifest = export_meds(
        records=records, corpus=corpus, tasks=tasks, out=out, seed=config.seed,
        split_ratio=config.tasks.split_ratio, split_unit=config.tasks.split_unit, force=force,
    )  # fmt: skip
    show(manifest, out, as_json)


def _accepted(values: list[str] | None) -> list[str]:
    """`--accept CHECK=REASON` as overrides. Raises ConfigError for one without a reason."""
    overrides = []
    for value in values or []:
        check, separator, reason = value.partition("=")
        if not separator or not check.strip() or "." in check:
            raise ConfigError(f"--accept {value}: write CHECK=REASON, such as addendum='checked by hand'")
        overrides.append(f"tasks.audit.accept.{check.strip()}={json.dumps(reason)}")
    return overrides
