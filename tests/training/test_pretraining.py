"""Pretraining: learns, resumes exactly, stops cleanly, exports what it trained."""

from __future__ import annotations

import json
import random
import shutil
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_data import start, wait_for_steps

from lang1 import runs
from lang1.config import OptimizerConfig, PretrainConfig
from lang1.errors import InputError, TrainingGaveUp
from lang1.models import export_checkpoint
from lang1.training import pretrain
from lang1.training.checkpoint import latest_checkpoint

SMALL = PretrainConfig(
    context_length=32,
    global_batch=4,
    micro_batch=2,
    steps=24,
    val_every=8,
    val_batches=2,
    checkpoint_every=4,
    keep_checkpoints=2,
    threads=1,
    optimizer=OptimizerConfig(lr=2e-3, min_lr=1e-4, warmup_steps=4),
)


@pytest.fixture(scope="module")
def undisturbed(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrain") / "checkpoints"
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    return out


def test_the_loss_falls_and_validation_is_logged(undisturbed: Path) -> None:
    curve = runs.read_lines(undisturbed / "curve.jsonl")
    assert [row["step"] for row in curve] == list(range(1, 25))
    assert curve[-1]["loss"] < curve[0]["loss"] - 1
    assert [row["step"] for row in curve if "val" in row] == [8, 16, 24]
    assert 1 < curve[-1]["val"]["clinical"]["perplexity"] < 600
    assert "tokens_per_second" not in curve[0]
    assert len(runs.read_lines(undisturbed / "speed.jsonl")) == 24


def test_the_manifest_counts_tokens_and_epochs_by_source(undisturbed: Path) -> None:
    facts = runs.read_manifest(undisturbed)["facts"]
    assert facts["tokens_by_source"] == {"clinical": 24 * 4 * 32}
    assert facts["dropped_sources"] == ["web"]
    assert facts["epochs_by_source"]["clinical"] > 0


def test_a_shard_that_changed_is_found_when_it_is_read_and_not_scanned_before(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tokens"
    shutil.copytree(tokens, copy)
    for shard in (copy / "clinical").glob("train-*.bin"):
        data = bytearray(shard.read_bytes())
        data[200] ^= 1
        shard.write_bytes(data)
    hashed: list[str] = []
    sha256_file = runs.sha256_file

    def noting(path: Path) -> str:
        hashed.append(path.suffix)
        return sha256_file(path)

    monkeypatch.setattr("lang1.runs.manifest.sha256_file", noting)
    with pytest.raises(InputError, match=r"train-\d+\.bin: block 0 .* does not match its checksum"):
        pretrain(SMALL, tokens=copy, out=tmp_path / "out", seed=1)
    assert ".bin" not in hashed


def test_the_document_mask_changes_what_is_learned(tokens: Path, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "masked"
    pretrain(replace(SMALL, steps=1, document_mask=True), tokens=tokens, out=out, seed=1)
    masked, plain = (runs.read_lines(folder / "curve.jsonl")[0]["loss"] for folder in (out, undisturbed))
    assert masked != plain
    assert masked == pytest.approx(plain, rel=0.01)


def test_only_the_newest_checkpoints_stay_and_hold_no_pickle(undisturbed: Path) -> None:
    assert sorted(p.name for p in undisturbed.glob("step-*")) == ["step-00000020", "step-00000024"]
    kinds = {p.suffix for p in undisturbed.rglob("*") if p.is_file()}
    assert kinds <= {".json", ".jsonl", ".safetensors", ".md"}


def test_a_run_killed_at_a_random_moment_ends_as_an_undisturbed_one(
    tokens: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoints"
    process = start("pretrain", SMALL, {"tokens": tokens}, out)
    wait_for_steps(process, out / "curve.jsonl", random.SystemRandom().randint(5, 18))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(out)
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    assert (out / "curve.jsonl").read_bytes() == (undisturbed / "curve.jsonl").read_bytes()
    for name in ("export/model.safetensors", "step-00000024/hashes.json", "export/README.md"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_sigterm_saves_and_ends_with_143(tokens: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoints"
    process = start("pretrain", SMALL, {"tokens": tokens}, out)
    wait_for_steps(process, out / "curve.jsonl", 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    saved = latest_checkpoint(out)
    assert saved is not None
    assert runs.read_json(saved / "progress.json")["step"] == runs.read_lines(out / "curve.jsonl")[-1]["step"]
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    assert (out / "export/model.safetensors").read_bytes() == (undisturbed / "export/model.safetensors").read_bytes()


def test_a_damaged_checkpoint_is_passed_over(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "copy")
    [newest] = (tmp_path / "copy" / "step-00000024").glob("*.safetensors")
    newest.write_bytes(newest.read_bytes()[:-10])
    found = latest_checkpoint(tmp_path / "copy")
    assert found is not None and found.name == "step-00000020"
    with pytest.raises(InputError, match="damaged"):
        export_checkpoint(checkpoint=newest.parent, out=tmp_path / "export")


def test_run_again_it_does_nothing(tokens: Path, undisturbed: Path) -> None:
    before = (undisturbed / "manifest.json").stat().st_mtime_ns
    pretrain(SMALL, tokens=tokens, out=undisturbed, seed=1)
    assert (undisturbed / "manifest.json").stat().st_mtime_ns == before


def test_a_loss_that_is_not_finite_stops_the_run(tokens: Path, tmp_path: Path) -> None:
    cfg = PretrainConfig(
        context_length=32,
        global_batch=2,
        micro_batch=2,
        steps=40,
        threads=1,
        optimizer=OptimizerConfig(lr=1e30, min_lr=0, warmup_steps=0, clip=None),
    )
    with pytest.raises(TrainingGaveUp, match=r"step \d+: .* not finite; lower optimizer.lr"):
        pretrain(cfg, tokens=tokens, out=tmp_path / "checkpoints", seed=1)


def test_every_export_is_written_with_the_configured_mode(undisturbed: Path) -> None:
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (undisturbed / "export").iterdir()}
    assert set(modes.values()) == {0o640}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "README.md"} <= set(modes)


FRESH = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
with torch.no_grad():
    logits = model(input_ids=torch.arange(2, 30)[None]).logits
text = tokenizer.decode(model.generate(**tokenizer("patient admitted", return_tensors="pt"), max_new_tokens=8)[0])
print(json.dumps({"logits": logits.flatten().tolist(), "text": text, "kind": type(model).__name__}))
"""


def test_an_export_gives_the_trainers_logits_in_a_fresh_process(undisturbed: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from lang1.models.build import build_model
    from lang1.models.export import load_weights

    folder = export_checkpoint(checkpoint=undisturbed / "step-00000024", out=tmp_path / "export")
    done = subprocess.run([sys.executable, "-c", FRESH, str(folder)], capture_output=True, text=True, check=True)
    fresh = json.loads(done.stdout)
    [shard] = (undisturbed / "step-00000024").glob("*.safetensors")
    saved = load_file(shard)
    weights = {name.removeprefix("model."): w for name, w in saved.items() if name.startswith("model.")}
    assert len(saved) == 4 * len(weights), "weights, two moments and a count a parameter"
    trainer = build_model("tiny", len(weights["model.embed_tokens.weight"]), seed=1, context_length=32).eval()
    load_weights(trainer, weights)
    with torch.no_grad():
        wanted = trainer(input_ids=torch.arange(2, 30)[None], use_cache=False).logits
    assert torch.allclose(torch.tensor(fresh["logits"]), wanted.flatten(), atol=1e-5)
    assert fresh["kind"] == "LlamaForCausalLM"
    assert fresh["text"].startswith("patient admitted") or "patient admitted" in fresh["text"]
    assert (folder / "model.safetensors").read_bytes() == (undisturbed / "export/model.safetensors").read_bytes()


def test_a_run_with_muon_that_was_killed_ends_as_an_undisturbed_one(tokens: Path, tmp_path: Path) -> None:
    # in fp32: a processor without bf16 takes a minute for these steps otherwise
    rates = replace(SMALL.optimizer, name="muon", schedule="wsd", decay_share=0.5, muon_precision="fp32")
    cfg = replace(SMALL, optimizer=rates, steps=12, val_every=12)
    pretrain(cfg, tokens=tokens, out=tmp_path / "undisturbed", seed=1)
    curve = runs.read_lines(tmp_path / "undisturbed" / "curve.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"] - 1
    assert [row["lr"] for row in curve[4:6]] == [2e-3, 2e-3]
    assert curve[-1]["lr"] == pytest.approx(1e-4)
    process = start("pretrain", cfg, {"tokens": tokens}, tmp_path / "killed")
    wait_for_steps(process, tmp_path / "killed" / "curve.jsonl", 6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pretrain(cfg, tokens=tokens, out=tmp_path / "killed", seed=1)
    for name in ("curve.jsonl", "export/model.safetensors", "step-00000012/hashes.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
