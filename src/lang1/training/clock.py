"""Tokens per second and the share of time spent waiting for data; a progress line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from lang1 import runs

SAY_EVERY_S = 10.0


class Clock:
    """A step's time, without validation and saving."""

    def __init__(self, steps: int, worth: Callable[[float], str]) -> None:
        """`worth`: words on what so many tokens a second are."""
        self.steps, self.worth = steps, worth
        self.mark = self.said = time.monotonic()
        self.waited = 0.0

    def fetched(self, waited: float) -> None:
        """The step's data are there after so many seconds."""
        self.waited = waited

    def stepped(self, step: int, tokens: int, loss: float) -> dict[str, float]:
        """The step's line of speed.jsonl."""
        now = time.monotonic()
        seconds = max(now - self.mark, 1e-9)
        share = self.waited / seconds
        if now - self.said > SAY_EVERY_S:
            rate = tokens / seconds
            runs.say(
                f"step {step}/{self.steps}: loss {loss:.4f}, {rate:,.0f} tokens/s{self.worth(rate)}, "
                f"{share:.1%} of the time waiting for data"
            )
            self.said = time.monotonic()
        elif step == self.steps:
            runs.say(f"step {step}/{self.steps}: loss {loss:.4f}, {tokens / seconds:,.0f} tokens/s")
        self.mark = time.monotonic()
        return {"step": step, "tokens_per_second": round(tokens / seconds, 1), "data_wait_share": round(share, 4)}

    def skip(self) -> None:
        """Leave what happened since the step out of the next one's time."""
        self.mark = time.monotonic()
