"""A server that would score at chance, or another model than is thought, is refused by the name of its fault."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_servers import CONFIG, chat, completions
from fastapi.responses import JSONResponse

from lang1.config import ApiConfig
from lang1.errors import InputError
from lang1.remede.backends.canary import try_completions
from lang1.remede.backends.chat import RemedeChat
from lang1.remede.backends.chat_canary import try_chat
from lang1.remede.backends.completions import RemedeCompletions
from lang1.remede.backends.transport import Line
from live import Body, Twisted, real_app, serving, without

LONGEST = 200


def options(backend: RemedeCompletions) -> list[int]:
    return [int(backend.tokenizer.convert_tokens_to_ids(f"Ġ{letter}")) for letter in "ABCDE"]


def trial(url: str, model: Path, api: ApiConfig = CONFIG.api) -> Any:
    backend = RemedeCompletions(Line(completions(url, model), api), 256)
    return try_completions(backend, options(backend), LONGEST)


def each_prompt(change: Any) -> Any:
    """A server that changes every prompt of token ids."""

    def ask(body: Body) -> Body:
        prompt = body.get("prompt")
        return body if isinstance(prompt, str) else body | {"prompt": [change(ids) for ids in prompt]}

    return ask


def telling(count: Any) -> Any:
    """A server that says it read other numbers of tokens than it did."""

    def tell(asked: Body, answer: Body) -> Body:
        answer["usage"]["prompt_tokens"] = count(asked)
        return answer

    return tell


def silent(asked: Body, answer: Body) -> Body:
    """A server that counts nothing."""
    answer.pop("usage")
    return answer


def sent(asked: Body) -> int:
    return len(asked["prompt"]) // 3 if isinstance(asked["prompt"], str) else sum(map(len, asked["prompt"]))


def constant(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        for top in choice["logprobs"]["top_logprobs"]:
            for name in top or {}:
                top[name] = -1.6
        choice["logprobs"]["token_logprobs"] = [-1.6 for _ in choice["logprobs"]["token_logprobs"]]
    return answer


def certain(asked: Body, answer: Body) -> Body:
    """A server that tells what is left after temperature 0."""
    for choice in answer["choices"]:
        for top in choice["logprobs"]["top_logprobs"]:
            best = max(top or {}, key=lambda name: top[name], default=None)
            for name in top or {}:
                top[name] = 0.0 if name == best else -9999.0
    return answer


def any_numbers() -> Any:
    """A server whose answers are another each time."""
    rng = random.Random(5)

    def tell(asked: Body, answer: Body) -> Body:
        for choice in answer["choices"]:
            for top in choice["logprobs"]["top_logprobs"]:
                for name in top or {}:
                    top[name] = -9 * rng.random()
        return answer

    return tell


def as_chat(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        choice["message"] = {"role": "assistant", "content": choice.pop("text")}
        choice.pop("logprobs")
    return answer


def without_logprobs(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        choice["logprobs"] = None
    return answer


def broken(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        for top in choice["logprobs"]["top_logprobs"]:
            for name in top or {}:
                top[name] = "NaN"
    return answer


def texts_only(asked: Body, answer: Body) -> Any:
    if isinstance(asked["prompt"], str):
        return answer
    return JSONResponse({"error": {"message": "prompt: a text", "param": "prompt"}}, status_code=400)


def few_only(asked: Body, answer: Body) -> Any:
    """A server that tells five likeliest tokens at most, and names none."""
    if asked["logprobs"] <= 5 and "logprob_token_ids" not in asked:
        return answer
    return JSONResponse({"error": {"message": "logprobs: at most 5", "param": "logprobs"}}, status_code=400)


def other_text(body: Body) -> Body:
    """A server whose tokenizer is another: it reads a text as other tokens."""
    return body | {"prompt": body["prompt"] + " and more, zq"} if isinstance(body["prompt"], str) else body


BOS = 0
same = lambda body: body  # noqa: E731
true = lambda asked, answer: answer  # noqa: E731
FAULTS = {
    "constant scores": (same, constant, "constant: different prompts get the same answer"),
    "certain": (same, certain, "certain: one token is told as certain and every other as impossible"),
    "any numbers": (same, any_numbers(), "unsteady: the same prompt asked twice gets two answers"),
    "adds BOS": (each_prompt(lambda ids: [BOS, *ids]), true, "adds BOS"),
    "adds BOS, says nothing": (each_prompt(lambda ids: [BOS, *ids]), silent, "adds BOS|other tokens"),
    "drops the first token": (each_prompt(lambda ids: ids[1:]), true, "drops BOS"),
    "drops BOS": (
        each_prompt(lambda ids: ids[1:] if ids[0] == BOS else ids),
        telling(sent),
        "adds or drops BOS: a prompt with BOS and one without it get the same answer",
    ),
    "cuts the prompt": (each_prompt(lambda ids: ids[-90:]), true, "cuts the prompt: .* tokens were sent, 90 were read"),
    "cuts the prompt, says it did not": (
        each_prompt(lambda ids: ids[-90:]),
        telling(sent),
        "cuts the prompt",
    ),
    "loses the end": (each_prompt(lambda ids: ids[:150]), telling(sent), "cuts the prompt|two answers"),
    "chat shape": (same, as_chat, "answers in the chat shape"),
    "no log-probabilities": (without("logprobs", "logprob_token_ids"), without_logprobs, "no log-probabilities"),
    "log-probabilities that are none": (same, broken, "no log-probabilities: .*no number"),
    "refuses ids": (same, texts_only, "refuses token ids"),
    "few log-probabilities": (same, few_only, "too many log-probabilities: 20 a token are refused"),
    "another tokenizer": (other_text, true, "another tokenizer: it reads a passage as"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_server_is_refused_by_the_name_of_its_fault(kind: str, app: Any, model: Path) -> None:
    ask, tell, fault = FAULTS[kind]
    with Twisted(app, ask, tell).serving() as url, pytest.raises(InputError, match=f"canary: ({fault})") as raised:
        trial(url, model)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("nothing was scored")


def test_a_bad_server_that_knows_neither_names_nor_echo_is_found_too(app: Any, model: Path) -> None:
    quiet = without("logprob_token_ids", "echo", "return_tokens_as_token_ids")
    nothing = "cuts the prompt: another beginning of 200 tokens changes nothing"
    for kind in ("drops BOS", "cuts the prompt, says it did not", "constant scores", "certain", "any numbers"):
        ask, tell, fault = FAULTS[kind]
        fault = nothing if kind.startswith("cuts") else fault
        both = lambda body, ask=ask: quiet(ask(body))  # noqa: E731
        with Twisted(app, both, tell).serving() as url, pytest.raises(InputError, match=f"canary: ({fault})"):
            trial(url, model)


def test_a_model_under_another_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    other = Tokenizer(models.BPE())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    other.train_from_iterator(["zz yy A B C D E"] * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=other, bos_token="<s>").save_pretrained(tmp_path / "other")
    with serving(real_app(model)) as url, pytest.raises(InputError, match="canary: another tokenizer"):
        trial(url, tmp_path / "other")


def test_a_good_server_passes_and_what_it_honours_is_told(app: Any, model: Path) -> None:
    with serving(app) as url:
        tried = trial(url, model)
    assert tried.facts["read"] == "named"
    assert tried.facts["echo"] == "honoured"
    assert tried.facts["bos"] == "kept as sent"
    assert tried.facts["same_as_text"] == "yes"
    assert tried.facts["longest_prompt_tried"] == LONGEST


def test_a_server_that_ignores_echo_is_read_at_the_next_token(app: Any, model: Path) -> None:
    with Twisted(app, without("logprob_token_ids", "echo")).serving() as url:
        tried = trial(url, model)
    assert (tried.dialect.way, tried.facts["echo"]) == ("top", "ignored")


# --- chat


def chat_trial(url: str, **api: Any) -> Any:
    from dataclasses import replace

    return try_chat(RemedeChat(Line(chat(url), replace(CONFIG.api, **api)), 5), "long words " * 40, 80)


def test_a_chat_that_tells_log_probabilities_is_read_there(app: Any) -> None:
    with serving(app) as url:
        assert chat_trial(url).dialect.way == "top_logprobs"


def test_a_chat_without_log_probabilities_draws(app: Any) -> None:
    with Twisted(app, without("logprobs", "top_logprobs")).serving() as url:
        tried = chat_trial(url, max_answer_tokens=1)
        assert (tried.dialect.way, tried.dialect.many) == ("samples", True)
        with pytest.raises(InputError, match="canary: no log-probabilities"):
            chat_trial(url, chat_scores="top_logprobs")


def test_a_chat_that_ignores_n_is_asked_once_a_sample(app: Any) -> None:
    with Twisted(app, without("logprobs", "top_logprobs", "n")).serving() as url:
        tried = chat_trial(url, max_answer_tokens=1)
    assert not tried.dialect.many


def test_a_chat_that_wants_the_newer_limit_field_gets_it(app: Any) -> None:
    def tell(asked: Body, answer: Body) -> Any:
        return answer if "max_completion_tokens" in asked else JSONResponse({}, status_code=400)

    with Twisted(app, tell=tell).serving() as url:
        assert chat_trial(url).dialect.limit_field == "max_completion_tokens"


PLAIN = {"top_p": 1, "top_k": 0, "min_p": 0, "cache_prompt": False}


@pytest.mark.parametrize("unknown", [(), ("top_k",), ("top_k", "top_p")])
def test_a_chat_draws_from_all_that_its_model_says(unknown: tuple[str, ...], app: Any) -> None:
    """Some servers leave out what is unlikely unless they are told not to, and some refuse to be told."""

    def ask(body: Body) -> Body:
        refused = {name: body[name] for name in unknown if name in body}
        return (
            without("logprobs", "top_logprobs", *(PLAIN.keys() - {"top_p"}))(body)
            | refused
            | ({"top_p": 0.5} if "top_p" in refused else {})
        )

    server = Twisted(app, ask)
    with server.serving() as url:
        chat_trial(url, max_answer_tokens=1)
    sent = {name: value for name, value in server.asked[-1].items() if name in PLAIN}
    assert sent == ({} if "top_p" in unknown else {"top_p": 1} if unknown else PLAIN)


CHAT_FAULTS = {
    "names no option": (lambda asked, answer: said(answer, "I cannot say."), "names no option"),
    "empty": (lambda asked, answer: said(answer, ""), "names no option"),
    "completions shape": (lambda asked, answer: as_text(answer), "answers in another shape"),
    "nothing": (lambda asked, answer: answer | {"choices": []}, "answers nothing"),
    "constant": (lambda asked, answer: said(answer, "B"), "constant: different questions get the same answer"),
    "cuts": (telling(lambda asked: 12), "cuts the prompt: a question of 80 tokens or more was read as 12"),
}


def said(answer: Body, text: str) -> Body:
    for choice in answer["choices"]:
        choice["message"]["content"] = text
    return answer


def as_text(answer: Body) -> Body:
    for choice in answer["choices"]:
        choice["text"] = choice.pop("message")["content"]
    return answer


@pytest.mark.parametrize("kind", CHAT_FAULTS)
def test_a_bad_chat_is_refused_by_the_name_of_its_fault(kind: str, app: Any) -> None:
    tell, fault = CHAT_FAULTS[kind]
    twisted = Twisted(app, without("logprobs", "top_logprobs"), tell)
    with twisted.serving() as url, pytest.raises(InputError, match=f"canary: {fault}"):
        chat_trial(url, max_answer_tokens=1)


def test_a_chat_that_is_sure_when_asked_greedily_is_not_taken_for_a_constant(app: Any) -> None:
    """A small model may say one letter to all easy questions; what it draws differs."""
    greedy = lambda asked, answer: said(answer, "B") if asked["temperature"] == 0 else answer  # noqa: E731
    with Twisted(app, without("logprobs", "top_logprobs"), greedy).serving() as url:
        tried = chat_trial(url, max_answer_tokens=1)
    assert (tried.dialect.way, tried.facts["known_answers_readable"]) == ("samples", 4)


def cut_chat(change: Any) -> Any:
    def ask(body: Body) -> Body:
        return body | {"messages": [found | {"content": change(found["content"])} for found in body["messages"]]}

    return ask


def of_first_tokens(change: Any) -> Any:
    """A chat that tells other log-probabilities than its model's; `change` gets the number of an entry."""

    def tell(asked: Body, answer: Body) -> Body:
        for choice in answer["choices"]:
            told = (choice.get("logprobs") or {}).get("content") or []
            for place in told:
                for number, entry in enumerate([place, *place["top_logprobs"]]):
                    entry["logprob"] = change(number)
        return answer

    return tell


_RANDOM = random.Random(6)
LOG_FAULTS = {
    "cuts": (cut_chat(lambda text: text[-60:]), telling(lambda asked: 999), "cuts the prompt: another beginning"),
    "loses the end": (cut_chat(lambda text: text[:90]), silent, "cuts the prompt: another end"),
    "constant": (same, of_first_tokens(lambda number: -1.6), "constant"),
    "any numbers": (same, of_first_tokens(lambda number: -9 * _RANDOM.random()), "unsteady"),
}


@pytest.mark.parametrize("kind", LOG_FAULTS)
def test_a_bad_chat_that_tells_log_probabilities_is_refused_too(kind: str, app: Any) -> None:
    ask, tell, fault = LOG_FAULTS[kind]
    with Twisted(app, ask, tell).serving() as url, pytest.raises(InputError, match=f"canary: {fault}"):
        chat_trial(url)


def test_a_chat_that_tells_what_is_left_after_temperature_0_is_drawn_from(app: Any) -> None:
    sure = of_first_tokens(lambda number: 0.0 if number < 2 else -9999.0)
    with Twisted(app, tell=sure).serving() as url:
        assert chat_trial(url, max_answer_tokens=1).dialect.way == "samples"


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield
