"""Data order as a pure function: sample j of a run -> (source, block), whatever batch size or resume came before.

j = step x global_batch + position in the batch, so the data state of a run is one integer and ranks can take slices.
Samples are dealt to sources in periods of 1,024: each source owns whole slots of a period by its weight (largest
remainder: a weight is met to 1/2048), and a keyed permutation of the period says which sample falls on which slot.
Within a source, samples walk through epochs without replacement, each epoch in its own keyed permutation (a Feistel
network on the index: no table, so nothing is scanned or stored for 100 GB of tokens). The keys come from Philox.

Left: drawing sources at random (a batch's mix would wobble, and the place within an epoch would need a count of all
draws before) and shuffled index tables (memory and start-up grow with the corpus).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

PERIOD = 1024
_ROUNDS = 6
_BITS_64 = (1 << 64) - 1


@dataclass(frozen=True)
class Mixture:
    """Weighted sources, each with a number of blocks."""

    seed: int
    names: tuple[str, ...]
    blocks: tuple[int, ...]
    """blocks a source"""
    slots: tuple[int, ...]
    """slots a source owns of each PERIOD"""

    def locate(self, sample: int) -> tuple[str, int]:
        """Source and block of sample j."""
        name, epoch, place = self._place(sample)
        size = self.blocks[self.names.index(name)]
        return name, permuted(place, size, self.seed, f"{name}:{epoch}")

    def _place(self, sample: int) -> tuple[str, int, int]:
        period, place = divmod(sample, PERIOD)
        slot = permuted(place, PERIOD, self.seed, f"period:{period}")
        source = 0
        while slot >= self.slots[source]:
            slot -= self.slots[source]
            source += 1
        epoch, within = divmod(period * self.slots[source] + slot, self.blocks[source])
        return self.names[source], epoch, within


def make_mixture(seed: int, weights: Mapping[str, float], blocks: Mapping[str, int]) -> Mixture:
    """A mixture of the sources with a weight above 0. Slots by largest remainder, at least one a source."""
    names = tuple(name for name in weights if weights[name] > 0)
    total = sum(weights[name] for name in names)
    exact = [PERIOD * weights[name] / total for name in names]
    slots = [max(1, int(share)) for share in exact]
    by_remainder = sorted(range(len(names)), key=lambda i: (slots[i] - exact[i], i))
    for i in by_remainder[: max(0, PERIOD - sum(slots))]:
        slots[i] += 1
    slots[slots.index(max(slots))] += PERIOD - sum(slots)
    return Mixture(seed, names, tuple(blocks[name] for name in names), tuple(slots))


def permuted(index: int, size: int, seed: int, what: str) -> int:
    """Where a keyed permutation of range(size) sends `index`: a Feistel network, walked until it lands inside."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, keys = (1 << half) - 1, _round_keys(seed, what)
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_scramble(right ^ key) & mask)
        index = left << half | right
        if index < size:
            return index


@lru_cache(maxsize=64)
def _round_keys(seed: int, what: str) -> tuple[int, ...]:
    philox = np.random.Philox(key=np.array([seed & _BITS_64, zlib.crc32(what.encode())], dtype=np.uint64))
    return tuple(int(key) for key in philox.random_raw(_ROUNDS))


def _scramble(value: int) -> int:
    """splitmix64: 64 bits in, 64 well-mixed bits out."""
    value = (value + 0x9E3779B97F4A7C15) & _BITS_64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _BITS_64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _BITS_64
    return value ^ value >> 31
