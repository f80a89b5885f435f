"""Finetuning an encoder: heads on [CLS], the same rows and rules as a decoder's, exact resume, a plain BERT folder."""

from __future__ import annotations

import json
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional
from training_data import start, wait_for_steps, write_tasks

from lang1 import runs
from lang1.config import FinetuneConfig, OptimizerConfig, PretrainConfig
from lang1.errors import ConfigError, InputError, TrainingGaveUp
from lang1.models.encoder import load_classifier, positions_of, special_ids
from lang1.models.export import copy_tokenizer
from lang1.models.load import is_encoder, load_tokenizer
from lang1.scoring.encoder import class_logits, encode_notes, read_heads, score_notes
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, question_for, read_questions
from lang1.training import finetune, pretrain
from lang1.training.distributed import World
from lang1.training.encoder_finetuning import EncoderBase
from lang1.training.finetuning import Setup, batch_loss, fetch, prepare
from lang1.training.validation import measure

RATES = OptimizerConfig(lr=2e-3, min_lr=0.0, warmup_steps=0, beta2=0.999, eps=1e-8, weight_decay=0.02, clip=None)
JOINT = FinetuneConfig(
    optimizer=RATES,
    batch_size=10,
    max_steps_per_task=4,
    val_every=5,
    val_rows=20,
    max_note_tokens=20,
    balance="sqrt",
    threads=1,
)


ALONE = World(0, 1, torch.device("cpu"))


def loss_of_a_step(setup: Setup) -> torch.Tensor:
    """The summed loss of step 3, in several batches."""
    fetched = fetch(setup.cfg, setup.data, 1, 3, setup.world)
    assert len(fetched.micro_batches) > 1
    return torch.stack([batch_loss(setup, setup.net, batch) for batch in fetched.micro_batches]).sum()


@pytest.fixture(scope="module")
def joint(tasks: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "model"
    finetune(JOINT, tasks=tasks, model=encoder, out=out, seed=1)
    return out


@pytest.mark.long
def test_a_planted_signal_is_learned(encoder: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", 400, ("mortality", "readmission"), rare=0.3, loud=6)
    cfg = replace(JOINT, tasks=("mortality", "readmission"), batch_size=32, max_steps_per_task=60, val_every=30)
    cfg = replace(cfg, max_note_tokens=60, val_rows=100, patience_steps=1000)
    facts = finetune(cfg, tasks=tasks, model=encoder, out=tmp_path / "model", seed=1)["facts"]
    assert facts["best_value"] > 0.85


def test_the_folder_is_a_bert_classifier_with_a_head_a_task(joint: Path, tasks: Path, encoder: Path) -> None:
    from transformers import BertForSequenceClassification

    model, found = BertForSequenceClassification.from_pretrained(joint, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    heads = read_heads(joint)
    assert heads == {"readmission": (0, 2), "mortality": (2, 4), "los": (4, 8), "cci": (8, 13), "denial": (13, 15)}
    assert model.config.num_labels == 15
    assert model.config.id2label[4].startswith("los: ")
    facts = runs.read_json(joint / "lang1.json")
    assert (facts["kind"], facts["init"], facts["balance"], facts["steps"]) == ("finetuned", "pretrained", "sqrt", 20)
    assert facts["rows_seen"] == dict.fromkeys(facts["tasks"], 40)
    assert (facts["method"], facts["batch_size"], facts["learning_rate"]) == ("full", 10, 2e-3)
    assert facts["examples"] == dict.fromkeys(facts["tasks"], 240)
    manifest = runs.read_manifest(joint)["facts"]
    assert (manifest["stopped_early"], manifest["processes"], manifest["batch_size"]) == (False, 1, 10)
    assert {task: sum(counts) for task, counts in manifest["rows_by_class"].items()} == facts["examples"]
    assert read_questions(joint) == read_questions(tasks)
    assert facts["pretraining"] == {"tokens": None, "sources": [], "unknown": None}
    seen = pq.read_table(joint / "seen.parquet")["note_hash"].to_pylist()
    assert set(pq.read_table(tasks / "los" / "train.parquet")["note_hash"].to_pylist()) <= set(seen)
    assert is_encoder(joint) and is_encoder(encoder)
    assert not (joint / ".scratch").exists()


def test_the_loss_is_the_plain_one_row_by_row(tasks: Path, encoder: Path) -> None:
    """Padding, sharing of notes, batches and heads change nothing."""
    cfg = replace(JOINT, tasks=("mortality", "los"), balance="none", batch_tokens=80)
    setup = prepare(cfg, tasks, encoder, 1, ALONE)
    model, data, heads = setup.net, setup.data, {"mortality": (0, 2), "los": (2, 6)}
    ours = loss_of_a_step(setup)
    theirs, rows, tokens = torch.zeros(()), 0, 0
    packs = [pack for group in data.groups for pack in group.drawn(1, 3)]
    for pack in packs:
        text = data.train.texts[pack.note]
        ids = load_tokenizer(encoder)(text, add_special_tokens=False)["input_ids"][:20]
        special = special_ids(encoder)
        logits = model(input_ids=torch.tensor([[special.cls, *ids, special.sep]])).logits
        for task, label in pack.asked:
            first, end = list(heads.values())[task]
            theirs = theirs + data.weights[task] * functional.cross_entropy(
                logits[:, first:end], torch.tensor([label]), reduction="sum"
            )
            rows += 1
        tokens += len(ids) + 2
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    fetched = fetch(cfg, data, 1, 3, ALONE)
    assert (sum(fetched.counts.values()), fetched.tokens) == (rows, tokens)


def test_model_and_batches_go_to_the_device_of_the_world(
    tasks: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meta` stands for a GPU: a tensor that stayed on the processor would not meet those of the model."""
    # transformers leaves a mask away that hides nothing; meta tensors have no values to see that by
    monkeypatch.setattr("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *mask: False)
    elsewhere = World(0, 1, torch.device("meta"))
    setup = prepare(replace(JOINT, batch_tokens=80), tasks, encoder, 1, elsewhere)
    assert {parameter.device.type for parameter in setup.net.parameters()} == {"meta"}
    loss = loss_of_a_step(setup)
    loss.backward()
    assert loss.device.type == "meta"
    assert all(parameter.grad.device.type == "meta" for parameter in setup.net.classifier.parameters())


def test_any_checkpoint_of_a_pretraining_is_a_start(tokens: Path, tasks: Path, tmp_path: Path) -> None:
    rates = OptimizerConfig(lr=3e-3, min_lr=1e-4, warmup_steps=1)
    cfg = PretrainConfig(
        preset="encoder-tiny", context_length=34, global_batch=8, micro_batch=4, steps=4, val_every=4, val_batches=1,
        checkpoint_every=2, keep_checkpoints=2, threads=1, optimizer=rates,
    )  # fmt: skip
    pretrain(cfg, tokens=tokens, out=tmp_path / "pretraining", seed=1)
    short = replace(JOINT, tasks=("mortality",), max_steps_per_task=2, val_every=2)
    starts = {name: tmp_path / "pretraining" / name for name in ("step-00000002", "step-00000004", "export")}
    for name, model in starts.items():
        finetune(short, tasks=tasks, model=model, out=tmp_path / name, seed=1)
    early, late, export = ((tmp_path / name / "model.safetensors").read_bytes() for name in starts)
    assert late == export != early
    facts = [runs.read_json(tmp_path / name / "lang1.json")["pretraining"] for name in starts]
    assert facts[1] == facts[2] and facts[1]["tokens"] == runs.read_manifest(tokens)["identity"]
    hashed = runs.read_manifest(tmp_path / "export")["inputs"]["model"]
    (tmp_path / "pretraining" / "curve.jsonl").write_text("")  # no part of the model
    finetune(short, tasks=tasks, model=starts["export"], out=tmp_path / "export", seed=1)
    assert runs.read_manifest(tmp_path / "export")["inputs"]["model"] == hashed


def test_under_bf16_heads_and_loss_alone_are_in_fp32(tasks: Path, encoder: Path) -> None:
    """In training, validation and evaluation: logits that are rounded to bf16 give many notes one probability."""
    setup = prepare(replace(JOINT, precision="bf16"), tasks, encoder, 1, ALONE)
    net, rows, body = setup.net, setup.data.train, []
    net.bert.encoder.layer[0].intermediate.dense.register_forward_hook(lambda m, i, o: body.append(o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (batch, *_) = fetch(setup.cfg, setup.data, 1, 3, ALONE).micro_batches
        learned = setup.logits_of(net, batch, rows.tasks)
        special = special_ids(encoder)
        scored = score_notes(
            net, encode_notes(rows.tokenizer, rows.texts[:20], special, 20, 64), batch_tokens=999, pad=0
        )
        loss = batch_loss(setup, net, batch)
    loss.backward()
    assert loss.bfloat16().float() != loss
    assert set(body) == {torch.bfloat16}
    for logits in (learned[learned.isfinite()].detach(), torch.from_numpy(scored).float()):
        assert (logits.bfloat16().float() != logits).float().mean() > 0.9
    assert net.classifier.weight.grad.abs().sum() > 0 and net.bert.pooler.dense.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_logits_that_are_not_finite_end_it(tasks: Path, encoder: Path, value: float) -> None:
    """An option's own logit may be -inf too, and is none that the task does not have."""
    setup = prepare(JOINT, tasks, encoder, 1, ALONE)
    with torch.no_grad():
        setup.net.classifier.bias[4] = value
    with pytest.raises(TrainingGaveUp):
        measure(setup.net, setup.data.val, JOINT.batch_tokens, torch.float32, ALONE, setup.logits_of)


def test_a_run_killed_at_a_random_moment_ends_as_an_undisturbed_one(
    tasks: Path, encoder: Path, joint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    process = start("finetune", JOINT, {"tasks": tasks, "model": encoder}, out)
    wait_for_steps(process, out / "curve.jsonl", random.SystemRandom().randint(6, 14))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not runs.is_complete(out)
    finetune(JOINT, tasks=tasks, model=encoder, out=out, seed=1)
    for name in ("curve.jsonl", "model.safetensors", "lang1.json", "README.md"):
        assert (out / name).read_bytes() == (joint / name).read_bytes(), name


def test_without_progress_it_ends_early_and_random_init_takes_the_shape_only(
    tasks: Path, encoder: Path, tmp_path: Path
) -> None:
    cfg = replace(
        JOINT,
        tasks=("mortality",),
        init="random",
        optimizer=OptimizerConfig(lr=1e-9, min_lr=0.0, warmup_steps=0),
        batch_size=2,
        max_steps_per_task=60,
        patience_steps=10,
    )
    finetune(cfg, tasks=tasks, model=encoder, out=tmp_path / "model", seed=9)
    facts = runs.read_json(tmp_path / "model" / "lang1.json")
    assert facts["steps"] == facts["best_step"] + 10 < 60
    assert (facts["init"], facts["pretraining"]["unknown"]) == ("random", None)
    ours, theirs = load_classifier(tmp_path / "model"), load_classifier(encoder, 2)
    assert ours.config.hidden_size == theirs.config.hidden_size
    wide = "bert.encoder.layer.0.intermediate.dense.weight"
    assert not torch.allclose(ours.get_parameter(wide), theirs.get_parameter(wide), atol=1e-2)


def test_a_head_is_drawn_by_seed_and_name_alone(encoder: Path) -> None:
    base = EncoderBase(encoder, False, {"los": question_for("los", NOTE_TYPE_PER_TASK["los"])})
    one, two, other = (base.load(seed) for seed in (1, 1, 2))
    torch.manual_seed(99)
    torch.testing.assert_close(one.classifier.weight, two.classifier.weight, rtol=0, atol=0)
    torch.testing.assert_close(one.bert.pooler.dense.weight, two.bert.pooler.dense.weight, rtol=0, atol=0)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    body = "bert.encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(one.get_parameter(body), other.get_parameter(body), rtol=0, atol=0)
    assert all(module.p == 0 for module in one.modules() if isinstance(module, torch.nn.Dropout))


def test_another_encoder_s_folder_will_do(tasks: Path, encoder: Path, tmp_path: Path) -> None:
    """A RoBERTa with dropout, whose positions are counted from its padding: notes as long as they may be."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    special = special_ids(encoder)
    shape = RobertaConfig(
        vocab_size=special.entries, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, pad_token_id=special.pad,
    )  # fmt: skip
    RobertaForMaskedLM(shape).save_pretrained(tmp_path / "roberta")
    copy_tokenizer(encoder, tmp_path / "roberta")
    cfg = replace(JOINT, tasks=("mortality",), max_steps_per_task=2, val_every=2, max_note_tokens=512)
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        finetune(cfg, tasks=tasks, model=tmp_path / "roberta", out=out, seed=1)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()  # no dropout
    model = load_classifier(one)
    room = positions_of(model.config)
    assert room == 20 - special.pad - 1
    assert runs.read_json(one / "lang1.json")["max_note_tokens"] == room - 2
    [note] = encode_notes(load_tokenizer(one), ["fever " * 50], special, 512, room)
    assert len(note.ids) == room and class_logits(model, [note.ids], special.pad).shape == (1, 2)


def test_a_distilbert_s_second_layer_of_the_head_is_drawn_too(tasks: Path, encoder: Path, tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    shape = DistilBertConfig(
        vocab_size=special_ids(encoder).entries, dim=16, n_layers=1, n_heads=2, hidden_dim=32,
        max_position_embeddings=40,
    )  # fmt: skip
    DistilBertForMaskedLM(shape).save_pretrained(tmp_path / "start")
    copy_tokenizer(encoder, tmp_path / "start")
    base = EncoderBase(tmp_path / "start", False, {"los": question_for("los", NOTE_TYPE_PER_TASK["los"])})
    one, two, other = (base.load(seed).pre_classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.std().item() == pytest.approx(0.02, rel=0.2)
    cfg = replace(JOINT, tasks=("mortality",), max_steps_per_task=1, val_every=1)
    finetune(cfg, tasks=tasks, model=tmp_path / "start", out=tmp_path / "model", seed=1)
    assert read_heads(tmp_path / "model") == {"mortality": (0, 2)}
    load_classifier(tmp_path / "model")


def test_a_note_s_head_is_kept_what_is_cut_is_counted_and_text_is_never_special(encoder: Path) -> None:
    tokenizer, special = load_tokenizer(encoder), special_ids(encoder)
    texts = ["chest pain " * 60, "stable", "the note says <mask> and </s> and <s>"]
    long, short, odd = encode_notes(tokenizer, texts, special, 512, 64)
    plain = tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    assert long.ids == [special.cls, *plain[:62], special.sep]
    assert (long.truncated_tokens, short.truncated_tokens) == (len(plain) - 62, 0)
    assert not {special.mask, special.cls, special.sep} & set(odd.ids[1:-1])
    with pytest.raises(InputError, match="leave no room"):
        encode_notes(tokenizer, texts, special, 512, 2)


def test_batches_and_padding_change_no_logit(joint: Path) -> None:
    model, special = load_classifier(joint), special_ids(joint)
    notes = encode_notes(
        load_tokenizer(joint), ["fever cough " * n for n in (1, 9, 3, 20, 2)], special, 512, 64
    )  # fmt: skip
    alone = np.concatenate([class_logits(model, [note.ids], special.pad).detach().double().numpy() for note in notes])
    np.testing.assert_allclose(score_notes(model, notes, batch_tokens=60, pad=special.pad), alone, atol=1e-5)


def test_faults_are_told_in_a_line(tasks: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune.batch_size: 3 is less than a row of each of 5 tasks"):
        finetune(replace(JOINT, batch_size=3), tasks=tasks, model=encoder, out=tmp_path / "model", seed=1)
    for changed in ({"method": "lora"}, {"activation_checkpointing": True}, {"sharding": "full"}):
        with pytest.raises(ConfigError, match=f"finetune.{next(iter(changed))}: .* an encoder is finetuned with"):
            finetune(replace(JOINT, **changed), tasks=tasks, model=encoder, out=tmp_path / "model", seed=1)
    with pytest.raises(InputError, match="without the head of a task"):
        read_heads(encoder)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((encoder / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not an encoder that transformers reads"):
        load_classifier(broken, 2)
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"weights are a pickle \(pytorch_model.bin\).*give the model as safetensors"):
        load_classifier(broken, 2)


def test_a_body_of_other_sizes_is_refused_and_a_head_of_others_is_drawn(encoder: Path, tmp_path: Path) -> None:
    """transformers would draw the weights that do not fit at random, and finetuning begin from noise."""
    shutil.copytree(encoder, tmp_path / "encoder")
    shape = runs.read_json(encoder / "config.json") | {"intermediate_size": 256}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(shape))
    with pytest.raises(InputError, match="weights have other sizes than its config"):
        load_classifier(tmp_path / "encoder", 2)
    load_classifier(encoder, 3).save_pretrained(tmp_path / "three")
    assert load_classifier(tmp_path / "three", 2).classifier.out_features == 2
