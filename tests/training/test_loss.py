"""The chunked loss is F.cross_entropy."""

import pytest
import torch
from torch.nn import functional

from lang1.training import loss as module
from lang1.training.loss import IGNORE_INDEX, chunked_cross_entropy


@pytest.mark.parametrize("positions", [1, 7, 64])
def test_loss_and_gradients_equal_those_of_cross_entropy(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 50 * 8)  # chunks of 8 positions
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (positions,), generator=generator)
    targets[::5] = IGNORE_INDEX
    wanted = functional.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    gradients = torch.autograd.grad(wanted * 3, (hidden, weight))
    ours = chunked_cross_entropy(hidden, weight, targets)
    assert torch.allclose(ours, wanted, rtol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours * 3, (hidden, weight)), gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_bf16_products_stay_near_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(64, 16, generator=generator), torch.randn(50, 16, generator=generator)
    targets = torch.randint(0, 50, (64,), generator=generator)
    exact = chunked_cross_entropy(hidden, weight, targets)
    assert chunked_cross_entropy(hidden, weight, targets, torch.bfloat16).item() == pytest.approx(
        exact.item(), rel=5e-3
    )


def test_logits_never_hold_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 50 * 8)
    seen: list[int] = []
    original = module._loss_of_chunk

    def watch(logits: torch.Tensor, targets: torch.Tensor, with_gradient: bool) -> torch.Tensor:
        seen.append(logits.numel())
        return original(logits, targets, with_gradient)

    monkeypatch.setattr(module, "_loss_of_chunk", watch)
    chunked_cross_entropy(torch.randn(100, 16), torch.randn(50, 16), torch.zeros(100, dtype=torch.long))
    assert sum(seen) == 100 * 50
    assert max(seen) <= 50 * 8


def test_row_blocks_of_a_chunk_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight = torch.randn(64, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (64,))
    targets[3:9] = IGNORE_INDEX
    found = []
    for block in (50 * 3, 1 << 20):
        monkeypatch.setattr(module, "CACHED_LOGITS", block)
        loss = chunked_cross_entropy(hidden, weight, targets)
        found.append((loss, *torch.autograd.grad(loss, (hidden, weight))))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_a_second_backward_is_refused() -> None:
    hidden, weight = torch.randn(8, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    loss = chunked_cross_entropy(hidden, weight, torch.zeros(8, dtype=torch.long))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        loss.backward()
