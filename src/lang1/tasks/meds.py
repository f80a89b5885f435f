"""The labels as MEDS 0.4 wants them, and the map from our string ids to its integers.

    meds/labels/<task>.parquet             subject_id, prediction_time, boolean_value or integer_value; nothing else
    meds/rows/<task>.parquet               the sidecar: which note, encounter and split a label belongs to
    meds/metadata/subject_splits.parquet   train, tuning, held_out; the temporal windows are in the sidecar only
    meds/subject_id_map.parquet            patient_id and subject_id

subject_id is a hash of patient_id, not a running number: adding a patient moves no other, and an export of data made
later fits the labels. MEDS refuses a label without prediction_time, so rows of records without times are in the
sidecar alone. Data up to and including prediction_time may be used (MEDS).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.tasks.prompts import Asked
from lang1.tasks.schema import MEDS_ROWS, SUBJECT_ID_MAP, SUBJECT_SPLITS, meds_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import pyarrow as pa

_GROUP_ROWS = 50_000


def subject_id(patient_id: str) -> int:
    """MEDS's integer for a patient: 60 bits of SHA-256, so a million patients collide once in two million exports."""
    return int(hashlib.sha256(f"meds:{patient_id}".encode()).hexdigest()[:15], 16)


def export_meds(database: duckdb.DuckDBPyConnection, tasks: Sequence[Asked], folder: Path) -> None:
    """Write the folder `meds/` from the tables `rows_<task>`."""
    _make_map(database, [asked.task for asked in tasks])
    for asked in tasks:
        task, binary = asked.task, len(asked.question.options) == 2
        kind, value = ("boolean", "label = 1") if binary else ("integer", "label::BIGINT")
        _write(
            database,
            f"SELECT subject_id, prediction_time, {value} AS {kind}_value FROM rows_{task} JOIN subjects USING "
            "(patient_id) WHERE prediction_time IS NOT NULL ORDER BY subject_id, prediction_time, row_id",
            folder / "labels" / f"{task}.parquet",
            meds_labels(kind),
        )
        _write(
            database,
            f"SELECT subject_id, prediction_time, row_id, encounter_id, note_id, split, died_after_discharge "
            f"FROM rows_{task} JOIN subjects USING (patient_id) ORDER BY subject_id, prediction_time, row_id",
            folder / "rows" / f"{task}.parquet",
            MEDS_ROWS,
        )
    _write(
        database,
        "SELECT patient_id, subject_id FROM subjects ORDER BY patient_id",
        folder / "subject_id_map.parquet",
        SUBJECT_ID_MAP,
    )
    _write(
        database,
        "SELECT subject_id, CASE fold WHEN 'val' THEN 'tuning' WHEN 'test' THEN 'held_out' ELSE fold END AS split "
        "FROM subjects JOIN folds USING (patient_id) ORDER BY subject_id",
        folder / "metadata" / "subject_splits.parquet",
        SUBJECT_SPLITS,
    )


def _make_map(database: duckdb.DuckDBPyConnection, tasks: Sequence[str]) -> None:
    """The table `subjects` (patient_id, subject_id) of every patient with a row."""
    import pyarrow as pa

    every = " UNION ".join(f"SELECT DISTINCT patient_id FROM rows_{task}" for task in tasks)
    ids = database.sql(f"{every} ORDER BY patient_id").to_arrow_table()["patient_id"].to_pylist()
    subjects = pa.table(
        {
            "patient_id": pa.array(ids, pa.string()),
            "subject_id": pa.array([subject_id(patient) for patient in ids], pa.int64()),
        }
    )
    if len(set(subjects["subject_id"].to_pylist())) != len(ids):
        raise ValueError("two patients have the same subject_id; lengthen the hash in tasks/meds.py")
    database.register("subjects_given", subjects)
    database.execute("CREATE TABLE subjects AS SELECT * FROM subjects_given")
    database.unregister("subjects_given")


def _write(database: duckdb.DuckDBPyConnection, query: str, path: Path, schema: pa.Schema) -> None:
    """An ordered result as one file."""
    table = database.sql(query).to_arrow_table().cast(schema).combine_chunks()
    with runs.parquet_writer(path, schema) as writer:
        writer.write_table(table, row_group_size=_GROUP_ROWS)
