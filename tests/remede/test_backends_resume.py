"""An evaluation that goes on: answers that were paid for stay, and no row of another model is mixed among them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_servers import CONFIG, chat, completions, run, scores, write_letter_model
from fastapi.responses import JSONResponse, Response
from small_benchmark import write_model, write_tasks

from lang1.errors import InputError, Unfinished
from lang1.remede.backends.journal import read_journal
from live import Body, Twisted, real_app, without

ONE = replace(CONFIG, tasks=("mortality",))
CANARY_REQUESTS = 13
ROWS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_letter_model(tmp_path_factory.mktemp("letters") / "model")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same tokenizer."""
    return write_model(tmp_path_factory.mktemp("other") / "model", 9)


@pytest.fixture(scope="module")
def app(model: Path) -> Any:
    return real_app(model)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("mortality",), {"test": ROWS})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield


def failing_after(count: int) -> Callable[[Body, Body], Any]:
    number = itertools.count()
    return lambda asked, good: good if next(number) < count else JSONResponse({}, status_code=500)


def context(tokens: int) -> Callable[[], Response]:
    return lambda: JSONResponse({"data": [{"id": "model", "max_model_len": tokens}]})


def kept(out: Path) -> dict[str, Any]:
    return dict(read_journal(out / ".scratch" / "api" / "served" / "mortality-test.jsonl"))


class Moved(Twisted):
    """A server that is changed between two commands at the same address."""

    def healed(self, **changes: Any) -> None:
        self.tell = lambda asked, good: good
        for name, value in changes.items():
            setattr(self, name, value)
        self.asked.clear()


@pytest.fixture
def broken_off(app: Any, model: Path, tasks: Path, tmp_path: Path) -> Iterator[tuple[Moved, dict[str, Any], Path]]:
    """A server that answered the canary and 20 rows of an evaluation, which ended there."""
    server = Moved(app, tell=failing_after(CANARY_REQUESTS + 20), models=context(250))
    with server.serving() as url:
        models = {"served": completions(url, model)}
        with pytest.raises(Unfinished, match="HTTP 500"):
            run(tmp_path / "scores", tasks, models, GOING)
        assert len(kept(tmp_path / "scores")) == 20
        yield server, models, tmp_path / "scores"


GOING = replace(ONE, api=replace(CONFIG.api, context_length=None, concurrency=1))
BRIEF = replace(ONE, api=replace(CONFIG.api, max_answer_tokens=1))
KEYED = replace(GOING, api=replace(GOING.api, api_key_env="LANG1_TEST_KEY"))


@pytest.mark.parametrize("key", [None, "s3cret\n", "a b"])
def test_a_forgotten_or_broken_key_deletes_no_paid_answer(
    key: str | None,
    broken_off: tuple[Moved, dict[str, Any], Path],
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, models, out = broken_off
    before = kept(out)
    server.healed()
    if key is not None:
        monkeypatch.setenv("LANG1_TEST_KEY", key)
    with pytest.raises(
        InputError, match=r"the environment variable LANG1_TEST_KEY (is not set|holds a space)"
    ) as raised:
        run(out, tasks, models, KEYED)
    assert "s3cret" not in str(raised.value)
    assert kept(out) == before
    assert server.asked == []
    monkeypatch.setenv("LANG1_TEST_KEY", "s3cret")
    run(out, tasks, models, KEYED)
    assert len(server.asked) == CANARY_REQUESTS + ROWS - 20
    table = scores(out, "served", "mortality")
    found = dict(zip(*(table[c].to_pylist() for c in ("row_id", "logit_0")), strict=True))
    assert all(found[row] == answer.logits[0] for row, answer in before.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": context(200)}, "context_length 250 -> 200"),
        ({"ask": without("logprob_token_ids")}, "read named -> echo"),
        ({"ask": without("return_tokens_as_token_ids", "logprob_token_ids")}, "token_ids_in_answers True -> False"),
        (
            {"tell": lambda asked, good: good | {"model": "model-2026-11"}},
            "model model -> model-2026-11",
        ),
    ],
)
def test_a_server_that_changed_is_not_asked_for_the_rest(
    changes: Any, message: str, broken_off: tuple[Moved, dict[str, Any], Path], tasks: Path
) -> None:
    server, models, out = broken_off
    before = kept(out)
    server.healed(**changes)
    with pytest.raises(Unfinished, match=f"no longer what answered the finished rows .*{message}.*--force"):
        run(out, tasks, models, GOING)
    assert kept(out) == before
    server.healed(ask=lambda body: body, models=context(250))
    run(out, tasks, models, GOING)
    assert len(server.asked) == CANARY_REQUESTS + ROWS - 20


def test_another_model_under_the_same_name_is_found_by_its_answers(
    broken_off: tuple[Moved, dict[str, Any], Path], other: Path, tasks: Path
) -> None:
    server, models, out = broken_off
    server.healed(app=real_app(other))
    with pytest.raises(Unfinished, match=r"its answers to the canary moved by \d+\.\d\d nats"):
        run(out, tasks, models, GOING)
    assert len(kept(out)) == 20
    run(out, tasks, models, GOING, force=True)
    assert len(scores(out, "served", "mortality")) == ROWS


def test_a_context_that_cannot_be_asked_for_is_not_guessed(
    broken_off: tuple[Moved, dict[str, Any], Path], tasks: Path
) -> None:
    server, models, out = broken_off
    server.healed(models=lambda: JSONResponse({}, status_code=503))
    with pytest.raises(Unfinished, match=r"fails \(HTTP 503\) \(3 tries\).*asked at /models for the context"):
        run(out, tasks, models, GOING)
    number = itertools.count()
    server.healed(models=lambda: context(250)() if next(number) else JSONResponse({}, status_code=503))
    run(out, tasks, models, GOING)
    assert len(server.asked) == CANARY_REQUESTS + ROWS - 20


def test_a_chat_that_changed_is_not_asked_for_the_rest(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Moved(app, tell=failing_after(30))
    out = tmp_path / "scores"
    with server.serving() as url:
        models = {"served": chat(url, model)}
        with pytest.raises(Unfinished, match="HTTP 500"):
            run(out, tasks, models, BRIEF)
        before = kept(out)
        assert before
        server.healed(ask=without("logprobs", "top_logprobs"))
        with pytest.raises(Unfinished, match="read top_logprobs -> samples"):
            run(out, tasks, models, BRIEF)
        assert kept(out) == before
        server.healed(ask=lambda body: body)
        run(out, tasks, models, BRIEF)
    assert len(scores(out, "served", "mortality")) == ROWS


@pytest.mark.parametrize("kind", [chat, completions])
def test_rows_of_another_model_are_never_mixed_in(
    kind: Callable[..., Any], app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    """A server that is given another snapshot while rows are asked for, and names it."""
    number = itertools.count()

    def tell(asked: Body, good: Body) -> Any:
        return good | {"model": "model-2" if next(number) >= 40 else "model-1"}

    one_by_one = replace(ONE, api=replace(ONE.api, concurrency=1))
    with Moved(app, tell=tell).serving() as url:
        models = {"served": kind(url, model)}
        with pytest.raises(Unfinished, match="another model than the one that the canary met"):
            run(tmp_path / "scores", tasks, models, one_by_one)
        assert 20 <= len(kept(tmp_path / "scores")) < 40
        with pytest.raises(Unfinished, match="model model-1 -> model-2"):
            run(tmp_path / "scores", tasks, models, one_by_one)
