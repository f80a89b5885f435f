"""Who wins where: verdicts from the paired comparisons on the headline split, and the sentences that say them.

A verdict needs both: an interval of the difference that leaves out zero, and a p below 0.05 after Holm's correction.
All else is "no clear difference". The interval alone would cry wolf once in twenty comparisons; the p alone hides the
size. Each alternative is a question of its own, so its family is its tasks; "better than every alternative" needs no
further correction, since all of them must hold (an intersection-union test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lang1 import figures
from lang1.report import words

Word = Literal["better", "unclear", "worse"]
SUBJECTS = ("lang1 finetuned joint", "lang1 finetuned")
"""the model that the report speaks of: the first of these that has results"""
SAY = {"better": "better than", "unclear": "no clear difference from", "worse": "worse than"}
ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Our model against one alternative on one task. `difference` is ours less theirs, AUROC."""

    task: str
    other: str
    difference: float
    ci_low: float | None
    ci_high: float | None
    p: float | None
    p_holm: float | None
    word: Word

    @property
    def text(self) -> str:
        """+3.1 [+1.0, +5.2]."""
        return f"{words.points(self.difference)} {words.points_interval(self.ci_low, self.ci_high)}".strip()


@dataclass(frozen=True)
class Answer:
    """The answer first: one line, then a line an alternative."""

    subject: str | None
    split: str
    headline: str
    details: list[str]
    verdicts: list[Verdict]

    @property
    def others(self) -> list[str]:
        """The alternatives in their fixed order."""
        return figures.order_models({v.other for v in self.verdicts})

    def verdict(self, task: str, other: str) -> Verdict | None:
        """The verdict of a cell of the matrix."""
        return next((v for v in self.verdicts if v.task == task and v.other == other), None)


def find_subject(results: list[dict[str, Any]]) -> str | None:
    """The model that the question is about; None when no finetuned LANG1 was evaluated."""
    models = {row["model"] for row in results}
    return next((name for name in SUBJECTS if name in models), None)


def judge(comparisons: list[dict[str, Any]], subject: str, split: str) -> list[Verdict]:
    """Verdicts of `subject` against each alternative on `split`, with Holm's p over the tasks of each alternative."""
    found = []
    for row in comparisons:
        if row["split"] != split or subject not in (row["model_a"], row["model_b"]) or row.get("difference") is None:
            continue
        ours_first = row["model_a"] == subject
        sign = 1.0 if ours_first else -1.0
        bounds = [None if b is None else sign * b for b in (row.get("ci_low"), row.get("ci_high"))]
        low, high = bounds if ours_first else reversed(bounds)
        other = row["model_b"] if ours_first else row["model_a"]
        found.append((row["task"], other, sign * row["difference"], low, high, row.get("p")))
    verdicts = []
    for alternative in dict.fromkeys(row[1] for row in found):
        family = [row for row in found if row[1] == alternative]
        for row, p_holm in zip(family, holm([row[-1] for row in family]), strict=True):
            verdicts.append(Verdict(*row, p_holm, _word(*row[2:5], p_holm)))
    return verdicts


def holm(p_values: list[float | None]) -> list[float | None]:
    """Holm's adjusted p of each test; a test without p stays without and is not counted."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def _word(difference: float, low: float | None, high: float | None, p_holm: float | None) -> Word:
    if low is None or high is None or p_holm is None or p_holm >= ALPHA or low <= 0 <= high:
        return "unclear"
    return "better" if difference > 0 else "worse"


def answer(results: list[dict[str, Any]], comparisons: list[dict[str, Any]], split: str) -> Answer:
    """The answer in words. Every number in it comes from `results` and `comparisons`."""
    here = [row for row in results if row["split"] == split and row.get("value") is not None]
    subject = find_subject(here)
    if subject is None:
        why = "no model has been evaluated" if not here else "no finetuned LANG1 model has been evaluated"
        return Answer(None, split, f"The question cannot be answered yet: {why} on this split.", [], [])
    verdicts = judge(comparisons, subject, split)
    if not verdicts:
        headline = "The models were measured but not compared pairwise; read the intervals below with care."
        return Answer(subject, split, headline, _achievable(here, subject), [])
    others = figures.order_models({v.other for v in verdicts})
    details = [_against(other, [v for v in verdicts if v.other == other]) for other in others]
    return Answer(subject, split, _headline(verdicts), details + _achievable(here, subject), verdicts)


def _headline(verdicts: list[Verdict]) -> str:
    tasks = list(dict.fromkeys(v.task for v in verdicts))
    by_task = {task: {v.word for v in verdicts if v.task == task} for task in tasks}
    wins = [task for task, seen in by_task.items() if seen == {"better"}]
    beaten = [task for task, seen in by_task.items() if "worse" in seen]
    alternatives = len({v.other for v in verdicts})
    every = "the one alternative" if alternatives == 1 else f"each of the {words.number_word(alternatives)} alternatives"
    if len(wins) == len(tasks):
        return f"Yes. It is clearly better than {every}, on {_all(len(tasks))}."
    if len(beaten) == len(tasks):
        return f"No. At least one alternative is clearly better, on {_all(len(tasks))}."
    open_tasks = [task for task in tasks if task not in wins and task not in beaten]
    parts = []
    if wins:
        parts.append(f"it is clearly better than {every} on {_named(wins)}")
    if beaten:
        parts.append(f"at least one alternative is clearly better on {_named(beaten)}")
    if open_tasks:
        parts.append(f"no alternative is clearly better, but not all are clearly worse, on {_named(open_tasks)}")
    return f"{'In part' if wins else 'Not shown'}: {'; '.join(parts)}."


def _all(tasks: int) -> str:
    return "the one task that was measured" if tasks == 1 else f"all {words.number_word(tasks)} tasks"


def _named(tasks: list[str]) -> str:
    return words.join([words.task_in_a_sentence(task) for task in tasks])


def _against(other: str, verdicts: list[Verdict]) -> str:
    """One sentence against one alternative, with the differences in percentage points."""
    parts = []
    for word in ("better", "unclear", "worse"):
        cases = [f"{words.task_in_a_sentence(v.task)} ({v.text})" for v in verdicts if v.word == word]
        if cases:
            parts.append(f"{SAY[word].removesuffix(' than').removesuffix(' from')} on {words.join(cases)}")
    line = f"{figures.look(other).label}: {'; '.join(parts)}."
    if other == "tfidf+xgboost":
        lost = [words.task_in_a_sentence(v.task) for v in verdicts if v.word == "worse"]
        line += f" TF-IDF + boosting wins on {words.join(lost) if lost else 'no task'}."
    return line


def _achievable(results: list[dict[str, Any]], subject: str) -> list[str]:
    shares = [(row["share"], row["task"]) for row in results if row["model"] == subject and row.get("share") is not None]
    if not shares:
        return []
    mean = sum(share for share, _ in shares) / len(shares)
    if len(shares) == 1:
        return [f"Of what could be achieved on these rows it reaches {words.percent(mean)}."]
    (low, low_task), (high, high_task) = min(shares), max(shares)
    return [
        f"Of what could be achieved on these rows it reaches between {words.percent(low)} "
        f"({words.task_in_a_sentence(low_task)}) and {words.percent(high)} ({words.task_in_a_sentence(high_task)}), "
        f"{words.percent(mean)} in the mean."
    ]
