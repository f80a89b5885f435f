"""Shards of token ids: written in order, read by memory map, checked as they are read.

A split of a source is one stream of documents, each ended by the separator, cut into files:

    header      64 bytes  magic, version, bytes an id, number of ids, ids a checksum stands for, CRC-32 of the header
    ids         count x 2 or 4 bytes, little-endian
    checksums   4 bytes a block of CHECKED_IDS ids (CRC-32), then 4 bytes: CRC-32 of this table

Opening a folder checks header and size of every file against index.json; the first read of a checked block checks its
CRC-32; `verify` checks all of it (docs/decisions/0012-shards.md). Block i of context length C is the ids
[i*C, i*C + C + 1): every id is a target once; the ids after the last whole block are not read (fewer than C).
Documents are packed as they come: a block may begin in the middle of one. What we left: attention that stops at
document ends; mending, since a damaged folder is made again from the corpus.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lang1 import runs
from lang1.errors import InputError

INDEX = "index.json"
SPLITS = ("train", "val")
SHARD_FILES = "*/*.bin"
"""pattern of the files of a tokens folder that are checked as they are read"""
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MAGIC, VERSION = b"LANG1IDS", 1
CHECKED_IDS = 1 << 15
"""ids a checksum stands for: 64 or 128 KiB, so that a first read at random checks little more than it reads"""
_HEADER = struct.Struct("<8sIIQQ28xI")
_CRC = np.dtype("<u4")
_AGAIN = "run tokenize again with --force"

Ids = npt.NDArray[np.int64]


def dtype_for(vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


# --- written ---------------------------------------------------------------------------------------------------


class ShardWriter:
    """One split of one source: ids in, files of at most `limit` ids out."""

    def __init__(self, folder: Path, source: str, split: str, dtype: str, limit: int) -> None:
        self.folder, self.stem = folder, f"{source}/{split}"
        self.dtype, self.limit = DTYPES[dtype], limit
        self.files: list[dict[str, Any]] = []
        self.open = ExitStack()
        self.sink: IO[bytes] | None = None
        self.checksums: list[int] = []

    def write(self, ids: npt.NDArray[Any]) -> None:
        """Append ids of any integer type, beginning a new file where the last one is full."""
        while len(ids):
            if self.sink is None or self.files[-1]["tokens"] == self.limit:
                self.close()
                name = f"{self.stem}-{len(self.files):05d}.bin"
                self.sink = self.open.enter_context(runs.atomic_write(self.folder / name))
                self.sink.write(bytes(_HEADER.size))
                self.files.append({"path": name, "tokens": 0})
                self.checksums = []
            taken, ids = np.split(ids, [self.limit - self.files[-1]["tokens"]])
            self._append(self.sink, taken.astype(self.dtype, copy=False))

    def _append(self, sink: IO[bytes], ids: npt.NDArray[Any]) -> None:
        held = self.files[-1]["tokens"]
        first = -held % CHECKED_IDS  # what is left of the block begun before
        for part in (ids[:first], *(ids[i : i + CHECKED_IDS] for i in range(first, len(ids), CHECKED_IDS))):
            if len(part):
                data = np.ascontiguousarray(part).data
                if held % CHECKED_IDS:
                    self.checksums[-1] = zlib.crc32(data, self.checksums[-1])
                else:
                    self.checksums.append(zlib.crc32(data))
                sink.write(data)
                held += len(part)
        self.files[-1]["tokens"] = held

    def close(self) -> None:
        """End the last file with its checksums and header, and make it appear."""
        if self.sink is not None:
            table = np.array(self.checksums, _CRC).tobytes()
            self.sink.write(table + struct.pack("<I", zlib.crc32(table)))
            self.sink.seek(0)
            self.sink.write(_header(self.dtype.itemsize, self.files[-1]["tokens"]))
        self.open.close()
        self.sink = None

    def abandon(self, *error: Any) -> None:
        """Leave no file behind that holds half of what its name promises."""
        self.open.__exit__(*error)
        self.sink = None


def _header(itemsize: int, count: int) -> bytes:
    checked = _HEADER.pack(MAGIC, VERSION, itemsize, count, CHECKED_IDS, 0)[:-4]
    return checked + struct.pack("<I", zlib.crc32(checked))


# --- read ------------------------------------------------------------------------------------------------------


class ShardFile:
    """The ids of one file by memory map. Raises InputError for what does not match its checksum."""

    def __init__(self, path: Path, dtype: np.dtype[Any], count: int) -> None:
        self.path, self.count = path, count
        data = np.memmap(path, dtype=np.uint8, mode="r")
        end = _HEADER.size + count * dtype.itemsize
        self.ids: npt.NDArray[Any] = data[_HEADER.size : end].view(dtype)
        table = data[end:-4].tobytes()
        if zlib.crc32(table) != int(data[-4:].view(_CRC)[0]):
            raise InputError(f"{path}: its table of checksums is damaged; {_AGAIN}")
        self.checksums = np.frombuffer(table, _CRC)
        self.checked = np.zeros(len(self.checksums), dtype=bool)

    def read(self, begin: int, end: int) -> npt.NDArray[Any]:
        """Ids [begin, end), each block that holds one of them checked if it was not before."""
        for block in range(begin // CHECKED_IDS, (end - 1) // CHECKED_IDS + 1 if end > begin else 0):
            if not self.checked[block]:
                self.check(block)
        return self.ids[begin:end]

    def check(self, block: int) -> None:
        """Compare one block with its checksum."""
        ids = self.ids[block * CHECKED_IDS : (block + 1) * CHECKED_IDS]
        if zlib.crc32(ids.data) != int(self.checksums[block]):
            first = _HEADER.size + block * CHECKED_IDS * ids.itemsize
            raise InputError(
                f"{self.path}: block {block} (bytes {first} to {first + ids.nbytes - 1}) does not match its checksum: "
                f"the file was damaged after it was written; {_AGAIN}"
            )
        self.checked[block] = True


@dataclass(frozen=True)
class Blocks:
    """The whole blocks of one split, as a sequence."""

    files: tuple[ShardFile, ...]
    starts: tuple[int, ...]
    context_length: int

    def __len__(self) -> int:
        return max(self.starts[-1] - 1, 0) // self.context_length

    def __getitem__(self, index: int) -> Ids:
        """Ids [index*C, index*C + C + 1) of the stream. Raises InputError where the disk gives others than written."""
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        begin = index * self.context_length
        end = begin + self.context_length + 1
        pieces, file = [], bisect_right(self.starts, begin) - 1
        while begin < end:
            start, stop = self.starts[file], min(self.starts[file + 1], end)
            pieces.append(self.files[file].read(begin - start, stop - start))
            begin, file = stop, file + 1
        return np.concatenate(pieces).astype(np.int64)


@dataclass(frozen=True)
class Shards:
    """A tokens folder, opened: what index.json says, and the blocks."""

    folder: Path
    vocab_size: int
    bos_id: int | None
    eos_id: int
    separator_id: int
    index: dict[str, Any] = field(repr=False)

    def sources(self) -> tuple[str, ...]:
        """Names of the sources: clinical, and web or other names where they were used."""
        return tuple(self.index["sources"])

    def tokens(self, source: str, split: str) -> int:
        """Tokens of a split."""
        return int(sum(file["tokens"] for file in self._files(source, split)))

    def blocks(self, source: str, split: str, context_length: int) -> Blocks:
        """The blocks of `context_length` + 1 ids of a split. Fewer ids than that: a sequence of length 0."""
        if context_length < 1:
            raise ValueError(f"context_length {context_length} is not positive")
        dtype = DTYPES[self.index["dtype"]]
        facts = [file for file in self._files(source, split) if file["tokens"]]
        files = tuple(ShardFile(self.folder / file["path"], dtype, int(file["tokens"])) for file in facts)
        return Blocks(files, tuple(accumulate((file.count for file in files), initial=0)), context_length)

    def _files(self, source: str, split: str) -> list[dict[str, Any]]:
        try:
            return list(self.index["sources"][source][split]["files"])
        except KeyError:
            known = ", ".join(f"{s}/{split}" for s, splits in self.index["sources"].items() for split in splits)
            raise InputError(f"{self.folder}: no tokens of {source}/{split}; it holds {known}") from None


def open_shards(tokens: Path) -> Shards:
    """Open a tokens folder; index.json, and header and size of every file, are checked. Raises InputError."""
    _check_index(tokens)
    index = runs.read_json(tokens / INDEX)
    try:
        dtype = DTYPES[index["dtype"]]
        files = [f for splits in index["sources"].values() for facts in splits.values() for f in facts["files"]]
        opened = Shards(
            tokens, int(index["vocab_size"]), index["bos_id"], int(index["eos_id"]), int(index["separator_id"]), index
        )
        expected = {tokens / str(file["path"]): int(file["tokens"]) for file in files}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{tokens / INDEX}: not an index of token shards; {_AGAIN}") from None
    for path, count in expected.items():
        _check_header(path, dtype.itemsize, count)
    return opened


def _check_index(tokens: Path) -> None:
    """The index is the one that the manifest lists, where there is a manifest."""
    if not runs.is_complete(tokens):
        return
    wanted = runs.read_manifest(tokens).get("files", {}).get(INDEX, {}).get("sha256")
    if wanted and (tokens / INDEX).exists() and runs.sha256_file(tokens / INDEX) != wanted:
        raise InputError(f"{tokens / INDEX}: is not the file that {runs.MANIFEST} lists; {_AGAIN}")


def _check_header(path: Path, itemsize: int, count: int) -> None:
    try:
        found = path.stat().st_size
        with path.open("rb") as source:
            header = source.read(_HEADER.size)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; {_AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from None
    wanted = _HEADER.size + count * itemsize + 4 * -(-count // CHECKED_IDS) + 4
    if found != wanted:
        raise InputError(f"{path}: has {found} bytes, {INDEX} says {wanted}; {_AGAIN}")
    if header == _header(itemsize, count):
        return
    magic, version, *facts, checksum = _HEADER.unpack(header)
    if magic != MAGIC:
        problem = "is not a shard of token ids"
    elif zlib.crc32(header[:-4]) != checksum:
        problem = "its header is damaged"
    elif version != VERSION:
        problem = f"is of format {version}, this version reads {VERSION}"
    else:
        problem = f"holds {facts[1]} ids of {facts[0]} bytes, {INDEX} says {count} of {itemsize}"
    raise InputError(f"{path}: {problem}; {_AGAIN}")


def verify(tokens: Path) -> Iterator[str]:
    """Check everything that a tokens folder holds; a line for each thing checked. Raises InputError at the first fault.

    Every byte of a shard is under a checksum of its own; every other file is compared with the manifest's SHA-256.
    """
    manifest = runs.read_manifest(tokens)
    shards = open_shards(tokens)
    dtype, seen, blocks, ids = DTYPES[shards.index["dtype"]], set[str](), 0, 0
    for splits in shards.index["sources"].values():
        for facts in splits.values():
            for file in facts["files"]:
                opened = ShardFile(tokens / file["path"], dtype, int(file["tokens"]))
                for block in range(len(opened.checksums)):
                    opened.check(block)
                seen.add(file["path"])
                blocks, ids = blocks + len(opened.checksums), ids + opened.count
                yield f"{file['path']}: {opened.count:,} ids, {len(opened.checksums):,} blocks"
    others = sorted(set(manifest["files"]) - seen)
    for name in others:
        path = tokens / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; {_AGAIN}")
        if runs.sha256_file(path) != manifest["files"][name]["sha256"]:
            raise InputError(f"{path}: does not match its SHA-256 in {runs.MANIFEST}; {_AGAIN}")
    yield f"{', '.join(others)}: as {runs.MANIFEST} lists them"
    yield f"{tokens}: whole: {ids:,} ids in {len(seen)} shards, {blocks:,} blocks checked"
