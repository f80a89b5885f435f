"""Whether the most likely option is the label: accuracy, and Cohen's kappa with quadratic weights for ordered options.

Kappa (Cohen 1968) counts a miss by the square of its distance and sets it against chance: 1 no miss, 0 no better than
drawing from both margins. It is for tasks whose options have an order (length of stay, Charlson score).
"""

from __future__ import annotations

import numpy as np

from lang1.metrics.additive import Additive, mean_of, ratio
from lang1.metrics.ranking import Floats, Ints

ORDERED = ("los", "cci")
"""tasks of ReMedE whose options have an order"""


def accuracy(labels: Ints, p_NK: Floats) -> Additive:
    """Share of rows whose most likely option is the label; the first of equally likely options counts."""
    return mean_of((p_NK.argmax(axis=1) == labels).astype(np.float64))


def quadratic_kappa(labels: Ints, predicted: Ints, options: int) -> Additive:
    """Quadratically weighted kappa. NaN where labels and predictions are all one option: chance is then perfect."""
    cells = np.eye(options * options)[labels * options + predicted]
    distance = (np.arange(options)[:, None] - np.arange(options)) ** 2.0

    def finish(s: Floats) -> Floats:
        table = s.reshape(*s.shape[:-1], options, options)
        by_chance = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
        n = table.sum(axis=(-2, -1))
        missed, expected = (table * distance).sum(axis=(-2, -1)), (by_chance * distance).sum(axis=(-2, -1))
        return 1 - ratio(n * missed, expected)

    return Additive(cells, finish)
