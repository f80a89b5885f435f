"""The interval of a share, such as an accuracy over independent rows.

Wilson's score interval (1927): it holds its level for small n and shares near 0 or 1, where resampling rows gives an
interval of no width.
"""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution"""


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % bounds of a share of `right` in `n` independent rows, n at least 1."""
    share, spread = right / n, Z95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    reach = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # around the share also where rounding says otherwise (0 or all rows): an error bar has no negative length
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))
