"""`lang1 clean --explain`: one note after each step, for eyes at a terminal. Writes nothing.

The note is found without reading a table: row groups whose smallest and largest id leave it out are passed over, of
the others only the ids are read, and of the text only the batch that holds it. A CSV has no such help and is read
from its beginning, a few megabytes at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lang1.config import CleanConfig
from lang1.corpus import inputs, rules
from lang1.ehr.schema import CATEGORIES
from lang1.errors import InputError


@dataclass(frozen=True)
class Shown:
    """A note after a step."""

    step: str
    changed: bool
    text: str


def explain(cfg: CleanConfig, note_id: str, *, records: Path | None = None, notes: Path | None = None) -> list[Shown]:
    """The note as it came, after each step that is on, and what became of it. Raises InputError when not found."""
    if (records is None) == (notes is None):
        raise InputError("clean: give --records DIR or --notes FILE_OR_FOLDER, one of them")
    return explain_note(cfg, *_find(cfg, note_id, records, notes))


def explain_note(cfg: CleanConfig, raw: bytes | None, category: str) -> list[Shown]:
    """The steps of one note, from its bytes."""
    steps, tally = rules.chosen_steps(cfg), rules.Tally()
    _, reason = rules.clean_note(raw, steps, tally)
    if category not in CATEGORIES:
        reason = "unknown_category"
    raw = raw or b""
    text, _ = rules.decode(raw)
    shown = [Shown("as it came", False, raw.decode("utf-8", "backslashreplace"))]
    if reason not in ("too_long", "unknown_category", "unreadable_decode"):
        if "decode" in steps.names:
            shown.append(Shown("decode", tally.notes["decode"] > 0, text))
        for step in steps.rules:
            try:
                after = rules.apply_rules(text, (step,), rules.Tally())
            except rules.RuleError:
                break  # the reason below names it
            shown.append(Shown(step[0], after != text, after))
            text = after
    return [*shown, Shown("kept" if reason is None else f"rejected: {reason}", False, "")]


def lines(shown: list[Shown]) -> Iterator[str]:
    """For a terminal: a step a line, then its text where it changed. What could steer a terminal is written out."""
    for number, one in enumerate(shown):
        last = number == len(shown) - 1
        yield one.step if last or not number else f"{one.step}: {'changed' if one.changed else 'not changed'}"
        if one.changed or not number:
            for line in one.text.split("\n"):
                yield "  | " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


# --- finding -----------------------------------------------------------------------------------------------------


def _find(cfg: CleanConfig, note_id: str, records: Path | None, notes: Path | None) -> tuple[bytes | None, str]:
    if records is not None:
        for path in sorted((records / "notes").glob("part-*.parquet")):
            if found := _find_in_parquet(inputs.parquet_source(path, cfg, strict=True), note_id):
                return found
        raise InputError(f"{records / 'notes'}: no note {note_id}")
    assert notes is not None
    for path in inputs.note_files(notes):
        if path.suffix.lower() == ".parquet":
            found = _find_in_parquet(inputs.parquet_source(path, cfg, strict=False), note_id)
        elif path.suffix.lower() == ".gz":
            raise InputError(f"{path}: --explain reads no .gz; unpack the file first")
        else:
            found = _find_in_csv(cfg, path, note_id)
        if found:
            return found
    raise InputError(f"{notes}: no note {note_id}")


def _find_in_parquet(source: inputs.Source, note_id: str) -> tuple[bytes | None, str] | None:
    column = source.columns["note_id"]
    with inputs.open_parquet(Path(source.path), source.name) as parquet:
        index, position = parquet.schema_arrow.names.index(column), 0
        for group in range(parquet.num_row_groups):
            facts = parquet.metadata.row_group(group)
            chunk = next(c for c in map(facts.column, range(facts.num_columns)) if c.path_in_schema == column)
            if _may_hold(chunk.statistics, note_id, parquet.schema_arrow.field(index).type):
                for batch in parquet.iter_batches(1 << 16, [group], [column]):
                    ids = batch[0].dictionary_decode() if pa.types.is_dictionary(batch[0].type) else batch[0]
                    at = pc.index(ids.cast(pa.string()), note_id).as_py()
                    if at >= 0:
                        return _one(inputs.Partition(0, source, (position + at, position + at + 1)), note_id)
                    position += len(batch)
            else:
                position += facts.num_rows
    return None


def _may_hold(statistics: object, note_id: str, kind: pa.DataType) -> bool:
    low, high = getattr(statistics, "min", None), getattr(statistics, "max", None)
    if pa.types.is_integer(kind) and low is not None and note_id.lstrip("-").isdigit():
        return bool(low <= int(note_id) <= high)  # type: ignore[operator]
    return not isinstance(low, str) or not isinstance(high, str) or low.encode() <= note_id.encode() <= high.encode()


def _find_in_csv(cfg: CleanConfig, path: Path, note_id: str) -> tuple[bytes | None, str] | None:
    for source, cuts in inputs.plan_csv(cfg, path, path):
        if found := _one(inputs.Partition(0, source, cuts), note_id):
            return found
    return None


def _one(partition: inputs.Partition, note_id: str) -> tuple[bytes | None, str] | None:
    for table in inputs.iter_notes(partition):
        at = pc.index(table["note_id"], note_id).as_py()
        if at >= 0:
            return table["text"][at].as_py(), str(table["category"][at])
    return None
