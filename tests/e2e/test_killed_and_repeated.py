"""kill -9 at any moment, other workers, other hash seeds: the same numbers, and the same bytes of data."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from running import ALONE, LANG1, RECIPE, TRIMMED, Run, lang1

pytestmark = pytest.mark.slow
DATA = ("records", "corpus", "tokens", "tasks")
"""stages whose bytes are fixed by the seed"""
ORDER = (
    *("warehouse", "records", "corpus", "tokens", "checkpoints"),
    *("tasks", "model", "model-random", "scores", "report"),
)
"""the stages' folders as `lang1 run` comes to them"""
KILLED = ("corpus", "checkpoints", "model") if TRIMMED else ORDER
KILLS_A_STAGE = 1 if TRIMMED else 2


def files_of(run: Path, stage: str) -> dict[str, str]:
    manifest = json.loads((run / stage / "manifest.json").read_text())
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def numbers(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def curve(run: Path, stage: str) -> str:
    return (run / stage / "curve.jsonl").read_text()


def seconds_of(run: Path, stage: str) -> float:
    return float(json.loads((run / stage / "manifest.json").read_text())["seconds"])


def text_of(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def kill_within(run: Path, stage: str, after_s: float) -> bool:
    """Start the run, kill it `after_s` seconds after `stage` began. True when the stage was not yet complete."""
    began, ended, lock = (run / stage / name for name in (".started.json", "manifest.json", ".lock"))
    with subprocess.Popen(
        [LANG1, "run", RECIPE, "--out", run], env=ALONE, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        # the files of the last kill may still be there: wait for this process to hold the lock
        while process.poll() is None and not (began.exists() and f'"pid": {process.pid},' in text_of(lock)):
            time.sleep(0.01)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    return began.exists() and not ended.exists()


def without(run: Path, stage: str) -> Path:
    """The run as it was before `stage`: the machine was quicker than in the run that gave the seconds."""
    for later in ORDER[ORDER.index(stage) :]:
        shutil.rmtree(run / later, ignore_errors=True)
    return run


def test_killed_run_ends_with_the_numbers_of_an_undisturbed_one(small: Run, tmp_path: Path) -> None:
    run, draw = tmp_path / "run", random.Random(int(os.environ.get("LANG1_KILL_SEED", "0")))
    in_the_middle = 0
    for stage in KILLED:
        for _ in range(KILLS_A_STAGE):
            after_s = draw.uniform(0.0, 0.8) * seconds_of(small.folder, stage)
            in_the_middle += kill_within(run, stage, after_s) or kill_within(without(run, stage), stage, after_s / 3)
    assert in_the_middle >= 2, "the kills came too late to prove anything"
    done = lang1("run", RECIPE, "--out", run)
    assert done.returncode == 0, done.stderr
    assert ": resuming (" in done.stderr
    for stage in DATA:
        assert files_of(run, stage) == files_of(small.folder, stage), stage
    for stage in ("checkpoints", "model", "model-random"):
        assert curve(run, stage) == curve(small.folder, stage), stage
    for weights in ("checkpoints/export", "model", "model-random"):
        ours, theirs = (folder / weights / "model.safetensors" for folder in (run, small.folder))
        assert ours.read_bytes() == theirs.read_bytes(), weights
    assert numbers(run) == numbers(small.folder)
    assert not list(run.rglob(".*.tmp"))


def test_same_seed_gives_the_same_bytes_and_numbers_whatever_the_workers(small: Run, tmp_path: Path) -> None:
    other = {**ALONE, "PYTHONHASHSEED": "12345", "TZ": "Asia/Kolkata"}
    changes = ["simulate.workers=2", "clean.workers=2", "clean.partition_rows=700"]
    done = lang1("run", RECIPE, *changes, "--out", tmp_path / "run", environment=other)
    assert done.returncode == 0, done.stderr
    for stage in ("records", "tasks"):
        assert files_of(tmp_path / "run", stage) == files_of(small.folder, stage), stage
    for stage in DATA:
        for name, digest in files_of(small.folder, stage).items():
            if "partition" not in name:
                assert files_of(tmp_path / "run", stage).get(name) == digest, f"{stage}/{name}"
    assert numbers(tmp_path / "run") == numbers(small.folder)


def test_another_seed_gives_another_hospital(small: Run, tmp_path: Path) -> None:
    done = lang1("run", RECIPE, "--seed", "8", "--to", "extract", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "run", "records") != files_of(small.folder, "records")
