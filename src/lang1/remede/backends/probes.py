"""What both canaries share: the passage and easy lines that are sent, what came back, how a fault is named."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lang1 import runs
from lang1.errors import InputError
from lang1.remede.backends.answers import Entry, Option, told_of
from lang1.remede.backends.transport import Refusal

AGREE = 0.1
"""nats: two ways to the same number agree within this, bf16 on a GPU included"""
SAME = 1e-4
"""nats: answers nearer than this are of one prompt; other prompts are farther apart in any model that reads them"""
UNSTEADY = 0.5
"""nats: the most that was seen between two answers to one prompt is 0.2, by llama.cpp's cache"""
IMPOSSIBLE = -80.0
"""nats: a model's likeliest tokens and its letters are not all but one below this"""


@dataclass(frozen=True)
class Seen:
    """An answer to a probe."""

    entries: list[Entry]
    counted: int | None
    """tokens of the prompt, as the server says"""

    def distance(self, other: Seen) -> float:
        """Largest difference between two answers over the tokens that both tell about; infinite when there is none."""
        return max(self._differences(other), default=float("inf"))

    def is_far(self, other: Seen) -> bool:
        """Whether two answers differ in most of the tokens that both tell about: unlikely ones alone may waver."""
        differences = self._differences(other)
        return not differences or statistics.median(differences) > UNSTEADY

    def _differences(self, other: Seen) -> list[float]:
        mine, theirs = ({(e.token, e.text): e.logprob for e in seen.entries} for seen in (self, other))
        return [abs(mine[key] - theirs[key]) for key in mine.keys() & theirs.keys()]

    @property
    def is_certain(self) -> bool:
        """Whether one token at most is told as possible: no model is so sure; what temperature 0 leaves is."""
        # by token: a chat tells of the one that it wrote twice
        told = {(entry.token, entry.text): entry.logprob for entry in self.entries}.values()
        return len(told) > 1 and sum(value > IMPOSSIBLE for value in told) <= 1

    def told(self, options: Sequence[Option]) -> dict[str, float]:
        """Log-probabilities of the options that the answer tells about, by token id as JSON keeps it."""
        values = zip(options, told_of(self.entries, options), strict=True)
        return {str(option.token): round(value, 4) for option, value in values if value is not None}


@dataclass(frozen=True)
class EasyLine:
    """An easy question and its answer."""

    text: str
    options: list[str]
    answer: str


def passage(most_tokens: int, count: Callable[[str], int]) -> str:
    """As many sentences of the passage as fit, one at least."""
    text = ""
    for sentence in _file()["passage"]:
        if text and count(text + sentence) > most_tokens:
            break
        text += sentence
    return text


def easy_lines() -> list[EasyLine]:
    """Questions that a model which reads can answer."""
    return [EasyLine(**line) for line in _file()["lines"]]


def _file() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((files("lang1.remede.backends") / "canary.json").read_text(encoding="utf-8"))
    return loaded


def named_fault(server: Any, name: str, why: str) -> InputError:
    """The error of a server that is not scored."""
    return InputError(f"{server}: canary: {name}: {why}; nothing was scored")


def check_steady(server: Any, seen: Seen, again: Seen) -> None:
    """Refuse a server whose answer to one prompt is another when it is asked again."""
    if seen.is_far(again):
        raise named_fault(server, "unsteady", "the same prompt asked twice gets two answers")


def refused_probe(refusal: Refusal) -> tuple[str, str]:
    """Name and reason of the fault of a server that takes one probe and refuses its like."""
    named = f", {refusal.field}" if refusal.field else ""
    return "refuses a probe", f"it took a question and refuses another of the same form (HTTP {refusal.status}{named})"


_OF_THE_SERVER = (
    *("read", "model", "token_ids_in_answers", "counts_prompt_tokens"),
    *("answers_a_request", "limit_field", "drawn_with"),
)
"""facts of a canary that must stay while rows are asked for"""


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What tells that a server is no longer the one of an earlier canary: other facts, or another model's answers.

    Both are the facts of a canary with the context length. Two servers of one model differ by less than `AGREE`.
    """
    keys = ("context_length", *_OF_THE_SERVER)
    changes = [f"{key} {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
    answers = zip(before.get("answers", []), now.get("answers", []), strict=False)
    farthest = max((abs(old[key] - new[key]) for old, new in answers for key in old.keys() & new.keys()), default=0.0)
    if farthest > AGREE:
        changes.append(f"its answers to the canary moved by {farthest:.2f} nats")
    return changes


def say_known(server: Any, facts: dict[str, Any]) -> None:
    """One line about the canary."""
    right, asked = facts["known_answers_right"], facts["known_answers_asked"]
    runs.say(f"evaluate: canary of {server}: {facts['read']}, {right} of {asked} easy lines right")
