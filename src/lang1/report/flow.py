"""The cohort of a task as a flow, as CONSORT draws it: what remains on the left, what each rule left out on the right.

Drawn as SVG from the attrition rows alone, at a phone's width, so that three stand side by side on a desk screen.
Whether the counts add up is checked here and said on the page: a flow that does not is worse than none.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lang1.report import words
from lang1.report.collect import AttritionStep

WIDTH = 340
LINE = 15
"""height of a line of text, px"""
RULE_CHARACTERS = 30
BOX_WIDTH = 112
BOX_HEIGHT = 30


@dataclass(frozen=True)
class Step:
    """A box with what remains, and beside the arrow into it what was left out and why."""

    top: int
    remaining: str
    left_out: str
    lines: list[str]


@dataclass(frozen=True)
class Flow:
    """One task's flow, laid out in px."""

    task: str
    title: str
    steps: list[Step]
    idle: list[str]
    """rules that left nobody out"""
    height: int
    splits: str
    problems: list[str]
    description: str


def draw_flow(task: str, attrition: list[AttritionStep], statistics: dict[str, dict[str, Any]]) -> Flow:
    """Lay out a task's flow. `statistics` are the task's splits; their rows must add up to what remains."""
    steps: list[Step] = []
    top = 4
    # a rule that left nobody out is not drawn; the page says how many those are
    drawn = [step for number, step in enumerate(attrition) if number == 0 or step.left_out]
    for number, step in enumerate(drawn):
        lines = textwrap.wrap(step.rule, RULE_CHARACTERS)
        if number > 0:
            # room beside the arrow for the rule's lines, the count above them, and a first box's own lines
            beside = LINE * (len(lines) + 1) + (LINE * (len(steps[0].lines) - 1) if number == 1 else 0)
            top += BOX_HEIGHT + max(22, beside - BOX_HEIGHT + 24)
        steps.append(
            Step(
                top=top,
                remaining=words.count(step.remaining),
                left_out=f"{words.MINUS}{words.count(step.left_out)}" if number > 0 or step.left_out else "",
                lines=lines,
            )
        )
    return Flow(
        task=task,
        title=words.task(task),
        steps=steps,
        idle=[step.rule for step in attrition[1:] if not step.left_out],
        height=top + BOX_HEIGHT + 6,
        splits="; ".join(
            f"{words.split(name).lower()}: {words.count(found['rows'])}" for name, found in statistics.items()
        ),
        problems=find_problems(attrition, statistics),
        description="; ".join(
            f"{step.rule}: {words.count(step.left_out)} left out, {words.count(step.remaining)} remain"
            for step in attrition
        )
        + ".",
    )


def find_problems(attrition: list[AttritionStep], statistics: dict[str, dict[str, Any]]) -> list[str]:
    """Where the counts do not add up; empty when they do."""
    problems = [
        f"step {after.step}: {words.count(before.remaining)} less {words.count(after.left_out)} is not "
        f"{words.count(after.remaining)}"
        for before, after in pairwise(attrition)
        if before.remaining - after.left_out != after.remaining
    ]
    rows = sum(int(found["rows"]) for found in statistics.values())
    if attrition and statistics and rows != attrition[-1].remaining:
        problems.append(
            f"the splits hold {words.count(rows)} rows, the last rule left {words.count(attrition[-1].remaining)}"
        )
    return problems
