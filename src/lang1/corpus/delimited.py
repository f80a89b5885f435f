"""Notes in CSV and TSV files: where a file may be cut, and rows as Arrow.

A note holds line breaks, so a line is not a row. One scan over the quotes finds the ends of rows, and at the same time
proves that the file is what RFC 4180 describes: a quote opens a field only at its beginning, closes it only at its
end, and is doubled within. A file in which that fails has a broken quote somewhere, and a parser that goes on would
take half of the file for one note; it is refused, with the row. Pieces between two ends of rows are then parsed
by Arrow, each by itself. A .gz cannot be cut: it is unpacked beside the output first.

Rows are counted from 1, without the header.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from lang1 import runs
from lang1.errors import InputError

BLOCK = 1 << 20
"""bytes looked at a time"""
HEADER_BYTES = 1 << 20
"""a header is no longer"""
LONGEST_FIELD = 1 << 17
"""characters of a column's name at most: longer is a note"""
_QUOTE, _BREAK = ord('"'), ord("\n")
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip or Excel file", b"\x1f\x8b": "gzip without .gz"}


def unpack(path: Path, target: Path) -> None:
    """Write what a .gz holds to `target` (mode 0600). Raises InputError for a file that ends early or is damaged."""
    with runs.atomic_write(target, 0o600) as sink:
        for block in _unpacked(path):
            if block is None:
                rows = max(sum(_ends_of_rows(b for b in _unpacked(path) if b is not None)) - 1, 0)
                raise InputError(f"{path}: gzip ends early or is damaged after row {rows}; copy or export it again")
            sink.write(block)


def _unpacked(path: Path) -> Iterator[bytes | None]:
    """What a .gz holds, block by block; null last when it is not whole."""
    try:
        with gzip.open(path) as source:
            while block := source.read1(BLOCK):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield None
    except OSError as error:  # whoever writes the blocks would take it for a fault of theirs
        raise InputError(f"{path}: cannot be read ({error.strerror or type(error).__name__}); check it") from None


# --- header ----------------------------------------------------------------------------------------------------


def read_header(path: Path, name: str, delimiter: str) -> tuple[list[str], int]:
    """The names in a file's first row, and the byte at which the rows begin. `name` is the file's for a message."""
    with path.open("rb") as source:
        head = source.read(HEADER_BYTES)
    for mark, what in _MARKS.items():
        if head.startswith(mark):
            raise InputError(f"{name}: is {what}; notes come as UTF-8 or ASCII text")
    if not head.strip():
        raise InputError(f"{name}: is empty")
    end = 0
    while True:
        end = head.find(b"\n", end) + 1
        if end == 0:
            end = len(head)
            break
        if head.count(b'"', 0, end) % 2 == 0:
            break
    text, _ = _text(head[:end].removeprefix(b"\xef\xbb\xbf"))
    try:
        with fields_up_to(LONGEST_FIELD):
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:  # a field beyond the module's limit
        raise InputError(f"{name}: the first row is no header; a field does not end (a broken quote?)") from None
    return [column.strip() for column in rows[0]] if rows else [], end


@contextlib.contextmanager
def fields_up_to(characters: int) -> Iterator[None]:
    """Let csv read fields of so many characters; the limit, which is the whole process's, is given back."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text(raw: bytes) -> tuple[str, bool]:
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), False


# --- ends of rows ------------------------------------------------------------------------------------------------


def find_cuts(path: Path, name: str, delimiter: str, start: int, piece: int) -> list[int]:
    """Bytes at which the file may be cut, `start` and its size among them, about `piece` bytes apart.

    Raises InputError, with the row, where a quote stands that RFC 4180 does not allow.
    """
    may_touch = np.zeros(257, bool)  # 256 stands for the beginning and the end of the file
    may_touch[[ord(delimiter), _BREAK, ord("\r"), _QUOTE, 256]] = True
    cuts, wanted, quotes_before, last_quote = [start], start + piece, 0, start
    offset, previous = start, 256
    with path.open("rb") as source:
        source.seek(start)
        block = source.read(BLOCK)
        while block:
            following = source.read(BLOCK)
            here = np.frombuffer(block, np.uint8)
            quotes = np.flatnonzero(here == _QUOTE)
            if len(quotes):
                last_quote = offset + int(quotes[-1])
                first = quotes_before % 2
                opening, closing = quotes[first::2], quotes[1 - first :: 2]
                left = np.where(opening > 0, here[opening - 1].astype(np.int16), previous)
                beyond = following[0] if following else 256
                right = np.where(
                    closing + 1 < len(here), here[np.minimum(closing + 1, len(here) - 1)].astype(np.int16), beyond
                )
                wrong = np.concatenate([opening[~may_touch[left]], closing[~may_touch[right]]])
                if len(wrong):
                    raise _broken_quote(path, name, start, offset + int(wrong.min()))
            position = wanted - offset
            while position < len(block):
                position = _end_of_row(block, quotes, quotes_before, max(position, 0))
                if position < 0:
                    break
                cuts.append(offset + position)
                position += piece
                wanted = offset + position
            quotes_before += len(quotes)
            offset, previous, block = offset + len(block), block[-1], following
    if quotes_before % 2:
        raise _broken_quote(path, name, start, last_quote)
    return cuts if cuts[-1] == offset else [*cuts, offset]


def _end_of_row(block: bytes, quotes: np.ndarray, quotes_before: int, position: int) -> int:
    """The byte after the first line break from `position` on that is no part of a field; -1 when there is none."""
    while True:
        position = block.find(b"\n", position)
        if position < 0:
            return -1
        passed = int(np.searchsorted(quotes, position))
        if (quotes_before + passed) % 2 == 0:
            return position + 1
        if passed == len(quotes):
            return -1
        position = int(quotes[passed])


def _broken_quote(path: Path, name: str, start: int, offset: int) -> InputError:
    row = count_rows(path, start, offset) + 1
    return InputError(
        f"{name}: row {row}: broken quote; a field with a quote, a line break or a delimiter stands in quotes, "
        "and a quote within it is doubled (RFC 4180)"
    )


def count_rows(path: Path, start: int, stop: int) -> int:
    """Rows that end between two bytes; `start` is the beginning of a row."""
    with path.open("rb") as source:
        source.seek(start)
        return sum(_ends_of_rows(_iter_blocks(source, stop - start)))


def _iter_blocks(source: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := source.read(min(BLOCK, size))):
        yield block
        size -= len(block)


def _ends_of_rows(blocks: Iterator[bytes]) -> Iterator[int]:
    quotes_before = 0
    for block in blocks:
        here = np.frombuffer(block, np.uint8)
        quotes, breaks = np.flatnonzero(here == _QUOTE), np.flatnonzero(here == _BREAK)
        yield int(((np.searchsorted(quotes, breaks) + quotes_before) % 2 == 0).sum())
        quotes_before += len(quotes)


# --- rows --------------------------------------------------------------------------------------------------------


def read_piece(
    path: Path, name: str, delimiter: str, header: Sequence[str], columns: list[str], data: int, start: int, stop: int
) -> pa.Table:
    """The rows between two bytes: `columns` as large_binary, an empty unquoted field as null.

    `data` is where the file's rows begin, for a message. Raises InputError for a row with fewer or more fields.
    """
    with path.open("rb") as source:
        source.seek(start)
        raw = source.read(stop - start)
    if len(raw) < stop - start:
        raise InputError(f"{name}: became shorter while it was read")
    kinds = dict.fromkeys(header, pa.large_binary())
    faulty: list[int] = []

    def note_fault(row: pa.csv.InvalidRow) -> str:
        faulty.append(row.number)
        return "error"

    try:
        return pa.csv.read_csv(
            pa.BufferReader(raw),
            pa.csv.ReadOptions(use_threads=False, block_size=len(raw) + 1, column_names=list(header)),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note_fault),
            pa.csv.ConvertOptions(
                column_types=kinds, include_columns=columns, null_values=[""], strings_can_be_null=True,
                quoted_strings_can_be_null=False, check_utf8=False,
            ),
        )  # fmt: skip
    except pa.ArrowInvalid:
        # Arrow's own message quotes the row
        row = count_rows(path, data, start) + (faulty[0] or 1) if faulty else None
        where = f"row {row}: has" if row else f"after row {count_rows(path, data, start)}: a row has"
        raise InputError(f"{name}: {where} fewer or more fields than the header's {len(header)}") from None
