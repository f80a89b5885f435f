"""Packed documents give the losses and gradients that each gives alone."""

from typing import Any

import pytest
import torch

from lang1.models.build import build_model
from lang1.models.fast import use_fast_attention
from lang1.training import documents
from lang1.training.next_token import next_token_loss

SEPARATOR, VOCABULARY = 2, 97
ENDS = ((6, 18, 19, 29), (0, 13), ())
"""places of separators in blocks of 31 ids: an empty document, one at the begin, a block within one document"""


def _blocks() -> torch.Tensor:
    blocks = torch.randint(3, VOCABULARY, (3, 31), generator=torch.Generator().manual_seed(0))
    for row, places in zip(blocks, ENDS, strict=True):
        row[list(places)] = SEPARATOR
    return blocks


def _alone(row: list[int]) -> list[list[int]]:
    """Each document of a block with the separator before it and the id that its last one predicts."""
    begins = [place for place in range(30) if place == 0 or row[place] == SEPARATOR]
    return [row[begin : end + 1] for begin, end in zip(begins, [*begins[1:], 30], strict=True)]


def _model(fast: bool) -> Any:
    model = build_model("tiny", VOCABULARY, seed=3, context_length=64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0 if weight.ndim == 2 else 1.0)
    if fast:
        use_fast_attention(model, torch.float32)
    return model


def _gradients(model: Any, losses: list[torch.Tensor]) -> list[torch.Tensor]:
    model.zero_grad()
    (torch.stack(losses).sum() / 30).backward()  # a mean over the targets, as the loop takes it
    return [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("form", ["dense", "flat"])
def test_packed_documents_have_the_losses_and_gradients_of_each_alone(
    fast: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(fast)
    if form == "flat":  # what flash attention's kernel is given, here through sdpa, which reads the same positions
        monkeypatch.setattr(documents, "dense_inputs", documents.flat_inputs)
    for row in _blocks():
        packed = next_token_loss(model, row[None], torch.float32, True, SEPARATOR)
        alone = [next_token_loss(model, torch.tensor([ids]), torch.float32) for ids in _alone(row.tolist())]
        assert packed.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-6)
        for ours, wanted in zip(_gradients(model, [packed]), _gradients(model, alone), strict=True):
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    whole = next_token_loss(model, _blocks(), torch.float32, True, SEPARATOR).item()
    rows = [next_token_loss(model, row[None], torch.float32, True, SEPARATOR).item() for row in _blocks()]
    assert whole == pytest.approx(sum(rows), rel=1e-6)


def test_without_the_mask_a_document_sees_the_one_before_it() -> None:
    model, blocks = _model(fast=False), _blocks()
    changed = blocks.clone()
    changed[0, 3] = 50
    found = [
        [next_token_loss(model, b[:1], torch.float32, True, s).item() for b in (blocks, changed)]
        for s in (None, SEPARATOR)
    ]
    hidden = [
        model.base_model(**documents.document_inputs(model, b[:1], SEPARATOR), use_cache=False).last_hidden_state[0, 6:]
        for b in (blocks[:, :30], changed[:, :30])
    ]
    assert found[0][0] != found[0][1]
    assert torch.equal(*hidden)


def test_bounds_for_flash_attention_are_those_of_the_documents() -> None:
    inputs = _blocks()[:, :30]
    told = documents.flat_inputs(inputs, documents.document_starts(inputs, SEPARATOR))
    assert told["cu_seq_lens_q"].tolist() == [0, 6, 18, 19, 29, 30, 43, 60, 90]
    assert told["max_length_q"] == 30
    assert told["position_ids"][0, 43:46].tolist() == [0, 1, 2]


def test_a_flash_model_gets_the_flat_form() -> None:
    model = _model(fast=False)
    model.config._attn_implementation_internal = "flash_attention_2"
    assert "cu_seq_lens_q" in documents.document_inputs(model, _blocks(), SEPARATOR)
