"""What both canaries share: the passage and easy lines that are sent, what came back, how a fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lang1 import runs
from lang1.errors import InputError
from lang1.remede.backends.answers import Entry


@dataclass(frozen=True)
class Seen:
    """An answer to a probe."""

    entries: list[Entry]
    counted: int | None

    def distance(self, other: Seen) -> float:
        """Largest difference between two answers over the tokens that both tell about; infinite when there is none."""
        mine, theirs = ({(e.token, e.text): e.logprob for e in seen.entries} for seen in (self, other))
        common = mine.keys() & theirs.keys()
        return max((abs(mine[key] - theirs[key]) for key in common), default=float("inf"))


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


def say_known(server: Any, facts: dict[str, Any]) -> None:
    """One line about the canary."""
    right, asked = facts["known_answers_right"], facts["known_answers_asked"]
    runs.say(f"evaluate: canary of {server}: {facts['read']}, {right} of {asked} easy lines right")
