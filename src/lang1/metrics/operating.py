"""What a threshold does: sensitivity, specificity, PPV and accuracy at chosen probabilities and at alert rates, and
the net benefit of acting on them (decision curves, Vickers & Elkin 2006).

A row is flagged when its score reaches the threshold. At an alert rate a fixed share of the rows is flagged, those
with the highest scores; rows that tie at the cut are flagged in part, each by the same share, so that no order of the
rows matters and the rate is met exactly. Resamples keep what was flagged: the threshold is in use before the patients
come. Nothing here reads a label to choose a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lang1.metrics.additive import Additive, ratio
from lang1.metrics.ranking import Floats, Ints

RATES = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
"""what `at_flags` gives, in this order; NaN where nobody could be right (no positives, nobody flagged)"""


def flag_at(scores: Floats, threshold: float) -> Floats:
    """1 for rows whose score reaches `threshold`, else 0."""
    return (scores >= threshold).astype(np.float64)


def flag_share(scores: Floats, rate: float) -> Floats:
    """How far each row is flagged when the highest `rate` of rows are, 0 to 1; sums to rate times rows."""
    wanted = rate * len(scores)
    if not len(scores) or wanted <= 0:
        return np.zeros(len(scores))
    cut = np.sort(scores)[max(0, len(scores) - max(1, math.ceil(wanted - 1e-9)))]
    above, tied = scores > cut, scores == cut
    return above + tied * ((wanted - above.sum()) / tied.sum())


def cut_at(scores: Floats, rate: float) -> float | None:
    """The score of the last row that is flagged at an alert rate. None without rows."""
    flagged = flag_share(scores, rate) > 0
    return float(scores[flagged].min()) if flagged.any() else None


def at_flags(positive: NDArray[np.bool_], flagged: Floats) -> Additive:
    """The five `RATES` of a rule that flags rows (0 to 1)."""
    truth = positive.astype(np.float64)
    columns = np.column_stack([flagged * truth, flagged * (1 - truth), truth, 1 - truth])

    def finish(s: Floats) -> Floats:
        tp, fp, events, others = (s[..., i] for i in range(4))
        fn, tn = events - tp, others - fp
        rates = [
            ratio(tp + tn, events + others),
            ratio(tp, events),
            ratio(tn, others),
            ratio(tp, tp + fp),
            ratio(tn, fn + tn),
        ]
        return np.stack(rates, axis=-1)

    return Additive(columns, finish)


def independent(positive: NDArray[np.bool_], flagged: Floats, clusters: Ints) -> list[int]:
    """How many patients, or rows where each is a cluster, each of the five rates is a share of.

    A patient counts once however many rows they have there, and in part where the ties of a cut are flagged in part.
    """
    every = np.ones(len(flagged))
    shares = []
    for of in (every, positive, ~positive, flagged, 1 - flagged):
        most_C = np.zeros(int(clusters.max(initial=-1)) + 1)
        np.maximum.at(most_C, clusters, of)
        shares.append(round(float(most_C.sum())))
    return shares


def net_benefit(positive: NDArray[np.bool_], probabilities: Floats, thresholds: Sequence[float]) -> Additive:
    """Net benefit a row at each threshold t: TP/n - FP/n * t / (1 - t), (thresholds,), then that of flagging all.

    True positives a row that acting on the model is worth, less what its false alarms cost, where t says how many
    false alarms one true positive is worth. Flagging nobody has 0.
    """
    truth, t = positive.astype(np.float64), np.asarray(thresholds, dtype=np.float64)
    flagged = probabilities[:, None] >= t
    columns = np.column_stack([flagged & positive[:, None], flagged & ~positive[:, None], truth, 1 - truth])
    odds, k = t / (1 - t), len(t)

    def finish(s: Floats) -> Floats:
        events, others = s[..., -2, None], s[..., -1, None]
        model = ratio(s[..., :k] - odds * s[..., k : 2 * k], events + others)
        everyone = ratio(events - odds * others, events + others)
        return np.concatenate([model, everyone], axis=-1)

    return Additive(columns.astype(np.float64), finish)
