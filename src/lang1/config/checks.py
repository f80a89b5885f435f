"""What every section of the configuration shares: strict keys, rules that are all told at once, the task ids."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import ConfigDict

BuiltInTask = Literal["readmission", "mortality", "los", "cci", "denial"]
TASK_IDS: tuple[BuiltInTask, ...] = get_args(BuiltInTask)
TaskId = str
"""a task of ReMedE, or of a site's own (config/own_task.py): the tasks folder knows which there are"""
STRICT = ConfigDict(extra="forbid")


def require(*rules: tuple[bool, str, str]) -> None:
    """Raise ValueError with every rule (it holds, key, what is wanted) that is broken, a line each."""
    broken = [f"{key}: must be {wanted}" for holds, key, wanted in rules if not holds]
    if broken:
        raise ValueError("\n".join(broken))
