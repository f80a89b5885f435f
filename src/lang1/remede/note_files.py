"""A user's file of notes, Parquet or CSV, as ids and texts in its order: checked first, then read a few rows at a time.

A file is never held whole. Rows are counted from 1, without a header. Messages name rows and columns, never text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lang1.corpus.delimited import find_cuts, read_header, read_piece
from lang1.corpus.hashes import hash_number
from lang1.corpus.inputs import described_header
from lang1.errors import InputError

ROWS = 512
"""notes read at a time"""
PIECE = 4 << 20
"""bytes of a CSV file read at a time"""
NAMED = 5
"""faulty rows that a message names"""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class NoteFile:
    """A file with a column of ids and a column of texts."""

    path: Path
    id_column: str
    text_column: str

    def chunks(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Ids and texts of some rows after the other, as they stand there; a null is None, what is no UTF-8 bytes.

        Raises InputError for a file that cannot be read, lacks a column, or has another type in it.
        """
        suffix = self.path.suffix.lower()
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such file")
        if suffix == ".parquet":
            yield from self._parquet()
        elif suffix in DELIMITERS:
            yield from self._delimited(DELIMITERS[suffix])
        else:
            raise InputError(f"{self.path}: notes come as .parquet, .csv or .tsv")

    def check(self) -> int:
        """Its number of rows, after one look at all of them.

        Raises InputError that names the first rows without an id or a text, with an id that stood before, or with
        bytes that are no UTF-8.
        """
        faults: list[str] = []
        seen: set[int] = set()
        number = faulty = 0
        for ids, texts in self.chunks():
            for key, text in zip(ids, texts, strict=True):
                number += 1
                found = _fault(self, key, text, seen)
                if found is not None:
                    faulty += 1
                    if len(faults) < NAMED:
                        faults.append(f"row {number}, column {found}")
        if faulty:
            more = f" and {faulty - len(faults)} more" if faulty > len(faults) else ""
            raise InputError(f"{self.path}: {'; '.join(faults)}{more}; mend or leave out those rows")
        if not number:
            raise InputError(f"{self.path}: no rows")
        return number

    def _refuse_columns(self, names: list[str]) -> None:
        """Neither column may be missing, nor stand there twice."""
        wanted = (self.id_column, self.text_column)
        missing = [name for name in wanted if name not in names]
        if missing:
            about = described_header(missing[0], names, "name yours with --id and --text")
            raise InputError(f"{self.path}: no column {', '.join(missing)}{about}")
        twice = [name for name in wanted if names.count(name) > 1]
        if twice:
            raise InputError(f"{self.path}: two columns are named {twice[0]}; rename one")

    def _parquet(self) -> Iterator[tuple[list[Any], list[Any]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                schema = file.schema_arrow
                self._refuse_columns(schema.names)
                for name, may_be_whole in ((self.id_column, True), (self.text_column, False)):
                    kind = schema.field(name).type
                    if pa.types.is_dictionary(kind):
                        kind = kind.value_type
                    is_text = kind in (pa.string(), pa.large_string(), pa.string_view())
                    if not is_text and not (may_be_whole and pa.types.is_integer(kind)):
                        raise InputError(
                            f"{self.path}: column {name} is {kind}, not text{' or whole numbers' * may_be_whole}"
                        )
                for batch in file.iter_batches(ROWS, columns=[self.id_column, self.text_column]):
                    ids, texts = (batch.column(name).to_pylist() for name in (self.id_column, self.text_column))
                    yield [None if key is None else str(key) for key in ids], texts
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: not readable as Parquet ({type(error).__name__}); write it again") from None

    def _delimited(self, delimiter: str) -> Iterator[tuple[list[Any], list[Any]]]:
        name = str(self.path)
        header, start = read_header(self.path, name, delimiter)
        self._refuse_columns(header)
        columns = list(dict.fromkeys((self.id_column, self.text_column)))
        cuts = find_cuts(self.path, name, delimiter, start, PIECE)
        for first, last in pairwise(cuts):
            if first == last:
                continue
            table = read_piece(self.path, name, delimiter, header, columns, start, first, last)
            for offset in range(0, len(table), ROWS):
                part = table.slice(offset, ROWS)
                ids, texts = (part[column].to_pylist() for column in (self.id_column, self.text_column))
                yield list(map(_decoded, ids)), list(map(_decoded, texts))


def _decoded(value: bytes | None) -> str | bytes | None:
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _fault(file: NoteFile, key: Any, text: Any, seen: set[int]) -> str | None:
    """What is wrong with a row, after the column's name; ids are remembered."""
    for column, value in ((file.id_column, key), (file.text_column, text)):
        if isinstance(value, bytes):
            return f"{column}: not UTF-8"
        if value is None or not value.strip():
            return f"{column}: empty"
    number = hash_number(key)
    if number in seen:
        return f"{file.id_column}: this id stands in an earlier row too"
    seen.add(number)
    return None
