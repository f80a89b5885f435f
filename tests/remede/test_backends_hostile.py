"""Servers whose answers are broken on purpose, or by a proxy: one clear line, no traceback, no wrong number."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_servers import CONFIG, chat, completions, probabilities, run
from fastapi.responses import JSONResponse, Response, StreamingResponse
from small_benchmark import write_tasks

from lang1.errors import InputError, Unfinished
from lang1.remede.backends import transport
from live import Body, Twisted, without

ONE = replace(CONFIG, tasks=("mortality",), max_rows=12)
ONCE = replace(ONE, api=replace(CONFIG.api, retries=0, max_answer_tokens=1))
CANARY_REQUESTS = 13
ECHO_ONLY = without("logprob_token_ids")
TOP_ONLY = without("logprob_token_ids", "echo", "return_tokens_as_token_ids")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("mortality",), {"test": 20})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield


def after_the_canary(answer: Any) -> Any:
    """A server that answers the canary well and every row with `answer` (of what was asked and the good answer)."""
    number = itertools.count()
    return lambda asked, good: good if next(number) < CANARY_REQUESTS else answer(asked, good)


def raw(text: str | bytes, **headers: str) -> Any:
    return lambda asked, good: Response(text, media_type="application/json", headers=headers)


def with_token_logprob(text: str) -> Any:
    """The good answer with another number for every token, written as JSON has it."""

    def tell(asked: Body, good: Body) -> Response:
        for choice in good["choices"]:
            top = choice["logprobs"]["top_logprobs"][-1]
            choice["logprobs"]["top_logprobs"][-1] = dict.fromkeys(top, "NUMBER")
        return Response(json.dumps(good).replace('"NUMBER"', text), media_type="application/json")

    return tell


def with_first_choice(**changes: Any) -> Any:
    def tell(asked: Body, good: Body) -> Body:
        good["choices"][0] |= changes
        return good

    return tell


def endless(asked: Body, good: Body) -> Response:
    parts = (b'{"choices": "' if not number else b"x" * 2**20 for number in itertools.count())
    return StreamingResponse(parts, media_type="application/json")


BOMB = gzip.compress(b'{"choices": "' + b" " * 2**27)
HOSTILE = {
    "a deep nest": (raw("[" * 200_000), "half a JSON, or none"),
    "an index that is infinite": (raw('{"choices": [{"index": 1e999}]}'), "indices are not 0 to 0"),
    "an index that is huge": (raw('{"choices": [{"index": %s}]}' % ("9" * 400)), "indices are not 0 to 0"),
    "a logprob that is huge": (with_token_logprob("-" + "9" * 400), "a log-probability that is no number"),
    "a logprob that is minus infinity": (with_token_logprob("-Infinity"), "a log-probability that is no number"),
    "a logprob that is a number of Python alone": (with_token_logprob("NaN"), "a log-probability that is no number"),
    "a logprob near the end of floats": (with_token_logprob("-1e308"), "a log-probability that is no number"),
    "top_logprobs that are a number": (
        with_first_choice(logprobs={"content": [{"token": "A", "top_logprobs": 5}]}),
        "a log-probability that is no number",
    ),
    "a count beyond all prompts": (
        lambda asked, good: good | {"usage": {"prompt_tokens": 10**30}},
        r"a prompt of None tokens where \d+ were sent",
    ),
    "an answer without end": (endless, "with more than 32 MiB"),
    "a small answer that unpacks to much": (
        raw(BOMB, **{"Content-Encoding": "gzip"}),
        "in compressed form, which was not asked for",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_is_one_line(kind: str, app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    answer, message = HOSTILE[kind]
    with (
        Twisted(app, tell=after_the_canary(answer)).serving() as url,
        pytest.raises(Unfinished, match=f"answers .*{message}") as raised,
    ):
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, ONCE)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_to_the_canary_is_one_line_or_does_no_harm(
    kind: str, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    answer, _ = HOSTILE[kind]
    for kind_of_server in (completions, chat):
        out = tmp_path / kind_of_server.__name__
        with Twisted(app, tell=answer).serving() as url:
            refused = refusal(out, tasks, kind_of_server(url, model))
        if refused is None:  # a count that is none is not used, log-probabilities that are none are not needed
            assert kind in {"a count beyond all prompts", "top_logprobs that are a number"}
            assert np.allclose(probabilities(out, "served", "mortality").sum(axis=1), 1)
        else:
            assert "\n" not in refused
            assert len(refused) < 400


def refusal(out: Path, tasks: Path, server: Any) -> str | None:
    """How an evaluation is refused; None where it is not."""
    try:
        run(out, tasks, {"served": server}, ONCE)
    except InputError as error:
        return str(error)
    return None


def test_a_count_of_a_chats_prompt_that_no_column_holds_is_no_count(
    app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    def tell(asked: Body, good: Body) -> Body:
        return good | {"usage": {"prompt_tokens": 2**40}}

    with Twisted(app, without("logprobs", "top_logprobs"), tell).serving() as url:
        run(tmp_path / "scores", tasks, {"served": chat(url, model)}, ONCE)
    table = pq.read_table(tmp_path / "scores" / "served" / "mortality" / "test.parquet")
    assert set(table["prompt_tokens"].to_pylist()) == {None}


@pytest.mark.parametrize("status", [400, 422])
def test_a_chat_that_refuses_temperature_0_is_refused_by_that_name(
    status: int, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    def tell(asked: Body, good: Body) -> Any:
        return good if asked["temperature"] == 1 else JSONResponse({}, status_code=status)

    with (
        Twisted(app, without("logprobs", "top_logprobs"), tell).serving() as url,
        pytest.raises(InputError, match=rf"canary: refuses temperature 0: .*\(HTTP {status}\); nothing was scored"),
    ):
        run(tmp_path / "scores", tasks, {"served": chat(url, model)}, ONCE)


@pytest.mark.parametrize("place", range(1, CANARY_REQUESTS))
def test_a_server_that_refuses_one_probe_is_one_line_or_is_read_otherwise(
    place: int, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    number = itertools.count()

    def tell(asked: Body, good: Body) -> Any:
        return JSONResponse({}, status_code=400) if next(number) == place else good

    with Twisted(app, TOP_ONLY, tell).serving() as url:
        refused = refusal(tmp_path / "scores", tasks, completions(url, model))
    assert refused is None or "canary: refuses" in refused or "canary: too many log-probabilities" in refused


# --- several prompts a request


def reversed_choices(asked: Body, answer: Body) -> Body:
    return answer | {"choices": answer["choices"][::-1]}


def without_indices(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        choice.pop("index")
    return answer


@pytest.mark.parametrize("tell", [reversed_choices, without_indices])
def test_echoes_of_several_prompts_are_told_apart_by_their_indices(
    tell: Any, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    server = Twisted(app, ECHO_ONLY, tell)
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"memory": model, "served": completions(url, model)}, ONE)
    canaries = 2 * CANARY_REQUESTS  # of two models, each is tried before the first is scored too
    assert {len(body["prompt"]) for body in server.asked[canaries:]} == {2}
    memory, served = (probabilities(tmp_path / "scores", name, "mortality") for name in ("memory", "served"))
    assert memory.std(axis=0).max() > 0.01
    assert np.abs(memory - served).max() < 1e-3


@pytest.mark.parametrize("indices", [(0, 0), (1, 2), (0, "1"), (True, 0), (0, None)])
def test_indices_that_tell_nothing_apart_are_refused(
    indices: tuple[Any, Any], app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    def tell(asked: Body, answer: Body) -> Body:
        if len(answer["choices"]) == 2:
            for choice, index in zip(answer["choices"], indices, strict=True):
                choice["index"] = index
        return answer

    with (
        Twisted(app, ECHO_ONLY, tell).serving() as url,
        pytest.raises(Unfinished, match="with choices whose indices are not 0 to 1"),
    ):
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, ONCE)


# --- waiting


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_is_given_the_time_that_it_asks_for(
    form: str, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    number = itertools.count()

    def tell(asked: Body, good: Body) -> Any:
        if next(number):
            return good
        asked_for = "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)  # a date has whole seconds
        return JSONResponse({}, status_code=429, headers={"Retry-After": asked_for})

    with Twisted(app, tell=tell).serving() as url:
        line = transport.Line(completions(url, model), replace(CONFIG.api, retries=1))
        payload = {"model": "model", "prompt": [[5]], "max_tokens": 1}
        began = time.monotonic()
        transport.ask(line, payload, lambda answer: answer)
    assert 1.8 < time.monotonic() - began < 8


@pytest.mark.parametrize("header", ["", "soon", "-5", "9" * 400, "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_a_wait_that_says_nothing_is_none(header: str) -> None:
    assert transport._asked_wait(header) == 0.0
