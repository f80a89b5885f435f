"""The shortened forward gives the numbers of the plain one."""

import pytest
import torch

from lang1.models.build import build_model
from lang1.models.fast import answer_logits, use_fast_attention


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build_model("tiny", 300, seed=3, context_length=64).eval()


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 300, (3, 40), generator=generator), torch.tensor([[10, 39], [5, 20], [39, 39]])


def test_answer_logits_are_those_of_the_plain_forward(model: torch.nn.Module) -> None:
    tokens, answers = _batch()
    with torch.no_grad():
        plain = model(input_ids=tokens, use_cache=False).logits
        ours = answer_logits(model, tokens, None, None, answers)
    wanted = plain.gather(1, answers[:, :, None].expand(-1, -1, 300))
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_answer_logits_under_a_mask_are_those_of_the_plain_forward(model: torch.nn.Module) -> None:
    tokens, answers = _batch()
    mask = torch.ones(40, 40, dtype=torch.bool).tril().expand(3, 1, 40, 40).clone()
    mask[:, :, 25:, 3:25] = False
    positions = torch.arange(40).expand(3, -1).clone()
    positions[:, 25:] -= 22
    with torch.no_grad():
        plain = model(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False).logits
        ours = answer_logits(model, tokens, positions, mask, answers)
    wanted = plain.gather(1, answers[:, :, None].expand(-1, -1, 300))
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_gradients_reach_every_parameter(model: torch.nn.Module) -> None:
    tokens, answers = _batch()
    answer_logits(model, tokens, None, None, answers).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()


def test_bf16_attention_agrees_with_torchs_own_within_rounding() -> None:
    tokens, answers = _batch()
    plain, fast = (build_model("tiny", 300, seed=3, context_length=64).eval() for _ in range(2))
    use_fast_attention(fast, torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = plain(input_ids=tokens, use_cache=False).logits.gather(1, answers[:, :, None].expand(-1, -1, 300))
        ours = answer_logits(fast, tokens, None, None, answers)
        whole = fast(input_ids=tokens, use_cache=False).logits.gather(1, answers[:, :, None].expand(-1, -1, 300))
    assert (ours.float() - wanted.float()).abs().max() < 0.02 * wanted.float().abs().max()
    assert (whole.float() - wanted.float()).abs().max() < 0.02 * wanted.float().abs().max()


@pytest.mark.parametrize("entries", [None, [5, 7]])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_under_bf16_the_answer_s_logits_alone_are_not_rounded_to_it(kind: str, entries: list[int] | None) -> None:
    """Rounded ones lie so far apart that many notes would have one probability."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokens, answers = _batch()
    small = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    model = build_model("tiny", 300, seed=3, context_length=64) if kind == "llama" else GPT2LMHeadModel(small)
    use_fast_attention(model.eval(), torch.bfloat16)
    body: list[torch.dtype] = []
    first = model.model.layers[0].mlp.gate_proj if kind == "llama" else model.transformer.h[0].mlp.c_fc
    with torch.no_grad():
        wanted = answer_logits(model, tokens, None, None, answers, entries)
        first.register_forward_hook(lambda module, inputs, output: body.append(output.dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = answer_logits(model, tokens, None, None, answers, entries)
    assert body == [torch.bfloat16]
    assert ours.dtype == torch.float32
    assert (ours.bfloat16().float() != ours).float().mean() > 0.9
    assert (ours - wanted).abs().max() < 0.02 * wanted.abs().max()
