"""What goes wrong in a pretraining run: spikes, losses that are not finite, a full disk, damaged checkpoints."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import SMALL, curve

from lang1 import runs
from lang1.config.monitoring import MonitorConfig, SpikeConfig
from lang1.errors import InputError, Stopped, TrainingGaveUp, Unfinished
from lang1.training import next_token, pretrain, pretraining
from lang1.training.checkpoint import Retention, latest_checkpoint

BATCHES = {11, 12}


def watched(action: Any, **more: Any) -> Any:
    spikes = SpikeConfig(window=8, least=4, action=action, **more)
    return replace(SMALL, val_every=100, monitor=MonitorConfig(spikes=spikes))


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Batches by number, and what their loss is multiplied by."""
    factors = dict.fromkeys(BATCHES, 40.0)
    fetch, loss = pretraining.fetch, next_token.next_token_loss

    def marked(cfg: Any, corpus: Any, step: int, rank: int = 0, ranks: int = 1) -> Any:
        found = fetch(cfg, corpus, step, rank, ranks)
        for batch in found.micro_batches:
            batch.factor = factors.get(step, 1.0)
        return found

    def multiplied(model: Any, batch: torch.Tensor, *more: Any) -> torch.Tensor:
        return loss(model, batch, *more) * getattr(batch, "factor", 1.0)

    monkeypatch.setattr(pretraining, "fetch", marked)
    monkeypatch.setattr(next_token, "next_token_loss", multiplied)
    return factors


def events(out: Path) -> list[tuple[str, int]]:
    return [(line["kind"], line["step"]) for line in runs.read_lines(out / "events.jsonl")]


def test_a_spike_is_said_and_training_goes_on(tokens: Path, tmp_path: Path, spoiled: dict[int, float]) -> None:
    out = tmp_path / "out"
    pretrain(watched("alert"), tokens=tokens, out=out, seed=1)
    assert events(out) == [("spike", 12), ("spike", 13)]
    line = runs.read_lines(out / "events.jsonl")[0]
    assert line["batch"] == [11 * 8, 12 * 8] and line["loss"] > 100 and line["loss_by_rank"] == [line["loss"]]
    assert curve(out)[11]["loss"] == line["loss"] and len(curve(out)) == 20


def test_a_spike_is_skipped_and_its_batch_never_learnt_from(
    tokens: Path, tmp_path: Path, spoiled: dict[int, float]
) -> None:
    out = tmp_path / "out"
    facts = pretrain(watched("skip"), tokens=tokens, out=out, seed=1)["facts"]
    assert events(out) == [("spike", 12), ("skip", 12), ("spike", 12), ("skip", 12)]
    assert facts["skipped_batches"] == 2 and len(curve(out)) == 20
    assert max(row["loss"] for row in curve(out)) < 10
    # without the two batches in the way the run is the same from there on
    saved = runs.read_json(out / "step-00000020" / "progress.json")
    assert saved["data_step"] == 22 and saved["tokens"] == 20 * 8 * 32


def test_a_spike_rolls_back_and_the_data_that_led_there_are_passed_over(
    tokens: Path, tmp_path: Path, spoiled: dict[int, float]
) -> None:
    out = tmp_path / "out"
    facts = pretrain(watched("rollback"), tokens=tokens, out=out, seed=1)["facts"]
    assert events(out) == [("spike", 12), ("rollback", 12), ("spike", 11), ("rollback", 11)]
    assert [line["to_step"] for line in runs.read_lines(out / "events.jsonl") if "to_step" in line] == [10, 10]
    assert facts["rollbacks"] == 2
    assert [row["step"] for row in curve(out)] == list(range(1, 21))
    assert runs.read_json(out / "step-00000020" / "progress.json")["data_step"] == 13 + 10
    with_clean_data = tmp_path / "again"
    spoiled.clear()
    pretrain(watched("rollback"), tokens=tokens, out=with_clean_data, seed=1)
    assert [row["loss"] for row in curve(with_clean_data)][:10] == [row["loss"] for row in curve(out)][:10]


def test_too_many_rollbacks_end_the_run_with_exit_code_3(
    tokens: Path, tmp_path: Path, spoiled: dict[int, float]
) -> None:
    spoiled.update(dict.fromkeys(range(11, 40), 40.0))
    with pytest.raises(TrainingGaveUp, match=r"is a spike after 2 rollbacks \(monitor.spikes.max_rollbacks\)") as told:
        pretrain(watched("rollback", max_rollbacks=2), tokens=tokens, out=tmp_path / "out", seed=1)
    assert told.value.exit_code == 3
    assert events(tmp_path / "out")[-1][0] == "gave_up"


@pytest.mark.parametrize(
    ("action", "kinds"), [("skip", ["non_finite", "skip"]), ("rollback", ["non_finite", "rollback"])]
)
def test_a_loss_that_is_no_number_is_passed_over_where_asked(
    tokens: Path, tmp_path: Path, spoiled: dict[int, float], action: str, kinds: list[str]
) -> None:
    spoiled.clear()
    spoiled[12] = float("nan")
    pretrain(watched(action), tokens=tokens, out=tmp_path / "out", seed=1)
    assert [kind for kind, _ in events(tmp_path / "out")] == kinds
    assert len(curve(tmp_path / "out")) == 20


def test_a_spike_before_any_checkpoint_gives_up(tokens: Path, tmp_path: Path, spoiled: dict[int, float]) -> None:
    spoiled.clear()
    spoiled[4] = 40.0
    with pytest.raises(TrainingGaveUp, match="step 5: a spike before the first checkpoint"):
        pretrain(watched("rollback"), tokens=tokens, out=tmp_path / "out", seed=1)


def test_a_full_disk_while_saving_leaves_the_checkpoint_before_and_training_goes_on(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    out, plain, saves = tmp_path / "out", HuggingFaceStorageWriter.write_data, 0

    def full(self: Any, plan: Any, planner: Any) -> Any:
        nonlocal saves
        saves += 1
        if saves == 2:
            raise OSError(28, "No space left on device")
        return plain(self, plan, planner)

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", full)
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    assert sorted(p.name for p in out.glob("step-*")) == ["step-00000005", "step-00000015", "step-00000020"]
    assert ("checkpoint_failed", 15) in events(out)


def test_a_full_disk_at_the_end_stops_cleanly_and_the_same_command_ends_it(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    out = tmp_path / "out"

    def full(self: Any, plan: Any, planner: Any) -> Any:
        if "step-00000020" in str(self.path):
            raise OSError(28, "No space left on device")
        return plain(self, plan, planner)

    plain = HuggingFaceStorageWriter.write_data
    with monkeypatch.context() as patch:
        patch.setattr(HuggingFaceStorageWriter, "write_data", full)
        with pytest.raises(Unfinished, match="step-00000020: cannot be written: the disk is full"):
            pretrain(SMALL, tokens=tokens, out=out, seed=1)
    newest = latest_checkpoint(out)
    assert newest is not None and newest.name == "step-00000015"
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    assert [row["step"] for row in curve(out)] == list(range(1, 21))


def test_a_checkpoint_cut_in_the_middle_is_passed_over_and_said(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    whole = (out / "export" / "model.safetensors").read_bytes()
    curve_before = (out / "curve.jsonl").read_bytes()
    manifest = runs.read_manifest(out)
    (out / "manifest.json").unlink()
    runs.write_json(out / runs.STARTED, {key: manifest[key] for key in ("stage", "config", "seed", "inputs")})
    [shard] = (out / "step-00000020").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    shutil.rmtree(out / "export")
    runs.set_quiet(False)
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    runs.set_quiet(True)
    told = capsys.readouterr().err
    assert "checkpoint passed over" in told and "resuming at step 15" in told
    assert (out / "export" / "model.safetensors").read_bytes() == whole
    assert (out / "curve.jsonl").read_bytes() == curve_before


def test_a_shard_with_a_wrong_checksum_ends_the_run_with_its_name(tokens: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    shutil.copytree(tokens, folder)
    [damaged, *_] = sorted(folder.glob("clinical/train-*.bin"))
    data = bytearray(damaged.read_bytes())
    data[500] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00000.bin: (block 0 .* does not match its checksum|changed)"):
        pretrain(SMALL, tokens=folder, out=tmp_path / "out", seed=1)


@pytest.mark.parametrize(
    "when", [pytest.param(1, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.long), 13]
)
def test_a_signal_at_any_step_loses_nothing(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    undisturbed, out, fetch = tmp_path / "undisturbed", tmp_path / "out", pretraining.fetch
    pretrain(SMALL, tokens=tokens, out=undisturbed, seed=1)

    def signalled(cfg: Any, corpus: Any, step: int, rank: int = 0, ranks: int = 1) -> Any:
        if step == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return fetch(cfg, corpus, step, rank, ranks)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "fetch", signalled)
        with pytest.raises(Stopped, match=r"stopped by a signal at step \d+; saved: the same command goes on"):
            pretrain(SMALL, tokens=tokens, out=out, seed=1)
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    assert (out / "curve.jsonl").read_bytes() == (undisturbed / "curve.jsonl").read_bytes()
    assert (out / "export/model.safetensors").read_bytes() == (undisturbed / "export/model.safetensors").read_bytes()


def test_validation_loss_that_no_longer_falls_stops_the_run_and_the_best_is_kept(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 4.0, 4.5, 4.2, 3.0])

    def validate(*_: Any) -> Any:
        return {"clinical": {"loss": next(losses), "perplexity": None, "tokens": 1}}

    monkeypatch.setattr(pretraining, "validate", validate)
    cfg = replace(SMALL, val_every=4, checkpoint_every=2, keep_checkpoints=1, keep_every=6, patience=2)
    facts = pretrain(cfg, tokens=tokens, out=tmp_path / "out", seed=1)["facts"]
    assert facts["stopped_early"] and facts["best_step"] == 8 and facts["best_value"] == 4.0
    assert sorted(p.name for p in (tmp_path / "out").glob("step-*")) == [f"step-{n:08d}" for n in (6, 8, 12, 16)]
    assert (tmp_path / "out/best").readlink() == Path("step-00000008")
    assert (tmp_path / "out/last").readlink() == Path("step-00000016")


def test_retention_keeps_the_newest_the_best_and_the_trajectory() -> None:
    assert Retention(2).leaves([1, 2, 3, 4], None) == [1, 2]
    assert Retention(1, every=10).leaves([5, 10, 15, 20, 25], 15) == [5]
