"""Score files: a row a task row, `scores/<model>/<task>/<split>.parquet`, what a model had seen before beside it.

A file appears whole, so a killed run keeps those it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lang1 import runs
from lang1.errors import InputError
from lang1.remede.contamination import ModelSeen, flags_of
from lang1.remede.rows import TaskRows
from lang1.scoring.schema import scores_schema
from lang1.scoring.shots import Examples

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]


def slug(model: str) -> str:
    """A model's name as a folder's name: `lang1 finetuned joint` -> `lang1-finetuned-joint`."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"


def check_names(models: Iterable[str]) -> None:
    """Raise InputError for two models whose names make one folder: the second would pass for the first."""
    taken: dict[str, str] = {}
    for name in models:
        if slug(name) in taken:
            raise InputError(
                f"models {taken[slug(name)]!r} and {name!r} would share the folder {slug(name)}; "
                "give them names that differ in letters or digits"
            )
        taken[slug(name)] = name


def score_path(out: Path, model: str, task: str, split: str) -> Path:
    """Where the scores of a model, task and split stand."""
    return out / slug(model) / task / f"{split}.parquet"


def write_scores(
    out: Path,
    model: str,
    rows: TaskRows,
    p_NK: Floats,
    *,
    method: str | list[str],
    logits_NK: Floats | None = None,
    prompt_tokens: list[int] | list[int | None] | None = None,
    truncated_tokens: list[int] | None = None,
    examples: Examples | None = None,
    options_missing: list[int | None] | None = None,
    answers_refused: list[int | None] | None = None,
    seen: ModelSeen | None = None,
) -> None:
    """Write the score file of a model, task and split; `method` is one for all rows, or one a row."""
    import pyarrow as pa

    n, schema = len(rows.table), scores_schema(rows.options)
    columns: dict[str, object] = {
        "model_id": [model] * n,
        "task": [rows.task] * n,
        "split": [rows.split] * n,
        **{name: rows.table[name] for name in ("row_id", "encounter_id", "patient_id", "label")},
        **{f"p_{k}": p_NK[:, k] for k in range(rows.options)},
        **{f"logit_{k}": [None] * n if logits_NK is None else logits_NK[:, k] for k in range(rows.options)},
        "method": [method] * n if isinstance(method, str) else method,
        "prompt_tokens": prompt_tokens or [None] * n,
        "truncated_tokens": truncated_tokens or [None] * n,
        "shots": [None if examples is None else len(examples.row_ids)] * n,
        "shots_cut_words": [None if examples is None else sum(examples.cut_words)] * n,
        "options_missing": options_missing or [None] * n,
        "answers_refused": answers_refused or [None] * n,
        **flags_of(rows, seen or ModelSeen()),
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if not isinstance(columns[field.name], pa.ChunkedArray)
        else columns[field.name]
        for field in schema
    ]
    runs.write_table(score_path(out, model, rows.task, rows.split), pa.Table.from_arrays(arrays, schema=schema))


def read_scores(path: Path) -> pa.Table:
    """A score file that this stage wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable ({type(error).__name__}); run lang1 evaluate with --force") from None


def count_tokens(scores: pa.Table) -> dict[str, int | None]:
    """What the prompts of a score file had in all, null where nobody counted, and what was cut of their notes."""
    import pyarrow.compute as pc

    read, cut = scores["prompt_tokens"], scores["truncated_tokens"].to_numpy()
    return {
        "prompt_tokens": None if read.null_count else int(pc.sum(read).as_py()),
        "truncated_tokens": int(cut.sum()),
        "truncated_rows": int((cut > 0).sum()),
    }


def probabilities(scores: pa.Table) -> Floats:
    """The option probabilities of a score file, (rows, options)."""
    names = [name for name in scores.column_names if name.startswith("p_")]
    return np.column_stack([scores[name].to_numpy() for name in names]).astype(np.float64)
