"""Loss spikes: a loss far above the median of the accepted ones, measured in their median absolute deviation (MAD).

Median and MAD over a window, not mean and standard deviation: one spike that got in would widen those and hide the
next. Only a rise is a spike: a fall is what training is for, and while the loss falls fast the median lags above it,
so the start of a run raises no alarm. MAD of even (normal) noise is 0.67 standard deviations; the default, 9 MADs over
128 losses, is the 6 standard deviations over 128 steps of OLMo-core's SkipStepOptimizer.

Small batches of a mix are not even noise: most hold the hospital's notes alone and lie close together, some hold a web
page and lie far above. So a loss is measured in MADs or in the reach of the upper tenth of the window, whichever is
wider; for even noise they are the same. A source that comes to less than one batch in ten still raises alarms.

State is the list of accepted losses, plain floats, so that a checkpoint keeps it in progress.json and a resumed run
judges as an undisturbed one. A loss that was called a spike never enters the window; a lasting rise (a new source of
data, a lower batch) is therefore called at every step until someone looks, which is what `alert` is for.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Literal

from lang1.config.monitoring import SpikeConfig

Verdict = Literal["ok", "spike", "non_finite"]
FLOOR = 1e-3
"""least MAD, as a share of the median: losses that hardly differ must not make a spike of nothing"""

UPPER_TENTH = 0.6745 / 1.2816
"""MADs a distance from the median to the 90th percentile, of even (normal) noise"""


def judge(accepted: list[float], loss: float, grad_norm: float, config: SpikeConfig) -> Verdict:
    """What a step's loss (nats a token, all ranks) is, seen from the losses accepted before it. Changes nothing.

    `non_finite` when loss or gradient norm is NaN or infinite, whatever the window holds.
    """
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        return "non_finite"
    limit = spike_limit(accepted, config)
    return "spike" if limit is not None and loss > limit else "ok"


def spike_limit(accepted: list[float], config: SpikeConfig) -> float | None:
    """The loss above which a step is a spike; None while the window holds less than `least` losses."""
    recent = accepted[-config.window :]
    if len(recent) < config.least:
        return None
    middle = median(recent)
    upper = sorted(recent)[int(0.9 * len(recent))] - middle
    deviation = max(median(abs(value - middle) for value in recent), UPPER_TENTH * upper)
    return middle + config.threshold * max(deviation, FLOOR * abs(middle))


def accept(accepted: list[float], loss: float, config: SpikeConfig) -> None:
    """Take a loss that was judged ok into the window, in place, and let the oldest go."""
    accepted.append(loss)
    del accepted[: -config.window]
