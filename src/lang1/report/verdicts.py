"""Who wins where: verdicts from the paired comparisons on the headline split, and the sentences that say them.

A verdict needs both: an interval of the difference that leaves out zero, and a p below 0.05 after Holm's correction,
as `evaluate` wrote it. All else is "no clear difference". The interval alone would cry wolf once in twenty
comparisons; the p alone hides the size. Each alternative is a question of its own, so its family is its tasks;
"better than every alternative" needs no further correction, since all must hold (an intersection-union test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lang1 import figures
from lang1.report import words

Word = Literal["better", "unclear", "worse"]
SUBJECTS = ("lang1 finetuned joint", "lang1 finetuned")
"""the model that the report speaks of: the first of these that has results"""
BOOSTING = ("tfidf+xgboost", "columns+xgboost")
"""where these win is said in words, win or lose"""
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
class Detail:
    """A line of the answer: what it is about, and what is so."""

    about: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The answer first: one line, then a line an alternative."""

    subject: str | None
    split: str
    headline: str
    details: list[Detail]
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
    """Verdicts of `subject` against each alternative on `split`."""
    return [
        _verdict(row, subject)
        for row in comparisons
        if row["split"] == split and subject in (row["model_a"], row["model_b"]) and row.get("difference") is not None
    ]


def _verdict(row: dict[str, Any], subject: str) -> Verdict:
    difference, low, high, other = row["difference"], row.get("ci_low"), row.get("ci_high"), row["model_b"]
    if row["model_b"] == subject:  # the comparison was written the other way round
        difference, other = -difference, row["model_a"]
        low, high = (None if high is None else -high), (None if low is None else -low)
    p_holm = row.get("p_holm")
    word = _word(difference, low, high, p_holm)
    return Verdict(row["task"], other, difference, low, high, row.get("p"), p_holm, word)


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
    details += _not_compared(results, verdicts, others, split) + _achievable(here, subject)
    return Answer(subject, split, _headline(verdicts), details, verdicts)


def _headline(verdicts: list[Verdict]) -> str:
    tasks = list(dict.fromkeys(v.task for v in verdicts))
    by_task = {task: {v.word for v in verdicts if v.task == task} for task in tasks}
    wins = [task for task, seen in by_task.items() if seen == {"better"}]
    beaten = [task for task, seen in by_task.items() if "worse" in seen]
    undecided = [task for task in tasks if task not in wins and task not in beaten]
    number = len({v.other for v in verdicts})
    every = {1: "the one alternative", 2: "both alternatives"}.get(
        number, f"all {words.number_word(number)} alternatives"
    )
    one_of_them = "the alternative" if number == 1 else "at least one alternative"
    some = "it" if number == 1 else "at least one"
    if len(wins) == len(tasks):
        return f"Yes. It is clearly better than {every} on {_all(len(tasks))}."
    if len(beaten) == len(tasks):
        return f"No. On {_all(len(tasks))} {one_of_them} is clearly better."
    parts = []
    if wins:
        parts.append(f"clearly better than {every} on {_named(wins)}")
    if beaten:
        parts.append(f"clearly beaten by {some if wins else one_of_them} on {_named(beaten)}")
    if undecided:
        few = len(undecided) < 3 and (wins or beaten)
        where = _named(undecided) if few else f"the other {words.number_word(len(undecided))} tasks"
        where = _all(len(tasks)) if len(undecided) == len(tasks) else where
        parts.append(f"no clear difference from {some if wins or beaten else one_of_them} on {where}")
    text = "; ".join(parts)
    return f"{'In part' if wins else 'Not shown'}. {text[0].upper()}{text[1:]}."


def _all(tasks: int) -> str:
    return "the one task that was measured" if tasks == 1 else f"all {words.number_word(tasks)} tasks"


def _named(tasks: list[str]) -> str:
    return words.join([words.task_in_a_sentence(task) for task in tasks])


def _against(other: str, verdicts: list[Verdict]) -> Detail:
    """One sentence against one alternative, with the differences in percentage points of AUROC."""
    parts = []
    for word, say in (("better", "better"), ("worse", "worse"), ("unclear", "no clear difference")):
        cases = [v for v in verdicts if v.word == word]
        if cases:
            parts.append(f"{say} on {_cases(cases, len(verdicts))}")
    text = f"{'; '.join(parts)}."
    if other in BOOSTING:
        lost = [words.task_in_a_sentence(v.task) for v in verdicts if v.word == "worse"]
        text += f" {figures.look(other).label} wins on {words.join(lost) if lost else 'no task'}."
    return Detail(f"Against {_inside(figures.look(other).label)}", text)


def _not_compared(
    results: list[dict[str, Any]], verdicts: list[Verdict], others: list[str], split: str
) -> list[Detail]:
    """Tasks that were measured but lack a comparison: no headline may pass over them in silence."""
    missing = []
    for task in dict.fromkeys(row["task"] for row in results if row["split"] == split):
        lacking = [other for other in others if not any(v.task == task and v.other == other for v in verdicts)]
        if lacking:
            missing.append(
                f"{words.task_in_a_sentence(task)} with {words.join([figures.look(other).label for other in lacking])}"
            )
    return [Detail("Not compared", f"{'; '.join(missing)}.")] if missing else []


def _cases(cases: list[Verdict], tasks: int) -> str:
    """Each task with its difference and interval; from three on, the tasks and the range of the differences."""
    if len(cases) < 3:
        return words.join([f"{words.task_in_a_sentence(v.task)} ({_with_unit(v)})" for v in cases])
    named = _all(tasks) if len(cases) == tasks else _named([v.task for v in cases])
    low, high = min(v.difference for v in cases), max(v.difference for v in cases)
    return f"{named} ({words.points(low)} to {words.points(high)} points)"


def _with_unit(v: Verdict) -> str:
    return f"{words.points(v.difference)} points {words.points_interval(v.ci_low, v.ci_high)}".strip()


def _inside(label: str) -> str:
    return "the same" + label.removeprefix("Same") if label.startswith("Same ") else label


def _achievable(results: list[dict[str, Any]], subject: str) -> list[Detail]:
    shares = [
        (row["share"], row["task"]) for row in results if row["model"] == subject and row.get("share") is not None
    ]
    if not shares:
        return []
    mean = sum(share for share, _ in shares) / len(shares)
    (low, low_task), (high, high_task) = min(shares), max(shares)
    spread = (
        ""
        if len(shares) == 1
        else (
            f", from {words.percent(low)} ({words.task_in_a_sentence(low_task)}) to {words.percent(high)} "
            f"({words.task_in_a_sentence(high_task)})"
        )
    )
    return [Detail("Of what could be achieved on these rows", f"{words.percent(mean)} in the mean{spread}.")]
