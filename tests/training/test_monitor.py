"""The monitor as a loop uses it: files, sinks, alerts; only the first rank writes; bad input is told early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import write_comprehension

from lang1 import runs
from lang1.config import EvaluationConfig, GenerationConfig, MonitorConfig, SinksConfig
from lang1.errors import InputError
from lang1.models.load import load_model, load_tokenizer
from lang1.training import monitor as monitoring
from lang1.training.events import read_events
from lang1.training.monitor import Monitor, open_monitor
from lang1.training.sinks import Alert, Message, Outlet, Rewind, Scalars, Sink


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Any:
    torch.set_num_threads(1)
    return load_model(model_folder)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Any:
    return load_tokenizer(model_folder)


@pytest.fixture(scope="module")
def comprehension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comprehension(tmp_path_factory.mktemp("comprehension"))


def opened(out: Path, tokenizer: Any, config: MonitorConfig | None = None, **options: int) -> Monitor:
    config = config or MonitorConfig()
    return open_monitor(config, out, tokenizer=tokenizer, context_length=128, seed=1, **options)


def told(monitor: Monitor, monkeypatch: pytest.MonkeyPatch | None = None) -> list[Message]:
    """Give a monitor a sink that keeps what it gets."""
    got: list[Message] = []
    monitor.sinks = [Sink("kept", lambda: Outlet(got.append, lambda: None))]
    return got


def observing(comprehension: Path, every: int = 2) -> MonitorConfig:
    return MonitorConfig(
        generations=GenerationConfig(every=every, max_new_tokens=8),
        evaluations=EvaluationConfig(every=2 * every, comprehension=str(comprehension), rows=10, resamples=20, shots=1),
    )


def test_by_default_nothing_is_written_sent_or_due(tokenizer: Any, tmp_path: Path) -> None:
    with opened(tmp_path / "run", tokenizer) as monitor:
        monitor.step({"step": 1, "loss": 3.0})
        assert not monitor.is_due(1000)
        assert monitor.observe(None, 1000) == {}
        assert monitor.sinks == []
    assert not (tmp_path / "run").exists()


def test_generations_and_scores_come_at_their_steps(
    model: Any, tokenizer: Any, comprehension: Path, tmp_path: Path
) -> None:
    with opened(tmp_path, tokenizer, observing(comprehension)) as monitor:
        got = told(monitor)
        due = [step for step in range(1, 9) if monitor.is_due(step)]
        values = {step: monitor.observe(model, step) for step in due}
    assert due == [2, 4, 6, 8]
    assert [bool(values[step]) for step in due] == [False, True, False, True]
    lines = runs.read_lines(tmp_path / "generations.jsonl")
    prompts = monitoring.generations.read_prompts(GenerationConfig())
    assert [line["step"] for line in lines] == [step for step in due for _ in prompts]
    rows = runs.read_lines(tmp_path / "evaluations.jsonl")
    assert [(row["step"], row["task"]) for row in rows] == [(s, t) for s in (4, 8) for t in ("pubmedqa", "sciq")]
    assert values[4] == {f"{row['task']}/accuracy": row["value"] for row in rows[:2]}
    sent = [(message.step, dict(message.values)) for message in got if isinstance(message, Scalars)]
    assert sent[0] == (4, {f"evaluation/{row['task']}/accuracy": row["value"] for row in rows[:2]})


def test_a_resumed_run_repeats_its_files_and_keeps_its_events(
    model: Any, tokenizer: Any, comprehension: Path, tmp_path: Path
) -> None:
    def go(out: Path, steps: range, step: int) -> None:
        with opened(out, tokenizer, observing(comprehension), step=step) as monitor:
            for now in steps:
                if monitor.is_due(now):
                    monitor.observe(model, now)
                if now == 3:
                    monitor.event("spike", step=now, loss=9.0, batch=[8, 11])

    go(tmp_path / "whole", range(1, 9), 0)
    go(tmp_path / "cut", range(1, 7), 0)  # killed at 6, the last checkpoint at 4
    go(tmp_path / "cut", range(5, 9), 4)
    for name in ("generations.jsonl", "evaluations.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [event["step"] for event in read_events(tmp_path / "cut") if event["kind"] == "spike"] == [3]


def test_after_a_rollback_files_hold_each_step_once_and_sinks_are_told(
    model: Any, tokenizer: Any, comprehension: Path, tmp_path: Path
) -> None:
    with opened(tmp_path, tokenizer, observing(comprehension)) as monitor:
        got = told(monitor)
        for step in (2, 4, 6):
            monitor.observe(model, step)
        monitor.event("rollback", step=6, to=4)
        monitor.rewind(4)
        assert {line["step"] for line in runs.read_lines(tmp_path / "generations.jsonl")} == {2, 4}
        monitor.observe(model, 6)
    steps = [line["step"] for line in runs.read_lines(tmp_path / "generations.jsonl")]
    assert steps == [step for step in (2, 4, 6) for _ in monitor.prompts]
    assert Rewind(4) in got
    assert [event["kind"] for event in read_events(tmp_path)] == ["rollback"]


def test_a_disk_that_refuses_a_line_is_said_once_and_training_goes_on(
    tokenizer: Any, tmp_path: Path, capsys: Any
) -> None:
    runs.set_quiet(False)
    with opened(tmp_path, tokenizer) as monitor:
        got = told(monitor)
        (tmp_path / "events.jsonl").mkdir()
        for step in (1, 2):
            monitor.event("spike", step=step, loss=9.0)
    said = capsys.readouterr().err
    assert said.count("events.jsonl: cannot be written") == 1
    assert "training goes on" in said and "spike at step 2" in said
    assert [message.step for message in got] == [1]


def test_the_numbers_of_a_step_go_out_by_their_path_and_what_is_not_finite_stays(
    tokenizer: Any, tmp_path: Path
) -> None:
    with opened(tmp_path, tokenizer) as monitor:
        got = told(monitor)
        val = {"clinical": {"loss": 2.5, "perplexity": 12.2}, "web": {"loss": None}}
        monitor.step({"step": 4, "loss": 3.0, "grad_norm": math.nan, "val": val, "finished": True, "name": "text"})
    assert got == [Scalars(4, {"loss": 3.0, "val/clinical/loss": 2.5, "val/clinical/perplexity": 12.2})]


def test_an_event_is_written_said_and_sent(tokenizer: Any, tmp_path: Path, capsys: Any) -> None:
    runs.set_quiet(False)
    with opened(tmp_path, tokenizer) as monitor:
        got = told(monitor)
        monitor.event("spike", step=7, rank=3, batch=[96, 111], loss=9.5, limit=4.0)
        monitor.event("resumed", step=8)
    assert [event["kind"] for event in read_events(tmp_path)] == ["spike", "resumed"]
    assert got == [Alert(7, "spike", "spike at step 7: rank 3, loss 9.5, limit 4.0")]
    assert "spike at step 7: rank 3, loss 9.5, limit 4.0" in capsys.readouterr().err


def test_a_run_that_diverges_sends_one_alert_and_writes_every_event(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: clock[0])
    with opened(tmp_path, tokenizer) as monitor:
        got = told(monitor)
        for step in range(50):
            monitor.event("spike", step=step, loss=9.0)
        monitor.event("non_finite", step=50, loss=math.nan)
        clock[0] += monitoring.ALERT_EVERY_S
        monitor.event("spike", step=51, loss=9.0)
    assert [(message.step, message.kind) for message in got if isinstance(message, Alert)] == [
        (0, "spike"), (50, "non_finite"), (51, "spike"),
    ]  # fmt: skip
    assert "49 more since" in got[-1].line  # type: ignore[union-attr]
    assert len(read_events(tmp_path)) == 52


def test_a_text_never_becomes_an_event_or_an_alert(tokenizer: Any, tmp_path: Path) -> None:
    with opened(tmp_path, tokenizer) as monitor:
        got = told(monitor)
        with pytest.raises(ValueError, match="short names only"):
            monitor.event("spike", step=1, note="the patient was seen")
    assert got == []


def test_degenerate_texts_become_an_event_without_the_text(
    model: Any, tokenizer: Any, comprehension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = tokenizer(" fever", add_special_tokens=False)["input_ids"][0]
    monkeypatch.setattr(
        monitoring.generations, "_pick", lambda logits, temperature, draws: torch.full((len(logits),), loop)
    )
    config = MonitorConfig(generations=GenerationConfig(every=1, max_new_tokens=40))
    with opened(tmp_path, tokenizer, config) as monitor:
        got = told(monitor)
        monitor.observe(model, 1)
    (event,) = read_events(tmp_path)
    prompts = [prompt.id for prompt in monitor.prompts]
    assert (event["kind"], event["prompts"], event["of"]) == ("degenerate_generation", prompts, len(prompts))
    assert set(event["faults"]) == {"repetition"}
    assert [message.kind for message in got if isinstance(message, Alert)] == ["degenerate_generation"]
    assert "fever" not in str(got) + str(event)
    assert "fever" in runs.read_lines(tmp_path / "generations.jsonl")[0]["text"]


def test_a_sink_that_fails_becomes_one_event_and_training_goes_on(tokenizer: Any, tmp_path: Path) -> None:
    def fail(_: Message) -> None:
        raise ConnectionError("https://user:s3cret@host")

    with opened(tmp_path, tokenizer) as monitor:
        monitor.sinks = [Sink("broken", lambda: Outlet(fail, lambda: None))]
        for step in range(1, 40):
            monitor.step({"step": step, "loss": 1.0})
    (event,) = read_events(tmp_path)
    assert (event["kind"], event["sink"], event["error"]) == ("sink_failed", "broken", "ConnectionError")
    assert "s3cret" not in (tmp_path / "events.jsonl").read_text()


def test_other_ranks_write_nothing_and_open_no_sink(
    model: Any, tokenizer: Any, comprehension: Path, tmp_path: Path
) -> None:
    config = MonitorConfig(
        generations=GenerationConfig(every=1, max_new_tokens=8),
        evaluations=EvaluationConfig(every=1, comprehension=str(comprehension), rows=4, resamples=20, shots=0),
        sinks=SinksConfig(tensorboard=True),
    )
    with opened(tmp_path / "run", tokenizer, config, rank=1) as monitor:
        monitor.step({"step": 1, "loss": 1.0})
        monitor.event("spike", step=1)
        assert set(monitor.observe(model, 1)) == {"sciq/accuracy", "pubmedqa/accuracy"}
        assert monitor.sinks == []
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_used_is_refused_before_the_first_step(tokenizer: Any, tmp_path: Path) -> None:
    config = MonitorConfig(evaluations=EvaluationConfig(every=100, tasks=str(tmp_path / "none")))
    with pytest.raises(InputError, match="no such folder"):
        opened(tmp_path, tokenizer, config)
