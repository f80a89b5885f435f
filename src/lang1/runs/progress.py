"""Progress lines on stderr: plain, one a step, never with note text."""

from __future__ import annotations

import sys

quiet = False
"""true: no progress lines"""


def set_quiet(value: bool) -> None:
    """Silence progress lines."""
    global quiet
    quiet = value


def is_quiet() -> bool:
    """True where progress lines are silenced: for what a process hands to its children."""
    return quiet


def say(message: str) -> None:
    """One plain progress line on stderr. Never put note text into it."""
    if not quiet:
        print(message, file=sys.stderr, flush=True)
