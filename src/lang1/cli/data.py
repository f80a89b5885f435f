"""Commands from a hospital to tokens."""

from __future__ import annotations

import json
import sys
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
    source: Annotated[str, typer.Argument(help="omop, fhir, mimic3, mimic4 or sql.")],
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
    arguments: Arguments = None,
    records: Annotated[Path | None, folder("records", "Canonical records from `lang1 extract`.")] = None,
    notes: Annotated[
        Path | None, folder("notes", "Or a CSV, TSV (.gz too) or Parquet file of notes, or a folder of them.")
    ] = None,
    out: Annotated[Path | None, folder("out", "Folder to write.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="Address of a Dask scheduler (tcp://...); the recipe's when absent."),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="NOTE_ID", help="Show this note after each step; write nothing.")
    ] = None,
    allow_phi: Annotated[
        bool, typer.Option("--allow-phi", help="Let --explain print note text to something that is no terminal.")
    ] = False,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Clean the notes (paper section 5.1) on Dask; rejects are kept with their reasons."""
    named = [] if scheduler is None else [f"clean.scheduler={json.dumps(scheduler)}"]
    config = configure([*(arguments or []), *named], "clean", seed, quiet)
    if print_config:
        print_section(config, "clean")
        return
    if explain is not None:
        if not (allow_phi or sys.stdout.isatty()):
            raise InputError("--explain prints note text, and only to a terminal; --allow-phi prints it anyway")
        from lang1.corpus import explain_cleaning

        print("\n".join(explain_cleaning(config.clean, explain, records=records, notes=notes)))
        return
    if out is None:
        raise InputError("Missing option '--out'.")
    from lang1.corpus import clean as clean_notes

    show(clean_notes(config.clean, records=records, notes=notes, out=out, seed=config.seed, force=force), out, as_json)


def duplicates(
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Find exact and near duplicates among the cleaned notes, and measure what is copied forward."""
    config = configure(arguments, "duplicates", seed, quiet)
    if print_config:
        print_section(config, "duplicates")
        return
    from lang1.corpus import find_duplicates

    show(find_duplicates(config.duplicates, corpus=corpus, out=out, seed=config.seed, force=force), out, as_json)


def profile(
    corpus: Annotated[Path, folder("corpus", "Cleaned notes from `lang1 clean`.")],
    out: Out,
    arguments: Arguments = None,
    records: Annotated[Path | None, folder("records", "Records: diagnoses and boroughs.")] = None,
    titles: Annotated[Path | None, typer.Option("--titles", help="Titles of diagnosis codes, a line each.")] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Describe the cleaned notes (Figure G7): tables, figures and a summary, small counts pooled."""
    named = [] if titles is None else [f"profile.titles={json.dumps(str(titles))}"]
    config = configure([*(arguments or []), *named], "profile", seed, quiet)
    if print_config:
        print_section(config, "profile")
        return
    from lang1.corpus import profile as profile_corpus

    made = profile_corpus(config.profile, corpus=corpus, records=records, out=out, seed=config.seed, force=force)
    show(made, out, as_json)


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders that may leave.")],
    presidio: Annotated[
        str | None, typer.Option("--presidio", help="An installed spaCy model: names by presidio too.")
    ] = None,
    fail_over: Annotated[
        int | None, typer.Option("--fail-over", min=0, help="Exit with 2 when there are more matches than this.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes; 0 is one a core.")] = 0,
    quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON on stdout.")] = False,
) -> None:
    """Count phone, MRN, SSN, e-mail, date and name patterns before anything leaves: counts only, no text."""
    runs.set_quiet(quiet)
    from lang1.corpus import scan_files
    from lang1.corpus.scan import as_lines

    result = scan_files(paths, presidio=presidio, workers=workers)
    print(json.dumps(result, sort_keys=True) if as_json else "\n".join(as_lines(result)))
    if fail_over is not None and result["matches"] > fail_over:
        raise InputError(f"scan: {result['matches']:,} matches, more than --fail-over {fail_over}")


def tokenize(
    corpus: Annotated[Path | None, folder("corpus", "Cleaned notes from `lang1 clean`.")] = None,
    out: Annotated[Path | None, folder("out", "Folder to write.")] = None,
    arguments: Arguments = None,
    records: Annotated[
        Path | None, folder("records", "Canonical records: they know an encounter's class and end.")
    ] = None,
    verify: Annotated[
        Path | None, folder("verify", "Check every byte of a tokens folder instead, and say what was checked.")
    ] = None,
    duplicates: Annotated[
        Path | None, folder("duplicates", "Folder of `lang1 duplicates`, with tokenize.drop_duplicates=exact or near.")
    ] = None,
    seed: Seed = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    force: Force = False,
    print_config: PrintConfig = False,
) -> None:
    """Select a corpus version and write it as shards of token ids, with its tokenizer (5.2.1, 5.3)."""
    if verify is not None:
        from lang1.corpus.shards import verify as verify_shards

        for line in verify_shards(verify):
            print(line, flush=True)
        return
    named = [] if duplicates is None else [f"tokenize.duplicates={json.dumps(str(duplicates))}"]
    config = configure([*(arguments or []), *named], "tokenize", seed, quiet)
    if print_config:
        print_section(config, "tokenize")
        return
    if corpus is None or out is None:
        raise typer.BadParameter("give --corpus and --out, or --verify with a tokens folder")
    from lang1.corpus import tokenize as tokenize_corpus

    manifest = tokenize_corpus(config.tokenize, corpus=corpus, out=out, records=records, seed=config.seed, force=force)
    show(manifest, out, as_json)
