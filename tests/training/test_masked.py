"""Masked language modelling: the masks, the loss, and a tiny encoder from shards to a folder of transformers' own."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_data import start, wait_for_steps, write_tokens

from lang1 import runs
from lang1.config import OptimizerConfig, PretrainConfig, RunConfig
from lang1.config.data import ExtractConfig
from lang1.errors import ConfigError
from lang1.models import export_checkpoint
from lang1.models.encoder import ENCODERS, SpecialIds, build_encoder, encoder_config, special_ids
from lang1.models.load import is_encoder
from lang1.models.origin import read_pretraining
from lang1.training import masked, pretrain
from lang1.training.blocks import fetch, open_corpus
from lang1.training.loss import IGNORE_INDEX
from lang1.training.planner import plan

IDS = SpecialIds(cls=0, sep=1, pad=2, mask=600, entries=601)
MASKING = masked.Masking(IDS, separator=1, share=0.15, seed=5)
SMALL = PretrainConfig(
    preset="encoder-tiny",
    context_length=34,
    global_batch=8,
    micro_batch=4,
    steps=24,
    val_every=8,
    val_batches=2,
    checkpoint_every=4,
    keep_checkpoints=2,
    threads=1,
    optimizer=OptimizerConfig(lr=3e-3, min_lr=1e-4, warmup_steps=4),
)


@pytest.fixture(scope="module")
def undisturbed(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("masked") / "checkpoints"
    pretrain(SMALL, tokens=tokens, out=out, seed=1)
    return out


def test_the_109m_preset_has_the_parameters_of_bert_base_uncased() -> None:
    from transformers import BertModel

    with torch.device("meta"):
        model = BertModel(encoder_config("nyutron-109m", 30_522))
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_482_240
    assert ENCODERS["nyutron-109m"].context_length == 512


# --- masks ---------------------------------------------------------------------------------------------------------


def drawn(samples: range, length: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(3, 600, (len(samples), length))
    blocks[:, ::17] = 1  # documents end
    made = np.stack([MASKING.apply(block, sample) for block, sample in zip(blocks, samples, strict=True)])
    return blocks, made[:, 0], made[:, 1]


def test_fifteen_percent_are_asked_for_of_which_80_10_10() -> None:
    blocks, inputs, targets = drawn(range(2000))
    asked = targets != IGNORE_INDEX
    assert set(asked.sum(axis=1)) == {15}
    assert not asked[:, [0, -1]].any() and (inputs[:, 0] == 0).all() and (inputs[:, -1] == 1).all()
    inner, truth = inputs[:, 1:-1], targets[:, 1:-1]
    hit = asked[:, 1:-1]
    assert (truth[hit] == blocks[hit]).all() and (inner[~hit] == blocks[~hit]).all()
    assert not (blocks[hit] == 1).any()  # separators are not asked for
    n = hit.sum()
    is_masked, is_left = (inner[hit] == 600).mean(), (inner[hit] == blocks[hit]).mean()
    assert is_masked == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / n) ** 0.5)
    assert is_left == pytest.approx(0.1, abs=3 * (0.1 * 0.9 / n) ** 0.5 + 0.1 / 597)
    assert not np.isin(inner[hit][inner[hit] != blocks[hit]], [0, 1, 2]).any()


def test_masks_are_a_function_of_seed_and_sample_and_change_from_epoch_to_epoch() -> None:
    block = np.arange(3, 103)
    first = MASKING.apply(block, 7)
    np.testing.assert_array_equal(first, MASKING.apply(block, 7))
    assert not np.array_equal(first, MASKING.apply(block, 8))
    assert not np.array_equal(first, replace(MASKING, seed=6).apply(block, 7))
    assert not np.array_equal(first, masked.preparing(MASKING)(torch.tensor([[*block, 0]]), [7])[0][0].numpy())


def test_ranks_share_the_samples_of_a_step_and_their_masks(tokens: Path) -> None:
    from lang1.corpus.shards import open_shards

    corpus = open_corpus(SMALL, open_shards(tokens), 32, 1)
    alone = masked.with_masks(fetch(SMALL, corpus, 3), MASKING)
    pairs = [masked.with_masks(fetch(SMALL, corpus, 3, rank, 2), MASKING, rank, 2) for rank in range(2)]
    whole = torch.cat(alone.micro_batches)
    for rank, part in enumerate(pairs):
        torch.testing.assert_close(torch.cat(part.micro_batches), whole[rank::2])
    assert alone.divisor == pairs[0].divisor == int((whole[:, 1] != IGNORE_INDEX).sum())


# --- loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_and_its_gradients_are_transformers_own_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_encoder("encoder-tiny", IDS, 1, 102)
    _, inputs, targets = drawn(range(6))
    batch = torch.from_numpy(np.stack([inputs, targets], axis=1))
    theirs = model(input_ids=batch[:, 0], labels=batch[:, 1].contiguous()).loss * 90
    theirs.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for chunk in (1 << 24, 601 * 7):
        monkeypatch.setattr(masked, "CHUNK_LOGITS", chunk)
        model.zero_grad()
        loss = masked.masked_loss(model, batch)
        loss.backward()
        torch.testing.assert_close(loss, theirs, rtol=1e-5, atol=1e-4)
        for name, parameter in model.named_parameters():
            if name in wanted:
                torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-4)


# --- a run ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_folder_is_a_bert_that_fills_masks(undisturbed: Path, tokens: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    curve = runs.read_lines(undisturbed / "curve.jsonl")
    assert curve[-1]["loss"] < curve[0]["loss"] - 1
    assert [row["step"] for row in curve if "val" in row] == [8, 16, 24]
    folder = undisturbed / "export"
    model, found = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "BertForMaskedLM" and not found["missing_keys"] and not found["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = special_ids(tokens / "tokenizer")
    assert (tokenizer.mask_token_id, len(tokenizer), model.config.vocab_size) == (ids.mask, ids.entries, ids.entries)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (ids.cls, ids.sep)
    assert special_ids(folder) == ids
    # the loss that the run wrote is the loss of the model that it left
    from lang1.corpus.shards import open_shards

    blocks = open_shards(tokens).blocks("clinical", "val", 32)
    numbers = range(min(len(blocks), SMALL.val_batches * SMALL.micro_batch))
    masking = masked.Masking(ids, open_shards(tokens).separator_id, 0.15, 1)
    batch, count = masked.preparing(masking)(torch.from_numpy(np.stack([blocks[i] for i in numbers])), numbers)
    with torch.no_grad():
        logits = model(input_ids=batch[:, 0]).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1].flatten(), reduction="sum") / count
    assert curve[-1]["val"]["clinical"] == {
        "loss": pytest.approx(loss.item(), abs=1e-4),
        "perplexity": pytest.approx(loss.exp().item(), rel=1e-3),
        "tokens": count,
    }


def test_the_folder_says_what_it_learned_from(undisturbed: Path, tokens: Path) -> None:
    facts = runs.read_json(undisturbed / "export" / "lang1.json")
    assert (facts["kind"], facts["objective"], facts["preset"]) == ("pretrained", "masked tokens", "encoder-tiny")
    assert read_pretraining(undisturbed / "export").tokens == runs.read_manifest(tokens)["identity"]
    assert "An encoder language model" in (undisturbed / "export" / "README.md").read_text()
    assert is_encoder(undisturbed / "export")
    manifest = runs.read_manifest(undisturbed)["facts"]
    assert manifest["tokens_by_source"] == {"clinical": 24 * 8 * 32}
    speeds = [row["tokens_per_second"] for row in runs.read_lines(undisturbed / "speed.jsonl")]
    seconds = sum(manifest["cost"]["tokens"] / 24 / speed for speed in speeds)  # not of [CLS] and [SEP], nor of padding
    assert manifest["cost"]["seconds"] == pytest.approx(seconds, abs=0.002)


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
    for name in ("export/model.safetensors", "export/tokenizer_config.json", "export/README.md"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_a_checkpoint_exports_to_the_same_folder(undisturbed: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint=undisturbed / "step-00000024", out=tmp_path / "export")
    for name in ("model.safetensors", "config.json", "tokenizer_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (undisturbed / "export" / name).read_bytes(), name


def test_what_no_encoder_can_is_refused(tmp_path: Path) -> None:
    for changed in ({"document_mask": True}, {"compile": True}, {"init_from": "somewhere"}, {"mask_share": 0.0}):
        with pytest.raises((ConfigError, ValueError), match=next(iter(changed))):
            replace(SMALL, **changed)
    with pytest.raises(ConfigError, match="encoder-tiny is an encoder"):
        plan(RunConfig(extract=ExtractConfig(path=""), pretrain=SMALL), gpus=1, gpu="h100")


def test_a_tokenizer_with_a_mask_of_its_own_keeps_it(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokens = write_tokens(tmp_path / "tokens", {"clinical": 60})
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokens / "tokenizer" / "tokenizer.json"), eos_token="</s>", mask_token="<pad>"
    ).save_pretrained(tmp_path / "own")
    found = special_ids(tmp_path / "own")
    assert (found.mask, found.sep, found.cls) == (0, 2, 2)
