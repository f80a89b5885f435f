"""Work of this room in processes of this machine, where there is no state to go back to and no cluster to speak of."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lang1.corpus.cluster import hidden_main
from lang1.errors import InputError


def map_in_processes(
    work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int, killed: str
) -> Iterator[Any]:
    """The results of `work` on each of `tasks`, in their order. Raises InputError, `killed`, when a worker is killed.

    The caller's script needs no guard of `__main__`; processes end with the iterator, and with this process.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # spawn: the parent holds Arrow's threads, which a fork copies in any state
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker) as pool:
        try:
            with hidden_main():
                futures = deque(pool.submit(work, *task) for task in tasks)
            while futures:
                yield futures.popleft().result()
        except BrokenProcessPool:
            raise InputError(killed) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """A worker is one thread of Arrow and of the tokenizer library, and ends when its parent is killed."""
    import multiprocessing

    import pyarrow as pa

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C too, and stops them
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
