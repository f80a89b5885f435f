"""The signal must be read: one word, a bag of words, length, hour and author stay within their limits."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from lang1.config import SimulateConfig
from lang1.simulate import simulate_hospital
from lang1.simulate.check import TASKS, measure, read_rows

WORD_LIMIT, BAG_LIMIT, BAG_LEAST = 0.30, 0.85, 0.6
SLIGHT, SLIGHT_SHARE = 0.03, 0.06


@pytest.mark.slow
@pytest.mark.skipif("LANG1_TRIM" in os.environ, reason="CI runs the trimmed form below")
def test_limits_hold_on_20000_rows(tmp_path: Path) -> None:
    simulate_hospital(SimulateConfig(encounters=26_000), seed=97, out=tmp_path / "out")
    for task, rows in read_rows(tmp_path / "out", 20_000).items():
        reading = measure(task, rows)
        assert reading.rows == 20_000
        assert reading.word_share <= WORD_LIMIT, reading
        assert BAG_LEAST <= reading.bag_share <= BAG_LIMIT, reading
        # An AUROC without signal strays by about 1 / sqrt(12 x events), 0.014 with 400 deaths: up to three times that.
        chance = 3 / math.sqrt(12 * reading.rows * min(rate for rate in reading.rates if rate * reading.rows >= 100))
        for distance in (reading.length, reading.hour, reading.author):
            assert distance <= max(SLIGHT, SLIGHT_SHARE * (reading.ceiling - 0.5), chance), reading


def test_limits_hold_on_few_rows(hospital: Path) -> None:
    """Four thousand rows: the same limits on words, with room for chance where a class is rare."""
    rows = read_rows(hospital)
    assert set(rows) == set(TASKS)
    for task in ("readmission", "los", "denial"):
        reading = measure(task, rows[task], kinds=("logistic",))
        assert reading.word_share <= WORD_LIMIT + 0.05, reading
        assert 0.3 <= reading.bag_share <= BAG_LIMIT, reading
        assert max(reading.length, reading.hour, reading.author) <= 0.06, reading
    assert measure("mortality", rows["mortality"], kinds=()).word_share <= 0.45
    assert measure("cci", rows["cci"], kinds=()).word_share <= 0.40
