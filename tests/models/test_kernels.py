"""The switched layers give the numbers of transformers' own: logits, loss and every gradient, to 1e-5."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lang1.models import kernels
from lang1.models.build import draw_weights
from lang1.models.fast import compile_model, use_fast_attention, use_fast_layers

VOCABULARY = 101


def _models(
    heads: int = 6, kv_heads: int = 2, tied: bool = False, layers: int = 2
) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * 10,
        intermediate_size=77,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    draw_weights(plain, seed=5)
    for name, weight in plain.named_parameters():
        with torch.no_grad():
            weight.mul_(5 if weight.ndim == 2 else 1).add_(0.3 if "norm" in name else 0.0)
    fast = copy.deepcopy(plain)
    use_fast_layers(fast)
    return plain, fast


def _tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(rows + length))


def _assert_same(plain: nn.Module, fast: nn.Module, tokens: torch.Tensor, **options: torch.Tensor) -> None:
    found = []
    for model in (plain, fast):
        model.zero_grad()
        out = model(input_ids=tokens, labels=tokens, use_cache=False, **options)
        out.loss.backward()
        found.append((out.logits, out.loss))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5, msg=name)


@pytest.fixture
def _used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which fused steps ran: a comparison of the plain forward with itself would prove nothing."""
    seen: list[str] = []
    for name in ("norm_qkv", "norm_swiglu", "rms_norm", "linear"):
        monkeypatch.setattr(kernels, name, _noting(seen, name, getattr(kernels, name)))
    return seen


def _noting(seen: list[str], name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        seen.append(name)
        return kernel(*arguments)

    return noted


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("rows", "length"), [(1, 2), (1, 17), (3, 33)])
def test_logits_loss_and_gradients_are_those_of_the_plain_model(
    kv_heads: int, tied: bool, rows: int, length: int, _used: list[str]
) -> None:
    _assert_same(*_models(kv_heads=kv_heads, tied=tied), _tokens(rows, length))
    assert set(_used) == {"norm_qkv", "norm_swiglu", "rms_norm", "linear"}


def test_more_rows_than_a_cached_block_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CACHED", 77 * 8)
    _assert_same(*_models(), _tokens(3, 33))


def test_a_mask_and_positions_are_followed(_used: list[str]) -> None:
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    mask[12:, :12] = False
    positions = torch.cat((torch.arange(12), torch.arange(8)))[None]
    _assert_same(*_models(), _tokens(1, 20), attention_mask=mask[None, None], position_ids=positions)
    assert "norm_qkv" in _used


def test_gradients_of_two_batches_add_up() -> None:
    _, fast = _models()
    single = []
    for rows in (1, 2):
        fast.zero_grad()
        fast(input_ids=_tokens(rows, 20), labels=_tokens(rows, 20), use_cache=False).loss.backward()
        single.append([weight.grad.clone() for weight in fast.parameters()])
    fast(input_ids=_tokens(1, 20), labels=_tokens(1, 20), use_cache=False).loss.backward()
    for weight, one, two in zip(fast.parameters(), *single, strict=True):
        torch.testing.assert_close(weight.grad, one + two, atol=1e-5, rtol=1e-5)


def test_a_second_backward_is_refused() -> None:
    _, fast = _models()
    loss = fast(input_ids=_tokens(2, 20), labels=_tokens(2, 20), use_cache=False).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    plain, fast = _models()
    fast.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    fast.train()
    _assert_same(plain, fast, _tokens(2, 21))


def test_bf16_autocast_takes_the_plain_forward(_used: list[str]) -> None:
    plain, fast = _models()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        wanted, ours = (model(input_ids=_tokens(2, 20), use_cache=False).logits for model in (plain, fast))
    assert torch.equal(ours, wanted)
    assert not _used


def test_generation_with_a_cache_writes_the_same_tokens() -> None:
    plain, fast = _models()
    told = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    wanted, ours = (model.eval().generate(_tokens(1, 20), **told) for model in (plain, fast))
    assert torch.equal(ours, wanted)


def test_an_adapter_in_a_layer_is_not_passed_over() -> None:
    class Doubled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            doubled: torch.Tensor = self.inner(x) * 2
            return doubled

    plain, fast = _models()
    for model in (plain, fast):
        model.model.layers[0].self_attn.q_proj = Doubled(model.model.layers[0].self_attn.q_proj)
    _assert_same(plain, fast, _tokens(2, 20))


def test_class_names_and_export_stay_those_of_transformers() -> None:
    plain, fast = _models()
    use_fast_attention(fast, torch.float32)
    assert type(fast) is type(plain)
    assert list(fast.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("by", ["torch", "oneDNN"])
@pytest.mark.parametrize("a_slice", [False, True])
def test_a_product_takes_any_layout(a_slice: bool, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_ONEDNN", torch.ops.mkldnn._linear_pointwise if by == "oneDNN" else None)
    a, b = torch.randn(40, 24), torch.randn(50, 24)
    if a_slice:
        a, b = a[:, 3:11], b[:, 3:11]
    for x, y in ((a, b), (a.t().contiguous().t(), b), (a, b.t().contiguous().t()), (a[:3], b)):
        torch.testing.assert_close(kernels.product(x, y), x @ y.t(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("by", ["torch", "oneDNN"])
@pytest.mark.parametrize(("rows", "wide", "narrow"), [(300, 40, 24), (300, 24, 40), (20, 64, 8), (3, 8, 64)])
def test_the_gradient_of_a_weight_is_whole_by_either_library(
    rows: int, wide: int, narrow: int, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_ONEDNN", torch.ops.mkldnn._linear_pointwise if by == "oneDNN" else None)
    grad, x = torch.randn(rows, wide), torch.randn(rows, narrow)
    found = kernels.weight_gradient(grad, x)
    torch.testing.assert_close(found, grad.t() @ x, atol=1e-4, rtol=1e-4)
    assert found.is_contiguous()


@pytest.mark.parametrize("by", ["torch", "oneDNN"])
def test_layers_are_the_same_by_either_library(by: str, _used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_ONEDNN", torch.ops.mkldnn._linear_pointwise if by == "oneDNN" else None)
    plain, fast = _models()
    _assert_same(plain, fast, _tokens(3, 40))
    assert {"norm_qkv", "norm_swiglu"} <= set(_used)


def test_a_gate_that_is_made_again_gives_the_gradients_of_one_that_is_kept(
    _used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fast = _models()
    _assert_same(plain, fast, _tokens(3, 40))
    kept = {name: p.grad.clone() for name, p in fast.named_parameters() if p.grad is not None}
    monkeypatch.setattr(kernels, "KEPT", 0)
    _assert_same(plain, fast, _tokens(3, 40))
    assert len(kept) == len(list(fast.parameters()))
    for name, parameter in fast.named_parameters():
        torch.testing.assert_close(parameter.grad, kept[name], atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.long
def test_compiled_layers_give_the_same_at_lengths_that_change() -> None:
    plain, fast = _models(layers=2)  # each is compiled by itself
    compile_model(fast)
    for rows, length in ((2, 32), (3, 21), (1, 17)):
        _assert_same(plain, fast, _tokens(rows, length))
    assert list(fast.state_dict()) == list(plain.state_dict())


def test_the_feed_forward_part_is_the_same_in_row_blocks_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    x_BTH, norm_H = torch.randn(3, 50, 24, generator=generator), torch.randn(24, generator=generator)
    weights = tuple(torch.randn(*size, generator=generator) for size in ((64, 24), (64, 24), (24, 64)))
    whole = kernels.norm_swiglu(x_BTH, norm_H, 1e-5, weights)
    monkeypatch.setattr(kernels, "WIDE", 64 * 40)  # 150 rows in blocks of 40
    with torch.no_grad():
        in_blocks = kernels.norm_swiglu(x_BTH, norm_H, 1e-5, weights)
    torch.testing.assert_close(in_blocks, whole, rtol=1e-5, atol=1e-4)
