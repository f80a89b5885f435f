"""What a client may ask for at once, and what becomes of a request that asks for more, is slow, or is given up."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from lang1.errors import ConfigError
from lang1.serving import ServeSettings, app, serve
from lang1.serving import engine as engines
from lang1.serving.engine import Wish, complete, load_engine
from live import real_app, serving

LONG = {"model": "model", "prompt": [[5, 6]] * 1000, "max_tokens": 100, "temperature": 1.0}
"""minutes of work for the small model"""


def post(url: str, path: str = "completions", **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/{path}", json={"model": "model", **body}, timeout=60)


@pytest.fixture(scope="module")
def command(folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process of `lang1 serve`."""
    asked = [sys.executable, "-m", "lang1.cli", "serve", str(folder), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process.stderr.readline().rsplit(" ", 1)[1].partition("#")[0], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def most_memory_mib(process: int) -> float:
    """Largest resident size so far."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# --- memory

SIZE = 4 * 2**20 - 100
GREEDY = {
    "a list of nothing": ('{"model":"model","prompt":[', "null,", "null]}"),
    "a list of lists": ('{"model":"model","prompt":[', "[],", "[]]}"),
    "ids that are texts": ('{"model":"model","prompt":[1,', '"",', '""]}'),
    "lists of wrong ids": ('{"model":"model","prompt":[[1],', "[-1],", "[-1]]}"),
    "unknown fields": ("{", '"a":0,', '"a":0}'),
    "tokens that are biased": ('{"model":"model","prompt":"x","logit_bias":{', '"a":0,', '"a":0}}'),
    "stops": ('{"model":"model","prompt":"x","stop":[', "0,", "0]}"),
    "messages of nothing": ('{"model":"model","messages":[', "{},", "{}]}"),
    "a message of unknown fields": ('{"model":"model","messages":[{', '"a":0,', '"a":0}]}'),
    "a deep nest": ("", "[", ""),
}


@pytest.mark.parametrize("kind", GREEDY)
def test_a_small_body_never_takes_much_memory(kind: str, command: tuple[str, int]) -> None:
    url, process = command
    assert post(url, prompt="x", max_tokens=1).status_code == 200
    head, part, tail = GREEDY[kind]
    parts = (SIZE - len(head) - len(tail)) // max(len(part), 12 if '"a"' in part else 1)
    body = head + "".join(part.replace('"a"', f'"a{n}"') for n in range(parts)) + tail
    path = "chat/completions" if "messages" in head else "completions"
    before = most_memory_mib(process)
    answer = httpx.post(f"{url}/{path}", content=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert len(answer.text) < 300
    assert most_memory_mib(process) - before < 200


def test_a_body_that_is_too_large_is_not_read_on(url: str) -> None:
    sent = []

    def parts() -> Iterator[bytes]:
        for _ in range(200):
            sent.append(2**20)
            yield b" " * 2**20

    with contextlib.suppress(httpx.TransportError):  # the server hangs up while we write
        assert httpx.post(f"{url}/completions", content=parts(), timeout=60).status_code == 413
    assert sum(sent) < 100 * 2**20
    assert post(url, prompt="x").status_code == 200


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("completions", {"prompt": [[5]] * 100, "n": 128, "max_tokens": 1, "logprobs": 1000}),
        ("completions", {"prompt": [[5] * 200] * 500, "n": 10, "max_tokens": 1, "echo": True, "logprobs": 1}),
        ("completions", {"prompt": [[5]] * 1000, "n": 128, "max_tokens": 200}),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 128, "logprobs": True}),
    ],
)
def test_an_answer_beyond_memory_is_refused_before_it_is_begun(url: str, path: str, asked: Any) -> None:
    if "messages" in asked:
        asked = asked | {"top_logprobs": 100}
    answer = post(url, path, **asked)
    assert answer.status_code == 400
    assert "at most 1048576: ask for fewer" in answer.json()["error"]["message"]


def test_too_many_prompts_are_counted_before_they_are_read(url: str) -> None:
    answer = post(url, prompt=["word " * 700] * 1025)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"
    assert "at most 1024" in answer.json()["error"]["message"]


# --- time and turns


def test_more_requests_than_places_are_told_to_come_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_AT_ONCE", 2)
    asked = {"prompt": [[5, 6]] * 20, "max_tokens": 20}
    with serving(real_app(folder)) as url, ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: post(url, **asked), range(8)))
        assert post(url, prompt="x").status_code == 200  # places are given back
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 503, 503, 503, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["type"] == "server_error"


def test_a_request_that_does_not_arrive_gives_its_place_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(app, "BODY_S", 0.3)
    with serving(real_app(folder)) as url, opened(url, b'{"model": "mod', length=1000) as slow:
        time.sleep(0.1)
        assert post(url, prompt="x").status_code == 503
        assert b" 408 " in slow.recv(4096).partition(b"\r\n")[0]
        assert post(url, prompt="x").status_code == 200


def opened(url: str, body: bytes, length: int | None = None) -> socket.socket:
    """A connection on which a request was sent, or a part of it."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    found = socket.create_connection((host, int(port)), timeout=30)
    length = len(body) if length is None else length
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
    found.sendall(head.encode() + body)
    return found


def test_work_for_clients_that_are_gone_is_dropped(folder: Path) -> None:
    with serving(real_app(folder)) as url:
        for _ in range(3):  # one is worked on, two wait
            with opened(url, json.dumps(LONG).encode()):
                time.sleep(0.3)
        began = time.monotonic()
        assert post(url, prompt="x", max_tokens=1).status_code == 200
        assert time.monotonic() - began < 30


# --- names


def test_without_a_key_only_this_machines_own_names_are_answered(folder: Path) -> None:
    hosts = ServeSettings(folder).hosts()
    with serving(real_app(folder, hosts=hosts)) as url:
        port = url.removesuffix("/v1").rpartition(":")[2]

        def status(host: str) -> int:
            return httpx.get(f"{url}/models", headers={"Host": host}).status_code

        assert {status(f"{host}:{port}") for host in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST")} == {200}
        assert {status(host) for host in ("rebound.example", f"rebound.example:{port}", "127.0.0.1.example")} == {400}
    assert ServeSettings(folder, host="0.0.0.0", api_key_env="KEY").hosts() == ("*",)
    assert "[::1]" in ServeSettings(folder, host="::1").hosts()


def test_the_command_answers_no_other_name(command: tuple[str, int]) -> None:
    url, _ = command
    assert httpx.get(f"{url}/models").status_code == 200
    assert httpx.get(f"{url}/models", headers={"Host": "rebound.example"}).status_code == 400


def test_a_port_that_another_takes_while_the_model_is_read_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = engines.load_engine
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        def read_slowly(*given: Any, **named: Any) -> Any:
            other.listen()
            return read(*given, **named)

        monkeypatch.setattr(engines, "load_engine", read_slowly)
        with pytest.raises(ConfigError, match=rf"--port {port}: cannot be served on \(Address already in use\)"):
            serve(ServeSettings(folder, port=port, threads=1))


def test_an_address_that_is_none_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG1_TEST_KEY", "k")
    with pytest.raises(ConfigError, match=r"--host nowhere\.invalid --port 0: cannot be served on \((?!Unknown)"):
        serve(ServeSettings(folder, host="nowhere.invalid", port=0, api_key_env="LANG1_TEST_KEY"))


@pytest.mark.parametrize("key", ["s3cret\n", "a b", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused(key: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG1_TEST_KEY", key)
    with pytest.raises(ConfigError, match="LANG1_TEST_KEY: it holds a space, a line break or") as raised:
        ServeSettings(folder, api_key_env="LANG1_TEST_KEY").api_key()
    assert key not in str(raised.value)


# --- words


def test_a_field_that_nobody_knows_is_refused_without_its_name(url: str) -> None:
    answer = post(url, prompt="x", **{"Brzeczyszczykiewicz, 1954": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
    assert "Brzecz" not in answer.text
    answer = post(url, "chat/completions", messages=[{"role": "user", "content": "x", "Brzecz": 1}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
    assert "Brzecz" not in answer.text
    assert post(url, prompt="x", top_k=3).json()["error"]["param"] == "top_k"


def test_half_a_character_and_an_empty_chat_are_refused(folder: Path, url: str) -> None:
    for path, body in (
        ("completions", r'{"model": "model", "prompt": "a \ud800"}'),
        ("completions", r'{"model": "model", "prompt": ["a", "\udc00"]}'),
        ("chat/completions", r'{"model": "model", "messages": [{"role": "user", "content": "\ud800"}]}'),
    ):
        answer = httpx.post(f"{url}/{path}", content=body, timeout=60)
        assert answer.status_code == 400, path
        assert "half of a surrogate pair" in answer.text


# --- the engine


def test_every_end_that_the_model_names_ends_an_answer(folder: Path, tmp_path: Path) -> None:
    first = complete(load_engine(folder, batch_tokens=500, dtype=torch.float32), [[5, 6, 7]], Wish(4, 0, 1, 0))
    named = shutil.copytree(folder, tmp_path / "named")
    ends = {"eos_token_id": [1, first[0][0].tokens[1]]}
    (named / "generation_config.json").write_text(json.dumps(ends))
    (written,) = complete(load_engine(named, batch_tokens=500, dtype=torch.float32), [[5, 6, 7]], Wish(4, 0, 1, 0))[0]
    assert first[0][0].finish == "length"
    assert (written.tokens, written.finish) == (first[0][0].tokens[:2], "stop")


def test_samples_and_prompts_are_the_same_however_many_fit_into_a_forward(folder: Path) -> None:
    draw = np.random.default_rng(3)
    prompts = [[int(token) for token in draw.integers(3, 200, length)] for length in (40, 3, 33, 32, 7)]
    for wish in (Wish(6, 1.0, 7, 11, top=2), Wish(1, 1.0, 3, 11, top=2, named=(33, 34))):
        large, small = (
            complete(load_engine(folder, batch_tokens=size, dtype=torch.float32), prompts, wish) for size in (9000, 90)
        )
        for one, other in zip(large, small, strict=True):
            assert [written.tokens for written in one] == [written.tokens for written in other]
            for left, right in zip(one, other, strict=True):
                values = [[read.logprob for read in side.reads] for side in (left, right)]
                assert np.allclose(values[0], values[1], atol=1e-5)
