"""A model behind a completions API is scored as the same model in memory is, whatever its server honours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_servers import CONFIG, completions, probabilities, run, scores
from fastapi.responses import JSONResponse
from small_benchmark import write_tasks

from lang1.errors import ConfigError
from lang1.remede import parse_server
from live import Body, Twisted, real_app, without

ALL = replace(CONFIG, tasks=("los",), api=replace(CONFIG.api, top_logprobs=1000))
"""as many log-probabilities as the vocabulary has"""
AGREE = 1e-3


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("los",), {"test": 200})


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory, model: Path, tasks: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("memory") / "scores"
    run(out, tasks, {"memory": model}, ALL)
    return {task: probabilities(out, "memory", task) for task in ALL.tasks}


def as_llama_cpp(asked: Body, answer: Body) -> Body:
    """llama-server's /v1/completions: the chat shape of log-probabilities, with ids, of what it wrote alone."""
    for choice in answer["choices"]:
        told = choice["logprobs"]
        top = [
            {"id": int(name.partition(":")[2]), "token": "?", "bytes": [], "logprob": value}
            for name, value in told["top_logprobs"][-1].items()
        ]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return answer


def llama_cpp_hears(body: Body) -> Body:
    return without("echo", "logprob_token_ids")(body) | {"return_tokens_as_token_ids": True}


SERVERS = {
    "our own": (lambda body: body, lambda asked, answer: answer, "completions, named tokens"),
    "names no tokens, echoes": (without("logprob_token_ids"), lambda asked, answer: answer, "completions, echo"),
    "ignores echo": (without("logprob_token_ids", "echo"), lambda asked, answer: answer, "completions, top 1000"),
    "names tokens by text": (
        without("logprob_token_ids", "echo", "return_tokens_as_token_ids"),
        lambda asked, answer: answer,
        "completions, top 1000",
    ),
    "llama.cpp": (llama_cpp_hears, as_llama_cpp, "completions, top 1000"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_probabilities_are_those_in_memory(
    kind: str, app: Any, model: Path, tasks: Path, in_memory: dict[str, Any], tmp_path: Path
) -> None:
    ask, tell, method = SERVERS[kind]
    with Twisted(app, ask, tell).serving() as url:
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, ALL)
    for task, expected in in_memory.items():
        table = scores(tmp_path / "scores", "served", task)
        assert len(table) == 200
        assert set(table["method"].to_pylist()) == {method}
        assert set(table["options_missing"].to_pylist()) == {0}
        assert np.abs(probabilities(tmp_path / "scores", "served", task) - expected).max() < AGREE
        assert expected.std(axis=0).max() > 0.01  # rows differ, so agreement says something


@pytest.mark.parametrize("takes", [True, False])
def test_llama_cpp_is_asked_to_read_every_prompt_anew(
    takes: bool, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    """What its cache kept of the prompt before would move an answer."""

    def hears(body: Body) -> Body:
        return llama_cpp_hears(without("cache_prompt")(body) if takes else body)

    server = Twisted(app, hears, as_llama_cpp)
    with server.serving() as url:
        manifest = run(tmp_path / "scores", tasks, {"served": completions(url, model)}, replace(ALL, max_rows=5))
    assert [body.get("cache_prompt") for body in server.asked[-5:]] == [False if takes else None] * 5
    canary = manifest["facts"]["api"]["served"]["canary"]
    assert canary["prompt_cache"] == ("off" if takes else "as the server has it")


@pytest.mark.parametrize("name", ["model", "/models/a file.gguf"])
def test_the_context_is_what_llama_cpp_gives_a_request(
    name: str, app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    """Not what the model was made for; and the one model that it serves answers to every name."""
    card = {"id": name, "meta": {"n_ctx": 120, "n_ctx_train": 8192}}
    cfg = replace(ALL, max_rows=5, api=replace(ALL.api, context_length=None))
    with Twisted(app, models=lambda: JSONResponse({"data": [card]})).serving() as url:
        manifest = run(tmp_path / "scores", tasks, {"served": completions(url, model)}, cfg)
    assert manifest["facts"]["api"]["served"]["context_length"] == 120


def test_examples_before_the_question_are_those_in_memory(app: Any, model: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, ("los",), {"train": 40, "test": 30})
    cfg = replace(ALL, shots=2, shot_tokens=40, max_note_tokens=40)
    with Twisted(app).serving() as url:
        run(tmp_path / "scores", tasks, {"memory": model, "served": completions(url, model)}, cfg)
    memory, served = (scores(tmp_path / "scores", name, "los") for name in ("memory", "served"))
    assert set(served["shots"].to_pylist()) == {2}
    assert served["prompt_tokens"].equals(memory["prompt_tokens"])
    found, expected = (probabilities(tmp_path / "scores", name, "los") for name in ("served", "memory"))
    assert np.abs(found - expected).max() < AGREE


def test_one_request_a_row_where_tokens_can_be_named(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Twisted(app)
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, ALL)
    for_rows = [body for body in server.asked if len(body["prompt"][0]) > 100 or len(body["prompt"]) == 1]
    assert 200 <= len(for_rows) <= 200 + 15  # the canary's beside them
    assert all(isinstance(token, int) for body in server.asked[-200:] for token in body["prompt"][0])


def test_the_tokenizer_is_read_once_and_from_its_folder_alone(
    app: Any, model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    read, asked = AutoTokenizer.from_pretrained, []

    def counted(*given: Any, **named: Any) -> Any:
        asked.append(named.get("local_files_only"))
        return read(*given, **named)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    with Twisted(app).serving() as url:
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, replace(ALL, max_rows=5))
    assert asked == [True]


def test_an_option_outside_the_likeliest_tokens_gets_a_bound_and_is_counted(
    app: Any, model: Path, tasks: Path, in_memory: dict[str, Any], tmp_path: Path
) -> None:
    cfg = replace(ALL, max_rows=60, api=replace(CONFIG.api, top_logprobs=2))
    with Twisted(app, without("logprob_token_ids", "echo")).serving() as url:
        manifest = run(tmp_path / "scores", tasks, {"served": completions(url, model)}, cfg)
    table = scores(tmp_path / "scores", "served", "los")
    missing = table["options_missing"].to_numpy()
    logits = np.column_stack([table[f"logit_{k}"].to_numpy() for k in range(4)])
    assert (missing >= 1).all()  # four options, three tokens told at most
    assert manifest["facts"]["api"]["served"]["options_missing"] == missing.sum()
    rows = _memory_rows(tasks, in_memory, table)
    for row, count, truth in zip(logits, missing, rows, strict=True):
        if count < 3:  # two are told: their ratio is exact, and no bound is below what it stands for
            told = np.argsort(-truth)[: 4 - count]
            exact = row[told[0]] - np.log(truth[told[0]]) + np.log(truth)
            assert (row >= exact - 1e-3).all()


def _memory_rows(tasks: Path, in_memory: dict[str, Any], table: Any) -> list[Any]:
    """In-memory probabilities of the rows of a smaller draw."""
    import pyarrow.parquet as pq

    order = sorted(pq.read_table(tasks / "los" / "test.parquet")["row_id"].to_pylist())
    return [in_memory["los"][order.index(row)] for row in table["row_id"].to_pylist()]


def test_options_out_of_reach_are_refused_and_not_scored_as_chance(model: Path, tasks: Path, tmp_path: Path) -> None:
    from lang1.errors import InputError

    def hide(asked: Body, answer: Body) -> Body:
        for choice in answer["choices"]:
            for top in (choice["logprobs"] or {}).get("top_logprobs") or []:
                for letter in "ABCDE":
                    (top or {}).pop(f" {letter}", None)
        return answer

    ask = without("logprob_token_ids", "echo", "return_tokens_as_token_ids")
    with Twisted(real_app(model), ask, hide).serving() as url, pytest.raises(InputError, match="options out of reach"):
        run(tmp_path / "scores", tasks, {"served": completions(url, model)}, replace(ALL, api=CONFIG.api))


def test_lm_eval_runs_the_backend_and_gets_what_it_gets_in_memory(app: Any, model: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from lang1.remede.backends.completions import RemedeCompletions
    from lang1.remede.backends.transport import Line

    notes = ["patient with cough seen on the ward", "sepsis and edema family discussed", "stable"]
    # one-token options, then options of several tokens
    for options in ((" A", " B"), (" stable patient", " sepsis on the ward")):
        asked = [
            Instance(request_type="loglikelihood", doc={}, arguments=(f"{note}\nAnswer:", option), idx=number)
            for number, (note, option) in enumerate((note, option) for note in notes for option in options)
        ]
        expected = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1).loglikelihood(asked)
        with Twisted(app).serving() as url:
            backend = RemedeCompletions(Line(completions(url, model), CONFIG.api), 256)
            found = backend.loglikelihood(asked)
        assert np.allclose([value for value, _ in found], [value for value, _ in expected], atol=1e-4)


def test_options_of_several_tokens_need_echo(app: Any, model: Path) -> None:
    from lang1.errors import InputError
    from lang1.remede.backends.completions import Asked, RemedeCompletions
    from lang1.remede.backends.transport import Line

    with Twisted(app, without("echo")).serving() as url:
        backend = RemedeCompletions(Line(completions(url, model), CONFIG.api), 256)
        with pytest.raises(InputError, match="take several tokens, which needs echo"):
            backend.score([Asked(range(20, 60), [[5, 6], [7]])], lambda place, answer: None)


# --- addresses


def test_addresses_say_who_what_and_how(tmp_path: Path) -> None:
    server = parse_server("http://127.0.0.1:8000/v1/#org/model-1", tmp_path)
    assert (server.url, server.model, server.kind) == ("http://127.0.0.1:8000/v1", "org/model-1", "completions")
    assert str(parse_server("chat+https://gpu.hospital/v1#m")) == "chat+https://gpu.hospital/v1#m"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8000/v1", "not an address of a served model"),
        ("http://127.0.0.1:8000/v1#m", "give the folder of its tokenizer"),
        ("chat+http://me:s3cret@host/v1#m", "keys go into an environment variable"),
        ("chat+http://host/v1?key=s3cret#m", "keys go into an environment variable"),
        ("http://host/v1?key=s3cret", "keys go into an environment variable"),
        ("http://host/v1#m?key=s3cret", "keys go into an environment variable"),
        ("http://me:a/s3cret@host/v1", "keys go into an environment variable"),
        ("http://me:12/s3cret@host/v1#m", "keys go into an environment variable"),
        ("http://me:a@s3cret@host/v1#m", "keys go into an environment variable"),
        ("http://me:s3cret#x@host/v1#m", "keys go into an environment variable"),
        ("http://me:12#s3cret@host/v1#m", "keys go into an environment variable"),
        ("HTTPS://me:s3cret@host/v1#m", "keys go into an environment variable"),
        ("http://me:s3cret#m", "not an address of a served model"),
        ("http://me:s3cret/v1#m", "not an address of a served model"),
        ("http://:8000/v1#m", "not an address of a served model"),
        ("http://host/v1/completions#m", r"before the endpoint: http://host/v1#m$"),
        ("http://host/v1/chat/completions/#m", r"before the endpoint: chat\+http://host/v1#m$"),
        ("chat+http://host/v1/completions#m", r"before the endpoint: chat\+http://host/v1#m$"),
    ],
)
def test_addresses_that_cannot_be_asked(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_server(address)
    assert "s3cret" not in str(raised.value)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield


def test_a_server_that_does_not_say_its_context_is_asked_about(
    app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    from lang1.errors import InputError

    bare = tmp_path / "tokenizer"
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((model / name).read_bytes())
    cfg = replace(ALL, api=replace(CONFIG.api, context_length=None))
    with (
        Twisted(app, tell=lambda asked, answer: JSONResponse(answer)).serving() as url,  # knows no /v1/models
        pytest.raises(InputError, match=r"set evaluate\.api\.context_length"),
    ):
        run(tmp_path / "scores", tasks, {"served": completions(url, bare)}, cfg)
