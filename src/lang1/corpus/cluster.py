"""Dask for this room: a client of a scheduler that runs, or local worker processes that end with the block.

Local workers listen on the loopback interface only, serve no dashboard and log nothing below critical. A task whose
workers die, a cluster that is left without workers and a scheduler that goes away each end as an InputError: Dask
itself would wait for them without end.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.errors import InputError, Unfinished

CONNECT_S = 20.0
"""how long a scheduler may take to answer"""
CHECK_S = 5.0
"""between two looks at the workers, while a result is waited for"""
LONELY_S = 180.0
"""how long a cluster may have no worker: on a busy machine one takes half a minute to start again"""
RESTART_S = 60.0
"""how long a failed run waits for dead local workers to be back, before it ends them"""

THRIFTY = {
    "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_TRIM_THRESHOLD_": 1 << 16,
    "OMP_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1,
}  # fmt: skip
"""environment of local workers: freed memory goes back at once, where pools would keep a quarter of a worker"""


@contextlib.contextmanager
def open_client(scheduler: str | None, workers: int, worker_memory: str, scratch: Path) -> Iterator[Any]:
    """A Dask client of the scheduler named, or of `workers` local processes, each ended over its `worker_memory`."""
    import dask
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {f"distributed.{part}.http.routes": [] for part in ("scheduler", "worker", "nanny")}
    settings["distributed.nanny.pre-spawn-environ"] = THRIFTY
    settings["distributed.worker.profile.enabled"] = False  # a hundred looks a second at every worker's stack
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # `wait_for` tells of faults, in a line
        if scheduler is None:
            stack.enter_context(hidden_main())
            cluster = stack.enter_context(LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=worker_memory,
                dashboard_address=None, scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                local_directory=str(scratch / "dask"), silence_logs=logging.CRITICAL,
            ))  # fmt: skip
            yield stack.enter_context(Client(cluster))
            return
        try:
            client = Client(scheduler, timeout=CONNECT_S)
        except (OSError, ValueError):
            raise InputError(
                f"clean.scheduler: no Dask scheduler answers at {scheduler}; start one, or leave it null "
                "for local processes"
            ) from None
        yield stack.enter_context(client)


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """Keep worker processes from running the user's script again, as `spawn` does with a script without a guard."""
    main = sys.modules["__main__"]
    saved: dict[str, Any] = {
        name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(saved)


def wait_for(client: Any, future: Any, what: str) -> Any:
    """The result of `future`, which works on `what`. Raises Unfinished when there is nobody left to give it."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    local = client.cluster is not None
    more = "raise clean.worker_memory or lower clean.workers" if local else "start them with a larger --memory-limit"
    advice = (
        f"out of memory? {more} and run again, which goes on from here; "
        "or lower clean.max_note_mb, which begins anew with --force"
    )
    seen, told = time.monotonic(), False
    try:
        while True:
            try:
                return future.result(timeout=CHECK_S)
            except TimeoutError:
                if future.status == "error":  # the task's own
                    raise
            if client.nthreads():
                seen, told = time.monotonic(), False
            elif time.monotonic() - seen > LONELY_S:
                start = "" if local else "start `dask worker`s; "
                raise Unfinished(
                    f"clean: no Dask worker for {LONELY_S:.0f} s, while waiting for {what}; {start}{advice}"
                )
            elif not (local or told):
                runs.say(f"clean: the scheduler has no worker; waiting {LONELY_S:.0f} s for one")
                told = True
    except KilledWorker:
        if local:  # ended while it starts again, a worker's nanny may raise an AssertionError (dask/distributed#6973)
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(len(client.cluster.worker_spec), timeout=RESTART_S)
        raise Unfinished(f"clean: the workers that took {what} died; {advice}") from None
    except (CancelledError, OSError) as error:
        if future.status == "error":
            raise
        raise Unfinished(
            f"clean: the Dask scheduler went away ({type(error).__name__}); start it and run again"
        ) from None
