"""One process and two train the same model, go on from each other's checkpoints, and end together."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ranks import SMALL, curve, ended, pretrained, start, with_sharding

from lang1 import runs
from lang1.training.checkpoint import latest_checkpoint


@pytest.fixture(scope="module")
def alone(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(SMALL, tokens, tmp_path_factory.mktemp("alone") / "checkpoints", 1)


@pytest.fixture(scope="module")
def two(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(with_sharding("gradients"), tokens, tmp_path_factory.mktemp("two") / "checkpoints", 2)


def same(a: Path, b: Path) -> None:
    ours, theirs = curve(a), curve(b)
    assert [row["step"] for row in ours] == list(range(1, 21)) == [row["step"] for row in theirs]
    for x, y in zip(ours, theirs, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], abs=1e-5)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-4)
        assert x["tokens"] == y["tokens"]
    assert ours[-1]["val"]["clinical"]["loss"] == pytest.approx(theirs[-1]["val"]["clinical"]["loss"], abs=1e-5)
    assert ours[-1]["val"]["clinical"]["tokens"] == theirs[-1]["val"]["clinical"]["tokens"]


def test_two_processes_have_the_losses_of_one_with_shared_out_gradients(alone: Path, two: Path) -> None:
    same(alone, two)
    manifest = runs.read_manifest(two)
    assert manifest["facts"]["processes"] == 2
    assert manifest["facts"]["tokens_by_source"] == {"clinical": 20 * 8 * 32}
    assert len(list((two / "step-00000020").glob("*.safetensors"))) == 2, "a file a rank"
    assert (two / "last").readlink() == Path("step-00000020")


@pytest.mark.long
def test_two_processes_have_the_losses_of_one_with_shared_out_weights(
    alone: Path, tokens: Path, tmp_path: Path
) -> None:
    same(alone, pretrained(with_sharding("full", activation_checkpointing=True), tokens, tmp_path / "full", 2))


@pytest.mark.parametrize(("sharding", "ranks"), [("gradients", 1), pytest.param("full", 2, marks=pytest.mark.long)])
def test_a_checkpoint_of_two_resumes_on_one_and_in_the_other_mode(
    alone: Path, two: Path, tokens: Path, tmp_path: Path, sharding: str, ranks: int
) -> None:
    out = half_way(two, tmp_path / "checkpoints")
    same(alone, pretrained(with_sharding(sharding), tokens, out, ranks))


@pytest.mark.long
def test_a_checkpoint_of_one_resumes_on_two(alone: Path, tokens: Path, tmp_path: Path) -> None:
    same(alone, pretrained(SMALL, tokens, half_way(alone, tmp_path / "checkpoints"), 2))


def half_way(finished: Path, out: Path) -> Path:
    """The folder as it was when its run was cut off after step 10."""
    shutil.copytree(finished, out, symlinks=True)
    for name in ("step-00000015", "step-00000020", "export"):
        shutil.rmtree(out / name)
    manifest = runs.read_manifest(out)
    (out / "manifest.json").unlink()
    runs.write_json(out / runs.STARTED, {key: manifest[key] for key in ("stage", "config", "seed", "inputs")})
    return out


def test_kill_9_of_one_rank_ends_the_other_with_a_line(tokens: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoints"
    processes = start(replace(SMALL, steps=100_000), tokens, out, 2)
    wait_for(out / "step-00000010", processes)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    [(code, told), _] = ended(processes, 60)
    assert time.monotonic() - killed < 60
    assert code == 1 and told.splitlines()[-1].startswith("another rank of this run is gone"), told
    assert "Traceback" not in told
    assert latest_checkpoint(out) is not None and not runs.is_complete(out)


@pytest.mark.parametrize("signalled", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_signal_to_one_rank_saves_and_ends_all(tokens: Path, tmp_path: Path, signalled: int) -> None:
    out = tmp_path / "checkpoints"
    processes = start(replace(SMALL, steps=100_000, checkpoint_every=100_000), tokens, out, 2)
    wait_for(out / "curve.jsonl", processes, lines=1)  # before its first step a rank may have no handler yet
    processes[signalled].send_signal(signal.SIGUSR1)
    for code, told in ended(processes, 60):
        assert code == 143, told
        assert "saved: the same command goes on from there" in told
    saved = latest_checkpoint(out)
    assert saved is not None and runs.read_json(saved / "progress.json")["step"] == curve(out)[-1]["step"]


PLANT = """
import os
import torch
from lang1.training import next_token, pretraining
plain = pretraining.fetch
def fetch(cfg, corpus, step, rank=0, ranks=1):
    found = plain(cfg, corpus, step, rank, ranks)
    if step == 7 and rank == 1:
        found.micro_batches[0].nan = True
    return found
def loss(self, batch, *more):
    value = honest(self, batch, *more)
    return value * float("nan") if getattr(batch, "nan", False) else value
honest = next_token.next_token_loss
pretraining.fetch, next_token.next_token_loss = fetch, loss
"""


def test_a_nan_on_one_rank_ends_both(tokens: Path, tmp_path: Path) -> None:
    for code, told in ended(start(SMALL, tokens, tmp_path / "checkpoints", 2, PLANT)):
        assert code == 3, told
        assert "step 8: the loss (nan) or its gradient (nan) is not finite; lower optimizer.lr" in told


def wait_for(path: Path, processes: list[object], lines: int = 0) -> None:
    end = time.monotonic() + 90
    while not path.exists() or (lines and path.read_bytes().count(b"\n") < lines):
        assert time.monotonic() < end and all(process.poll() is None for process in processes)  # type: ignore[attr-defined]
        time.sleep(0.05)
