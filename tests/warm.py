"""Python processes for the tests that start at once, with the interface of `subprocess`.

Each is forked from a server that has imported what all of them need (torch, transformers, lang1), which takes a cold
one several seconds. Signals, exit codes, pipes and environment are those of any process; imports and the memory at
the start are not, so a test of those starts its own Python.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("lang1.cli", "lang1.training.pretraining", "lang1.training.finetuning", "lang1.training.masked"),
        *("lang1.training.searching", "lang1.remede", "torch.distributed.checkpoint", "torch.distributed.fsdp"),
        *("transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama"),
        *("pyarrow.parquet", "sklearn.metrics", "peft", "optuna"),
    ]
)


@atexit.register
def _end_all() -> None:
    """A test that failed may have left processes; multiprocessing would wait for them."""
    if multiprocessing.parent_process() is None:
        for process in multiprocessing.active_children():
            process.kill()


class Process:
    """`python -c CODE ARGUMENTS` or `python -m MODULE ARGUMENTS`; text in and out."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        out, out_end = CONTEXT.Pipe(duplex=False)
        err, err_end = CONTEXT.Pipe(duplex=False)
        self.args = list(map(str, arguments))
        given = (self.args, dict(os.environ if env is None else env), str(Path.cwd()), out_end, err_end)
        self._process = CONTEXT.Process(target=_become, args=given)
        self._process.start()
        out_end.close()
        err_end.close()
        self.stdout, self.stderr = _text(out), _text(err)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; of a process that a signal ended its number, negative; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it says on stdout and stderr until it ends; one that takes longer is killed, and an error."""
        late = threading.Event()
        clock = threading.Timer(timeout, lambda: (late.set(), self.kill()))
        clock.start()
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(io.TextIOWrapper.read, (self.stdout, self.stderr))
        self.wait()
        clock.cancel()
        if late.is_set():
            raise subprocess.TimeoutExpired(self.args, timeout, out, err)
        return out, err


def run(
    *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """The same to its end."""
    process = Process(*arguments, env=env)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def _text(end: Connection) -> io.TextIOWrapper:
    with end:
        return io.TextIOWrapper(os.fdopen(os.dup(end.fileno()), "rb"), encoding="utf-8")


def _become(arguments: Sequence[str], env: dict[str, str], folder: str, out: Connection, err: Connection) -> None:
    """What a fresh interpreter would do, in a process that the server has forked."""
    for number, end in ((1, out), (2, err)):
        os.dup2(end.fileno(), number)
        end.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    way, what, *rest = arguments
    sys.argv = [way, *rest]
    try:
        if way == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            assert way == "-c", way
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves without them
