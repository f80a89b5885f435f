"""SciQ and PubMedQA asked of a model behind an API: as in memory by completions, by letters of a chat, none twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from api_servers import CONFIG, chat, completions
from small_benchmark import write_comprehension

from lang1 import runs
from lang1.errors import InputError
from lang1.models.load import load_tokenizer
from lang1.remede.comprehension import evaluate_comprehension
from live import Twisted, without

ALL = replace(CONFIG, api=replace(CONFIG.api, top_logprobs=1000), shots=1, shot_tokens=8)


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    runs.set_quiet(True)
    yield


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comprehension(tmp_path_factory.mktemp("sets"), 40)


def run(out: Path, sets: Path, models: dict[str, Any], cfg: Any = ALL) -> dict[str, Any]:
    """What metrics.json says."""
    evaluate_comprehension(cfg, models=models, comprehension=sets, out=out, seed=5)
    found: dict[str, Any] = runs.read_json(out / "metrics.json")
    return found


def log_likelihoods(out: Path, model: str, task: str) -> Any:
    table = pq.read_table(out / model / task / "val.parquet")
    return np.column_stack([table[name].to_numpy() for name in table.column_names if name.startswith("log_like")])


@pytest.mark.parametrize("hears", [(), ("logprob_token_ids",)])
def test_likelihoods_of_completions_are_those_in_memory(
    hears: tuple[str, ...], app: Any, model: Path, sets: Path, tmp_path: Path
) -> None:
    with Twisted(app, without(*hears)).serving() as url:
        found = run(tmp_path / "out", sets, {"memory": model, "served": completions(url, model)})
    for task in ("sciq", "pubmedqa"):
        ours, theirs = (log_likelihoods(tmp_path / "out", name, task) for name in ("memory", "served"))
        assert ours.std() > 0.1, "rows and options differ, so agreement says something"
        np.testing.assert_allclose(theirs, ours, atol=1e-3)
        memory, served = (
            pq.read_table(tmp_path / "out" / name / task / "val.parquet") for name in ("memory", "served")
        )
        assert served["prompt_tokens"].equals(memory["prompt_tokens"])
        assert set(served["options_missing"].to_pylist()) == {0}
    rows = {(row["model"], row["task"]): row for row in found["rows"]}
    assert rows["served", "sciq"]["method"] == ["completions, echo"]
    assert rows["served", "sciq"]["value"] == rows["memory", "sciq"]["value"]
    assert found["facts"]["models"]["served"]["kind"] == "served"
    assert found["facts"]["api"]["served"]["canary"]["echo"] == "honoured"


def test_a_server_without_echo_is_told_before_a_row_is_sent(app: Any, model: Path, sets: Path, tmp_path: Path) -> None:
    server = Twisted(app, without("echo"))
    with server.serving() as url, pytest.raises(InputError, match="several tokens, which needs echo"):
        run(tmp_path / "out", sets, {"served": completions(url, model)})
    assert not list((tmp_path / "out").rglob("*.jsonl"))
    tokenizer = load_tokenizer(model)
    sent = {tokenizer.decode(ids) for body in server.asked for ids in body["prompt"] if isinstance(ids, list)}
    passages = [row["text"] for row in pq.read_table(sets / "sciq/val.parquet").to_pylist()]
    assert len(sent) > 3, "the canary's"
    assert not any(passage in prompt for prompt in sent for passage in passages)


def test_answers_that_came_are_not_asked_for_again(app: Any, model: Path, sets: Path, tmp_path: Path) -> None:
    fails_after = 40

    def tell(asked: Any, answer: Any) -> Any:
        if len(server.asked) > fails_after:
            answer["choices"] = []
        return answer

    server = Twisted(app, tell=tell)
    with server.serving() as url:
        served = {"served": completions(url, model)}
        with pytest.raises(InputError, match="finished rows are kept"):
            run(tmp_path / "cut", sets, served)
        (journal,) = (tmp_path / "cut").rglob("sciq-val.jsonl")
        kept = len(runs.read_lines(journal))
        fails_after = 10**9
        server.asked.clear()
        cut = run(tmp_path / "cut", sets, served)
        again = len(server.asked)
        server.asked.clear()
        whole = run(tmp_path / "whole", sets, served)
        assert kept > 5
        assert len(server.asked) - again == kept
    assert cut["rows"] == whole["rows"]
    for task in ("sciq", "pubmedqa"):
        one, two = (log_likelihoods(tmp_path / name, "served", task) for name in ("cut", "whole"))
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("ways", ["top_logprobs", "samples"])
def test_a_chat_answers_by_letter_and_ties_are_no_answer(
    ways: str, app: Any, model: Path, sets: Path, tmp_path: Path
) -> None:
    api = replace(ALL.api, max_answer_tokens=1, samples=4, max_rows=25, chat_scores=ways)
    cfg = replace(ALL, api=api)
    server = Twisted(app)
    with server.serving() as url:
        found = run(tmp_path / "out", sets, {"memory": model, "chat": chat(url, model)}, cfg)
    texts = [body["messages"][-1]["content"] for body in server.asked]
    example = found["facts"]["shots"]["sciq"]["row_ids"][0]
    (train,) = (row for row in pq.read_table(sets / "sciq/train.parquet").to_pylist() if row["row_id"] == example)
    lettered = f"D. {train['options'][3]}\nAnswer: {'ABCD'[train['label']]}\n\n"
    assert sum(lettered in text for text in texts) >= 25
    for row in found["rows"]:
        table = pq.read_table(tmp_path / "out" / row["model"] / row["task"] / "val.parquet")
        assert row["n"] == len(table) <= (25 if ways == "samples" else 40), "all models on the same rows"
        if row["model"] == "memory":
            assert row["undecided"] == 0
            continue
        p = np.column_stack([table[name].to_numpy() for name in table.column_names if name.startswith("p_")])
        np.testing.assert_allclose(p.sum(axis=1), 1)
        labels = table["label"].to_numpy()
        alone = (p == p.max(axis=1, keepdims=True)).sum(axis=1) == 1
        assert row["value"] == ((p.argmax(axis=1) == labels) & alone).mean()
        assert row["undecided"] == (~alone).sum()
        assert row["method"] == ["chat, 4 samples" if ways == "samples" else "chat, top 1000"]
