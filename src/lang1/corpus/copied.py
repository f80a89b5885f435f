"""What is copied forward: the share of a note's words that stand word for word in earlier notes of the same patient.

A word counts as copied when it lies in a run of `copied_words` words that also stands in an earlier note of the
patient, capitals and marks included. Notes go in the order of their times (signed, else written), those without a
time last; of equal times the smaller id is earlier. The notes are sorted by patient on disk, so the corpus lies there
once more while this runs; in memory stand a block of words and the hashes of one patient's earlier runs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lang1 import runs
from lang1.config import DuplicatesConfig
from lang1.corpus.database import numbers, read_sql
from lang1.corpus.shingles import Hashes, Shingles, shingle_notes

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 2048
"""notes in memory at a time"""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
GROUPS = ("note_type", "author_role", "department")

COPIED = pa.schema(
    [
        pa.field("note_id", pa.string(), nullable=False),
        pa.field("note_type", pa.string()),
        pa.field("author_role", pa.string()),
        pa.field("department", pa.string()),
        pa.field("words", pa.int32(), nullable=False),
        pa.field("copied_words", pa.int32(), nullable=False),
        pa.field("has_earlier", pa.bool_(), nullable=False, metadata={"meaning": "The patient has an earlier note."}),
    ]
)


def measure_copied(cfg: DuplicatesConfig, database: duckdb.DuckDBPyConnection, stage: runs.Stage) -> None:
    """Write copied.parquet (a row a note), copied.csv (by group) and copied_histogram.csv."""
    path = stage.out / "copied.parquet"
    cursor = database.cursor()
    with runs.parquet_writer(path, COPIED) as writer:
        for table in _iter_copied(cursor.sql(read_sql("copied")).to_arrow_reader(BATCH_ROWS), cfg.copied_words):
            writer.write_table(table)
    cursor.close()
    database.execute(f"CREATE VIEW copied AS SELECT * FROM read_parquet('{str(path).replace(chr(39), chr(39) * 2)}')")
    rows = [_row("all", "", database, "TRUE", [])]
    for group in GROUPS:
        values = database.execute(f"SELECT DISTINCT {group} FROM copied ORDER BY 1 NULLS LAST").fetchall()
        rows += [_row(group, v, database, f"{group} IS NOT DISTINCT FROM ?", [v]) for (v,) in values]
    _write_csv(stage, "copied.csv", rows)
    _write_csv(stage, "copied_histogram.csv", _histogram(database))
    untimed, of_patients = numbers(
        database, "SELECT count(*) FILTER (time IS NULL), count(DISTINCT patient_id) FROM notes"
    )
    stage.count(
        copied_words=rows[0]["copied_words"],
        words=rows[0]["words"],
        notes_with_an_earlier_one=rows[0]["notes_with_an_earlier_one"],
        notes_without_a_time=untimed,
        patients=of_patients,
    )
    stage.record(copied_share=rows[0]["share_of_words"])


# --- notes in order ------------------------------------------------------------------------------------------------


def _iter_copied(batches: Iterator[pa.RecordBatch], n: int) -> Iterator[pa.Table]:
    """A row a note; `batches` come ordered by patient and time, and a patient may go on in the next."""
    patient: str | None = None
    known: Hashes = np.zeros(0, dtype=np.uint64)
    for batch in batches:
        if not len(batch):
            continue
        encoded = batch.column("patient_id").dictionary_encode()
        names, of_note = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        shingles = shingle_notes(batch.column("text"), n, whole=False)
        known = known if names[0] == patient else known[:0]
        goes_on = names[0] == patient
        copied, known_next = _copied_words(shingles, of_note, known, n)
        known = np.union1d(known, known_next) if len(names) == 1 else known_next
        is_first = np.diff(of_note, prepend=-1) != 0
        is_first[0] &= not goes_on
        patient = names[-1]
        columns = {name: batch.column(name).cast(pa.string()) for name in ("note_id", *GROUPS)}
        columns |= {
            "words": pa.array(shingles.words, pa.int32()),
            "copied_words": pa.array(copied, pa.int32()),
            "has_earlier": pa.array(~is_first),
        }
        yield pa.table([columns[name] for name in COPIED.names], schema=COPIED)


def _copied_words(
    shingles: Shingles, of_note: NDArray[np.int64], known: Hashes, n: int
) -> tuple[NDArray[np.int64], Hashes]:
    """Copied words of each note, and the shingles of the last patient. `known`: what the first patient had before."""
    counts = np.diff(shingles.offsets)
    note = np.repeat(np.arange(len(counts)), counts)
    patient = of_note[note]
    # sorted by patient and hash, then by note: the first of equal ones is the earliest note that has it
    order = np.lexsort((shingles.hashes, patient))
    hashes, patients, notes = shingles.hashes[order], patient[order], note[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (patients[1:] != patients[:-1])
    earliest = notes[np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))] if len(order) else notes
    is_copied = np.zeros(len(order), dtype=bool)
    is_copied[order] = earliest < notes
    if len(known):
        mine = np.flatnonzero(patient == 0)
        is_copied[mine] |= np.isin(shingles.hashes[mine], known)
    last = np.unique(shingles.hashes[patient == of_note[-1]]) if len(of_note) else known[:0]
    return _words_covered(is_copied, shingles, n), last


def _words_covered(is_copied: NDArray[np.bool_], shingles: Shingles, n: int) -> NDArray[np.int64]:
    """Words of each note that lie in at least one copied shingle."""
    first_word = np.concatenate([[0], np.cumsum(shingles.words)])
    counts = np.diff(shingles.offsets)
    begins = np.arange(len(is_copied)) - np.repeat(shingles.offsets[:-1] - first_word[:-1], counts)
    steps = np.zeros(int(first_word[-1]) + 1, dtype=np.int64)
    np.add.at(steps, begins[is_copied], 1)
    np.add.at(steps, begins[is_copied] + n, -1)
    covered = np.concatenate([[0], np.cumsum(np.cumsum(steps[:-1]) > 0)])
    return covered[first_word[1:]] - covered[first_word[:-1]]


# --- summaries -------------------------------------------------------------------------------------------------------


def _row(
    group: str, value: str | None, database: duckdb.DuckDBPyConnection, where: str, given: list[Any]
) -> dict[str, Any]:
    """Counts and the distribution of the share over the notes of a group that have an earlier note."""
    counts = database.execute(
        f"""
        SELECT count(*), count(*) FILTER (has_earlier), sum(words)::BIGINT, sum(copied_words)::BIGINT,
            sum(words) FILTER (has_earlier)::BIGINT
        FROM copied WHERE {where}
        """,
        given,
    ).fetchall()[0]
    notes, earlier, words, copied, words_later = (int(value or 0) for value in counts)
    shares = database.execute(
        f"""
        SELECT floor(100 * copied_words / greatest(words, 1))::INTEGER AS percent, count(*)
        FROM copied WHERE has_earlier AND {where} GROUP BY 1 ORDER BY 1
        """,
        given,
    ).fetchall()
    return {
        "group": group,
        "value": "unknown" if value is None else value,
        "notes": notes,
        "notes_with_an_earlier_one": earlier,
        "words": words,
        "copied_words": copied,
        "share_of_words": round(copied / words, 4) if words else None,
        "share_of_words_of_later_notes": round(copied / words_later, 4) if words_later else None,
        **{f"share_p{100 * q:.0f}": _quantile(shares, q) for q in QUANTILES},
        "notes_half_copied": sum(number for percent, number in shares if percent >= 50),
    }


def _quantile(shares: list[tuple[int, int]], q: float) -> float | None:
    """The share, to a hundredth, that a `q` of the notes do not exceed."""
    total, seen = sum(number for _, number in shares), 0
    for percent, number in shares:
        seen += number
        if seen >= q * total:
            return percent / 100
    return None


def _histogram(database: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    found = dict(
        database.execute(
            """
            SELECT least(floor(20 * copied_words / greatest(words, 1)), 19)::INTEGER, count(*)
            FROM copied WHERE has_earlier GROUP BY 1
            """
        ).fetchall()
    )
    return [{"share_from": k / 20, "share_to": (k + 1) / 20, "notes": found.get(k, 0)} for k in range(20)]


def _write_csv(stage: runs.Stage, name: str, rows: list[dict[str, Any]]) -> None:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    runs.write_text(stage.out / name, sink.getvalue())
