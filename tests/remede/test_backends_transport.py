"""Servers that are busy, broken or gone: one line, finished rows kept, nothing asked twice, no text told."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from api_servers import CONFIG, chat, completions, run, scores
from fastapi.responses import JSONResponse, RedirectResponse, Response
from small_benchmark import FILLER, SIGNS, write_tasks

import warm
from lang1.errors import InputError, Unfinished
from lang1.remede.backends.journal import read_journal
from live import Body, Twisted, real_app, without

ONE = replace(CONFIG, tasks=("mortality",))
WORDS = {*FILLER, *SIGNS} - {"on", "the", "with", "plan", "today", "seen"}
"""words of notes that no message of ours uses"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("mortality",), {"test": 60})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield


def after(count: int, answer: Any) -> Any:
    """A server that answers well `count` times and then gives `answer` (a callable) for ever."""
    number = itertools.count()
    return lambda asked, good: good if next(number) < count else answer(asked)


def refusing(status: int) -> Any:
    """A server that quotes the prompt in its refusal."""
    return lambda asked: JSONResponse({"error": {"message": json.dumps(asked), "param": "prompt"}}, status_code=status)


HALF = b'{"choices": [{"index": 0, "text": "sepsis on the wa'
BAD = {
    "401": (refusing(401), r"refuses a request without a key \(evaluate.api.api_key_env names one\) \(HTTP 401\)", 1),
    "403": (refusing(403), r"HTTP 403", 1),
    "404": (refusing(404), r"knows no /completions or no model of this name \(HTTP 404\)", 1),
    "429 for ever": (refusing(429), r"asks to wait \(HTTP 429\); lower evaluate.api.concurrency \(3 tries\)", 3),
    "500": (refusing(500), r"fails \(HTTP 500\) \(3 tries\)", 3),
    "half a JSON": (lambda asked: Response(HALF, media_type="application/json"), "half a JSON, or none", 3),
    "nothing at all": (lambda asked: Response(b""), "nothing at all", 3),
    "a list": (lambda asked: JSONResponse([1]), "a JSON list, not an object", 3),
    "no choices": (lambda asked: JSONResponse({"choices": []}), "0 choices where 1 were asked for", 3),
    "elsewhere": (lambda asked: RedirectResponse("http://127.0.0.1:9/x", 307), r"to another address \(HTTP 307\)", 1),
}
CANARY_REQUESTS = 13


@pytest.mark.parametrize("kind", BAD)
def test_a_server_that_goes_bad_is_one_line_and_its_good_answers_are_kept(
    kind: str, app: Any, model: Path, tasks: Path, tmp_path: Path, capfd: Any, caplog: Any
) -> None:
    answer, message, tries = BAD[kind]
    alone = replace(ONE, api=replace(ONE.api, concurrency=1))
    server = Twisted(app, tell=after(CANARY_REQUESTS + 20, answer))
    with server.serving() as url, caplog.at_level(logging.DEBUG), pytest.raises(Unfinished, match=message) as raised:
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, alone)
    assert "\n" not in str(raised.value)
    assert len(server.asked) == CANARY_REQUESTS + 20 + tries
    kept = read_journal(journal(tmp_path / "scores"))
    assert len(kept) == 20
    told = str(raised.value) + caplog.text + "".join(capfd.readouterr())
    assert not [word for word in WORDS if word in told]


def journal(out: Path) -> Path:
    return out / ".scratch" / "api" / "served" / "mortality-test.jsonl"


def test_a_mended_server_is_asked_for_the_missing_rows_only(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = {"tell": after(CANARY_REQUESTS + 20, refusing(500))}
    server = Twisted(app, tell=lambda asked, good: state["tell"](asked, good))
    with server.serving() as url:
        models = {"served": completions(url, model)}
        with pytest.raises(Unfinished):
            run(tmp_path / "scores", tasks, models, ONE)
        kept = set(read_journal(journal(tmp_path / "scores")))
        assert len(kept) >= 10
        server.asked.clear()
        state["tell"] = lambda asked, good: good
        # another pace is no other evaluation: a busy server is met with patience
        patient = replace(ONE, api=replace(ONE.api, concurrency=2, retries=5))
        run(tmp_path / "scores", tasks, models, patient)
    assert len(server.asked) == CANARY_REQUESTS + 60 - len(kept)
    assert len(scores(tmp_path / "scores", "served", "mortality")) == 60
    assert not (tmp_path / "scores" / ".scratch").exists()


def test_a_busy_server_is_tried_again_and_the_tries_make_no_difference(
    app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    number = itertools.count()

    def sometimes(asked: Body, good: Body) -> Any:
        return JSONResponse({}, status_code=429, headers={"Retry-After": "0"}) if next(number) % 3 == 2 else good

    for name, server in (("busy", Twisted(app, tell=sometimes)), ("calm", Twisted(app))):
        with server.serving() as url:
            run(
                tmp_path / name,
                tasks,
                {"served": completions(url, model)},
                replace(ONE, api=replace(ONE.api, retries=9)),
            )
    assert scores(tmp_path / "busy", "served", "mortality").equals(scores(tmp_path / "calm", "served", "mortality"))


def test_a_wait_is_told_once_for_all_requests_that_wait(
    app: Any, model: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from lang1 import runs
    from lang1.remede.backends import transport

    monkeypatch.setattr(transport, "SAID_WAIT_S", 0.05)
    number, met = itertools.count(), set[str]()

    def busy(asked: Body, answer: Body) -> Any:  # every row is sent away once
        row = json.dumps(asked["prompt"])
        if next(number) < CANARY_REQUESTS or row in met:
            return answer
        met.add(row)
        return Response(status_code=429, headers={"Retry-After": "0.1"})

    runs.set_quiet(False)
    with Twisted(app, tell=busy).serving() as url:
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, replace(ONE, max_rows=20))
    told = [line for line in capsys.readouterr().err.splitlines() if "asked again in" in line]
    assert len(told) == 1
    assert "asks to wait (HTTP 429)" in told[0]


def test_requests_run_side_by_side(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    for concurrency in (1, 10):
        cfg = replace(ONE, api=replace(ONE.api, concurrency=concurrency))
        server = Twisted(app, delay_s=0.03)
        with server.serving() as url:
            run(tmp_path / str(concurrency), tasks, {"served": completions(url, model)}, cfg)
        assert server.most_at_once == concurrency


def test_a_server_that_is_not_there(model: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match=r"cannot be reached \(ClientConnectorError\) \(3 tries\)"):
        run(tmp_path / "scores", tasks, {"served": completions("http://127.0.0.1:9/v1", model)}, ONE)


def test_a_server_that_never_answers(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    impatient = replace(ONE, api=replace(ONE.api, timeout_s=0.2, retries=0))
    with (
        Twisted(app, delay_s=2).serving() as url,
        pytest.raises(Unfinished, match=r"no answer within 0\.2 s \(1 try\)"),
    ):
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, impatient)


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed = replace(ONE, api=replace(ONE.api, api_key_env="LANG1_TEST_KEY", context_length=None))
    from live import serving

    with serving(real_app(model, api_key="s3cret-key")) as url:
        models = {"served": completions(url, model)}
        with pytest.raises(InputError, match="the environment variable LANG1_TEST_KEY is not set"):
            run(tmp_path / "none", tasks, models, keyed)
        monkeypatch.setenv("LANG1_TEST_KEY", "wrong")
        with pytest.raises(Unfinished, match=r"refuses the key in LANG1_TEST_KEY \(HTTP 401\)"):
            run(tmp_path / "wrong", tasks, models, keyed)
        monkeypatch.setenv("LANG1_TEST_KEY", "s3cret-key")
        run(tmp_path / "right", tasks, models, keyed)
    written = b"".join(path.read_bytes() for path in (tmp_path / "right").rglob("*") if path.is_file())
    assert b"s3cret-key" not in written


def test_a_killed_run_goes_on_without_asking_twice(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Twisted(app, delay_s=0.05)
    out = tmp_path / "scores"
    with server.serving() as url:
        command = [
            *("-m", "lang1.cli", "evaluate", "evaluate.tasks=[mortality]", "evaluate.splits=[test]"),
            *("evaluate.headline_split=test", "evaluate.baselines=[]", "evaluate.bootstrap_resamples=20"),
            *("evaluate.api.concurrency=2", "evaluate.api.context_length=256", "--tasks", str(tasks), "--seed", "5"),
            *("--model", f"served={url}#model", "--tokenizer", str(model), "--out", str(out)),
        ]
        process = warm.Process(*command)
        while not journal(out).exists() or len(journal(out).read_text().splitlines()) < 15:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        _, first = process.communicate()
        with journal(out).open("a") as torn:
            torn.write('{"row": "mortality-te')
        kept = set(read_journal(journal(out)))
        assert 15 <= len(kept) < 60
        before = len(server.asked)
        done = warm.run(*command)
        assert done.returncode == 0, done.stderr
        assert len(server.asked) - before == CANARY_REQUESTS + 60 - len(kept)
        run(tmp_path / "undisturbed", tasks, {"served": completions(url, model)}, ONE)
    asked = Counter(tuple(body["prompt"][0]) for body in server.asked[: before + CANARY_REQUESTS + 60 - len(kept)])
    rows = _prompts(tasks, model)
    assert all(asked[rows[row]] == 1 for row in kept)
    assert scores(out, "served", "mortality").equals(scores(tmp_path / "undisturbed", "served", "mortality"))
    told = first + done.stdout + done.stderr
    assert not [word for word in WORDS if word in told]


def _prompts(tasks: Path, model: Path) -> dict[str, tuple[int, ...]]:
    """The prompt of every row, as ids."""
    from lang1.models.load import load_tokenizer
    from lang1.scoring.options import encode_prompts
    from lang1.tasks.prompts import question_for

    table = pq.read_table(tasks / "mortality" / "test.parquet")
    encoded = encode_prompts(
        load_tokenizer(model), table["text"].to_pylist(), question_for("mortality", "H&P"), 512, 254
    )
    return {row: tuple(p.ids) for row, p in zip(table["row_id"].to_pylist(), encoded, strict=True)}


def test_the_command_ends_with_one_line_and_exit_code_2(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    with Twisted(app, tell=lambda asked, good: refusing(401)(asked)).serving() as url:
        command = [
            *("-m", "lang1.cli", "evaluate", "evaluate.tasks=[mortality]", "evaluate.splits=[test]"),
            *("evaluate.headline_split=test", "evaluate.baselines=[]", "--quiet", "--tasks", str(tasks)),
            *("--model", f"{url}#model", "--tokenizer", str(model), "--out", str(tmp_path / "scores")),
        ]
        done = warm.run(*command)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lang1: {url}#model: refuses a request without a key")
    assert len(done.stderr.splitlines()) == 1


def test_the_journal_holds_numbers_and_row_ids_and_no_text(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    with Twisted(app, tell=after(CANARY_REQUESTS + 10, refusing(401))).serving() as url, pytest.raises(Unfinished):
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, ONE)
    text = journal(tmp_path / "scores").read_text()
    assert set(json.loads(text.splitlines()[0])) == {
        *("row", "method", "p", "logits", "missing", "refused", "prompt_tokens")
    }
    assert not [word for word in WORDS if word in text]
    assert oct(journal(tmp_path / "scores").stat().st_mode & 0o777) == "0o640"


def test_the_harness_gets_texts_by_the_same_transport(
    app: Any, model: Path, tasks: Path, caplog: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.api_models import JsonChatStr

    from lang1.remede.backends.chat import RemedeChat
    from lang1.remede.backends.completions import RemedeCompletions
    from lang1.remede.backends.transport import Line

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # which would see the notes
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    notes = ["patient with sepsis fracture", "stable today", "edema and stroke"]
    talk = JsonChatStr(json.dumps([{"role": "user", "content": notes[0]}]))
    wanted = {"until": ["x"], "max_gen_toks": 3, "do_sample": False}
    texts = [Instance("generate_until", {}, (note, wanted), place) for place, note in enumerate(notes)]
    number = itertools.count()

    def busy_then(answer: Any) -> Any:
        return lambda asked, good: answer(asked, good) if next(number) else JSONResponse({}, status_code=503)

    with Twisted(app, without("stop"), busy_then(lambda asked, good: good)).serving() as url:
        backend = RemedeCompletions(Line(completions(url, model), CONFIG.api), 256)
        found = backend.generate_until(texts)
        chatted = RemedeChat(Line(chat(url), CONFIG.api), 5)
        assert chatted.generate_until([Instance("generate_until", {}, (talk, wanted), 0), texts[1]]) == found[:2]
    assert len(set(found)) > 1
    ids = [backend.tokenizer(note, add_special_tokens=False)["input_ids"] for note in notes]
    assert found == _greedy(model, ids, 3)
    with Twisted(app, tell=lambda asked, good: refusing(400)(asked)).serving() as url, caplog.at_level(logging.DEBUG):
        for refused in (
            RemedeCompletions(Line(completions(url, model), CONFIG.api), 256),
            RemedeChat(Line(chat(url), CONFIG.api), 5),
        ):
            with pytest.raises(InputError, match=r"refuses a request to write text \(HTTP 400, "):
                refused.generate_until(texts)
    told = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in WORDS if word in told]


def _greedy(model: Path, prompts: list[list[int]], length: int) -> list[str]:
    """What transformers writes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    written = [
        loaded.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=length)[0, len(ids) :] for ids in prompts
    ]
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
