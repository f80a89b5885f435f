"""Sinks: TensorBoard, Weights & Biases and alerts, each in a thread of its own behind a bounded queue.

Training puts a message into the queue and goes on; it never waits for a sink. A sink that is slow loses messages
(its queue is full), one that fails is told so once in events.jsonl and tried again with the next message, one that
hangs is left behind when the run ends. What is sent: numbers by name, and alerts of one line made from an event's
numbers and short names. Texts, notes, prompts and generations have no way in.

None is made, imported or contacted unless it is configured. What TensorBoard and W&B write lies beside the run folder,
in `<RUN>-sinks/`: a run folder's files are hashed when it is complete, and a sink that was left behind may still write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.config.monitoring import SinksConfig
from lang1.errors import InputError, require_package

QUEUE = 1000
"""messages that wait for a sink; more are lost"""
CLOSE_S = 20.0
"""seconds that the end of a run waits for a sink to finish, each"""


@dataclass(frozen=True)
class Scalars:
    """Numbers of a step by name, such as loss or val/clinical/loss."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Alert:
    """One line for a person."""

    step: int
    kind: str
    line: str


@dataclass(frozen=True)
class Rewind:
    """The run went back: what was sent for later steps does not count, and they come again."""

    step: int


Message = Scalars | Alert | Rewind


@dataclass(frozen=True)
class Fault:
    """What went wrong with a sink: facts for an event, without the message or an address in it."""

    kind: str
    """sink_failed or sink_slow"""
    sink: str
    error: str
    """the name of the exception's class"""


@dataclass(frozen=True)
class Outlet:
    """Where a sink's thread sends messages to; made in that thread, at its first message."""

    send: Callable[[Message], None]
    close: Callable[[], None]


class Sink:
    """A thread that hands messages to an outlet."""

    def __init__(self, name: str, make: Callable[[], Outlet], room: int = QUEUE) -> None:
        self.name = name
        self._make = make
        self._waiting: queue.Queue[Message | None] = queue.Queue(room)
        self._faults: queue.SimpleQueue[Fault] = queue.SimpleQueue()
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._work, name=f"lang1 sink {name}", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Hand over a message; at once, whatever the sink does."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._tell("sink_slow", "Full")

    def faults(self) -> list[Fault]:
        """The faults since the last call; each kind once in a run."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._faults.get_nowait())
        return found

    def close(self, seconds: float = CLOSE_S) -> None:
        """Let the sink send what waits, for so long; then leave it behind."""
        end = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._tell("sink_slow", "Timeout")

    def _work(self) -> None:
        outlet: Outlet | None = None
        while (message := self._waiting.get()) is not None:
            try:
                outlet = outlet or self._make()
                outlet.send(message)
            except Exception as error:  # whatever a foreign library raises: a fault of the sink, never of training
                self._tell("sink_failed", type(error).__name__)
        if outlet is not None:
            try:
                outlet.close()
            except Exception as error:
                self._tell("sink_failed", type(error).__name__)

    def _tell(self, kind: str, error: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._faults.put(Fault(kind, self.name, error))


def open_sinks(config: SinksConfig, out: Path, *, name: str, step: int = 0) -> list[Sink]:
    """The sinks that are configured; `step` is the one that the run resumes from, 0 at its start.

    Raises InputError for one whose package is missing, an environment variable that is not set, or an alert address
    that cannot be read: before training, in one line, without the address.
    """
    sinks: list[Sink] = []
    beside = sinks_folder(out)
    if config.tensorboard:
        require_package("tensorboard", "monitor.sinks.tensorboard", "tensorboard")
        sinks.append(Sink("tensorboard", lambda: tensorboard(beside / "tensorboard", step)))
    if config.wandb is not None:
        require_package("wandb", "monitor.sinks.wandb", "wandb")
        mode, project, run_id = config.wandb, config.wandb_project, _wandb_id(out)
        sinks.append(Sink("wandb", lambda: wandb(beside, mode, project, name, run_id)))
    if config.alerts_env is not None:
        require_package("apprise", "monitor.sinks.alerts_env", "alerts")
        addresses = _addresses(config.alerts_env)
        sinks.append(Sink("alerts", lambda: alerts(addresses, name)))
    return sinks


def sinks_folder(out: Path) -> Path:
    """Where the sinks of the run folder `out` write."""
    return out.with_name(f"{out.name}-sinks")


def tensorboard(folder: Path, step: int) -> Outlet:
    """TensorBoard event files in `folder`; its reader drops points after `step` that an earlier try left there."""
    from torch.utils.tensorboard import SummaryWriter

    def start(step: int) -> Any:
        # a file is named by its second, and a reader takes files in the order of their names: tell two of one apart
        suffix = f".{time.time_ns()}"
        return SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30, filename_suffix=suffix)

    writers = [start(step)]

    def send(message: Message) -> None:
        if isinstance(message, Scalars):
            for key, value in message.values.items():
                writers[-1].add_scalar(key, value, message.step)
        elif isinstance(message, Rewind):
            writers[-1].close()
            writers.append(start(message.step))

    return Outlet(send, lambda: writers[-1].close())


def wandb(folder: Path, mode: str, project: str, name: str, run_id: str) -> Outlet:
    """A Weights & Biases run: no console, no git, no code, no machine statistics, no error reports.

    Its own alerts are not used: offline they send nothing.
    """
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str(folder / "wandb"))  # not in the user's home
    import wandb as client

    folder.mkdir(parents=True, exist_ok=True)

    settings = client.Settings(
        mode=mode,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
    )
    resume = "allow" if mode == "online" else None
    run: Any = client.init(project=project, name=name, id=run_id, dir=str(folder), settings=settings, resume=resume)

    # W&B's own step may not fall, a run that goes back does: the step is a value, and the axis of the others
    run.define_metric("step")
    run.define_metric("*", step_metric="step")

    def send(message: Message) -> None:
        if isinstance(message, Scalars):
            run.log({**message.values, "step": message.step})

    return Outlet(send, run.finish)


def alerts(addresses: str, name: str) -> Outlet:
    """Alerts through apprise to every address of `addresses`: Slack, Teams, mail, json:// to a host of one's own."""
    import apprise

    notifier = _notifier(apprise, addresses)

    def send(message: Message) -> None:
        if isinstance(message, Alert) and not notifier.notify(
            title=f"lang1 {name}: {message.kind}", body=message.line, body_format=apprise.NotifyFormat.TEXT
        ):
            raise ConnectionError("not delivered")

    return Outlet(send, lambda: None)


def _notifier(apprise: Any, addresses: str) -> Any:
    log = logging.getLogger("apprise")  # it would print addresses, and so secrets, on stderr
    log.addHandler(logging.NullHandler())
    log.propagate = False
    asset = apprise.AppriseAsset(app_id="lang1", async_mode=False, storage_mode=apprise.PersistentStoreMode.MEMORY)
    notifier = apprise.Apprise(asset=asset)
    return notifier if notifier.add(addresses) else None


def _addresses(variable: str) -> str:
    import apprise

    addresses = os.environ.get(variable, "").strip()
    if not addresses:
        raise InputError(
            f"monitor.sinks.alerts_env: the environment variable {variable} is not set; "
            "put apprise URLs into it, such as json://host/path or mailto://..."
        )
    if _notifier(apprise, addresses) is None:
        raise InputError(
            f"monitor.sinks.alerts_env: an address in {variable} is no URL that apprise knows; see its list"
        )
    return addresses


def _wandb_id(out: Path) -> str:
    """The run's id, kept in the run folder so that a resumed run goes on under it."""
    path = out / "wandb-run.json"
    if not path.exists():
        runs.write_json(path, {"id": secrets.token_hex(4)})
    return str(runs.read_json(path)["id"])
