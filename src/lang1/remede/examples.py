"""The shots of a task: answered rows of train that stand before every question, the same for every row and model.

Drawn by hash of seed and row, every label in its turn, from train alone, and only from patients and notes that no
evaluated split of the task has: so never a row's own patient, and one text for all rows. `lang1 evaluate` and the task
pack call this, so both ask the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.errors import InputError
from lang1.remede.rows import TaskFolder
from lang1.scoring.shots import NO_EXAMPLES, Examples, Item, in_turn, render_examples

EVALUATED = ("val", "test", "temporal_1", "temporal_2")
_KEYS = ("row_id", "patient_id", "note_hash")


def choose_examples(folder: TaskFolder, task: str, count: int, budget_words: int, seed: int) -> Examples:
    """`count` examples of a task whose notes share `budget_words` words; `NO_EXAMPLES` for none.

    Raises InputError where train has too few rows whose patient and note are nowhere evaluated.
    """
    if count == 0:
        return NO_EXAMPLES
    path = folder.path / task / "train.parquet"
    taken: set[str] = set()
    for split in EVALUATED:
        if (folder.path / task / f"{split}.parquet").is_file():
            for row in _read(folder.path / task / f"{split}.parquet", _KEYS):
                taken.update(str(row[key]) for key in _KEYS)
    rows = _read(path, (*_KEYS, "label")) if path.is_file() else []
    free = [(row["row_id"], row["label"]) for row in rows if taken.isdisjoint(str(row[key]) for key in _KEYS)]
    if len(free) < count:
        raise InputError(
            f"{path}: {len(free)} rows of patients that are in no evaluated split, {count} are wanted as examples; "
            "lower evaluate.shots"
        )
    chosen = in_turn(free, count, seed)
    found = {row["row_id"]: row for row in _read(path, ("row_id", "label", "text"), chosen)}
    question = folder.questions[task]
    items = [(row_id, Item(found[row_id]["text"], question, found[row_id]["label"])) for row_id in chosen]
    return render_examples(items, budget_words)


def _read(path: Path, columns: tuple[str, ...], ids: list[str] | None = None) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(columns), filters=None if ids is None else [("row_id", "in", ids)])
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as task rows ({type(error).__name__}); run lang1 tasks again") from None
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
