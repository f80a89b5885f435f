"""events.jsonl of a run folder: what happened beside the steps, a line an event, kept through resumes and rollbacks.

A line holds time (UTC), step, rank, kind, batch, loss, and other facts: numbers and short names. Text is refused
(`ValueError`), so that no note, prompt or generation can get in. A value that is not finite stands as "nan", "inf" or
"-inf", because JSON has no such number. The first rank writes; `rank` says where it was seen, null: on all.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

from lang1 import runs

EVENTS = "events.jsonl"
NAME = re.compile(r"[\w.:/+-]{0,80}", re.ASCII)


def event_line(
    kind: str,
    *,
    step: int,
    rank: int | None = None,
    batch: list[int] | None = None,
    loss: float | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """An event of this moment as a line of the file.

    `batch`: sample indices of the step's global batch, or its first and last. Raises ValueError for a fact that is
    text and not a short name.
    """
    return {
        "time": time.strftime("%FT%TZ", time.gmtime()),
        "step": step,
        "rank": rank,
        "kind": _plain("kind", kind),
        "batch": _plain("batch", batch),
        "loss": _plain("loss", loss),
        **{name: _plain(name, value) for name, value in facts.items()},
    }


def read_events(out: Path) -> list[dict[str, Any]]:
    """The events of a run folder, in the order in which they came; none when there is no file."""
    return runs.read_lines(out / EVENTS)


def keep_whole_lines(path: Path, last_step: int | None = None) -> None:
    """Before a resumed run appends to a JSONL log: drop a torn last line and, given `last_step`, what came after."""
    if path.exists():
        rows = [row for row in runs.read_lines(path) if last_step is None or row["step"] <= last_step]
        runs.write_lines(path, rows)


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    raise ValueError(f"event fact {name}: numbers and short names only, not {type(value).__name__}")
