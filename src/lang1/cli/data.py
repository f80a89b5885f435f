"""Commands from a hospital to tokens."""

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
    config = configure([*(arguments or []), *named], "simulate", seed, quiet)
    assert config.simulate is not None  # load_config gives the section its defaults
    if print_config:
        print_section(config, "simulate")
        return
    from lang1.simulate import simulate_hospital

    show(simulate_hospital(config.simulate, seed=config.seed, out=out, force=force), out, as_json)


def extract(
    source: Annotated[str, typer.Argument(help="omop, mimic3, mimic4 or sql.")],
    path: Annotated[str, typer.Argument(help="File, folder or database URL (postgresql://...) that the SQL reads.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.", show_default=False)] = None,
    arguments: Arguments = None,
    sql: Annotated[Path | None, typer.Option("--sql", help="Folder of <table>.sql files.")] = None,
    notes: Annotated[Path | None, typer.Option("--notes", help="mimic4: the MIMIC-IV-Note folder.")] = None,
    without_notes: Annotated[
        bool, typer.Option("--without-notes", help="Read no notes: stays and codes alone.")
    ] = False,
    exclude_patients: Annotated[Path | None, typer.Option("--exclude-patients", help="One patient_id a line.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Merge what is new, corrected or late into the records in --out.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only run every query for no row and compare columns and types.")
    ] = False,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Read a warehouse by SQL files into canonical records (Parquet); rows that break a rule are kept aside."""
    options = [f"extract.source={source}", f"extract.path={json.dumps(path)}"]  # in quotes: a path is text
    options += [f"extract.sql_dir={json.dumps(str(sql))}"] if sql else []
    options += [f"extract.notes_path={json.dumps(str(notes))}"] if notes else []
    options += ["extract.without_notes=true"] if without_notes else []
    options += [f"extract.exclude_patients={json.dumps(str(exclude_patients))}"] if exclude_patients else []
    options += [f"extract.since={json.dumps(since)}"] if since else []
    config = configure([*(arguments or []), *options], "extract", seed, quiet)
    if print_config:
        print_section(config, "extract")
        return
    from lang1.ehr import check_source
    from lang1.ehr import extract as extract_records

    if check:
        print(check_source(config.extract, source=path))
        return
    if out is None:
        raise InputError("lang1 extract: --out is missing: the folder to write the records to (--check needs none)")
    show(extract_records(config.extract, source=path, out=out, seed=config.seed, force=force), out, as_json)


def clean(
    records: Annotated[Path, folder("records", "Canonical records from `lang1 extract`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Clean the notes (paper section 5.1) on Dask; rejects are kept with their reasons."""
    config = configure(arguments, "clean", seed, quiet)
    if print_config:
        print_section(config, "clean")
        return
    from lang1.corpus import clean as clean_notes

    show(clean_notes(config.clean, records=records, out=out, seed=config.seed, force=force), out, as_json)


def tokenize(
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Select a corpus version and write it as shards of token ids, with its tokenizer (5.2.1, 5.3)."""
    config = configure(arguments, "tokenize", seed, quiet)
    if print_config:
        print_section(config, "tokenize")
        return
    from lang1.corpus import tokenize as tokenize_corpus

    show(tokenize_corpus(config.tokenize, corpus=corpus, out=out, seed=config.seed, force=force), out, as_json)
