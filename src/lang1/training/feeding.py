"""The next step's data, read while the step before computes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Fetched(Generic[Batch]):
    """The data of one optimizer step on one rank."""

    micro_batches: list[Batch]
    divisor: float
    """what the loss summed over all ranks is divided by: real targets, or rows"""
    tokens: int
    """real tokens that go through the model, all ranks"""
    counts: dict[str, int]
    """tokens by source, or rows by task, all ranks"""
    samples: tuple[int, int] = (0, 0)
    """the first sample of the run that is in it and the one after its last, where samples have numbers"""


class Feed(Generic[Batch]):
    """Data by step, a pure function of it, one step ahead in a thread of its own."""

    def __init__(self, fetch: Callable[[int], Fetched[Batch]]) -> None:
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, "feed")
        self._ahead: tuple[int, Future[Fetched[Batch]]] | None = None
        self.waited = 0.0
        """seconds that the last `take` waited"""

    def take(self, step: int, steps: int) -> Fetched[Batch]:
        """The data of `step`; the next one, if there is one before `steps`, is begun."""
        started = time.monotonic()
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = step, self._thread.submit(self._fetch, step)
        fetched = self._ahead[1].result()
        self._ahead = (step + 1, self._thread.submit(self._fetch, step + 1)) if step + 1 < steps else None
        self.waited = time.monotonic() - started
        return fetched

    def close(self) -> None:
        """Leave no thread behind."""
        self._thread.shutdown(cancel_futures=True)
