"""Records and corpora to test on: a few lines a note, the rest filled in."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import CleanConfig
from lang1.corpus import clean
from lang1.ehr.schema import NOTES

SENTENCE = "patient denies chest pain and fever history of diabetes on metformin 500 mg daily BP 120/80 stable plan"
WORDS = SENTENCE.split()


def note(number: int, text: str | None, **changed: Any) -> dict[str, Any]:
    """A row of NOTES. Notes 0, 1, 2, ... are signed a month apart from 2020 on; four notes a patient."""
    signed = datetime(2020, 1, 1) + timedelta(days=30 * number)
    row: dict[str, Any] = {
        "note_id": f"n{number}",
        "patient_id": f"p{number // 4}",
        "encounter_id": f"e{number // 2}",
        "category": "hospital",
        "note_type": "H&P",
        "author_role": "resident",
        "written_time": signed,
        "signed_time": signed,
        "department": "medicine",
        "text": text,
    }
    return row | changed


def prose(number: int, words: int = 20) -> str:
    """Words of a note, the same for the same number."""
    draw = random.Random(number)
    return " ".join(draw.choice(WORDS) for _ in range(words))


def write_records(folder: Path, rows: list[dict[str, Any]], files: int = 1, row_group: int = 1000) -> Path:
    """Canonical notes in `files` parts."""
    table = pa.Table.from_pylist(rows, schema=NOTES)
    size = -(-max(len(rows), 1) // files)
    for part in range(files):
        path = folder / "notes" / f"part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(part * size, size), path, row_group_size=row_group)
    return folder


def write_corpus(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A cleaned corpus of the rows."""
    runs.set_quiet(True)
    records = write_records(folder / "records", rows)
    clean(CleanConfig(), records=records, out=folder / "corpus", seed=7)
    return folder / "corpus"


def file_hashes(folder: Path) -> dict[str, str]:
    """The bytes of every file of a stage, without its manifest."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (runs.MANIFEST, runs.LOCK))
    return {p.relative_to(folder).as_posix(): runs.sha256_file(p) for p in files}
