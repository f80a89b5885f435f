"""Of several models, one that cannot be asked is refused before the first is scored, not when its turn comes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_servers import CONFIG, chat, completions, run, scores
from fastapi.responses import JSONResponse
from small_benchmark import write_tasks
from tokenizers import Tokenizer, normalizers

from lang1 import runs
from lang1.errors import InputError, Unfinished
from lang1.remede.entrants import Entrant
from live import Body, Twisted

ONE = replace(CONFIG, tasks=("mortality",))
ROWS = 20
CANARY_REQUESTS = 13


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rows"), ("mortality",), {"train": 60, "test": ROWS})


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    runs.set_quiet(True)
    yield


def constant(asked: Body, answer: Body) -> Body:
    for choice in answer["choices"]:
        told = choice["logprobs"]["top_logprobs"]
        told[:] = [dict.fromkeys(tokens, -3.0) for tokens in told]
    return answer


def refused_up_front(out: Path, tasks: Path, models: dict[str, Any], match: str, cfg: Any = ONE) -> None:
    with pytest.raises(InputError, match=match):
        run(out, tasks, models, cfg)
    assert not list(out.rglob("*.parquet"))


@pytest.mark.parametrize("kind", [chat, completions])
def test_a_wrong_address_is_told_first_and_leaves_the_folder_free(
    kind: Callable[..., Any], app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    models = {"memory": model, "served": kind("http://127.0.0.1:9/v1", model)}
    refused_up_front(out, tasks, models, "cannot be reached")
    with Twisted(app).serving() as url:
        run(out, tasks, {"memory": model, "served": kind(url, model)}, ONE)
    assert len(scores(out, "served", "mortality")) == ROWS


def test_a_key_that_is_not_set_is_told_first(model: Path, tasks: Path, tmp_path: Path) -> None:
    cfg = replace(ONE, api=replace(ONE.api, api_key_env="LANG1_NO_SUCH_KEY"))
    models = {"memory": model, "served": completions("http://127.0.0.1:9/v1", model)}
    refused_up_front(tmp_path / "scores", tasks, models, "LANG1_NO_SUCH_KEY is not set", cfg)


def test_a_server_that_fails_the_canary_is_told_first(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    with Twisted(app, tell=constant).serving() as url:
        models = {"memory": model, "served": completions(url, model)}
        refused_up_front(tmp_path / "scores", tasks, models, "canary: constant")


def test_shots_that_a_model_has_no_room_for_are_told_first(app: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    many = Entrant({"mortality": model}, shots=12)
    refused_up_front(tmp_path / "a", tasks, {"memory": model, "many": many}, f"{model}: .*leaves no room")
    with Twisted(app).serving() as url:
        short = replace(ONE, shots=1, shot_tokens=20, api=replace(ONE.api, context_length=60))
        models = {"memory": model, "served": completions(url, model)}
        refused_up_front(tmp_path / "b", tasks, models, f"{url}.*context of 60 tokens leaves no room", short)


def test_options_that_are_no_token_are_told_first(model: Path, tasks: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "other")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(folder / "tokenizer.json"))
    refused_up_front(tmp_path / "scores", tasks, {"memory": model, "other": folder}, "tokenizer: the option|merges")


def test_a_model_that_is_done_is_not_asked_again_and_no_row_twice(
    app: Any, model: Path, tasks: Path, tmp_path: Path
) -> None:
    number = itertools.count()

    def failing(asked: Body, answer: Body) -> Any:
        return answer if next(number) < 2 * CANARY_REQUESTS + 8 else JSONResponse({}, status_code=500)

    one_by_one = replace(ONE, api=replace(ONE.api, concurrency=1))
    first, second = Twisted(app), Twisted(app, tell=failing)
    with first.serving() as one, second.serving() as two:
        models = {"first": completions(one, model), "second": completions(two, model)}
        with pytest.raises(Unfinished, match="HTTP 500"):
            run(tmp_path / "scores", tasks, models, one_by_one)
        assert len(first.asked) == 2 * CANARY_REQUESTS + ROWS
        second.tell = lambda asked, answer: answer
        first.asked.clear()
        second.asked.clear()
        run(tmp_path / "scores", tasks, models, one_by_one)
    assert first.asked == []
    assert len(second.asked) == 2 * CANARY_REQUESTS + ROWS - 8
