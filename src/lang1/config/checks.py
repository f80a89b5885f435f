"""What every section of the configuration shares: strict keys, rules that are all told at once, the task ids."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import ConfigDict

TaskId = Literal["readmission", "mortality", "los", "cci", "denial"]
TASK_IDS: tuple[TaskId, ...] = get_args(TaskId)
STRICT = ConfigDict(extra="forbid")


def require(*rules: tuple[bool, str, str]) -> None:
    """Raise ValueError with every rule (it holds, key, what is wanted) that is broken, a line each."""
    broken = [f"{key}: must be {wanted}" for holds, key, wanted in rules if not holds]
    if broken:
        raise ValueError("\n".join(broken))
