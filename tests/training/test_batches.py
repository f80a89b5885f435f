"""The order of data is a function of seed and sample index alone."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from lang1 import runs
from lang1.config import PretrainConfig
from lang1.corpus.shards import open_shards
from lang1.errors import InputError
from lang1.training.batches import PERIOD, make_mixture, permuted
from lang1.training.blocks import fetch, open_corpus


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 1024, 1025])
def test_a_keyed_permutation_reaches_every_index_once(size: int) -> None:
    assert sorted(permuted(i, size, 7, "a") for i in range(size)) == list(range(size))


def test_other_keys_give_other_orders() -> None:
    orders = {tuple(permuted(i, 100, seed, what) for i in range(100)) for seed in (1, 2) for what in ("a", "b")}
    assert len(orders) == 4


def test_the_mix_is_met_in_every_period() -> None:
    mixture = make_mixture(1, {"clinical": 0.7, "web": 0.3}, {"clinical": 50, "web": 9})
    for period in range(3):
        names = Counter(mixture.locate(j)[0] for j in range(period * PERIOD, (period + 1) * PERIOD))
        assert names["web"] == pytest.approx(0.3 * PERIOD, abs=1)


def test_a_source_is_walked_without_replacement() -> None:
    mixture = make_mixture(1, {"a": 1.0}, {"a": PERIOD})
    blocks = [mixture.locate(j)[1] for j in range(2 * PERIOD)]
    assert sorted(blocks[:PERIOD]) == sorted(blocks[PERIOD:]) == list(range(PERIOD))
    assert blocks[:PERIOD] != blocks[PERIOD:]


def test_any_micro_batch_gives_the_same_global_batches(tokens: Path) -> None:
    batches = []
    for micro in (1, 2, 8):
        cfg = PretrainConfig(context_length=32, global_batch=8, micro_batch=micro)
        corpus = open_corpus(cfg, open_shards(tokens), 32, seed=5)
        batches.append([torch.cat(fetch(cfg, corpus, step).micro_batches) for step in (0, 1, 9)])
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))


def test_samples_are_counted_over_steps_not_batches(tokens: Path) -> None:
    """Two steps of 4 hold what one step of 8 holds: a run may change its batch size between stages of a plan."""
    blocks = {}
    for size in (4, 8):
        cfg = PretrainConfig(context_length=32, global_batch=size, micro_batch=4)
        corpus = open_corpus(cfg, open_shards(tokens), 32, seed=5)
        blocks[size] = torch.cat([m for step in range(16 // size) for m in fetch(cfg, corpus, step).micro_batches])
    assert torch.equal(blocks[4], blocks[8])


def test_a_source_that_is_not_there_is_dropped_and_the_rest_rescaled(
    tokens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.set_quiet(False)
    corpus = open_corpus(PretrainConfig(mix={"clinical": 0.5, "web": 0.5}), open_shards(tokens), 32, seed=5)
    assert corpus.weights == {"clinical": 1.0}
    assert corpus.dropped == ["web"]
    assert "the tokens folder has clinical" in capsys.readouterr().err


def test_a_mix_without_a_single_block_is_refused(tokens: Path) -> None:
    with pytest.raises(InputError, match=r"no source of pretrain.mix"):
        open_corpus(PretrainConfig(mix={"web": 1.0}), open_shards(tokens), 32, seed=5)
