"""Shards of token ids: written in order, read by memory map.

A split of a source is one stream of documents, each ended by the separator, cut into files of raw little-endian ids;
index.json says how many stand in each, so a file cut short is found on opening. Block i of context length C is the
ids [i*C, i*C + C + 1): every id is a target once; the ids after the last whole block are not read (fewer than C).
Documents are packed as they come: a block may begin in the middle of one. What we left: attention that stops at
document ends, checksums of blocks.
"""

from __future__ import annotations

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
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

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

    def write(self, ids: Ids) -> None:
        """Append ids, beginning a new file where the last one is full."""
        while len(ids):
            if self.sink is None or self.files[-1]["tokens"] == self.limit:
                self.close()
                name = f"{self.stem}-{len(self.files):05d}.bin"
                self.sink = self.open.enter_context(runs.atomic_write(self.folder / name))
                self.files.append({"path": name, "tokens": 0})
            taken, ids = np.split(ids, [self.limit - self.files[-1]["tokens"]])
            self.sink.write(taken.astype(self.dtype).tobytes())
            self.files[-1]["tokens"] += len(taken)

    def close(self) -> None:
        """Make the last file appear."""
        self.open.close()
        self.sink = None

    def abandon(self, *error: Any) -> None:
        """Leave no file behind that holds half of what its name promises."""
        self.open.__exit__(*error)


# --- read ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """The whole blocks of one split, as a sequence."""

    maps: tuple[npt.NDArray[Any], ...]
    starts: tuple[int, ...]
    context_length: int

    def __len__(self) -> int:
        return max(self.starts[-1] - 1, 0) // self.context_length

    def __getitem__(self, index: int) -> Ids:
        """Ids [index*C, index*C + C + 1) of the stream."""
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        begin = index * self.context_length
        end = begin + self.context_length + 1
        pieces = [
            shard[max(begin - start, 0) : end - start]
            for shard, start, stop in zip(self.maps, self.starts, self.starts[1:], strict=False)
            if start < end and begin < stop
        ]
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
        """Names of the sources: clinical, and web where it was used."""
        return tuple(self.index["sources"])

    def tokens(self, source: str, split: str) -> int:
        """Tokens of a split."""
        return int(sum(file["tokens"] for file in self._files(source, split)))

    def blocks(self, source: str, split: str, context_length: int) -> Blocks:
        """The blocks of `context_length` + 1 ids of a split. Fewer ids than that: a sequence of length 0."""
        if context_length < 1:
            raise ValueError(f"context_length {context_length} is not positive")
        files = self._files(source, split)
        dtype = DTYPES[self.index["dtype"]]
        maps = tuple(np.memmap(self.folder / file["path"], dtype=dtype, mode="r") for file in files)
        return Blocks(maps, tuple(accumulate((len(shard) for shard in maps), initial=0)), context_length)

    def _files(self, source: str, split: str) -> list[dict[str, Any]]:
        try:
            return list(self.index["sources"][source][split]["files"])
        except KeyError:
            known = ", ".join(f"{s}/{split}" for s, splits in self.index["sources"].items() for split in splits)
            raise InputError(f"{self.folder}: no tokens of {source}/{split}; it holds {known}") from None


def open_shards(tokens: Path) -> Shards:
    """Open a tokens folder; every file's size is checked against index.json. Raises InputError."""
    index = runs.read_json(tokens / INDEX)
    try:
        size = DTYPES[index["dtype"]].itemsize
        files = [f for splits in index["sources"].values() for facts in splits.values() for f in facts["files"]]
        opened = Shards(
            tokens, int(index["vocab_size"]), index["bos_id"], int(index["eos_id"]), int(index["separator_id"]), index
        )
        expected = {tokens / str(file["path"]): int(file["tokens"]) * size for file in files}
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{tokens / INDEX}: not an index of token shards; run tokenize again with --force") from None
    for path, wanted in expected.items():
        found = path.stat().st_size if path.is_file() else None
        if found != wanted:
            held = "is missing" if found is None else f"has {found} bytes"
            raise InputError(f"{path}: {held}, {INDEX} says {wanted}; run tokenize again with --force")
    return opened
