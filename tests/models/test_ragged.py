"""Rows without their padding give the logits and gradients of rows with it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from lang1.models.build import build_from_config, llama_config
from lang1.models.fast import NAME, answer_logits, ragged_answer_logits, takes_ragged, use_fast_attention
from lang1.models.ragged import Ragged, lay_out


def llama(dtype: torch.dtype, layers: int = 3) -> Any:
    config = llama_config("tiny", 200, 128)
    config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads = layers, 6, 2
    model = build_from_config(config, seed=1).train()
    use_fast_attention(model, dtype)
    return model


def packs(lengths: list[int], most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, segments, positions and answers of packs of up to `most` questions behind a note."""
    draw, rows, longest = random.Random(len(lengths) + most), [], max(lengths)
    tokens = torch.zeros(len(lengths), longest, dtype=torch.long)
    segments, positions = torch.full_like(tokens, -1), torch.zeros_like(tokens)
    for b, length in enumerate(lengths):
        questions = min(draw.randint(1, most), length - 1)
        cuts = sorted(draw.sample(range(1, length), questions))
        tokens[b, :length] = torch.tensor([draw.randrange(200) for _ in range(length)])
        ends = [*cuts[1:], length]
        segments[b, : cuts[0]], positions[b, : cuts[0]] = 0, torch.arange(cuts[0])
        for number, (start, end) in enumerate(zip(cuts, ends, strict=True), start=1):
            segments[b, start:end] = number
            positions[b, start:end] = cuts[0] + torch.arange(end - start)
        rows.append([end - 1 for end in ends] + [length - 1] * (most - questions))
    return tokens, segments, positions, torch.tensor(rows)


def sees(segments_BT: torch.Tensor) -> torch.Tensor:
    mine, other = segments_BT[:, :, None], segments_BT[:, None, :]
    return ((other == 0) | (mine == other))[:, None] & torch.ones(mine.shape[1], mine.shape[1]).tril().bool()


def gradients(model: Any, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits.float().log_softmax(-1)[..., 7].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


LENGTHS = [[100, 97, 60, 31, 30, 29, 12, 5, 2], [64], [3, 90, 4, 88, 40], [32, 32, 32]]


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_and_gradients_are_those_of_padded_rows(dtype: torch.dtype, lengths: list[int], most: int) -> None:
    model = llama(dtype)
    tokens, segments, positions, answers = packs(lengths, most)
    mask = sees(segments)
    ragged = lay_out(
        lengths, sum(lengths) + 7, lambda rows, longest: None if most == 1 else mask[rows, :, :longest, :longest]
    )
    assert takes_ragged(model)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        plain = answer_logits(model, tokens, positions, mask, answers)
        found = ragged_answer_logits(model, tokens, positions, ragged, answers)
    wanted, ours = gradients(model, plain), gradients(model, found)
    plain, found = plain.detach(), found.detach()
    off = 1e-5 if dtype == torch.float32 else 0.05
    assert float((plain - found).abs().max()) < off * float(plain.abs().max())
    assert all(wanted[name].abs().max() > 0 for name in wanted)
    for name in wanted:
        assert float((wanted[name] - ours[name]).abs().max()) < off * float(wanted[name].abs().max()), name


def test_every_token_has_one_place_and_groups_are_of_similar_lengths() -> None:
    lengths = [100, 97, 60, 31, 30, 29, 12, 5, 2]
    ragged = lay_out(lengths, 384, lambda rows, longest: None)
    assert [lengths[group.rows] for group in ragged.groups] == [[100, 97], [60], [31, 30, 29], [12], [5], [2]]
    assert (ragged.tokens, ragged.starts[:3]) == (366, [0, 100, 197])
    x_1HND = torch.arange(ragged.count * 2).view(1, 1, -1, 2).float()
    kept = torch.cat([group.tokens(group.padded(x_1HND).transpose(1, 2)) for group in ragged.groups])
    assert torch.equal(kept, x_1HND[0, 0, :366, None])
    for group in ragged.groups:
        first = group.padded(x_1HND)[:, 0, 0, 0]
        assert first.tolist() == [2.0 * start for start in ragged.starts[group.rows]]


def test_only_a_llama_that_was_switched_takes_rows_without_padding() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    plain = build_from_config(llama_config("tiny", 200, 128), seed=1)
    assert not takes_ragged(plain)
    assert takes_ragged(llama(torch.float32)) and takes_ragged(llama(torch.bfloat16))
    assert llama(torch.bfloat16).config._attn_implementation == NAME
    eager = llama(torch.float32)
    eager.set_attn_implementation("eager")
    with_bias = llama(torch.float32)
    with_bias.model.layers[1].mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(8))
    assert not takes_ragged(eager) and not takes_ragged(with_bias)
    assert not takes_ragged(GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=4, n_layer=1, n_head=1)))


def test_a_dropout_of_attention_or_an_adapter_keeps_the_padding() -> None:
    from peft import LoraConfig, get_peft_model

    adapted = llama(torch.float32)
    get_peft_model(adapted, LoraConfig(r=2, target_modules=["q_proj"]))
    assert not takes_ragged(adapted)
    dropped = llama(torch.float32)
    dropped.config.attention_dropout = 0.1
    assert not takes_ragged(dropped)


def test_the_places_of_padding_are_not_real() -> None:
    assert Ragged(32, [3, 2], []).real_of(4).tolist() == [[True, True, True, False], [True, True, False, False]]
