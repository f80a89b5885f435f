"""`lang1 watch`: what the page says, with and without a terminal, while a run grows and when it has ended."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from monitored import append_event

from lang1 import runs
from lang1.errors import InputError
from lang1.training.watching import binned, page, read_run, sparkline, watch


def write_run(out: Path, steps: int = 200, of: int = 400) -> Path:
    """A pretraining folder in the middle of its run."""
    curve, speed = [], []
    for step in range(1, steps + 1):
        row = {"step": step, "tokens": step * 4096, "loss": 2 + 8 * math.exp(-step / 40), "lr": 1e-3, "grad_norm": 1.0}
        if step % 50 == 0:
            row["val"] = {"clinical": {"loss": row["loss"] + 0.2}, "web": {"loss": None}}
        curve.append(row)
        speed.append({"step": step, "tokens_per_second": 1000.0 + step % 7, "data_wait_share": 0.01})
    runs.write_lines(out / "curve.jsonl", curve)
    runs.write_lines(out / "speed.jsonl", speed)
    runs.write_json(out / ".started.json", {"stage": "pretrain", "config": {"steps": of}})
    return out


def evaluation(step: int, value: float | None) -> dict[str, object]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {
        "step": step, "task": "sciq", "split": "val", "shots": 2, "metric": "accuracy", "value": value,
        "ci_low": low, "ci_high": high, "n": 200, "labels": [50] * 4, "broken": 0,
    }  # fmt: skip


def test_the_page_tells_loss_speed_evaluations_and_events(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    runs.write_lines(out / "evaluations.jsonl", [evaluation(step, step / 400) for step in (50, 100, 150, 200)])
    append_event(out, "spike", step=120, rank=3, loss=9.5)
    append_event(out, "rollback", step=121, to=100)
    text = page(read_run(out))
    assert "stopped: the same command goes on, step 200/400, 819,200 tokens, loss 2.0539" in text
    assert "o validation 2.2539" in text
    assert "tokens/s" in text and "last 1,004, median 1,003" in text and "waiting for data: 1.0%" in text
    assert "sciq accuracy                0.500 (0.400 to 0.600), n 200, 2 shots  " in text
    assert "events: spike 1, rollback 1" in text
    assert "step 120  spike, rank 3, loss 9.5" in text
    marks = next(line for line in text.splitlines() if line.startswith("   events  "))
    assert marks[11 + int(119 * 72 / 200)] in "!<"


def test_the_plot_falls_from_left_to_right_on_the_scale_of_what_follows_the_start(tmp_path: Path) -> None:
    lines = page(read_run(write_run(tmp_path / "run"))).splitlines()
    grid = [line[11:] for line in lines if "|" in line]
    assert grid[0].startswith("^^"), "the start lies above the scale"
    assert grid[-1].strip().startswith("**")
    assert grid[-1].rstrip().endswith("o"), "the validation of the last step is drawn over its loss"
    assert float(lines[3].split("|")[0]) == pytest.approx(2 + 8 * math.exp(-21 / 40), abs=0.2)
    assert all(len(line) <= 84 for line in lines if "run:" not in line)


def test_without_unicode_the_page_is_ascii(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    runs.write_lines(out / "evaluations.jsonl", [evaluation(50, 0.3), evaluation(100, None)])
    text = page(read_run(out), unicode=False)
    assert text.isascii()
    assert "no value at step 100 (n 200)" in text


def test_of_a_step_that_was_done_twice_the_last_counts(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    runs.write_lines(out / "evaluations.jsonl", [evaluation(50, 0.1), evaluation(100, 0.2), evaluation(50, 0.3)])
    rows = read_run(out).evaluations["sciq accuracy"]
    assert [(row["step"], row["value"]) for row in rows] == [(50, 0.3), (100, 0.2)]


def test_losses_that_are_not_finite_break_no_page(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", steps=3)
    for loss in (math.nan, math.inf):
        with runs.append_lines(out / "curve.jsonl") as append:
            append({"step": 4, "tokens": 4 * 4096, "loss": loss})
        watch(out, out=tmp_path / "run.png", show=lambda _: None)
    runs.write_lines(out / "curve.jsonl", [{"step": 1, "tokens": 1, "loss": math.nan}])
    assert "no finite loss" in page(read_run(out))


def test_the_picture_lies_beside_the_run_and_nothing_in_it_is_touched(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    runs.write_lines(out / "evaluations.jsonl", [evaluation(50, 0.3), evaluation(100, None)])
    before = sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir())
    watch(out, out=tmp_path / "a.png", show=lambda _: None)
    watch(out, out=tmp_path / "b.png", show=lambda _: None)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted((p.name, p.stat().st_mtime_ns) for p in out.iterdir()) == before


def test_a_folder_without_a_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no curve\.jsonl here; give the folder that lang1 pretrain writes"):
        read_run(tmp_path)


def test_following_shows_new_steps_and_ends_with_the_run(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", steps=10)
    code = (
        "import sys, time; from pathlib import Path; from lang1 import runs\n"
        "with runs.lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.readline()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdin is not None
    assert owner.stdout.readline() == "held\n"
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        if len(shown) == 1:
            with runs.append_lines(out / "curve.jsonl") as append:
                append({"step": 11, "tokens": 11 * 4096, "loss": 1.5})
        if len(shown) == 2:
            owner.stdin.write("\n")  # type: ignore[union-attr]
            owner.stdin.flush()  # type: ignore[union-attr]
            owner.wait(20)

    last = watch(out, out=tmp_path / "run.png", follow=True, every=0.01, show=show)
    assert [text.splitlines()[0].split(": ")[1].split(",")[0] for text in shown] == ["running", "running", "stopped"]
    assert "step 10/400" in shown[0] and "step 11/400" in shown[1] and "h to go" in shown[1]
    assert last.state == "stopped"


def test_sparklines_and_bins() -> None:
    assert sparkline([1, 2, 3], "abc") == "abc"
    assert sparkline([1, math.nan, 3], "abc") == "a c"
    assert sparkline([5, 5], "abc") == "aa"
    assert sparkline([], "abc") == sparkline([math.nan], "abc") == ""
    assert binned([1, 1, 9, 5, 5, 5], 2) == [1, 5]
    assert binned([1, 2], 10) == [1, 2]
    assert binned([], 10) == []


def test_a_month_of_steps_is_read_and_drawn_in_seconds(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run", steps=60_000, of=150_000)
    began = time.process_time()
    page(read_run(out))
    assert time.process_time() - began < 5


def test_the_command_works_without_a_terminal(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "lang1.cli", "watch", str(out)], capture_output=True, text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "step 200/400" in done.stdout and "\x1b" not in done.stdout
    assert (tmp_path / "run-watch.png").is_file()
    manifest = json.loads((out / ".started.json").read_text())
    assert manifest["stage"] == "pretrain"
