"""What a model met before: which rows' notes, and which rows' patients, in its pretraining and in its finetuning.

Notes are compared by the hash of their cleaned text, so the same text under another id or of another patient counts;
a near copy does not (`lang1 duplicates` finds those). Patients are compared by the hash of their id. The facts come
from what travels with the model: lang1.json names the tokens folder that it was pretrained on by that folder's
identity, seen.parquet lists the rows that it was finetuned on. A tokens folder that is not the one named tells
nothing. What nobody can tell is null, with the reason beside it, never false.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.corpus.hashes import hash_id
from lang1.errors import InputError
from lang1.models.origin import CARD, NO_PRETRAINING, read_pretraining
from lang1.remede.rows import TaskRows

if TYPE_CHECKING:
    import pyarrow as pa

WHEN = ("pretraining", "finetuning")
FLAGS = {
    ("notes", "pretraining"): "seen_in_pretraining",
    ("patients", "pretraining"): "seen_in_pretraining_patient",
    ("notes", "finetuning"): "seen_in_finetuning",
    ("patients", "finetuning"): "seen_in_finetuning_patient",
}
"""the four columns of a score file"""


@dataclass(frozen=True)
class Seen:
    """Names (hashes) of notes and patients that a model met before; None, with the reason, where nobody can tell."""

    notes: frozenset[str] | None = None
    patients: frozenset[str] | None = None
    unknown: str | None = "nobody can tell"


NEVER = Seen(frozenset(), frozenset(), None)


@dataclass(frozen=True)
class ModelSeen:
    """What a model met in its pretraining and in its finetuning."""

    pretraining: Seen = field(default_factory=Seen)
    finetuning: Seen = field(default_factory=Seen)

    def reasons(self) -> dict[str, str | None]:
        """Why nobody can tell, null where it is known."""
        return {when: getattr(self, when).unknown for when in WHEN}


# --- what is known of a model ----------------------------------------------------------------------------------


def what_was_seen(folder: Path, tokens: Path | None, rows: Iterable[TaskRows]) -> ModelSeen:
    """Which of the notes and patients of `rows` the model in `folder` met before, as far as its folder tells.

    `tokens` is looked up only if it is the folder that the model names. Raises InputError for a broken folder.
    """
    rows = list(rows)
    wanted = Wanted(
        frozenset(h for part in rows for h in part.strings("note_hash")),
        frozenset(hash_id(p) for part in rows for p in set(part.strings("patient_id"))),
    )
    return ModelSeen(_seen_in_pretraining(folder, tokens, wanted), _seen_in_finetuning(folder, wanted))


@dataclass(frozen=True)
class Wanted:
    """Hashes that are asked for."""

    notes: frozenset[str]
    patients: frozenset[str]


def _seen_in_pretraining(folder: Path, tokens: Path | None, wanted: Wanted) -> Seen:
    origin = read_pretraining(folder)
    if origin == NO_PRETRAINING:
        return NEVER
    if origin.tokens is None:
        return Seen(unknown=origin.unknown)
    if tokens is None:
        return Seen(unknown="no tokens folder was given (--tokens)")
    if str(runs.read_manifest(tokens)["identity"]) != origin.tokens:
        return Seen(unknown="the tokens folder given is not the one that it was pretrained on")
    return _look_up(tokens / "documents.parquet", wanted, origin.sources)


def _seen_in_finetuning(folder: Path, wanted: Wanted) -> Seen:
    path = folder / "seen.parquet"
    if path.exists():
        return _look_up(path, wanted)
    if (folder / CARD).exists():
        if runs.read_json(folder / CARD).get("kind") == "finetuned":
            return Seen(unknown="its seen.parquet, which lists the rows that it was finetuned on, is missing")
        return NEVER
    if read_pretraining(folder).tokens is not None:
        return NEVER
    return Seen(unknown="its folder does not say what it was finetuned on")


def seen_by_a_baseline(trains: Iterable[TaskRows]) -> ModelSeen:
    """A baseline has no pretraining; it was fitted on these rows."""
    rows = list(trains)
    notes = frozenset(h for part in rows for h in part.strings("note_hash"))
    patients = frozenset(hash_id(p) for part in rows for p in set(part.strings("patient_id")))
    return ModelSeen(NEVER, Seen(notes, patients, None))


def _look_up(path: Path, wanted: Wanted, sources: tuple[str, ...] | None = None) -> Seen:
    """Which of the wanted hashes a Parquet file holds, batch by batch: it may list every note of a hospital."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not path.exists():
        raise InputError(f"{path}: not found; it tells which notes the model has seen; run the stage that writes it")
    names = {"note_hash": wanted.notes, "patient_hash": wanted.patients}
    values = {column: pa.array(sorted(hashes), pa.string()) for column, hashes in names.items()}
    found: dict[str, set[str]] = {column: set() for column in names}
    try:
        with pq.ParquetFile(path) as file:
            columns = [*names, *(["source"] if sources is not None else [])]
            for batch in file.iter_batches(columns=columns):
                if sources is not None:
                    batch = batch.filter(pc.is_in(batch.column("source"), value_set=pa.array(sources, pa.string())))
                for column, hits in found.items():
                    hashes = batch.column(column)
                    hits.update(hashes.filter(pc.is_in(hashes, value_set=values[column])).to_pylist())
    except (pa.ArrowException, KeyError, OSError) as error:
        raise InputError(
            f"{path}: not readable as the list of what the model has seen ({type(error).__name__}); "
            "run the stage that wrote it again with --force"
        ) from None
    return Seen(frozenset(found["note_hash"]), frozenset(found["patient_hash"]), None)


# --- what is said of rows ----------------------------------------------------------------------------------------


def flags_of(rows: TaskRows, seen: ModelSeen) -> dict[str, list[bool | None]]:
    """The four columns of a score file: true, false, or null where nobody can tell."""
    names = {"notes": rows.strings("note_hash"), "patients": [hash_id(p) for p in rows.strings("patient_id")]}
    columns: dict[str, list[bool | None]] = {}
    for (what, when), column in FLAGS.items():
        hashes = getattr(getattr(seen, when), what)
        columns[column] = [None if hashes is None else name in hashes for name in names[what]]
    return columns


def count_seen(scores: pa.Table) -> dict[str, Any]:
    """Rows of a score file by kind of contact, and the word for them; null where nobody can tell.

    `contamination` is `notes` when a row's own note was met, `unknown` when that cannot be excluded, `patients` when
    only other notes of the row's patient were met, else `none`.
    """
    import pyarrow.compute as pc

    counts: dict[str, Any] = {}
    for (what, when), column in FLAGS.items():
        is_unknown = scores[column].null_count > 0
        counts[f"rows_of_{what}_seen_in_{when}"] = None if is_unknown else int(pc.sum(scores[column]).as_py() or 0)
    notes, patients = ([counts[f"rows_of_{what}_seen_in_{when}"] for when in WHEN] for what in ("notes", "patients"))
    if any(notes):
        word = "notes"
    elif None in notes:
        word = "unknown"
    else:
        word = "patients" if any(patients) else "none"
    return counts | {"contamination": word}
