"""Score files: a row a task row, `scores/<model>/<task>/<split>.parquet`, and what a model had seen before.

A file appears whole, so a killed run keeps those it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lang1 import runs
from lang1.corpus.hashes import hash_id
from lang1.errors import InputError
from lang1.remede.rows import TaskRows
from lang1.scoring.schema import scores_schema

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]


def slug(model: str) -> str:
    """A model's name as a folder's name: `lang1 finetuned joint` -> `lang1-finetuned-joint`."""
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-") or "model"


def score_path(out: Path, model: str, task: str, split: str) -> Path:
    """Where the scores of a model, task and split stand."""
    return out / slug(model) / task / f"{split}.parquet"


@dataclass(frozen=True)
class Seen:
    """Names (hashes) of notes and patients that a model met before; None where nobody can tell."""

    notes: frozenset[str] | None = None
    patients: frozenset[str] | None = None


@dataclass(frozen=True)
class ModelSeen:
    """What a model met in its pretraining and in its finetuning."""

    pretraining: Seen = Seen()
    finetuning: Seen = Seen()


NEVER = Seen(frozenset(), frozenset())


def what_was_seen(folder: Path, tokens: Path | None, rows: Iterable[TaskRows]) -> ModelSeen:
    """Which of the notes and patients of `rows` the model in `folder` met before, as far as its folder tells.

    A model that lang1 pretrained is looked up in the tokens folder, one that it finetuned in its seen.parquet.
    """
    rows = list(rows)
    wanted_notes = {h for part in rows for h in part.strings("note_hash")}
    wanted_patients = {hash_id(p) for part in rows for p in set(part.strings("patient_id"))}
    pretraining = _origin(folder)
    if pretraining == "here" and tokens is not None:
        found = _look_up(tokens / "documents.parquet", wanted_notes, wanted_patients)
    else:
        found = NEVER if pretraining == "none" else Seen()
    seen = folder / "seen.parquet"
    if seen.exists():
        return ModelSeen(found, _look_up(seen, wanted_notes, wanted_patients))
    return ModelSeen(found, NEVER if pretraining is not None else Seen())


def _origin(folder: Path) -> str | None:
    """here: pretrained by lang1; none: from random weights; None: the folder does not say."""
    facts = folder / "lang1.json"
    if facts.exists():
        if runs.read_json(facts).get("init") == "random":
            return "none"
        inputs = runs.read_manifest(folder)["inputs"] if runs.is_complete(folder) else {}
        # a folder that no stage of ours wrote was the start: nobody knows what it was pretrained on
        return None if str(inputs.get("model", "")).startswith("files:") else "here"
    parent = folder.parent
    if runs.is_complete(parent) and runs.read_manifest(parent).get("stage") == "pretrain":
        return "here"
    return None


def _look_up(path: Path, notes: set[str], patients: set[str]) -> Seen:
    """Which of the wanted hashes a Parquet file holds, batch by batch: it may list every note of a hospital."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.exists():
        raise InputError(f"{path}: not found; it tells which notes the model has seen; run the stage that writes it")
    found: dict[str, set[str]] = {"note_hash": set(), "patient_hash": set()}
    names = {"note_hash": notes, "patient_hash": patients}
    wanted = {column: pa.array(sorted(values), pa.string()) for column, values in names.items()}
    for batch in pq.ParquetFile(path).iter_batches(columns=list(found)):
        for column, hits in found.items():
            values = batch.column(column)
            hits.update(values.filter(pc.is_in(values, value_set=wanted[column])).to_pylist())
    return Seen(frozenset(found["note_hash"]), frozenset(found["patient_hash"]))


def write_scores(
    out: Path,
    model: str,
    rows: TaskRows,
    p_NK: Floats,
    *,
    method: str,
    logits_NK: Floats | None = None,
    prompt_tokens: list[int] | None = None,
    truncated_tokens: list[int] | None = None,
    seen: ModelSeen | None = None,
) -> None:
    """Write the score file of a model, task and split."""
    import pyarrow as pa

    seen = seen or ModelSeen()
    n, schema = len(rows.table), scores_schema(rows.options)
    columns: dict[str, object] = {
        "model_id": [model] * n,
        "task": [rows.task] * n,
        "split": [rows.split] * n,
        **{name: rows.table[name] for name in ("row_id", "encounter_id", "patient_id", "label")},
        **{f"p_{k}": p_NK[:, k] for k in range(rows.options)},
        **{f"logit_{k}": [None] * n if logits_NK is None else logits_NK[:, k] for k in range(rows.options)},
        "method": [method] * n,
        "prompt_tokens": prompt_tokens or [None] * n,
        "truncated_tokens": truncated_tokens or [None] * n,
        "seen_in_pretraining": _flags(rows, seen.pretraining),
        "seen_in_finetuning": _flags(rows, seen.finetuning),
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if not isinstance(columns[field.name], pa.ChunkedArray)
        else columns[field.name]
        for field in schema
    ]
    runs.write_table(score_path(out, model, rows.task, rows.split), pa.Table.from_arrays(arrays, schema=schema))


def _flags(rows: TaskRows, seen: Seen) -> list[bool | None]:
    if seen.notes is None:
        return [None] * len(rows.table)
    return [h in seen.notes for h in rows.strings("note_hash")]


def read_scores(path: Path) -> pa.Table:
    """A score file that this stage wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable ({type(error).__name__}); run lang1 evaluate with --force") from None


def probabilities(scores: pa.Table) -> Floats:
    """The option probabilities of a score file, (rows, options)."""
    names = [name for name in scores.column_names if name.startswith("p_")]
    return np.column_stack([scores[name].to_numpy() for name in names]).astype(np.float64)
