"""Real servers on loopback for the tests: ours in a thread, and the same one twisted so that it misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

Body = dict[str, Any]
Answer = Callable[[Body], Body | Response]


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application on a free port of this machine; yields `http://127.0.0.1:PORT/v1`."""
    bound = socket.socket(proto=socket.IPPROTO_TCP)  # as lang1 serve does
    bound.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    finally:  # a test that fails leaves no server behind
        server.should_exit = True
        thread.join(10)


def real_app(folder: Path, name: str = "model", **changed: Any) -> FastAPI:
    """What `lang1 serve` serves."""
    import torch

    from lang1.serving.app import make_app
    from lang1.serving.engine import load_engine

    torch.set_num_threads(1)
    return make_app(load_engine(folder, batch_tokens=4000, dtype=torch.float32), name, **changed)


@dataclass
class Twisted:
    """The real server behind a bad one: `ask` changes what it hears, `tell` what it says; both see every request."""

    app: FastAPI
    ask: Callable[[Body], Body] = lambda body: body
    tell: Callable[[Body, Body], Body | Response] = lambda asked, answer: answer
    models: Callable[[], Response] = lambda: Response(status_code=404)
    """what GET /v1/models answers"""
    delay_s: float = 0.0
    asked: list[Body] = field(default_factory=list)
    """every POST, as it came"""
    waiting: int = 0
    most_at_once: int = 0

    def make(self) -> FastAPI:
        """The bad server."""
        twisted = FastAPI()

        @twisted.get("/v1/models")
        async def models() -> Response:
            return self.models()

        @twisted.post("/v1/{path:path}")
        async def post(path: str, request: Request) -> Response:
            body = await request.json()
            self.asked.append(body)
            self.waiting += 1
            self.most_at_once = max(self.most_at_once, self.waiting)
            await asyncio.sleep(self.delay_s)
            self.waiting -= 1
            status, answer = await self._real(f"/v1/{path}", self.ask(dict(body)))
            if status != 200:
                return JSONResponse(answer, status_code=status)
            told = self.tell(body, answer)
            return told if isinstance(told, Response) else JSONResponse(told)

        return twisted

    async def _real(self, path: str, body: Body) -> tuple[int, Body]:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://real", timeout=60) as client:
            answer = await client.post(path, json=body)
            return answer.status_code, answer.json()

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        with serving(self.make()) as url:
            yield url


def without(*fields: str) -> Callable[[Body], Body]:
    """A server that does not know these fields and passes over them in silence."""
    return lambda body: {key: value for key, value in body.items() if key not in fields}
