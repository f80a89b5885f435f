"""What each section of the page shows, as plain values: the template only lays them out.

Every function reads `RunData` and returns values or None when the stage behind it was not run.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from lang1 import figures
from lang1.config import TASK_IDS
from lang1.report import words
from lang1.report.collect import FOLDERS, RunData
from lang1.tasks.prompts import OPTIONS_PER_TASK

SPLITS = ("train", "val", "test", "temporal_1", "temporal_2")
FEW_EVENTS = 50


def is_simulated(data: RunData) -> bool:
    """True when manifests prove that the records were drawn from this run's simulated hospital."""
    return data.manifests.get("warehouse", {}).get("stage") == "simulate" and data.comes_from("records", "warehouse")


def aims_at_the_paper(data: RunData) -> bool:
    """True for the simulated hospital that is made to the paper's base rates; the external one is older and sicker."""
    return is_simulated(data) and data.config("warehouse").get("hospital") == "main"


def headline_split(data: RunData) -> str:
    """The split that the first page speaks of: the configured one, or the latest that has results."""
    present = {row["split"] for row in data.results}
    wanted = data.config("scores").get("headline_split", "temporal_2")
    if wanted in present or not present:
        return str(wanted)
    return next((name for name in reversed(SPLITS) if name in present), str(wanted))


def split_dates(data: RunData, task: str, split: str) -> str:
    """When the rows of a split were discharged, as the configuration of `tasks` says; empty without dates."""
    settings = data.config("tasks")
    if settings.get("split_by") != "time":
        return ""
    windows = settings.get("denial_windows" if task == "denial" else "windows", {})
    window = windows.get("train" if split in ("train", "val", "test") else split)
    return words.period(date.fromisoformat(window["start"]), date.fromisoformat(window["end"])) if window else ""


def split_meaning(data: RunData, split: str) -> str:
    """What the headline split is, in a reader's words; pretraining may have read notes from before its stays ended."""
    by = data.config("tasks").get("split_by")
    if by == "sequence" and split.startswith("temporal"):
        return "the last stays by the order of the records (exploratory: the source has no dates)"
    if by in ("patient", "sequence"):
        return "patients whom no model was trained on (the source has no dates)"
    tasks = [task for task in task_ids(data) if task not in skipped_tasks(data)]
    by_date: dict[str, list[str]] = {}
    for task in tasks:
        by_date.setdefault(split_dates(data, task, split), []).append(words.task_in_a_sentence(task))
    first, *others = by_date or [""]
    apart = "; ".join(f"{words.join(by_date[when])}: {when}" for when in others)
    when = f", discharged in {first}" + (f" ({apart})" if apart else "") if first else ""
    if split.startswith("temporal"):
        return f"stays that ended after all whose outcome a model was trained on{when}"
    return f"patients whom no model was trained on{when}"


def is_exploratory(data: RunData, split: str) -> bool:
    """True for a split made by the order of records without dates."""
    return data.config("tasks").get("split_by") == "sequence" and split.startswith("temporal")


def is_future_window(data: RunData, split: str) -> bool:
    """True for the last window of records with dates, which lies after everything that a model was trained on."""
    return split == "temporal_2" and data.config("tasks").get("split_by", "time") == "time"


def task_ids(data: RunData) -> list[str]:
    """Every task that the run speaks of, in the paper's order."""
    seen = set(data.attrition) | set(data.statistics) | {row["task"] for row in data.results}
    return [task for task in TASK_IDS if task in seen] + sorted(seen - set(TASK_IDS))


def skipped_tasks(data: RunData) -> dict[str, str]:
    """Tasks without rows, with the reason that the stage wrote down."""
    return {task: str(found["message"]) for task, found in data.statistics.items() if found.get("message")}


def split_statistics(data: RunData) -> dict[str, dict[str, dict[str, Any]]]:
    """Per task and split that holds rows: rows, patients, words, label counts as a list."""
    return {
        task: {split: found[split] for split in SPLITS if found.get(split, {}).get("rows")}
        for task, found in data.statistics.items()
        if not found.get("message")
    }


@dataclass(frozen=True)
class TaskResults:
    """One row of the compact table: a task, what was measured on, and a cell a model."""

    task: str
    metric: str
    n: int | None
    patients: int | None
    events: str
    ceiling: dict[str, Any]
    """ceiling and its interval, as far as they are known"""
    cells: dict[str, dict[str, Any]]
    best: str | None


def results_table(data: RunData, split: str) -> tuple[list[str], list[TaskResults]]:
    """The models in their order, and a row a task with results on `split`."""
    here = [row for row in data.results if row["split"] == split]
    table = []
    for task in task_ids(data):
        cells = {row["model"]: row for row in here if row["task"] == task}
        if not cells:
            continue
        valued = {model: row["value"] for model, row in cells.items() if row.get("value") is not None}
        first = next(iter(cells.values()))
        table.append(
            TaskResults(
                task=task,
                metric=first["metric"],
                n=first.get("n"),
                patients=first.get("patients"),
                events=events_text(task, first.get("events"), question_options(data, task)),
                ceiling={key: first.get(key) for key in ("ceiling", "ceiling_ci_low", "ceiling_ci_high")},
                cells=cells,
                best=max(valued, key=lambda model: valued[model]) if valued else None,
            )
        )
    return figures.order_models({row["model"] for row in here}), table


def not_measured(data: RunData) -> list[str]:
    """What `evaluate` could not measure, and why."""
    lines = []
    for row in data.facts("scores").get("skipped", []):
        where = [figures.look(row["model"]).label] if "model" in row else []
        where += [words.task_in_a_sentence(row["task"])] + ([words.split(row["split"])] if "split" in row else [])
        lines.append(f"{', '.join(where)}: {row['why']}.")
    return lines


def event_counts(events: Any) -> list[int]:
    """Events by class as a list; a single number is the positives of a binary task."""
    if isinstance(events, dict):
        return [int(events[key]) for key in sorted(events, key=int)]
    if isinstance(events, list):
        return [int(value) for value in events]
    return [] if events is None else [int(events)]


def events_text(task: str, events: Any, options: list[str] | None = None) -> str:
    """270 readmitted within 30 days; or the counts of every class of a task with more than two."""
    counts = event_counts(events)
    if len(counts) <= 2:
        return f"{words.count(counts[-1])} {words.option(task, 1, options)}" if counts else ""
    return " / ".join(words.count(value) for value in counts) + " by class"


@dataclass(frozen=True)
class RateTable:
    """Base rates of a task: a row an option, a cell a split, with the paper's beside."""

    task: str
    table: str | None
    splits: list[str]
    dates: dict[str, str]
    counts: dict[str, tuple[int | None, int | None]]
    rows: list[tuple[str, dict[str, tuple[float | None, float | None]]]]


def base_rates(data: RunData) -> list[RateTable]:
    """Our label shares by split beside the paper's Appendix B."""
    paper, notes = _paper_rates(), _paper_counts()
    tables = []
    for task in task_ids(data):
        found = split_statistics(data).get(task)
        if not found:
            continue
        options = max(len(facts["labels"]) for facts in found.values())
        of_paper = paper if options == OPTIONS_PER_TASK.get(task) else {}  # classes were merged: no rate to compare
        rows = []
        for index in [1] if options == 2 else range(options):  # of two options, the other follows
            cells = {
                split: (facts["labels"][index] / facts["rows"], of_paper.get((task, index, split), (None, None))[1])
                for split, facts in found.items()
            }
            rows.append((words.option(task, index, question_options(data, task)), cells))
        tables.append(
            RateTable(
                task=task,
                table=next((table for (name, _, _), (table, _) in paper.items() if name == task), None),
                splits=list(found),
                dates={split: split_dates(data, task, split) for split in found},
                counts={split: (int(facts["rows"]), notes.get((task, split))) for split, facts in found.items()},
                rows=rows,
            )
        )
    return tables


def question_options(data: RunData, task: str) -> list[str] | None:
    """The options of a task's question as used."""
    found = data.questions.get(task)
    return list(found["options"]) if isinstance(found, dict) and "options" in found else None


def _paper_rates() -> dict[tuple[str, int, str], tuple[str, float]]:
    return {
        (row["task"], int(row["option"]), row["split"]): (row["table"], float(row["share"]))
        for row in _paper_file("base_rates.csv")
    }


def _paper_counts() -> dict[tuple[str, str], int]:
    return {(row["task"], row["split"]): int(row["notes"]) for row in _paper_file("note_counts.csv")}


def _paper_file(name: str) -> list[dict[str, str]]:
    text = (files("lang1.report") / "paper" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@dataclass(frozen=True)
class SourceRow:
    """Tokens of one source and split."""

    source: str
    split: str
    documents: int | None
    patients: int | None
    words: int | None
    tokens: int | None


def sources_table(data: RunData) -> list[SourceRow]:
    """What the token shards hold, by source and split."""
    rows = []
    for source, splits in data.tokens_index.get("sources", {}).items():
        for split, facts in splits.items():
            rows.append(SourceRow(source, split, *(facts.get(k) for k in ("documents", "patients", "words", "tokens"))))
    return rows


def tokens_read(data: RunData) -> list[str]:
    """How many tokens of each source the pretraining read, and how often it went through them."""
    facts = data.facts("checkpoints")
    epochs = facts.get("epochs_by_source", {})
    return [
        f"{words.count(tokens)} {source} tokens" + (f" ({epochs[source]:.2g} epochs)" if source in epochs else "")
        for source, tokens in facts.get("tokens_by_source", {}).items()
    ]


def web_text(data: RunData) -> str | None:
    """Whether web text was in the mix, and why not."""
    web = data.tokens_index.get("web")
    if not isinstance(web, dict):
        return None
    if web.get("used"):
        return f"Web text was part of the corpus ({PurePath(str(web['path'])).name})."
    return f"No web text was used: the mix is clinical only. {_sentence(web.get('why') or 'no reason was recorded')}"


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "."


@dataclass(frozen=True)
class StageRow:
    """One stage as its manifest tells it."""

    name: str
    folder: str
    started: str
    seconds: float | None
    peak_memory_mib: float | None
    seed: int | None
    counts: list[tuple[str, str]]


def stage_rows(data: RunData) -> list[StageRow]:
    """Every stage of the way, in order; one that was not run has no times."""
    rows = []
    for folder in (*FOLDERS, *(name for name in data.manifests if name not in FOLDERS)):
        manifest = data.manifests.get(folder, {})
        counts = [(key.replace("_", " "), words.count(value)) for key, value in manifest.get("counts", {}).items()]
        rows.append(
            StageRow(
                words.stage(folder, manifest.get("stage", "")),
                folder,
                manifest.get("started", "").replace("T", " "),
                manifest.get("seconds"),
                manifest.get("peak_memory_mib"),
                manifest.get("seed"),
                counts,
            )
        )
    return rows


def versions(data: RunData) -> list[tuple[str, str]]:
    """Package versions over all stages; two stages that differ show both."""
    seen: dict[str, list[str]] = {}
    for manifest in data.manifests.values():
        for package, version in manifest.get("versions", {}).items():
            if version not in seen.setdefault(package, []):
                seen[package].append(version)
    return [(package, ", ".join(found)) for package, found in seen.items()]


def revisions(data: RunData) -> list[str]:
    """Git revisions of the code that ran, oldest stage first."""
    return list(dict.fromkeys(str(m["git"])[:12] for m in data.manifests.values() if m.get("git")))
