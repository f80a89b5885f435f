"""events.jsonl: every fact that may be there, nothing that could be a note, whole lines after a kill."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path

import pytest
from monitored import append_event

from lang1 import runs
from lang1.training.events import EVENTS, keep_whole_lines, read_events


def test_a_line_says_what_where_and_when(tmp_path: Path) -> None:
    append_event(tmp_path, "spike", step=7, rank=1, batch=[96, 111], loss=9.5, limit=4.25)
    append_event(tmp_path, "rollback", step=7, to=4)
    first, second = read_events(tmp_path)
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in ("kind", "step", "rank", "batch", "loss", "limit")} == {
        "kind": "spike", "step": 7, "rank": 1, "batch": [96, 111], "loss": 9.5, "limit": 4.25,
    }  # fmt: skip
    assert (second["kind"], second["rank"], second["to"]) == ("rollback", None, 4)
    assert stat.S_IMODE((tmp_path / EVENTS).stat().st_mode) == 0o640


def test_a_loss_that_is_not_finite_is_still_json(tmp_path: Path) -> None:
    append_event(tmp_path, "non_finite", step=3, loss=math.nan, grad_norm=math.inf)
    line = json.loads((tmp_path / EVENTS).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (line["loss"], line["grad_norm"]) == ("nan", "inf")


@pytest.mark.parametrize(
    "fact", ["The patient was admitted", "a\nb", "x" * 81, {"text": "note"}, b"note", ["fine", "not fine"]]
)
def test_text_is_refused_and_not_repeated_in_the_message(tmp_path: Path, fact: object) -> None:
    with pytest.raises(ValueError, match="numbers and short names only") as caught:
        append_event(tmp_path, "spike", step=1, fact=fact)
    assert "admitted" not in str(caught.value)
    assert read_events(tmp_path) == []


def test_a_line_torn_by_a_kill_does_not_swallow_the_next(tmp_path: Path) -> None:
    append_event(tmp_path, "spike", step=1)
    with (tmp_path / EVENTS).open("a") as sink:
        sink.write('{"kind": "spi')
    keep_whole_lines(tmp_path / EVENTS)
    append_event(tmp_path, "skip", step=2)
    assert [event["kind"] for event in read_events(tmp_path)] == ["spike", "skip"]


def test_a_log_is_cut_back_to_a_step(tmp_path: Path) -> None:
    runs.write_lines(tmp_path / "log.jsonl", [{"step": step} for step in (2, 4, 6)])
    keep_whole_lines(tmp_path / "log.jsonl", 4)
    assert runs.read_lines(tmp_path / "log.jsonl") == [{"step": 2}, {"step": 4}]
    keep_whole_lines(tmp_path / "none.jsonl", 4)
    assert not (tmp_path / "none.jsonl").exists()
