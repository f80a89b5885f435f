"""`lang1 pretrain` with Muon on two processes: the losses of one, and a checkpoint that one goes on from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ranks import SMALL, curve, pretrained

from lang1 import runs

RATES = replace(SMALL.optimizer, name="muon", muon_precision="fp32", schedule="wsd", decay_share=0.5)
MUON = replace(SMALL, optimizer=RATES, steps=8, val_every=8, checkpoint_every=4)


@pytest.fixture(scope="module")
def alone(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(MUON, tokens, tmp_path_factory.mktemp("alone") / "checkpoints", 1)


def same(a: Path, b: Path) -> None:
    ours, theirs = curve(a), curve(b)
    assert [row["step"] for row in ours] == list(range(1, 9)) == [row["step"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], abs=1e-5)


@pytest.mark.long
def test_two_processes_have_the_losses_of_one_and_one_goes_on_from_their_checkpoint(
    alone: Path, tokens: Path, tmp_path: Path
) -> None:
    two = pretrained(replace(MUON, sharding="full"), tokens, tmp_path / "two", 2)
    same(alone, two)
    manifest = runs.read_manifest(two)
    (two / "manifest.json").unlink()
    for name in ("step-00000008", "export"):
        shutil.rmtree(two / name)
    runs.write_json(two / runs.STARTED, {key: manifest[key] for key in ("stage", "config", "seed", "inputs")})
    same(alone, pretrained(replace(MUON, sharding="full"), tokens, two, 1))
    assert curve(two)[-1]["val"]["clinical"]["loss"] == pytest.approx(
        curve(alone)[-1]["val"]["clinical"]["loss"], abs=1e-5
    )
