"""Schedules by their values; which parameters Muon takes; its numbers beside torch's own."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from lang1.config import OptimizerConfig
from lang1.models.build import build_from_config, build_model
from lang1.training.muon import MuonWithAdamW, orthogonalised
from lang1.training.optimizer import hidden_matrices, learning_rate, make_optimizer, set_rate

MUON = OptimizerConfig(name="muon", lr=0.01, min_lr=0.0, warmup_steps=0, muon_lr=0.02, muon_weight_decay=0.05)


@pytest.fixture
def model() -> Any:
    return build_model("tiny", 300, seed=1, context_length=32)


def backward(model: Any, seed: int) -> None:
    tokens = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(seed))
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()


def test_cosine_goes_from_the_warm_up_to_the_least_rate_at_the_last_step() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=4)
    rates = [learning_rate(config, step, 15) for step in range(15)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[9] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[14] == pytest.approx(0.1)
    assert rates[12] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.8)))


def test_wsd_is_stable_after_the_warm_up_and_falls_in_a_line_over_its_share() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.2, warmup_steps=2, schedule="wsd", decay_share=0.4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_wsd_whose_decay_is_longer_than_what_the_warm_up_leaves_falls_at_once() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=5, schedule="wsd", decay_share=1.0)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[5:] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert [learning_rate(config, step, 1) for step in range(1)] == pytest.approx([1 / 6])


def test_muon_takes_the_matrices_between_the_embedding_and_the_head(model: Any) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    taken = [names[id(p)] for p in hidden_matrices(model)]
    assert len(taken) == 2 * 7
    assert all("_proj.weight" in name for name in taken)
    optimizer = make_optimizer(model, MUON)
    groups = [(len(g["params"]), g["rate_factor"], g["weight_decay"]) for g in optimizer.param_groups]
    assert groups == [(14, 2.0, 0.05), (1, 1.0, 0.1), (5, 1.0, 0.0)]


def test_muon_leaves_positions_and_a_tied_head_to_adamw() -> None:
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=300, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    gpt2 = build_from_config(config, 1)
    names = {id(p): name for name, p in gpt2.named_parameters()}
    taken = [names[id(p)] for p in hidden_matrices(gpt2)]
    assert len(taken) == 2 * 4
    assert all(".h." in name for name in taken)


def test_muon_leaves_an_encoder_s_classifier_to_adamw() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=4)
    bert = BertForSequenceClassification(config)
    names = {id(p): name for name, p in bert.named_parameters()}
    taken = [names[id(p)] for p in hidden_matrices(bert)]
    assert len(taken) == 2 * 6 + 1
    assert all(".layer." in name or name == "bert.pooler.dense.weight" for name in taken)


def test_a_step_has_the_bytes_of_torchs_muon_and_adamw(model: Any) -> None:
    twin = build_model("tiny", 300, seed=1, context_length=32)
    ours = make_optimizer(model, MUON)
    hidden = hidden_matrices(twin)
    rest = [p for p in twin.parameters() if all(p is not h for h in hidden)]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [p for p in rest if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8, fused=True)
    for step in range(3):
        for one in (model, twin):
            backward(one, step)
        ours.step()
        muon.step()
        adamw.step()
        for optimizer in (ours, muon, adamw):
            optimizer.zero_grad()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_singular_values_of_an_update_are_near_one_in_both_number_formats() -> None:
    matrix = torch.randn(48, 96, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.bfloat16, torch.float32):
        for one in (matrix, matrix.T):
            values = torch.linalg.svdvals(orthogonalised(one, 5, dtype).float())
            assert 0.6 < values.min() < values.max() < 1.3


def test_the_rate_of_the_hidden_matrices_follows_the_schedule(model: Any) -> None:
    optimizer = make_optimizer(model, MUON)
    set_rate(optimizer, 0.003)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.006, 0.003, 0.003])


def test_a_loaded_state_goes_on_as_if_it_had_not_stopped(model: Any) -> None:
    stopped = build_model("tiny", 300, seed=1, context_length=32)
    first, second = make_optimizer(model, MUON), make_optimizer(stopped, MUON)
    backward(model, 0)
    first.step()
    stopped.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert isinstance(second, MuonWithAdamW)
    for one, optimizer in ((model, first), (stopped, second)):
        optimizer.zero_grad()
        backward(one, 1)
        set_rate(optimizer, 0.005)
        optimizer.step()
    for mine, theirs in zip(model.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(mine, theirs)
