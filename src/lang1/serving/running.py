"""Bind the address, load the model, serve until a signal."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from lang1 import runs
from lang1.errors import ConfigError
from lang1.serving.settings import ServeSettings


def serve(settings: ServeSettings) -> None:
    """See lang1.serving.serve."""
    key = settings.api_key()
    bound = _bind(settings.host, settings.port)  # before the model is loaded: a taken port is told at once
    import uvicorn

    from lang1.serving.app import make_app
    from lang1.serving.engine import load_engine
    from lang1.training.numerics import prepare_torch

    dtype = prepare_torch(settings.threads, settings.precision)
    engine = load_engine(settings.model, batch_tokens=settings.batch_tokens, dtype=dtype)
    name = settings.name or settings.model.resolve().name
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    with _told(host, port):  # another server may have been quicker: until here neither of two has the port
        bound.listen(128)  # before it is said, so that who reads the line is let in
    runs.say(f"serve: {name}, context {engine.context_length} tokens: http://{shown}:{port}/v1#{name}")
    # No access log: what is asked, by whom and when is the business of whoever stands before this server.
    app = make_app(engine, name, key, settings.hosts())
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's algorithm on for what it accepts: a body waits for its head's ACK, 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with _told(host, port):
        bound.bind((host, port))
    return bound


@contextlib.contextmanager
def _told(host: str, port: int) -> Iterator[None]:
    """An address that cannot be had, as one line."""
    try:
        yield
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a port"
        raise ConfigError(f"--host {host} --port {port}: cannot be served on ({why}); choose another") from None
