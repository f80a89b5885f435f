"""SIGTERM, SIGINT and SIGUSR1 (Slurm's warning before it takes a node back): save at the end of the step, then stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """True once such a signal came; the step in progress ends first. In another thread than the main: never."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, lambda came, _frame: seen.append(came)) for number in STOPPING}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
