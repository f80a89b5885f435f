"""An encoder on two processes has the losses and the model of one, in both ways of sharding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ranks import SMALL, curve, ended, pretrained, start

from lang1.models.load import is_encoder

ENCODER = replace(SMALL, preset="encoder-tiny", context_length=34, steps=8, val_every=4, checkpoint_every=4)


@pytest.fixture(scope="module")
def alone(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(ENCODER, tokens, tmp_path_factory.mktemp("alone") / "checkpoints", 1)


@pytest.mark.parametrize("sharding", ["gradients", pytest.param("full", marks=pytest.mark.long)])
def test_two_processes_have_the_losses_of_one(alone: Path, tokens: Path, tmp_path: Path, sharding: str) -> None:
    cfg = replace(ENCODER, sharding=sharding, activation_checkpointing=sharding == "full")
    two = tmp_path / "two"
    for code, told in ended(start(cfg, tokens, two, 2), 600):
        assert code == 0, told
    ours, theirs = curve(alone), curve(two)
    assert len(ours) == len(theirs) == 8
    for x, y in zip(ours, theirs, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], abs=1e-5)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-4)
    assert ours[-1]["val"]["clinical"] == {
        key: pytest.approx(value, abs=1e-4) for key, value in theirs[-1]["val"]["clinical"].items()
    }
    assert is_encoder(two / "export")
