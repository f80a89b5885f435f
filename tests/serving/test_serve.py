"""The completions endpoint as clients that are not ours see it: openai's, lm-eval's, and a careless one."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import warm
from lang1.serving import ServeSettings, running
from live import real_app, serving

NOTES = ["patient seen today with cough", "sepsis on the ward", "vitals stable plan discussed with family edema stroke"]


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """The model as transformers runs it: (T, V) log-probabilities of a list of ids."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logprobs(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].log_softmax(-1)

    return logprobs


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def post(url: str, path: str = "completions", **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/{path}", json={"model": "model", **body}, timeout=60)


# --- completions


def test_openai_client_reads_the_models_own_next_token_probabilities(
    client: openai.OpenAI, plain: Any, tokenizer: Any
) -> None:
    prompts = [tokenizer(note)["input_ids"] for note in NOTES]
    answer = client.completions.create(model="model", prompt=prompts, max_tokens=1, temperature=0, logprobs=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for ids, choice in zip(prompts, answer.choices, strict=True):
        expected = plain(ids)[-1]
        top = expected.topk(5)
        wanted: dict[str, float] = {}
        for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True):
            wanted.setdefault(tokenizer.decode([token]), value)  # halves of a character read alike
        assert choice.logprobs.top_logprobs[0] == pytest.approx(wanted, abs=1e-5)
        assert choice.text == tokenizer.decode([int(top.indices[0])])
    assert answer.usage.prompt_tokens == sum(map(len, prompts))


def test_echo_gives_every_prompt_token_and_one_more(url: str, plain: Any, tokenizer: Any) -> None:
    ids = tokenizer(NOTES[2])["input_ids"]
    body = post(url, prompt=[ids], max_tokens=1, temperature=0, echo=True, logprobs=2, return_tokens_as_token_ids=True)
    told = body.json()["choices"][0]["logprobs"]
    assert told["tokens"][:-1] == [f"token_id:{token}" for token in ids]
    assert told["token_logprobs"][0] is None
    expected = plain(ids)
    wanted = [float(expected[place - 1, ids[place]]) for place in range(1, len(ids))]
    assert np.allclose(told["token_logprobs"][1:-1], wanted, atol=1e-5)
    assert len(told["token_logprobs"]) == len(ids) + 1


def test_a_long_echo_is_the_same_in_pieces(url: str, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lang1.serving import engine

    monkeypatch.setattr(engine, "ECHO_POSITIONS", 7)
    ids = [int(token) for token in np.random.default_rng(0).integers(3, 200, 90)]
    told = post(url, prompt=ids, max_tokens=0, echo=True, logprobs=0).json()["choices"][0]["logprobs"]
    expected = plain(ids)
    assert np.allclose(
        told["token_logprobs"][1:], [float(expected[i - 1, ids[i]]) for i in range(1, len(ids))], atol=1e-5
    )


def test_named_tokens_come_back_by_id_beside_the_one_that_was_written(url: str, plain: Any, tokenizer: Any) -> None:
    ids = tokenizer(NOTES[0])["input_ids"]
    asked = {"logprobs": 2, "logprob_token_ids": [33, 34], "return_tokens_as_token_ids": True}
    told = post(url, prompt=ids, max_tokens=1, temperature=0, **asked).json()["choices"][0]["logprobs"]
    expected = plain(ids)[-1]
    assert set(told["top_logprobs"][0]) == {"token_id:33", "token_id:34", told["tokens"][0]}
    assert told["top_logprobs"][0]["token_id:34"] == pytest.approx(float(expected[34]), abs=1e-5)


def test_text_and_its_ids_are_the_same_prompt(url: str, tokenizer: Any) -> None:
    ids = tokenizer(NOTES[0])["input_ids"]
    as_text, as_ids, listed = (
        post(url, prompt=prompt, max_tokens=4, temperature=0).json()["choices"][0]["text"]
        for prompt in (NOTES[0], ids, [NOTES[0]])
    )
    assert as_text == as_ids == listed


def test_special_tokens_spelt_out_in_a_text_stay_text(url: str, tokenizer: Any) -> None:
    counted = post(url, prompt="a </s> b", max_tokens=1).json()["usage"]["prompt_tokens"]
    assert counted == len(tokenizer("a </s> b", split_special_tokens=True)["input_ids"])
    assert counted > len(tokenizer("a </s> b")["input_ids"])


def test_a_long_answer_is_the_greedy_one_token_by_token(url: str, plain: Any, tokenizer: Any) -> None:
    ids = tokenizer(NOTES[1])["input_ids"]
    grown = list(ids)
    for _ in range(6):
        grown.append(int(plain(grown)[-1].argmax()))
    told = post(url, prompt=ids, max_tokens=6, temperature=0, logprobs=0, return_tokens_as_token_ids=True).json()
    assert told["choices"][0]["logprobs"]["tokens"] == [f"token_id:{token}" for token in grown[len(ids) :]]


def test_draws_follow_the_models_probabilities_and_their_seed(url: str, plain: Any, tokenizer: Any) -> None:
    from scipy.stats import chisquare

    ids = tokenizer(NOTES[1])["input_ids"]

    def draw(seed: int) -> list[str]:
        body = post(url, prompt=ids, max_tokens=1, n=128, seed=seed, logprobs=0, return_tokens_as_token_ids=True)
        return [choice["logprobs"]["tokens"][0] for choice in body.json()["choices"]]

    drawn = [token for seed in range(20) for token in draw(seed)]
    p = plain(ids)[-1].exp().double().numpy()
    counts = np.bincount([int(token.partition(":")[2]) for token in drawn], minlength=len(p))
    often = p * len(drawn) >= 5
    observed = [*counts[often], counts[~often].sum()]
    expected = np.array([*p[often], p[~often].sum()])
    assert often.sum() > 10
    assert chisquare(observed, expected / expected.sum() * len(drawn)).pvalue > 0.01
    assert draw(5) == draw(5) != draw(6)


# --- chat


def test_openai_client_chats_with_samples_and_log_probabilities(
    client: openai.OpenAI, plain: Any, tokenizer: Any
) -> None:
    answer = client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": NOTES[0]}],
        n=3,
        max_tokens=1,
        logprobs=True,
        top_logprobs=4,
    )
    top = plain(tokenizer(NOTES[0])["input_ids"])[-1].topk(4)
    assert len(answer.choices) == 3
    for choice in answer.choices:
        told = choice.logprobs.content[0].top_logprobs[:4]
        assert [entry.token for entry in told] == [tokenizer.decode([int(i)]) for i in top.indices]
        assert np.allclose([entry.logprob for entry in told], top.values, atol=1e-5)


def test_a_chat_template_is_used_and_messages_are_never_special_tokens(folder: Path, tmp_path: Path) -> None:
    import shutil

    templated = shutil.copytree(folder, tmp_path / "templated")
    (templated / "chat_template.jinja").write_text(
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>assistant:"
    )
    tokenizer = AutoTokenizer.from_pretrained(templated)
    with serving(real_app(templated)) as url:
        body = post(url, "chat/completions", messages=[{"role": "user", "content": "a </s> b"}], max_tokens=1).json()
    whole = len(tokenizer("<s>user: ", add_special_tokens=False)["input_ids"])
    whole += len(tokenizer("a </s> b", add_special_tokens=False, split_special_tokens=True)["input_ids"])
    whole += len(tokenizer("</s><s>assistant:", add_special_tokens=False)["input_ids"])
    assert body["usage"]["prompt_tokens"] == whole


# --- what is refused


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"prompt": [5], "stream": True}, "stream"),
        ({"prompt": [5], "top_p": 0.9}, "top_p"),
        ({"prompt": [5], "stop": ["\n"]}, "stop"),
        ({"prompt": [5], "best_of": 2}, "best_of"),
        ({"prompt": [5], "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"prompt": [5], "logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"prompt": [5], "logprobs": 1, "logprob_token_ids": [99999]}, "logprob_token_ids"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[5], []]}, "prompt"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"prompt": [5] * 256, "max_tokens": 1}, "prompt"),
        ({"prompt": [5], "max_tokens": 0}, "max_tokens"),
        ({"prompt": [5], "max_tokens": "3"}, "max_tokens"),
        ({"prompt": [5], "n": 0}, "n"),
        ({"prompt": [5], "temperature": -1}, "temperature"),
    ],
)
def test_what_is_not_supported_is_refused_by_the_name_of_the_field(url: str, asked: Any, field: str) -> None:
    answer = post(url, **asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert answer.json()["error"]["message"].startswith(f"{field}: ")


def test_a_refusal_never_repeats_what_was_asked(url: str) -> None:
    secret = "patient Brzeczyszczykiewicz"
    for asked in ({"prompt": {"text": secret}}, {"prompt": secret, "stop": [secret]}, {"prompt": [secret, 5]}):
        answer = post(url, **asked)
        assert answer.status_code == 400
        assert "Brzecz" not in answer.text
    assert httpx.post(f"{url}/completions", content=f'{{"prompt": "{secret}"').status_code == 400


def test_another_model_and_another_path_are_not_found(url: str) -> None:
    assert httpx.post(f"{url}/completions", json={"model": "other", "prompt": "x"}).status_code == 404
    assert httpx.get(f"{url}/embeddings").status_code == 404


def test_neutral_values_that_clients_send_are_taken(url: str) -> None:
    asked = {
        "top_p": 1,
        "presence_penalty": 0.0,
        "stream": False,
        "stop": [],
        "best_of": 1,
        "user": "x",
        "suffix": None,
    }
    assert post(url, prompt="x", max_tokens=1, **asked).status_code == 200


def test_models_and_health(url: str) -> None:
    card = httpx.get(f"{url}/models").json()["data"][0]
    assert (card["id"], card["max_model_len"]) == ("model", 256)
    assert httpx.get(f"{url.removesuffix('/v1')}/health").json() == {"status": "ok"}


def test_a_key_is_asked_for_where_there_is_one(folder: Path) -> None:
    with serving(real_app(folder, api_key="s3cret")) as url:
        assert post(url, prompt="x").status_code == 401
        assert httpx.get(f"{url}/models").status_code == 401
        client = openai.OpenAI(base_url=url, api_key="s3cret", max_retries=0)
        assert client.models.list().data[0].id == "model"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="s3cre", max_retries=0).models.list()


def test_other_machines_are_let_in_with_a_key_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lang1.errors import ConfigError

    with pytest.raises(ConfigError, match="a key is needed"):
        ServeSettings(folder, host="0.0.0.0").api_key()
    with pytest.raises(ConfigError, match="LANG1_TEST_KEY: this environment variable is not set"):
        ServeSettings(folder, host="0.0.0.0", api_key_env="LANG1_TEST_KEY").api_key()
    monkeypatch.setenv("LANG1_TEST_KEY", "k")
    assert ServeSettings(folder, host="0.0.0.0", api_key_env="LANG1_TEST_KEY").api_key() == "k"
    assert ServeSettings(folder, host="::1").api_key() is None


# --- the harness's own client


def test_lm_eval_stock_local_completions_equals_its_hflm(url: str, folder: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    asked = [(f"{note}\nAnswer:", f" {letter}") for note in NOTES for letter in ("A", "B", "A patient")]
    instances = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number) for number, pair in enumerate(asked)
    ]
    stock = LocalCompletionsAPI(
        base_url=f"{url}/completions",
        model="model",
        tokenizer=str(folder),
        tokenizer_backend="huggingface",
        max_length=256,
        num_concurrent=2,
    )
    reference = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)
    served, in_memory = stock.loglikelihood(instances), reference.loglikelihood(instances)
    assert np.allclose([value for value, _ in served], [value for value, _ in in_memory], atol=1e-4)
    assert [greedy for _, greedy in served] == [greedy for _, greedy in in_memory]


# --- the command


def test_the_command_serves_until_a_signal_and_logs_no_prompt(folder: Path) -> None:
    process = warm.Process("-m", "lang1.cli", "serve", folder, "--port", "0", "--threads", "1")
    try:
        line = process.stderr.readline()
        assert line.startswith("serve: model, context 256 tokens: http://127.0.0.1:"), line
        address = line.rsplit(" ", 1)[1].partition("#")[0]
        assert httpx.post(f"{address}/completions", json={"model": "model", "prompt": "Zyx sepsis"}).status_code == 200
        assert httpx.post(f"{address}/completions", json={"model": "model", "promt": "Zyx"}).status_code == 400
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert "Zyx" not in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["/nowhere"], "/nowhere"),
        (["FOLDER", "--host", "0.0.0.0"], "a key is needed"),
        (["FOLDER", "--api-key-env", "LANG1_NO_SUCH_KEY"], "LANG1_NO_SUCH_KEY: this environment variable is not set"),
        (["FOLDER", "--precision", "fp8"], "--precision fp8"),
    ],
)
def test_what_cannot_be_served_is_one_line(folder: Path, options: list[str], message: str) -> None:
    asked = [folder if option == "FOLDER" else option for option in options]
    done = warm.run("-m", "lang1.cli", "serve", *asked, "--port", "0")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_said(folder: Path, url: str) -> None:
    from lang1.errors import ConfigError
    from lang1.serving import serve

    port = int(url.split(":")[2].partition("/")[0])
    with pytest.raises(ConfigError, match=f"--port {port}: cannot be served on"):
        serve(ServeSettings(folder, port=port))


def test_an_answer_leaves_at_once() -> None:
    """Nagle's algorithm would hold its body back until the client's system acknowledges the head: 40 ms a request."""

    async def option_of_a_connection() -> int:
        bound = running._bind("127.0.0.1", 0)
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accepted, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname())
            found = await seen
            writer.close()
            return found

    assert asyncio.run(option_of_a_connection()) == 1
