"""The interval of a share equals scipy's, also where no row or every row is right."""

from __future__ import annotations

import pytest
from scipy import stats

from lang1.metrics.proportion import wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 32), (32, 32), (1, 1), (50, 200), (7, 9), (499, 1000)])
def test_the_interval_is_scipys(right: int, n: int) -> None:
    wanted = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
