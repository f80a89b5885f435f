"""Hashes of word shingles: every run of n words of every note of a batch as 64 bits, without a Python object a word.

A word is a run of bytes other than the space (cleaned text has one space between words). Its hash is a sum over its
bytes, modulo 2^64, of a fixed random number of the byte times a power for its place, then mixed; a shingle's is a
polynomial in its words' hashes. The numbers are fixed here, so a hash is the same on every machine and run. Equal
shingles have equal hashes; two different ones share a hash about once in 10^19. The text is worked through in slices,
so a note of 100 MB costs 8 bytes a word a few times over, not 8 a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

SLICE_BYTES = 1 << 17
_SPACE = 32
_PLACES = 4096
"""powers a word's bytes take; a longer word takes them again from the first"""


@dataclass(frozen=True)
class Shingles:
    """Shingles of a batch of notes, one after the other."""

    hashes: Hashes
    offsets: Ints
    """(notes + 1): note i has hashes[offsets[i] : offsets[i + 1]]"""
    words: Ints
    """words of each note"""


def shingle_notes(texts: pa.ChunkedArray | pa.Array, n: int, fold_case: bool = False, whole: bool = True) -> Shingles:
    """Every run of `n` words of each text; `fold_case` reads A as a.

    A text of fewer words has one shingle, all of it, or none where `whole` is false.
    """
    data, bounds = _bytes_of(texts)
    hashes, starts = _word_hashes(data, bounds, fold_case)
    first = np.searchsorted(starts, bounds).astype(np.int64)
    words = np.diff(first)
    counts = np.maximum(words - n + 1, 0)
    found = _combined(hashes, n)
    begins = np.ones(len(found), dtype=bool)
    for k in range(1, n):  # the last n - 1 words of a note begin no shingle
        last = first[1:] - k
        last = last[(last >= first[:-1]) & (last < len(found))]
        begins[last] = False
    found = found[begins]
    if whole and (short := np.flatnonzero(counts == 0)).size:
        before = np.cumsum(counts) - counts
        found = np.insert(found, before[short], [_of_all(hashes[first[i] : first[i + 1]]) for i in short])
        counts[short] = 1
    return Shingles(found, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), words)


def _bytes_of(texts: pa.ChunkedArray | pa.Array) -> tuple[NDArray[np.uint8], Ints]:
    import pyarrow as pa

    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_string())
    array = array.cast(pa.large_binary())
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    whole = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    return whole[bounds[0] : bounds[-1]], bounds - bounds[0]


# --- words -----------------------------------------------------------------------------------------------------


def _random_numbers(count: int, stream: int) -> Hashes:
    """Odd 64-bit numbers by splitmix64: written out here, so that no library's generator decides a hash."""
    seeds = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)
    return _mixed(seeds * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)


def _mixed(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _byte_numbers(fold_case: bool) -> Hashes:
    numbers = _random_numbers(256, 1)
    numbers[_SPACE] = 0
    if fold_case:
        numbers[ord("A") : ord("Z") + 1] = numbers[ord("a") : ord("z") + 1]
    return numbers


_EXACT, _FOLDED, _POWERS = _byte_numbers(False), _byte_numbers(True), _random_numbers(_PLACES, 2)
_STEP = np.uint64(0x9E3779B97F4A7C55)


def _word_hashes(data: NDArray[np.uint8], bounds: Ints, fold_case: bool) -> tuple[Hashes, Ints]:
    """The hash and the first byte of every word of the batch."""
    numbers = _FOLDED if fold_case else _EXACT
    hashes, starts = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    begin = 0
    while begin < len(data):
        end = _end_of_slice(data, bounds, begin)
        piece = data[begin:end]
        is_start = piece != _SPACE
        is_start[1:] &= piece[:-1] == _SPACE
        inside = bounds[np.searchsorted(bounds, begin) : np.searchsorted(bounds, end)] - begin
        is_start[inside] = piece[inside] != _SPACE  # a note begins a word, whatever the note before ended with
        found = np.flatnonzero(is_start)
        if len(found):
            lengths = np.diff(found, append=len(piece))
            place = np.arange(found[0], len(piece), dtype=np.int32) - np.repeat(found.astype(np.int32), lengths)
            terms = numbers[piece[found[0] :]] * _POWERS[place & (_PLACES - 1)]
            hashes.append(_mixed(np.add.reduceat(terms, found - found[0])))
            starts.append(found + begin)
        begin = end
    return np.concatenate(hashes), np.concatenate(starts)


def _end_of_slice(data: NDArray[np.uint8], bounds: Ints, begin: int) -> int:
    """Where a slice may end: at the end of the data, of a note, or before a space."""
    end = begin + SLICE_BYTES
    while end < len(data):
        note_end = int(bounds[np.searchsorted(bounds, end)])
        spaces = np.flatnonzero(data[end : end + SLICE_BYTES] == _SPACE)
        stops = [note_end] + ([end + int(spaces[0])] if len(spaces) else [])
        if min(stops) <= end + SLICE_BYTES:
            return min(stops)
        end += SLICE_BYTES
    return len(data)


# --- shingles --------------------------------------------------------------------------------------------------


def _combined(words: Hashes, n: int) -> Hashes:
    """The hash of words[i : i + n] for every i, across notes too: the caller takes those within one."""
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    total = words[:count].copy()
    for k in range(1, n):
        total *= _STEP
        total += words[k : k + count]
    return _mixed(total)


def _of_all(words: Hashes) -> np.uint64:
    return _combined(words, len(words))[0] if len(words) else np.uint64(0)
