"""`lang1 meds`: records and cleaned notes as a MEDS 0.4 dataset, with the labels of a tasks folder beside them.

    data/<shard>.parquet            subject_id, time, code, numeric_value, text_value; encounter_id, note_id, note_type,
                                    author_role, department
    metadata/dataset.json           names and versions; which columns are ids of the source
    metadata/codes.parquet          every code, what it means, and the vocabulary that it comes from
    metadata/subject_splits.parquet train, tuning, held_out of every subject
    subject_id_map.parquet          patient_id and subject_id (mode 0600: it leads back to the source)
    labels/, rows/                  as `lang1 tasks` wrote them under meds/, when a tasks folder is given
    left_out.csv                    what has no time, and so is no event, by table

One sort by subject and time, which DuckDB does outside of memory; a shard ends at the first subject after SHARD_ROWS
rows. An event's time is when it was known: a note's is its signing, a code's when it was coded, but not before the
discharge, a death's the end of its day. What has no time is left out and counted: static, it would be known before it
happened. Left out: dataset.json's created_at, since the same inputs give the same bytes.
"""

from __future__ import annotations

import csv
import io
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lang1 import __version__, runs
from lang1.corpus.hashes import patient_fold
from lang1.errors import InputError
from lang1.tasks.database import count, open_database, run_sql
from lang1.tasks.meds import subject_id
from lang1.tasks.rows import Groups
from lang1.tasks.schema import MEDS_CODES, MEDS_DATA, SUBJECT_ID_MAP, SUBJECT_SPLITS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEDS_VERSION = "0.4.1"
SHARD_ROWS = 1_000_000
_BATCH_ROWS = 2_048
_IDS = 100_000
_IS_EVENT = "(time IS NOT NULL OR place = 0)"
"""happened at a known time, or holds for good"""
Ratio = tuple[float, float, float]
_SPLITS = {"train": "train", "val": "tuning", "test": "held_out"}
_MEANINGS = {
    "MEDS_BIRTH": "Birth, at midnight of its day",
    "MEDS_DEATH": "Death: at the discharge with which it came, else at the end of its day",
    "SEX": "Sex",
    "RACE": "Race",
    "ETHNICITY": "Ethnicity",
    "BOROUGH": "District of residence",
    "ENCOUNTER_START": "Start of an encounter: its class and admission type",
    "ENCOUNTER_END": "End of an encounter: its class and discharge disposition",
    "NOTE": "Note, at its signing; its cleaned text is the text_value",
    "CLAIM": "Claim status set",
}
_PARENTS = {"ICD10CM": "ICD10CM", "ICD9CM": "ICD9CM"}
"""code systems whose codes have a parent of the same name in OMOP's vocabularies"""
_NOT_EVENTS = {
    "encounters": ("an admission without a time", "SELECT count(*) FROM encounters WHERE admit_time IS NULL"),
    "encounters, end": ("no discharge time", "SELECT count(*) FROM encounters WHERE discharge_time IS NULL"),
    "diagnoses": (
        "neither a coding time nor a discharge",
        "SELECT count(*) FROM diagnoses LEFT JOIN encounters USING (encounter_id) "
        "WHERE greatest(coded_time, discharge_time) IS NULL",
    ),
    "claims": (
        "no status, no status time, or no encounter",
        "SELECT count(*) FROM claims LEFT JOIN encounters USING (encounter_id) "
        "WHERE status_time IS NULL OR status IS NULL OR encounters.encounter_id IS NULL",
    ),
    "notes": ("not signed", "SELECT count(*) FROM clean_notes WHERE signed_time IS NULL"),
    "notes, rejected": (
        "not in the corpus: cleaning rejected it",
        "SELECT count(*) FROM notes WHERE note_id NOT IN (SELECT note_id FROM clean_notes)",
    ),
    "patients": (
        "in another table but not in patients",
        "SELECT count(DISTINCT patient_id) FROM meds_events WHERE patient_id NOT IN (SELECT patient_id FROM patients)",
    ),
}


def export_data(
    *,
    records: Path,
    corpus: Path,
    tasks: Path | None,
    out: Path,
    seed: int,
    split_ratio: Ratio = (8.0, 1.0, 1.0),
    split_unit: str = "patient",
    force: bool = False,
) -> dict[str, Any]:
    """Write the dataset. Returns the manifest. The splits are those of `tasks` where given, else as configured.

    Raises InputError for records that cannot be read or a folder that is not of `lang1 tasks`.
    """
    labels = _labels_of(tasks) if tasks else None
    if tasks:
        seed, split_ratio, split_unit = _splits_of(tasks)
    ratio = split_ratio if split_unit == "patient" else None
    inputs = {"records": records, "corpus": corpus, **({"tasks": tasks} if tasks else {})}

    def work(stage: runs.Stage) -> None:
        database = open_database(records, corpus, stage.scratch())
        try:
            run_sql(database, "meds_events")
            _make_subjects(database, seed, ratio)
            shards, rows = _write_shards(database, stage.out / "data")
            if rows == 0:
                raise InputError(f"{records}: holds no event with a time and no patient's fact; nothing to export")
            codes = _write_metadata(
                database, stage.out, runs.read_manifest(records) if runs.is_complete(records) else {}
            )
            left_out = _write_left_out(database, stage.out / "left_out.csv")
            subjects = count(database, "SELECT count(*) FROM meds_subjects")
        finally:
            database.close()
        if labels is not None:
            _copy_labels(labels, stage.out)
        stage.count(subjects=subjects, events=rows, shards=shards, codes=codes, left_out=left_out)

    settings = {"meds_version": MEDS_VERSION, "split_ratio": list(split_ratio), "split_unit": split_unit}
    return runs.run_stage(out, "meds", settings, seed, inputs, work, force)


def _labels_of(tasks: Path) -> Path:
    manifest = runs.read_manifest(tasks)
    if manifest.get("stage") != "tasks":
        raise InputError(f"{tasks}: written by the stage {manifest.get('stage')}, not tasks; give a tasks folder")
    return tasks / "meds"


def _splits_of(tasks: Path) -> tuple[int, Ratio, str]:
    """Seed, ratio and unit by which the task sets were split."""
    manifest = runs.read_manifest(tasks)
    train, val, test = manifest["config"]["split_ratio"]
    return int(manifest["seed"]), (float(train), float(val), float(test)), str(manifest["config"]["split_unit"])


def _make_subjects(database: duckdb.DuckDBPyConnection, seed: int, ratio: Ratio | None) -> None:
    """The table `meds_subjects` (patient_id, subject_id, split) of every patient; no split where notes are split."""
    import pyarrow as pa

    database.execute("CREATE TABLE meds_subjects (patient_id VARCHAR, subject_id BIGINT, split VARCHAR)")
    patients = database.sql("SELECT patient_id FROM patients").to_arrow_table()["patient_id"]
    for start in range(0, len(patients), _IDS):
        ids = patients.slice(start, _IDS).to_pylist()
        batch = pa.table(
            {
                "patient_id": pa.array(ids, pa.string()),
                "subject_id": pa.array([subject_id(patient) for patient in ids], pa.int64()),
                "split": pa.array(
                    [_SPLITS[patient_fold(seed, patient, ratio)] if ratio else None for patient in ids], pa.string()
                ),
            }
        )
        database.register("subject_batch", batch)
        database.execute("INSERT INTO meds_subjects SELECT * FROM subject_batch")
        database.unregister("subject_batch")
    if count(database, "SELECT count(*) - count(DISTINCT subject_id) FROM meds_subjects"):
        raise ValueError("two patients have the same subject_id; lengthen the hash in tasks/meds.py")


def _write_shards(database: duckdb.DuckDBPyConnection, folder: Path) -> tuple[int, int]:
    """Every event in files of whole subjects. Returns (files, rows)."""
    reader = database.sql(
        "SELECT subject_id, time, code, NULL::FLOAT AS numeric_value, text_value, encounter_id, note_id, note_type, "
        "author_role, department FROM meds_events JOIN meds_subjects USING (patient_id) "
        f"WHERE {_IS_EVENT} "
        "ORDER BY subject_id, time NULLS FIRST, place, code, encounter_id, note_id"
    ).to_arrow_reader(_BATCH_ROWS)
    shards = total = 0
    for number, pieces in itertools.groupby(_pieces(reader), key=lambda piece: piece[0]):
        with runs.parquet_writer(folder / f"{number:05d}.parquet", MEDS_DATA) as writer:
            groups = Groups(writer, MEDS_DATA)
            for _, piece in pieces:
                groups.add(piece)
            groups.finish()
        shards, total = shards + 1, total + groups.rows
    return shards, total


def _pieces(reader: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """The rows in order with the number of their shard, which changes with a subject after SHARD_ROWS rows."""
    import pyarrow as pa

    shard, rows, last = 0, 0, -1
    for batch in reader:
        table, ids = pa.Table.from_batches([batch]), batch.column("subject_id").to_numpy()
        start = 0
        while start < len(ids):
            if rows < SHARD_ROWS:
                stop = min(len(ids), start + SHARD_ROWS - rows)
            else:
                others = np.flatnonzero(ids[start:] != last)
                stop = start + int(others[0]) if len(others) else len(ids)
            if stop > start:
                yield shard, table.slice(start, stop - start)
                rows, last = rows + stop - start, int(ids[stop - 1])
            if rows >= SHARD_ROWS and stop < len(ids) and int(ids[stop]) != last:
                shard, rows = shard + 1, 0
            start = stop


def _write_metadata(database: duckdb.DuckDBPyConnection, out: Path, source: dict[str, Any]) -> int:
    """codes.parquet, subject_splits.parquet, dataset.json and the map of ids. Returns the number of codes."""
    import pyarrow as pa

    events = f"SELECT DISTINCT code FROM meds_events JOIN meds_subjects USING (patient_id) WHERE {_IS_EVENT}"
    codes = [str(code) for (code,) in database.execute(f"{events} ORDER BY code").fetchall()]
    table = pa.Table.from_pylist([_describe(code) for code in codes], MEDS_CODES)
    runs.write_table(out / "metadata" / "codes.parquet", table)
    splits = database.sql(
        "SELECT subject_id, split FROM meds_subjects WHERE split IS NOT NULL ORDER BY subject_id"
    ).to_arrow_table()
    runs.write_table(out / "metadata" / "subject_splits.parquet", splits.cast(SUBJECT_SPLITS))
    ids = database.sql("SELECT patient_id, subject_id FROM meds_subjects ORDER BY patient_id").to_arrow_table()
    runs.write_table(out / "subject_id_map.parquet", ids.cast(SUBJECT_ID_MAP), 0o600)
    dataset = {
        "dataset_name": "lang1 records",
        "dataset_version": str(source.get("identity", "unknown"))[:12],
        "etl_name": "lang1",
        "etl_version": __version__,
        "meds_version": MEDS_VERSION,
        "raw_source_id_columns": ["encounter_id", "note_id"],
        "other_extension_columns": ["note_type", "author_role", "department"],
    }
    runs.write_json(out / "metadata" / "dataset.json", dataset)
    return len(codes)


def _describe(code: str) -> dict[str, Any]:
    kind, _, value = code.partition("//")
    parent = [f"{_PARENTS[kind]}/{value}"] if kind in _PARENTS else None
    return {"code": code, "description": _MEANINGS.get(kind), "parent_codes": parent}


def _write_left_out(database: duckdb.DuckDBPyConnection, path: Path) -> int:
    """left_out.csv: table, reason, rows. Returns how many in all."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("table", "reason", "rows"))
    total = 0
    for table, (reason, query) in _NOT_EVENTS.items():
        rows = count(database, query)
        total += rows
        writer.writerow((table, reason, rows))
    runs.write_text(path, sink.getvalue())
    return total


def _copy_labels(labels: Path, out: Path) -> None:
    """Labels and sidecars as the tasks stage wrote them."""
    for path in sorted((*labels.glob("labels/*.parquet"), *labels.glob("rows/*.parquet"))):
        with runs.atomic_path(out / path.parent.name / path.name) as temporary:
            shutil.copyfile(path, temporary)
