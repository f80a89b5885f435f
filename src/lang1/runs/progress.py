"""Progress lines on stderr: plain, one a step, never with note text."""

from __future__ import annotations

import sys

_quiet = False


def set_quiet(value: bool) -> None:
    """Silence progress lines."""
    global _quiet
    _quiet = value


def is_quiet() -> bool:
    """True where progress lines are silenced: for what a process hands to its children."""
    return _quiet


def say(message: str) -> None:
    """One plain progress line on stderr. Never put note text into it."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)
