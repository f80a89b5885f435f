"""Spikes: a rise is seen, a fall and a slow start are not, and what was called a spike hides nothing."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise

import pytest

from lang1.config import SpikeConfig
from lang1.training.spikes import accept, judge, spike_limit

CONFIG = SpikeConfig(window=64, threshold=9.0, least=16)


def noisy(count: int, level: float, seed: int = 0) -> list[float]:
    random_ = random.Random(seed)
    return [random_.gauss(level, 0.05) for _ in range(count)]


def run(losses: list[float], config: SpikeConfig = CONFIG) -> tuple[list[int], list[float]]:
    """The places that were called spikes, and the window at the end."""
    accepted: list[float] = []
    spikes = []
    for place, loss in enumerate(losses):
        if judge(accepted, loss, 1.0, config) == "ok":
            accept(accepted, loss, config)
        else:
            spikes.append(place)
    return spikes, accepted


def test_a_loss_far_above_the_recent_ones_is_a_spike() -> None:
    losses = noisy(100, 3.0)
    losses[80] = 4.0
    assert run(losses)[0] == [80]


def test_even_noise_raises_no_alarm_in_twenty_thousand_steps() -> None:
    assert run(noisy(20_000, 3.0), SpikeConfig())[0] == []


def test_batches_that_hold_another_source_now_and_then_raise_no_alarm_and_hide_no_spike() -> None:
    random_ = random.Random(3)
    losses = [random_.gauss(0.7, 0.05) + (1.0 if random_.random() < 0.34 else 0.0) for _ in range(2_000)]
    losses[1_500] = 7.0
    assert run(losses, SpikeConfig())[0] == [1_500]


def test_a_start_that_falls_fast_raises_no_alarm_and_neither_does_a_fall() -> None:
    random_ = random.Random(1)
    falling = [10 * math.exp(-step / 40) + 2 + random_.gauss(0, 0.05) for step in range(400)]
    falling[300] = 0.5
    assert run(falling)[0] == []


def test_a_row_of_spikes_is_seen_to_its_end_because_none_enters_the_window() -> None:
    losses = [*noisy(60, 3.0), *noisy(40, 6.0, 1), *noisy(20, 3.0, 2)]
    spikes, accepted = run(losses)
    assert spikes == list(range(60, 100))
    assert max(accepted) < 4


def test_mean_and_deviation_would_miss_what_median_and_mad_see() -> None:
    window = noisy(64, 3.0)
    window[10], window[20] = 30.0, 40.0  # got in before the window was long enough
    mean = sum(window) / 64
    deviation = math.sqrt(sum((value - mean) ** 2 for value in window) / 64)
    assert (5.0 - mean) / deviation < 6
    assert judge(window, 5.0, 1.0, CONFIG) == "spike"


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_what_is_not_finite_counts_from_the_first_step(loss: float, norm: float) -> None:
    assert judge([], loss, norm, CONFIG) == "non_finite"


def test_nothing_is_called_before_the_window_holds_its_least() -> None:
    accepted = noisy(15, 3.0)
    assert spike_limit(accepted, CONFIG) is None
    assert judge(accepted, 100.0, 1.0, CONFIG) == "ok"
    accept(accepted, 3.0, CONFIG)
    assert judge(accepted, 100.0, 1.0, CONFIG) == "spike"


def test_losses_that_are_all_the_same_make_no_spike_of_nothing() -> None:
    assert judge([3.0] * 64, 3.01, 1.0, CONFIG) == "ok"
    assert judge([3.0] * 64, 3.1, 1.0, CONFIG) == "spike"


def test_the_state_goes_through_json_and_stays_as_long_as_the_window() -> None:
    losses = [*noisy(200, 3.0), 9.0, *noisy(50, 3.0, 1)]
    whole, accepted = run(losses)
    assert len(accepted) == CONFIG.window
    half = run(losses[:150])[1]
    resumed: list[float] = json.loads(json.dumps(half))
    later = []
    for place, loss in enumerate(losses[150:], 150):
        if judge(resumed, loss, 1.0, CONFIG) == "ok":
            accept(resumed, loss, CONFIG)
        else:
            later.append(place)
    assert (later, resumed) == (whole, accepted)


def test_a_higher_threshold_gives_a_higher_limit() -> None:
    window = noisy(64, 3.0)
    limits = [spike_limit(window, SpikeConfig(window=64, least=16, threshold=t)) or 0.0 for t in (3.0, 6.0, 9.0)]
    assert all(a < b for a, b in pairwise(limits))


def test_a_window_that_was_made_shorter_for_a_resume_counts_from_then_on() -> None:
    longer = [*noisy(200, 6.0), *noisy(32, 3.0)]
    limit = spike_limit(longer, SpikeConfig(window=32, least=16))
    assert limit is not None and limit < 4
