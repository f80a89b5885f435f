"""A headless Chromium for tests, spoken to over a pipe in its DevTools protocol: no driver, no port, no network.

`visit` opens a file, and returns what a reader of the report must be spared: console messages, exceptions, requests to
anywhere but the file itself, and a page wider than its window.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


@dataclass
class Visit:
    """What happened while a page was open at one width."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


class Browser:
    """One browser process and one page in it."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = os.fdopen(reader, "rb", buffering=0), os.fdopen(writer, "wb", buffering=0)
        self.buffer, self.number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    session: str | None = None

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = self.reader.read(65536)
            if not part:
                raise RuntimeError("the browser ended")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, answered; events that come meanwhile are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        while True:
            received = self._receive()
            if received.get("id") == self.number:
                if "error" in received:
                    raise RuntimeError(f"{method}: {received['error']['message']}")
                result: dict[str, Any] = received["result"]
                return result
            self.events.append(received)

    def visit(self, page: Path, width: int, expressions: dict[str, str], screenshot: Path | None = None) -> Visit:
        """Open `page` in a window of `width` pixels and evaluate JavaScript expressions in it."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())
        found = Visit()
        for name, expression in expressions.items():
            answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
            found.values[name] = answer["result"].get("value")
        if screenshot is not None:
            shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
            screenshot.write_bytes(base64.b64decode(shot["data"]))
        for event in self.events:
            parameters = event.get("params", {})
            if event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.messages.append(json.dumps(parameters))
            if event["method"] == "Network.requestWillBeSent":
                found.requests.append(parameters["request"]["url"])
        return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium with a fresh profile; end that process, and only that one, when the block ends."""
    assert PROGRAM is not None
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    profile = tempfile.mkdtemp(prefix="lang1-chromium-")

    def wire() -> None:
        # the protocol's fixed numbers: the browser reads 3 and writes 4
        os.dup2(to_browser, 103)
        os.dup2(from_browser, 104)
        os.dup2(103, 3)
        os.dup2(104, 4)

    process = subprocess.Popen(
        [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=wire,
        pass_fds=(3, 4),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        os.close(ours_out)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(profile, ignore_errors=True)
