"""`lang1 extract`: a source's rows, checked, as canonical Parquet.

    view of a query --typed, ruled, sorted in DuckDB--> Arrow batches --> records/<table>/part-*.parquet
                                                                     \\-> records/rejects/<table>.parquet

Sorted by id, cut into parts and row groups of fixed size: the same rows give the same bytes whatever the threads.
The price is a sort, of a range of ids at a time where a table is large (pgranges.py, writing.py); the gain is that a
duplicate id is the neighbour of its first row and that later stages read ids in order. No table is ever whole in
memory.
Rows in = kept + rejected + excluded, counted by a query of its own and compared.

A table that is written is noted with its tally in the stage's scratch folder: after a kill, or a disk that was full,
the same command goes on with the next table.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import config, runs
from lang1.config import ExtractConfig
from lang1.ehr.databases import forget
from lang1.ehr.files import exact
from lang1.ehr.mimic import notes_apart
from lang1.ehr.queries import Query, query_error, read_queries, relation_name
from lang1.ehr.rules import IDS, Checked, checked, quoted
from lang1.ehr.schema import FEATURES, TABLES
from lang1.ehr.since import add_records
from lang1.ehr.sources import Source, identity, open_source, resolve
from lang1.ehr.writing import REJECTS, ROW_BYTES, Parts, Tally, write_aside, write_checked
from lang1.errors import InputError, Unfinished

if TYPE_CHECKING:
    import duckdb

WRITTEN = "written"
"""folder of the stage's scratch: a note a table that is written whole"""


def extract(cfg: ExtractConfig, *, source: str | Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Write canonical records of `source`, a path or a database URL, to `out`; returns the manifest.

    A database cannot be asked whether it has changed: a complete folder stays as it is unless `force` reads again.
    Raises InputError for a source, SQL file or exclusion list that cannot be used, and for an empty cohort: nothing is
    left behind then. Raises Unfinished when the server or the disk gives out: the same call then goes on.
    """
    queries = read_queries(cfg)
    place = resolve(source)
    inputs = {"source": identity(place)}
    if cfg.exclude_patients is not None:
        inputs["exclude_patients"] = Path(cfg.exclude_patients)
    notes = notes_apart(cfg, place)
    if notes is not None:
        inputs["notes"] = notes
    # an edited query is another extraction, though the folder's name is the same
    settings = config.dump(cfg) | {"sql": {table: query.sha256 for table, query in queries.items()}}
    for key in ("workers", "partition_rows", "tries"):
        settings.pop(key)  # how it is read, not what: they may change between a cut-off run and the one that goes on
    if isinstance(inputs["source"], str) and runs.is_complete(out) and not force:
        runs.say("extract: a database is not asked for changes; --force reads it again")

    base = out if cfg.since is not None else None

    def work(stage: runs.Stage) -> None:
        try:
            _extract(cfg, place, queries, stage, base)
        except Unfinished:
            raise
        except InputError:
            _discard(stage.out)
            raise

    if base is None:
        return runs.run_stage(out, "extract", settings, seed, inputs, work, force)
    return _merge(out, settings, seed, inputs, work, force)


def _merge(
    out: Path,
    settings: dict[str, Any],
    seed: int,
    inputs: dict[str, Path | str],
    work: Callable[[runs.Stage], None],
    force: bool,
) -> dict[str, Any]:
    """Make the merged records beside `out`, as a stage of its own that resumes, and put them in its place, whole."""
    runs.undo_replacing(out)
    if not runs.is_complete(out):
        raise InputError(f"{out}: no complete records to merge into; extract once without --since")
    with runs.lock(out):
        before = runs.read_manifest(out)
        _refuse_other_records(out, before, settings)
        source = inputs["source"]
        same_source = isinstance(source, Path) and before["inputs"].get("source") == runs.identify(source)
        if same_source and before["config"].get("since") == settings["since"] and not force:
            runs.say(f"extract: up to date ({out})")
            return before
        name = f"{out.name}.since-{re.sub('[^0-9]', '', settings['since'])}"
        merged = runs.run_stage(out.with_name(name), "extract", settings, seed, {**inputs, "records": out}, work, force)
        runs.replace_folder(out, out.with_name(name))
    return merged


def _refuse_other_records(out: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    if before["stage"] != "extract":
        raise InputError(f"{out}: belongs to the stage {before['stage']}; --since goes on with records of extract")
    old, new = dict(before["config"]), dict(settings)
    changed = sorted(
        key for key in old.keys() | new.keys() if key not in {"since", "path"} and old.get(key) != new.get(key)
    )
    if changed:
        raise InputError(
            f"{out}: extracted with other settings ({', '.join(changed)}); extract everything again, into another "
            "--out or with --force and without --since"
        )


def _discard(out: Path) -> None:
    """Leave an empty folder: with another source or mended SQL the same command then starts afresh."""
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != runs.LOCK:
            path.unlink(missing_ok=True)


def _extract(
    cfg: ExtractConfig, place: Path | str, queries: dict[str, Query], stage: runs.Stage, base: Path | None
) -> None:
    import duckdb

    done = _written_tables(stage)
    for table in {*TABLES, *FEATURES} - done.keys():  # what a killed run left
        shutil.rmtree(stage.out / table, ignore_errors=True)
        (stage.out / REJECTS / f"{table}.parquet").unlink(missing_ok=True)
    excluded = _read_exclusions(cfg.exclude_patients)
    rejected: dict[str, dict[str, int]] = {}
    flagged: dict[str, dict[str, int]] = {}
    where = str(place)
    try:
        with open_source(cfg, place, queries, stage.scratch(), set(done), base) as source:
            if base is not None and cfg.since is not None:
                for table in (*TABLES, *FEATURES):
                    if table not in done or table == "encounters":
                        source.wait(table, False)
                        stage.count(**add_records(source, table, base, cfg.since))
            if excluded:
                source.wait("encounters", True)
            _prepare(source.con, excluded)
            for table in (*TABLES, *FEATURES):
                if table not in done:
                    source.wait(table, False)
                if table not in source.types and table not in done:
                    _write_absent(stage, table, source)
                    continue
                name = queries[table].name if table in queries else f"{table} of the records"
                where = f"{place} ({name})"
                tally = done.get(table) or _extract_table(source, table, name, stage)
                _note_written(stage, table, tally)
                forget(stage.scratch(), table)
                _remember_ids(source.con, table, stage.out)
                _count(stage, table, tally)
                rejected[table] = dict(sorted(tally.rejected.items()))
                flagged |= {table: dict(sorted(tally.flagged.items()))} if tally.flagged else {}
            source.finish()
            for name, sql in source.aside.items():
                write_aside(source.con, name, sql, stage.out)
            stage.count(excluded_patient_ids=len(excluded))
            stage.record(source=cfg.source, absent_tables=source.absent, rejects=rejected, **source.facts)
            stage.record(**({"flags": flagged} if flagged else {}))
            _refuse_empty(cfg, source.con, place, stage)
    except duckdb.Error as error:
        # not chained: DuckDB's message may quote a row
        raise query_error(error, where) from None


def _written_tables(stage: runs.Stage) -> dict[str, Tally]:
    """Tallies of the tables that a cut-off run wrote whole."""
    found: dict[str, Tally] = {}
    for note in sorted((stage.scratch() / WRITTEN).glob("*.json")):
        kept = runs.read_json(note)
        if all((stage.out / name).is_file() for name in kept["files"]):
            runs.say(f"extract: {note.stem}: written before")
            counters = {key: Counter(kept["tally"][key]) for key in ("rejected", "flagged")}
            found[note.stem] = Tally(**kept["tally"] | counters)
    return found


def _note_written(stage: runs.Stage, table: str, tally: Tally) -> None:
    files = [*(stage.out / table).glob("part-*.parquet"), *(stage.out / REJECTS).glob(f"{table}.parquet")]
    names = sorted(file.relative_to(stage.out).as_posix() for file in files)
    runs.write_json(stage.scratch() / WRITTEN / f"{table}.json", {"tally": vars(tally), "files": names}, 0o600)


def _read_exclusions(file: str | None) -> list[str]:
    if file is None:
        return []
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as a text file ({error.__class__.__name__}); "
            "extract.exclude_patients holds one patient_id a line"
        ) from None
    return sorted({line.strip() for line in lines if line.strip()})


def _prepare(con: duckdb.DuckDBPyConnection, excluded: list[str]) -> None:
    """Small tables of ids that the rules join; later ones are filled as their table is written."""
    con.execute("CREATE TEMP TABLE excluded_patients AS SELECT unnest(?::VARCHAR[]) AS patient_id", [excluded])
    con.execute("CREATE TEMP TABLE excluded_encounters (encounter_id VARCHAR)")
    con.execute("CREATE TEMP TABLE kept_patients (patient_id VARCHAR, birth_date DATE)")
    con.execute("CREATE TEMP TABLE kept_encounters (encounter_id VARCHAR, patient_id VARCHAR, encounter_class VARCHAR)")
    if excluded:
        con.execute(
            "INSERT INTO excluded_encounters SELECT DISTINCT CAST(i.encounter_id AS VARCHAR) "
            f"FROM {relation_name('encounters')} AS i "
            "JOIN excluded_patients AS x ON x.patient_id = CAST(i.patient_id AS VARCHAR) "
            "WHERE i.encounter_id IS NOT NULL"
        )


def _extract_table(source: Source, table: str, name: str, stage: runs.Stage) -> Tally:
    rows_in = 0

    def pieces() -> Iterator[tuple[Checked, int]]:
        nonlocal rows_in
        for make_view, size in source.pieces.pop(table, [(lambda: None, None)]):
            make_view()
            rows, ids, measured = _measured(source, table, size is None)
            rows_in += rows
            plan = checked(table, source.types[table], name, ordered_by_all=ids != rows)
            yield plan, measured if size is None else size

    tally = write_checked(source.con, pieces(), stage.out, stage.scratch())
    if rows_in != tally.kept + tally.excluded + sum(tally.rejected.values()):
        raise RuntimeError(
            f"{table}: {rows_in} rows in, {tally.kept} kept, {tally.excluded} excluded, "
            f"{sum(tally.rejected.values())} rejected: they do not add up"
        )
    return tally


def _measured(source: Source, table: str, with_text: bool) -> tuple[int, int, int]:
    """Rows of a table's view, its distinct ids and, where the text is looked at, its bytes, about."""
    key = IDS[table]
    distinct = f"count(DISTINCT CAST({quoted(key)} AS VARCHAR))" if key else "0"
    has_text = with_text and "text" in source.types[table]
    text = "coalesce(sum(strlen(CAST(text AS VARCHAR))), 0)" if has_text else "0"
    [(rows, ids, size)] = source.con.execute(
        f"SELECT count(*), {distinct}, {text} FROM {relation_name(table)}"
    ).fetchall()
    return rows, ids, size + rows * ROW_BYTES


def _count(stage: runs.Stage, table: str, tally: Tally) -> None:
    rejected = sum(tally.rejected.values())
    rows_in = tally.kept + tally.excluded + rejected
    stage.count(
        **{
            f"{table}_in": rows_in,
            f"{table}_kept": tally.kept,
            f"{table}_rejected": rejected,
            f"{table}_excluded": tally.excluded,
        }
    )
    if table == "notes":
        stage.count(notes_with_text=tally.with_text)
    runs.say(
        f"extract: {table}: {rows_in:,} rows, {tally.kept:,} kept, {rejected:,} rejected, {tally.excluded:,} excluded"
    )


def _remember_ids(con: duckdb.DuckDBPyConnection, table: str, out: Path) -> None:
    columns = {"patients": "patient_id, birth_date", "encounters": "encounter_id, patient_id, encounter_class"}.get(
        table
    )
    if columns is not None:
        files = [exact(path) for path in sorted((out / table).glob("part-*.parquet"))]
        con.execute(f"INSERT INTO kept_{table} SELECT {columns} FROM read_parquet(?)", [files])


def _write_absent(stage: runs.Stage, table: str, source: Source) -> None:
    """A canonical table that the source lacks is written without rows, so that readers need no special case."""
    if table in FEATURES:
        return
    if table not in source.absent:
        source.absent.append(table)
    with Parts(stage.out / table, TABLES[table], table):
        pass
    stage.count(**{f"{table}_in": 0, f"{table}_kept": 0, f"{table}_rejected": 0, f"{table}_excluded": 0})
    runs.say(f"extract: {table}: the source has none")


def _refuse_empty(cfg: ExtractConfig, con: duckdb.DuckDBPyConnection, path: Path | str, stage: runs.Stage) -> None:
    [(inpatient,)] = con.execute("SELECT count(*) FROM kept_encounters WHERE encounter_class = 'inpatient'").fetchall()
    stage.count(inpatient_encounters=inpatient)
    if inpatient == 0:
        raise InputError(
            f"{path}: no inpatient encounter among {stage.counts['encounters_in']:,} encounters "
            f"({stage.counts['encounters_rejected']:,} rejected, {stage.counts['encounters_excluded']:,} "
            "excluded); see encounter_class in encounters.sql"
        )
    if cfg.without_notes:
        return
    if stage.counts["notes_kept"] == 0:
        raise InputError(
            f"{path}: no notes ({stage.counts['notes_in']:,} rows, {stage.counts['notes_rejected']:,} "
            f"rejected, {stage.counts['notes_excluded']:,} excluded); there is nothing to learn from: "
            "--without-notes extracts stays and codes alone"
        )
    if stage.counts["notes_with_text"] == 0:
        raise InputError(f"{path}: the text of all {stage.counts['notes_kept']:,} notes is null; see notes.sql")
