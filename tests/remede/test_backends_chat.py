"""A chat API: log-probabilities where it tells them, else counts of drawn answers, read strictly (Appendix J)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_servers import CONFIG, chat, probabilities, run, scores
from small_benchmark import write_tasks

from lang1.config import ApiConfig
from lang1.remede.backends.answers import named_option
from lang1.remede.backends.chat import counted, draw_seed
from live import Body, Twisted, serving, without

SAMPLED = replace(CONFIG.api, max_answer_tokens=1)
mute = without("logprobs", "top_logprobs")
"""a server that tells no log-probabilities"""


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    from lang1 import runs

    runs.set_quiet(True)
    yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("los", "cci"), {"test": 60})


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory, model: Path, tasks: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("memory") / "scores"
    run(out, tasks, {"memory": model}, replace(CONFIG, tasks=("los", "cci")))
    return {task: probabilities(out, "memory", task) for task in ("los", "cci")}


def with_api(api: ApiConfig, **changed: Any) -> Any:
    return replace(CONFIG, tasks=("los",), api=api, **changed)


def test_counts_of_drawn_answers_follow_the_probabilities_in_memory(
    app: Any, model: Path, tasks: Path, in_memory: dict[str, Any], tmp_path: Path
) -> None:
    from scipy.stats import chi2

    api = replace(SAMPLED, samples=100)
    with Twisted(app, mute).serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, with_api(api))
    table = scores(tmp_path / "scores", "chat", "los")
    drawn = 100 - table["answers_refused"].to_numpy()
    assert drawn.min() > 80
    counts = np.rint(probabilities(tmp_path / "scores", "chat", "los") * drawn[:, None])
    statistic, degrees = 0.0, 0
    for row, p, n in zip(counts, in_memory["los"], drawn, strict=True):
        often = p * n >= 5
        assert often.sum() >= 2
        observed, expected = row[often], p[often] * n
        if not often.all():  # rare options together
            observed, expected = np.append(observed, row[~often].sum()), np.append(expected, p[~often].sum() * n)
        statistic += float(((observed - expected) ** 2 / expected).sum())
        degrees += len(observed) - 1
    assert degrees > 80
    assert chi2.sf(statistic, degrees) > 0.01
    assert chi2.cdf(statistic, degrees) > 0.001  # nor nearer than chance allows: the draws of a row are its own
    assert set(table["method"].to_pylist()) == {"chat, 100 samples"}


def test_ten_samples_a_row_give_tenths_in_one_request(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Twisted(app, mute)
    with server.serving() as url:
        manifest = run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, with_api(SAMPLED, max_rows=20))
    table = scores(tmp_path / "scores", "chat", "los")
    rows = [body for body in server.asked if body.get("n") == 10 and body["seed"] != 1]  # 1: the canary's
    assert len(rows) == 20
    assert len({body["seed"] for body in rows}) == len(rows)  # or a server would draw the same for every row
    assert all(body["temperature"] == 1 for body in rows)
    kept = table["answers_refused"].to_numpy() == 0
    tenths = probabilities(tmp_path / "scores", "chat", "los")[kept] * 10
    assert np.abs(tenths - np.rint(tenths)).max() < 1e-9
    assert table["logit_0"].null_count == 20
    assert manifest["facts"]["api"]["chat"]["rows_by_method"] == {"chat, 10 samples": 20}


def test_a_server_without_n_is_asked_ten_times(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Twisted(app, without("logprobs", "top_logprobs", "n"))
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, with_api(SAMPLED, max_rows=4))
    words = [body for body in server.asked if body["temperature"] == 1 and "n" not in body]
    assert len({body["seed"] for body in words}) == 40
    assert len(scores(tmp_path / "scores", "chat", "los")) == 4


def test_cci_is_answered_once_greedily_with_zeros_and_ones(
    app: Any, model: Path, tasks: Path, in_memory: dict[str, Any], tmp_path: Path
) -> None:
    cfg = replace(with_api(SAMPLED), tasks=("cci",))
    server = Twisted(app, mute)
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, cfg)
    found = probabilities(tmp_path / "scores", "chat", "cci")
    assert set(found.ravel()) == {0.0, 1.0}
    clear = np.sort(in_memory["cci"])[:, -1] - np.sort(in_memory["cci"])[:, -2] > 1e-3
    assert (found.argmax(1) == in_memory["cci"].argmax(1))[clear].all()
    assert all(body["temperature"] == 0 for body in server.asked[-60:])
    assert set(scores(tmp_path / "scores", "chat", "cci")["method"].to_pylist()) == {"chat, greedy"}


def test_log_probabilities_are_used_where_the_server_tells_them(
    app: Any, model: Path, tasks: Path, in_memory: dict[str, Any], tmp_path: Path
) -> None:
    with serving(app) as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, with_api(replace(CONFIG.api, top_logprobs=500)))
    assert np.abs(probabilities(tmp_path / "scores", "chat", "los") - in_memory["los"]).max() < 1e-3
    assert set(scores(tmp_path / "scores", "chat", "los")["method"].to_pylist()) == {"chat, top 500"}


def test_rows_are_at_most_so_many_for_every_model(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    api = replace(SAMPLED, max_rows=7, greedy_max_rows=9)
    cfg = replace(with_api(api), tasks=("los", "cci"))
    with Twisted(app, mute).serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model), "memory": model}, cfg)
    for name in ("chat", "memory"):
        assert len(scores(tmp_path / "scores", name, "los")) == 7
        assert len(scores(tmp_path / "scores", name, "cci")) == 9


def test_answers_that_name_nothing_are_counted(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    def tell(asked: Body, answer: Body) -> Body:
        for number, choice in enumerate(answer["choices"]):
            if number % 2:
                choice["message"]["content"] = "As a language model I cannot say."
        return answer

    with Twisted(app, mute, tell).serving() as url:
        manifest = run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, with_api(SAMPLED, max_rows=5))
    refused = scores(tmp_path / "scores", "chat", "los")["answers_refused"].to_numpy()
    assert (refused >= 5).all()
    assert manifest["facts"]["api"]["chat"]["answers_refused"] == refused.sum()


def test_a_chat_that_draws_no_answers_is_told_of(
    app: Any, model: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that keeps answers, or a server that ignores temperature: ten draws are one."""
    from lang1 import runs

    def tell(asked: Body, answer: Body) -> Body:
        for choice in answer["choices"]:
            choice["message"]["content"] = answer["choices"][0]["message"]["content"]
        return answer

    cfg = with_api(SAMPLED, max_rows=20)
    runs.set_quiet(False)
    try:
        for name, twisted in (("kept", Twisted(app, mute, tell)), ("drawn", Twisted(app, mute))):
            with twisted.serving() as url:
                run(tmp_path / name, tasks, {name: chat(url, model)}, cfg)
    finally:
        runs.set_quiet(True)
    said = [line for line in capsys.readouterr().err.splitlines() if "does the server draw" in line]
    assert len(said) == 1
    assert "the 10 answers drawn to a row are one answer in every row" in said[0]


def test_without_a_tokenizer_a_note_is_cut_by_characters(app: Any, tasks: Path, tmp_path: Path) -> None:
    cfg = with_api(SAMPLED, max_rows=5, max_note_tokens=10)
    server = Twisted(app, mute)
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url)}, cfg)
    notes = [body["messages"][-1]["content"].partition("\nQuestion:")[0] for body in server.asked[-5:]]
    assert {len(note) for note in notes} == {40}
    assert min(scores(tmp_path / "scores", "chat", "los")["truncated_tokens"].to_pylist()) > 0


def test_the_instruction_is_a_system_message(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    server = Twisted(app, mute)
    cfg = with_api(replace(SAMPLED, instruction="Answer with a letter."), max_rows=2)
    with server.serving() as url:
        run(tmp_path / "scores", tasks, {"chat": chat(url, model)}, cfg)
    assert server.asked[-1]["messages"][0] == {"role": "system", "content": "Answer with a letter."}


def test_the_harness_reads_an_answer_with_the_options_own_words(app: Any, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    from lang1.remede.backends.chat import RemedeChat
    from lang1.remede.backends.transport import Line

    shot = "Rain?\nA. yes\nB. no\nAnswer: B\n\n"
    asked = [
        Instance("loglikelihood", {}, (f"{shot}Snow on {day}?\nA. no\nB. yes\nAnswer:", f" {letter}"), 0)
        for day in ("Monday", "Tuesday")
        for letter in "AB"
    ]

    def tell(body: Body, answer: Body) -> Body:
        said = {"Monday": "B. yes", "Tuesday": "B. no"}  # of the question, and of the example before it
        text = body["messages"][-1]["content"]
        for choice in answer["choices"]:
            easy = "A" if "cold" in text or "Answer: A" in text else "B"
            choice["message"]["content"] = next((words for day, words in said.items() if day in text), easy)
        return answer

    with Twisted(app, mute, tell).serving() as url:
        found = RemedeChat(Line(chat(url), SAMPLED), 5).loglikelihood(asked)
    assert [math.exp(value) for value, _ in found] == pytest.approx([0, 1, 0.5, 0.5])


# --- reading answers

OPTIONS = ("No", "Yes, within 30 days", "Not known")


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", 1),
        (" B\n", 1),
        ("B.", 1),
        ("(B)", 1),
        ("**B**", 1),
        ("B) Yes, within 30 days", 1),
        ("B. yes, within", 1),  # cut by the limit of tokens
        ("Answer: C", 2),
        ("The correct answer is A.", 0),
        ("A. No.", 0),
        ("<think>It may be A or C.</think>\n\nB", 1),
        ("", None),
        ("b", None),
        ("D", None),
        ("A patient with sepsis", None),
        ("A or B", None),
        ("A, B", None),
        ("AB", None),
        ("B. No", None),  # letter and words name two
        ("I cannot answer that.", None),
        ("Yes", None),
        ("<think>B", None),
    ],
)
def test_an_answer_names_an_option_by_its_letter_or_nothing(answer: str, option: int | None) -> None:
    assert named_option(answer, OPTIONS, "ABC") == option


def test_counts_become_probabilities_and_nothing_named_becomes_equal_ones() -> None:
    assert counted(["A", "B", "B", "no idea"], OPTIONS, 9).p == [1 / 3, 2 / 3, 0]
    assert counted(["A", "B", "B", "no idea"], OPTIONS, 9).refused == 1
    assert counted(["?", "?"], OPTIONS, 9).p == [1 / 3] * 3
    assert counted(["?", "?"], OPTIONS, 9).refused == 2


def test_seeds_differ_by_row_and_draw_and_are_fixed() -> None:
    seeds = {draw_seed(5, row, draw) for row in ("a", "b") for draw in range(10)}
    assert len(seeds) == 20
    assert draw_seed(5, "a", 0) == draw_seed(5, "a", 0) != draw_seed(6, "a", 0)
    assert all(0 <= seed < 2**31 for seed in seeds)
