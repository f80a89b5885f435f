"""Sinks: what is configured is told, what fails or hangs stops nothing, and no text gets out."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lang1.config import SinksConfig
from lang1.errors import InputError
from lang1.training import sinks
from lang1.training.sinks import Alert, Outlet, Rewind, Scalars, Sink, open_sinks, sinks_folder


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on this machine: its address as apprise writes it, and what it was sent."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"json://user:s3cret@127.0.0.1:{server.server_port}", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_is_opened_or_imported_unless_it_is_configured(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from lang1.config import SinksConfig
from lang1.training.sinks import open_sinks
assert open_sinks(SinksConfig(), Path({str(tmp_path)!r}), name="run") == []
print(sorted({{"tensorboard", "wandb", "apprise", "torch"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_an_alert_reaches_a_webhook(
    webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise")
    address, got = webhook
    monkeypatch.setenv("OUR_ALERTS", f"{address}/hook")
    (sink,) = open_sinks(SinksConfig(alerts_env="OUR_ALERTS"), tmp_path, name="lang1-1b")
    sink.put(Scalars(3, {"loss": 2.0}))
    sink.put(Alert(7, "spike", "spike at step 7: loss 9.5, rank 3"))
    sink.close()
    assert sink.faults() == []
    assert [(message["title"], message["message"]) for message in got] == [
        ("lang1 lang1-1b: spike", "spike at step 7: loss 9.5, rank 3")
    ]


def test_an_alert_that_is_not_delivered_is_a_fault_told_once_without_the_address(
    webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("apprise")
    address, got = webhook
    monkeypatch.setenv("OUR_ALERTS", f"{address}/broken")
    (sink,) = open_sinks(SinksConfig(alerts_env="OUR_ALERTS"), tmp_path, name="run")
    for step in (1, 2):
        sink.put(Alert(step, "spike", f"spike at step {step}"))
    sink.close()
    faults = sink.faults()
    assert [(fault.kind, fault.sink, fault.error) for fault in faults] == [("sink_failed", "alerts", "ConnectionError")]
    assert len(got) >= 2, "a later alert is tried again"
    out, err = capfd.readouterr()
    assert "s3cret" not in out + err + repr(faults)


@pytest.mark.parametrize(
    ("value", "told"), [(None, "OUR_ALERTS is not set"), ("nonsense://s3cret", "no URL that apprise")]
)
def test_an_alert_address_that_cannot_be_used_is_refused_before_training_and_not_shown(
    value: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise")
    monkeypatch.delenv("OUR_ALERTS", raising=False)
    if value is not None:
        monkeypatch.setenv("OUR_ALERTS", value)
    with pytest.raises(InputError, match=told) as caught:
        open_sinks(SinksConfig(alerts_env="OUR_ALERTS"), tmp_path, name="run")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "extra"),
    [
        (SinksConfig(tensorboard=True), "tensorboard"),
        (SinksConfig(wandb="offline"), "wandb"),
        (SinksConfig(alerts_env="A"), "alerts"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_line_to_type(
    config: SinksConfig, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"pip install 'lang1\[{extra}\]'"):
        open_sinks(config, tmp_path, name="run")


def test_tensorboard_reads_back_what_was_written_and_forgets_what_is_done_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "checkpoints"
    for start, losses in ((0, [5.0, 4.0, 3.5]), (2, [3.0, 2.5])):  # killed after step 3, resumed from step 2
        (sink,) = open_sinks(SinksConfig(tensorboard=True), run, name="run", step=start)
        for step, loss in enumerate(losses, start + 1):
            sink.put(Scalars(step, {"loss": loss, "val/clinical/loss": loss + 1}))
        if start == 2:  # rolled back from step 4 to step 3
            sink.put(Rewind(3))
            sink.put(Scalars(4, {"loss": 2.0}))
        sink.close()
        assert sink.faults() == []
    assert not run.exists(), "a run folder's files are hashed: what a sink writes lies beside it"
    reader = EventAccumulator(str(sinks_folder(run) / "tensorboard"))
    reader.Reload()
    assert [(event.step, event.value) for event in reader.Scalars("loss")] == [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0)]
    assert "val/clinical/loss" in reader.Tags()["scalars"]


WANDB = """
import os, socket, sys, time
from pathlib import Path
asked = []
def look_up(*arguments, **_): asked.append(arguments[0]); raise OSError("no network")
socket.getaddrinfo = look_up
connect = socket.socket.connect
def connected(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"): asked.append(address)
    return connect(self, address)
socket.socket.connect = connected
from lang1.config import SinksConfig
from lang1.training.sinks import Scalars, open_sinks
run = Path(sys.argv[1])
(sink,) = open_sinks(SinksConfig(wandb="offline"), run, name="lang1-1b")
sink.put(Scalars(0, {"loss": 6.0}))
while not list(run.parent.glob("*-sinks/wandb/offline-run-*/*.wandb")):
    time.sleep(0.05)
time.sleep(0.5)
print("canary-of-a-note", flush=True)
for step in (1, 2, 3):
    sink.put(Scalars(step, {"loss": 5.0 / step}))
sink.put(Scalars(2, {"loss": 1.0}))
sink.close(60)
print("asked", asked, "faults", sink.faults())
"""


def test_wandb_offline_writes_a_run_without_network_console_or_home(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run, home = tmp_path / "checkpoints", tmp_path / "home"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # W&B's own process would call here, or go through it
        listener.setblocking(False)
        here = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        environment |= {"HOME": str(home), "WANDB_BASE_URL": here, "HTTPS_PROXY": here, "HTTP_PROXY": here}
        done = subprocess.run(
            [sys.executable, "-c", WANDB, str(run)], capture_output=True, text=True, timeout=120, env=environment
        )
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "asked [] faults []" in done.stdout, done.stdout + done.stderr
    folder = sinks_folder(run) / "wandb"
    (kept,) = folder.glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 100
    assert all(b"canary-of-a-note" not in p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert not [p for p in home.rglob("*") if p.is_file()]
    assert json.loads((run / "wandb-run.json").read_text())["id"] in kept.name


# --- faults of sinks


def test_a_sink_that_cannot_be_made_or_fails_is_told_once_and_tried_again() -> None:
    sent: list[int] = []

    def send(message: sinks.Message) -> None:
        if message.step < 3:
            raise TimeoutError("https://user:s3cret@host")
        sent.append(message.step)

    sink = Sink("flaky", lambda: Outlet(send, lambda: None))
    for step in (1, 2, 3, 4):
        sink.put(Scalars(step, {}))
    sink.close(5)
    assert [(f.kind, f.error) for f in sink.faults()] == [("sink_failed", "TimeoutError")]
    assert sent == [3, 4]
    assert sink.faults() == []


def test_a_sink_that_hangs_stalls_nothing_loses_messages_and_is_left_behind() -> None:
    release = threading.Event()
    sink = Sink("hung", lambda: Outlet(lambda _: release.wait(30) and None, lambda: None), room=5)
    began = time.monotonic()
    for step in range(1000):
        sink.put(Scalars(step, {"loss": 1.0}))
    assert time.monotonic() - began < 0.5
    assert [f.kind for f in sink.faults()] == ["sink_slow"]
    sink.close(0.2)
    assert time.monotonic() - began < 2
    release.set()
