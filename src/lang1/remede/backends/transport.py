"""Requests to a server: many at once, tried again with growing waits where that can help, one line where it cannot.

Own transport under lm-eval's classes, whose own (0.4.13) logs a server's whole reply when a request fails, tries a
refused key three times, and follows a redirect with the notes in its hands. Nothing of a request or an answer is ever
logged or put into an error.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import aiohttp

from lang1 import runs
from lang1.config import ApiConfig
from lang1.config.keys import NO_KEY, is_key
from lang1.errors import ConfigError, Unfinished
from lang1.remede.backends.servers import Server

LONGEST_WAIT_S = 60.0
"""between two tries, unless the server asks for more"""
LONGEST_ASKED_WAIT_S = 600.0
MOST_ANSWER_BYTES = 32 * 2**20
"""of one answer; an echoed prompt of 8,192 tokens with five options takes about four"""
SAID_WAIT_S, SAID_EVERY_S = 4.0, 10.0
"""a wait this long is told, and so often at most"""
KEPT = "finished rows are kept, the same command goes on from there"


class Malformed(Exception):
    """An answer that is not what was asked for; the words name what is missing and hold nothing of the answer."""


class Absent(Unfinished):
    """HTTP 404: there is nothing at this path."""


class Refusal(Exception):
    """HTTP 400, 413, 422 and others: the server does not take such a request. `field` is the one that it names."""

    def __init__(self, status: int, field: str | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.field = field


@dataclass(frozen=True)
class Line:
    """The way to a server."""

    server: Server
    api: ApiConfig

    def headers(self) -> dict[str, str]:
        """With the key, when one is named. Raises ConfigError when its variable is not set or holds no key."""
        name = self.api.api_key_env
        if name is None:
            return {}
        key = os.environ.get(name)
        if not key:
            raise ConfigError(f"evaluate.api.api_key_env: the environment variable {name} is not set")
        if not is_key(key):
            raise ConfigError(
                f"evaluate.api.api_key_env: the environment variable {name} holds {NO_KEY}; set it to the key alone"
            )
        return {"Authorization": f"Bearer {key}"}


Read = Callable[[dict[str, Any]], Any]


def ask(line: Line, payload: dict[str, Any], read: Read) -> Any:
    """One request; `read` turns the answer into what is wanted, or raises Malformed. Raises Refusal and Unfinished."""
    found: list[Any] = []
    ask_all(line, [(payload, read, found.append)])
    return found[0]


def ask_all(line: Line, asked: Iterable[tuple[dict[str, Any], Read, Callable[[Any], None]]]) -> None:
    """Requests (payload, read, keep), `api.concurrency` at once; `keep` gets what was read as soon as it is there.

    Raises Unfinished when a server cannot be reached, or does not answer well, after the last try; Refusal when it
    refuses a request. What was kept until then stays kept.
    """
    asyncio.run(_ask_all(line, iter(asked), line.headers()))


def look_up(line: Line, path: str) -> dict[str, Any] | None:
    """What the server says at `path`; None where it has nothing there. Raises Unfinished, as `ask` does."""
    return asyncio.run(_look_up(line, path, line.headers()))


async def _look_up(line: Line, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
    async with _session(line, headers) as session:
        try:
            found: dict[str, Any] = await _persist(line, session, _Waits(), "GET", path, None, lambda answer: answer)
        except (Absent, Refusal):
            return None
    return found


def _session(line: Line, headers: dict[str, str]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=line.api.timeout_s),
        connector=aiohttp.TCPConnector(limit=line.api.concurrency),
        headers={**headers, "Accept-Encoding": "identity"},
        auto_decompress=False,  # a small answer must not unpack to more than a machine holds
        trust_env=False,  # a proxy of the environment would see the notes
    )


async def _ask_all(line: Line, asked: Iterator[Any], headers: dict[str, str]) -> None:
    waits = _Waits()
    async with _session(line, headers) as session:

        async def work() -> None:
            for payload, read, keep in asked:
                keep(await _persist(line, session, waits, "POST", line.server.endpoint, payload, read))

        workers = [asyncio.create_task(work()) for _ in range(line.api.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


class _Waits:
    """Tells that a server is waited for: once for all the requests that wait."""

    def __init__(self) -> None:
        self.said_s = -math.inf

    def tell(self, line: Line, why: str, wait_s: float) -> None:
        if wait_s >= SAID_WAIT_S and time.monotonic() - self.said_s >= SAID_EVERY_S:
            self.said_s = time.monotonic()
            runs.say(f"{line.server}: {why}; asked again in {wait_s:.0f} s")


async def _persist(
    line: Line,
    session: aiohttp.ClientSession,
    waits: _Waits,
    method: Literal["GET", "POST"],
    path: str,
    payload: dict[str, Any] | None,
    read: Read,
) -> Any:
    """Ask until there is an answer, or until trying again cannot help."""
    for attempt in range(line.api.retries + 1):
        wait_s = 0.0
        try:
            async with session.request(method, line.server.url + path, json=payload, allow_redirects=False) as response:
                why = _problem(line, response.status, await _field(response))
                if why is None:
                    return read(_whole(await _body(response)))
                wait_s = _asked_wait(response.headers.get("Retry-After"))
        except Malformed as error:
            why = f"answers {error}"
        except TimeoutError:
            why = f"gives no answer within {line.api.timeout_s:g} s"
        except aiohttp.ClientPayloadError:
            why = "breaks off in the middle of an answer"
        except (aiohttp.ClientError, OSError) as error:
            why = f"cannot be reached ({type(error).__name__})"
        if attempt < line.api.retries:
            own_s = min(line.api.backoff_s * 2**attempt, LONGEST_WAIT_S)
            wait_s = max(own_s, min(wait_s, LONGEST_ASKED_WAIT_S))
            waits.tell(line, why, wait_s)
            await asyncio.sleep(wait_s)
    tries = line.api.retries + 1
    raise Unfinished(f"{line.server}: {why} ({tries} {'try' if tries == 1 else 'tries'}); {KEPT}")


def _problem(line: Line, status: int, field: str | None) -> str | None:
    """What is wrong with a status that may pass by, None for an answer. Raises what trying again does not mend."""
    if status == 200:
        return None
    if status in {401, 403}:
        named = line.api.api_key_env
        key = f"the key in {named}" if named else "a request without a key (evaluate.api.api_key_env names one)"
        raise Unfinished(f"{line.server}: refuses {key} (HTTP {status}); {KEPT}")
    if status == 404:
        raise Absent(
            f"{line.server}: knows no {line.server.endpoint} or no model of this name (HTTP 404); "
            "check the address and what stands behind #"
        )
    if 300 <= status < 400:
        raise Unfinished(f"{line.server}: sends notes on to another address (HTTP {status}); give that one yourself")
    if status in {408, 425, 429} or (status >= 500 and status != 501):
        return "asks to wait (HTTP 429); lower evaluate.api.concurrency" if status == 429 else f"fails (HTTP {status})"
    raise Refusal(status, field)


async def _field(response: aiohttp.ClientResponse) -> str | None:
    """The field that a refusal names, when it is one word: nothing else of an error is looked at."""
    if response.status not in {400, 413, 422}:
        return None
    try:
        named = _whole(await _body(response))["error"]["param"]
    except (Malformed, KeyError, TypeError):
        return None
    return named if isinstance(named, str) and re.fullmatch(r"[a-z_]{1,40}", named) else None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The bytes of an answer, as many as may be."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Malformed("in compressed form, which was not asked for")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MOST_ANSWER_BYTES:
            raise Malformed(f"with more than {MOST_ANSWER_BYTES // 2**20} MiB")
    return bytes(body)


def _whole(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise Malformed("with nothing at all")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("with half a JSON, or none") from None
    if not isinstance(found, dict):
        raise Malformed(f"with a JSON {type(found).__name__}, not an object")
    return found


def _asked_wait(header: str | None) -> float:
    """Seconds that a Retry-After asks to wait: a number, or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if not header:
        return 0.0
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header):
        return float(header)
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
