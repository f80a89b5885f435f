"""Files of any kind as documents of text, for `lang1 scan`: what a file holds, column by column.

A document is a row, a record, a line or a decoded note; it comes with the name of its column. A value of a date or
time column comes without text, marked as a date. What cannot be read as text is named with the reason; a file that is
cut short or broken is refused, since what it lost cannot be counted.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lang1.corpus import shards
from lang1.corpus.delimited import fields_up_to
from lang1.corpus.web import _iter_zstd, _split_lines
from lang1.errors import InputError

Document = tuple[str, str | None, bool]
"""column, text (null: the value is a date or not), and whether it is a date"""

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".npz", ".npy", ".pkl", ".pickle"}
BATCH_ROWS = 4096
TOKENS = ".tokens"
"""kind of a unit: shards of a tokens folder"""


@dataclass(frozen=True)
class Unit:
    """What one process reads: a file, a row group of a Parquet file, or a source and split of a tokens folder."""

    path: Path
    shown: str
    kind: str
    size: int
    part: str = ""


def list_units(paths: list[Path]) -> tuple[list[Unit], list[tuple[str, str]]]:
    """The units of files and folders, in order, and the files that are not read with the reason."""
    units: list[Unit] = []
    not_read: list[tuple[str, str]] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: not found")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name != ".lock")
        if not found:
            raise InputError(f"{path}: holds no file")
        shards_of = _token_folders(path, found)
        for folder, index in shards_of.items():
            units += _token_units(folder, index)
        for file in found:
            if any(file.suffix == ".bin" and folder in file.parents for folder in shards_of):
                continue
            kind = kind_of(file)
            if kind is None:
                not_read.append((str(file), "weights or other binary data"))
            else:
                units += _units_of(file, kind)
    return units, not_read


def kind_of(file: Path) -> str | None:
    """How a file is read, by its name and, where that says nothing, by its first bytes; None: not at all."""
    name = file.name.lower()
    packed = name.endswith((".gz", ".zst"))
    suffix = Path(name.rpartition(".")[0] if packed else name).suffix
    if suffix == ".parquet":
        return suffix
    if suffix in WEIGHTS or suffix in {".duckdb", ".pdf", ".png", ".jpg", ".jpeg", ".zip", ".whl"}:
        return None
    if suffix in {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".html", ".htm"}:
        return {".ndjson": ".jsonl", ".htm": ".html"}.get(suffix, suffix)
    if not packed:
        with file.open("rb") as source:
            if b"\0" in source.read(8192):
                return None
    return ".txt"


def _units_of(file: Path, kind: str) -> list[Unit]:
    size = file.stat().st_size
    if kind != ".parquet":
        return [Unit(file, str(file), kind, size)]
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        raise InputError(f"{file}: not readable as Parquet; it may be cut short") from None
    groups = range(metadata.num_row_groups)
    return [Unit(file, str(file), kind, metadata.row_group(g).total_byte_size, str(g)) for g in groups]


def _token_folders(path: Path, found: list[Path]) -> dict[Path, dict[str, Any]]:
    """Folders of token shards at or under `path`, with their index."""
    folders = {}
    for file in found:
        if file.name == shards.INDEX and path.is_dir():
            try:
                index = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                continue
            if isinstance(index, dict) and {"sources", "dtype", "separator_id"} <= index.keys():
                folders[file.parent] = index
    return folders


def _token_units(folder: Path, index: dict[str, Any]) -> list[Unit]:
    shards.open_shards(folder)  # sizes are checked here
    return [
        Unit(folder, f"{folder}/{source}/{split}", TOKENS, 4 * int(facts["tokens"]), f"{source}/{split}")
        for source, splits in index["sources"].items()
        for split, facts in splits.items()
        if facts["files"]
    ]


# --- units as documents ----------------------------------------------------------------------------------------


def read_unit(unit: Unit) -> Iterator[Document]:
    """The documents of a unit. Raises InputError for one that is broken: file and row, never its text."""
    read = {
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".json": _read_json,
        ".jsonl": _read_jsonl,
        ".html": _read_html,
        ".txt": _read_lines,
        TOKENS: _read_tokens,
    }[unit.kind]
    try:
        yield from read(unit)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{unit.path}: ends in the middle of its compression, or is none; fetch it again") from None


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends, unpacked; bytes that are no UTF-8 become a mark."""
    name = path.name.lower()
    if name.endswith(".zst"):
        try:
            for line in _split_lines(_iter_zstd(path)):
                yield line.decode("utf-8", "replace") + "\n"
        except InputError:
            raise InputError(f"{path}: not readable as zstd; fetch it again") from None
    elif name.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as text:
            yield from text
    else:
        with path.open(encoding="utf-8", errors="replace", newline="") as text:
            yield from text


def _read_lines(unit: Unit) -> Iterator[Document]:
    for line in _lines(unit.path):
        if line.strip():
            yield "text", line, False


def _read_csv(unit: Unit) -> Iterator[Document]:
    with fields_up_to(sys.maxsize):
        rows = csv.reader(_lines(unit.path), delimiter="\t" if unit.kind == ".tsv" else ",", strict=True)
        try:
            header = next(rows, [])
            for name in header:  # a file without a header has its first row there
                yield "(header)", name, False
            names = [f"column {i + 1}{f' {name}' if _is_plain(header) else ''}" for i, name in enumerate(header)]
            for row in rows:
                for i, value in enumerate(row):
                    if value:
                        yield names[i] if i < len(names) else "beyond the header", value, False
        except csv.Error:
            raise InputError(f"{unit.path}: line {rows.line_num}: not readable as CSV (a broken quote?)") from None


def _is_plain(names: Iterable[str]) -> bool:
    """True for names that a program gave: others could be a first row of data, or a person's name as a key."""
    return all(re.fullmatch(r"[a-z_][a-z0-9_-]{0,40}", name) for name in names)


def _read_jsonl(unit: Unit) -> Iterator[Document]:
    for number, line in enumerate(_lines(unit.path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{unit.path}: line {number}: not readable as JSON") from None
        yield from _leaves(value, "")


def _read_json(unit: Unit) -> Iterator[Document]:
    try:
        value = json.loads("".join(_lines(unit.path)))
    except (ValueError, RecursionError):
        raise InputError(f"{unit.path}: not readable as JSON") from None
    if isinstance(value, dict) and isinstance(value.get("model"), dict) and "vocab" in value["model"]:
        yield from _vocabulary(value)
    else:
        yield from _leaves(value, "")


def _leaves(value: Any, path: str) -> Iterator[Document]:
    """The texts of a JSON value, by the keys that lead to them; a key is text too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield "(keys)", str(key), False
            shown = str(key) if _is_plain([str(key)]) else "*"
            yield from _leaves(item, f"{path}.{shown}" if path else shown)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, str):
        yield path or "text", value, False


def _vocabulary(value: dict[str, Any]) -> Iterator[Document]:
    """The entries of a tokenizer.json as a reader sees them."""
    vocab = value["model"]["vocab"]
    names = vocab if isinstance(vocab, dict) else [entry[0] for entry in vocab]
    added = [token.get("content", "") for token in value.get("added_tokens") or []]
    for name in dict.fromkeys([*names, *added]):
        yield "vocabulary", str(name).replace("\u0120", " ").replace("\u2581", " "), False


class _Visible(HTMLParser):
    """Texts of a page and the attributes that a reader gets; style, script and the numbers of drawings are none."""

    SPOKEN = ("alt", "title", "aria-label", "content", "value", "placeholder", "href")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in {"style", "script"}
        self.texts += [value for name, value in attrs if name in self.SPOKEN and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.hidden -= tag in {"style", "script"}

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(self.hidden - (tag in {"style", "script"}), 0)

    def handle_data(self, data: str) -> None:
        if not self.hidden and data.strip():
            self.texts.append(" ".join(data.split()))

    def handle_comment(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))


def _read_html(unit: Unit) -> Iterator[Document]:
    page = _Visible()
    for line in _lines(unit.path):
        page.feed(line)
    page.close()
    for text in page.texts:
        yield "text", text, False


def _read_parquet(unit: Unit) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(unit.path) as source:
            for batch in source.iter_batches(batch_size=BATCH_ROWS, row_groups=[int(unit.part)]):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    yield from _column(name, column)
    except (OSError, pa.ArrowException, UnicodeDecodeError):  # the last: a text in a list or struct
        raise InputError(f"{unit.path}: row group {unit.part}: not readable as Parquet") from None


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    known = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in known)


def _column(name: str, column: Any) -> Iterator[Document]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_time(kind):
        for known in column.is_valid().to_pylist():
            yield name, None, known
    elif _is_text(kind):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        # rejects keep the bytes that came, and a string column is not checked when it is read
        for value in column.cast(pa.large_binary()).to_pylist():
            if value:
                yield name, value.decode("utf-8", "replace"), False
    elif pa.types.is_nested(kind):
        for value in column.to_pylist():
            for _, text, is_date in _leaves(json.loads(json.dumps(value, default=str)), name):
                yield name, text, is_date


def _read_tokens(unit: Unit) -> Iterator[Document]:
    """Documents of a source and split of token shards, decoded a few at a time."""
    import numpy as np

    from lang1.corpus.tokenizer import open_encoder

    opened = shards.open_shards(unit.path)
    backend = open_encoder(unit.path / "tokenizer").backend
    dtype = shards.DTYPES[opened.index["dtype"]]
    source, _, split = unit.part.partition("/")
    rest = np.zeros(0, dtype=dtype)
    for facts in opened.index["sources"][source][split]["files"]:
        if not facts["tokens"]:
            continue
        file = shards.ShardFile(unit.path / facts["path"], dtype, int(facts["tokens"]))
        for start in range(0, file.count, 1 << 18):
            block = np.concatenate([rest, file.read(start, min(start + (1 << 18), file.count))])
            *documents, rest = np.split(block, np.flatnonzero(block == opened.separator_id) + 1)
            for text in backend.decode_batch([d.tolist() for d in documents], skip_special_tokens=True):
                yield "decoded", text, False
    if len(rest):
        yield "decoded", backend.decode(rest.tolist(), skip_special_tokens=True), False
