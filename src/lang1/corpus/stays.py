"""What the records know of a note's encounter: its class, and whether the stay had ended before the corpus ends.

A window of the benchmark goes by discharge, a corpus by the time of signing: an H&P that was signed on the last days of
the corpus, of a stay that ended after it, is read again in the temporal_2 window. `leave_out_open_stays` keeps it out.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lang1 import runs
from lang1.config import TokenizeConfig
from lang1.corpus.database import quote, read_sql
from lang1.corpus.hashes import hash_number
from lang1.corpus.parts import iter_rows
from lang1.errors import InputError

BATCH_ROWS = 8192


@dataclass(frozen=True)
class Stays:
    """Sets of encounters, each a file of sorted hash_number (.npy) that every worker maps; null: not asked for."""

    of_class: Path | None = None
    """of a class that is kept"""
    still_open: Path | None = None
    """inpatient, of a stay that had not ended when the corpus ends"""

    @property
    def asked(self) -> bool:
        """True when a note's encounter decides anything."""
        return self.of_class is not None or self.still_open is not None


def needed_by(cfg: TokenizeConfig) -> str | None:
    """Why the records are needed, as an error says it; null when they are not."""
    if cfg.encounter_classes is not None:
        return "tokenize.encounter_classes: the records know the class of an encounter"
    if cfg.leave_out_open_stays:
        return "tokenize.leave_out_open_stays: the records know when a stay ended"
    return None


def find_stays(cfg: TokenizeConfig, records: Path, scratch: Path) -> Stays:
    """The sets that the configuration asks for, as files in `scratch`. Raises InputError for other records."""
    if needed_by(cfg) is None:
        return Stays()
    paths = sorted((records / "encounters").glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{records}: no encounters/part-*.parquet; give the folder that lang1 extract wrote")
    of_class = still_open = None
    if cfg.encounter_classes is not None:
        of_class = _write(scratch / "encounters.npy", _of_class(cfg.encounter_classes, records, paths))
    if cfg.leave_out_open_stays:
        still_open = _write(scratch / "open-stays.npy", _still_open(cfg, paths, scratch))
    return Stays(of_class, still_open)


def _of_class(classes: tuple[str, ...], records: Path, paths: list[Path]) -> list[int]:
    numbers: list[int] = []
    known: Counter[str] = Counter()
    for path in paths:
        for table in iter_rows(path, ["encounter_id", "encounter_class"], BATCH_ROWS):
            found = table["encounter_class"].cast(pa.string())
            known.update(found.to_pylist())
            numbers += map(hash_number, table["encounter_id"].filter(is_in(found, classes)).to_pylist())
    if not numbers:
        held = ", ".join(f"{name} {n}" for name, n in sorted(known.items(), key=str))
        wanted = ", ".join(classes)
        raise InputError(f"{records / 'encounters'}: no encounter of tokenize.encounter_classes ({wanted}); {held}")
    return numbers


def _still_open(cfg: TokenizeConfig, paths: list[Path], scratch: Path) -> list[int]:
    """Inpatient encounters whose stay, transfers joined as in the tasks, ended at `end` or later or lasts still."""
    import duckdb

    for path in paths:  # a file that is no records' is named before DuckDB names it
        next(
            iter_rows(path, ["encounter_id", "patient_id", "encounter_class", "admit_time", "discharge_time"], 1), None
        )
    listed = ", ".join(quote(str(path)) for path in paths)
    with duckdb.connect(":memory:") as database:
        database.execute(f"SET memory_limit = '1GB'; SET temp_directory = {quote(str(scratch / 'duckdb'))}")
        database.execute(f"CREATE VIEW encounters AS SELECT * FROM read_parquet([{listed}])")
        found = database.execute(
            read_sql("open_stays"), {"until": midnight(cfg.end).as_py(), "gap_us": round(cfg.transfer_hours * 3.6e9)}
        )
        numbers: list[int] = []
        while rows := found.fetchmany(BATCH_ROWS):
            numbers += (hash_number(row[0]) for row in rows)
    return numbers


def _write(path: Path, numbers: list[int]) -> Path:
    with runs.atomic_write(path) as sink:
        np.save(sink, np.unique(np.array(numbers, np.uint64)))
    _open_numbers.cache_clear()  # another run of this process may have had a file of that name
    return path


def is_among(ids: Any, numbers: Path) -> npt.NDArray[np.bool_]:
    """Which of the encounters (an Arrow column) are in a set; a note without one is in none."""
    kept = _open_numbers(numbers)
    if not len(kept):
        return np.zeros(len(ids), dtype=bool)
    encoded = ids.combine_chunks().dictionary_encode()
    wanted = np.array([hash_number(value) for value in encoded.dictionary.to_pylist()], np.uint64)
    places = np.minimum(np.searchsorted(kept, wanted), len(kept) - 1)
    answers = np.append(kept[places] == wanted, False)  # the last one is for notes without an encounter
    return answers[pc.fill_null(encoded.indices, len(wanted)).to_numpy()]


@functools.lru_cache(maxsize=2)
def _open_numbers(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def is_in(column: Any, values: tuple[str, ...]) -> Any:
    """Which words of an Arrow column are among `values`."""
    return pc.is_in(column.cast(pa.string()), value_set=pa.array(values, pa.string()))


def midnight(day: date) -> pa.Scalar:
    """The first moment of a day."""
    return pa.scalar(datetime.combine(day, time()), pa.timestamp("us"))
