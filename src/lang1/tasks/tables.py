"""`lang1 statistics`: Tables B1-B7 and Figures A1 and F6 of any folder of task rows, the paper's values beside ours.

    tasks/<id>/<split>.parquet --counted in DuckDB--> B1.csv ... B7.csv, labels.csv, F6.csv, A1.csv
                                                 \\-> statistics.md, A1, F6a and F6b as SVG and PDF

Only counts leave: no text, no id. A share carries its 95 % Wilson interval (Wilson EB, J Am Stat Assoc
1927;22:209-12), which stays within 0 and 1 for the rare classes. `published.csv` holds what the paper prints in its
Appendix B, as printed: one of its cells cannot be true (SLIPS), and the page says so beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.config import TASK_IDS
from lang1.errors import InputError
from lang1.metrics.proportion import wilson_interval
from lang1.tasks.prompts import read_questions
from lang1.tasks.schema import SPLITS

if TYPE_CHECKING:
    import duckdb

LABEL_TABLES = {"readmission": "B3", "mortality": "B4", "los": "B5", "cci": "B6", "denial": "B7"}
"""the paper's table of a task's label ratios"""
MIMIC3 = {
    ("B1", "readmission", "total", ""): 52_725,
    ("B3", "readmission", "total", "1"): 0.06,
    ("B1", "mortality", "total", ""): 5_658,
    ("B4", "mortality", "total", "1"): 0.1055,
    ("B1", "los", "total", ""): 5_658,
    ("days", "los", "total", ""): 7.96,
}
"""what 5.2.3 says of its MIMIC-III sets, keyed as `read_published`; Appendix B is of NYU's"""
SLIPS = {("B2", "cci", "temporal_1"): "as printed; more patients than notes, which cannot be"}
_OF_NYU = (
    "Ours, then in brackets the paper's value (Appendix B) where it prints one. `temporal_1` and `temporal_2` are its "
    "temporal tests of 2021 (denial: 2022) and 2024."
)
_OF = {
    "mimic3": "Ours, then in brackets the paper's value of its MIMIC-III sets (5.2.3), where it has one; readmission's "
    "6 % is as rounded there.",
    "mimic4": "Ours; the paper has no MIMIC-IV.",
}
"""of records from a source that is not the paper's hospital"""
MEMORY, THREADS = "1GB", 2


@dataclass(frozen=True)
class Cell:
    """Counts of one label in one split (`total`: all five)."""

    task: str
    split: str
    label: int
    option: str
    rows: int
    n: int
    """rows of the split, all labels"""


@dataclass(frozen=True)
class Size:
    """How large one split of a task is."""

    task: str
    split: str
    notes: int
    patients: int
    words: int
    first: str | None
    """day of the earliest prediction time; null where the source has no times"""
    last: str | None


@dataclass(frozen=True)
class Conditional:
    """One share of Figure F6: of the rows where `given` holds, those of which `outcome` holds."""

    split: str
    figure: str
    given: str
    outcome: str
    rows: int
    n: int


@dataclass(frozen=True)
class Counted:
    """Everything that is counted in a folder of task rows."""

    sizes: list[Size]
    cells: list[Cell]
    conditionals: list[Conditional]
    windows: dict[str, dict[str, Any]]
    """`windows` and `denial_windows` of the manifest's configuration; empty for a folder that lang1 did not write"""
    source: str | None = None
    """of the records, where the tasks' manifest says it: mimic3 has other published values"""
    mean_days: float | None = None
    """mean length of stay, from the statistics.json of `lang1 tasks`"""
    pretraining: tuple[str, str] | None = None
    """days of the first and last signed note of the pretraining corpus, when its tokens were given"""


def write_statistics(*, tasks: Path, out: Path, tokens: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Write tables and figures of the task rows in `tasks` to `out`; returns the manifest.

    `tokens`: the pretraining corpus, a line of its own in Figure A1. Raises InputError for a folder without task
    rows, for rows that lack a column, and for tokens without their list of documents.
    """

    def work(stage: runs.Stage) -> None:
        from lang1.tasks.drawings import draw_conditionals, draw_timeline

        counted = replace(count_tasks(tasks, stage.scratch()), pretraining=_pretraining(tokens))
        _write_csvs(counted, stage.out)
        drawn = [*draw_timeline(counted, stage.out), *draw_conditionals(counted, stage.out)]
        runs.write_text(stage.out / "statistics.md", render_markdown(counted, [path.name for path in drawn]))
        stage.count(tasks=len({size.task for size in counted.sizes}), tables=len(_tables(counted)))

    inputs = {"tasks": tasks} | ({} if tokens is None else {"tokens": tokens})
    return runs.run_stage(out, "statistics", {}, 0, inputs, work, force)


# --- counted ---------------------------------------------------------------------------------------------------


def count_tasks(tasks: Path, scratch: Path) -> Counted:
    """Count the rows of every task in the folder, built-in tasks first. Raises InputError."""
    import duckdb

    questions = {task: question.options for task, question in read_questions(tasks).items()}
    found = [task for task in (*TASK_IDS, *sorted(set(questions) - set(TASK_IDS))) if (tasks / task).is_dir()]
    found = [task for task in found if task in questions]
    if not found:
        raise InputError(f"{tasks}: no folder of task rows beside questions.json; give the folder of `lang1 tasks`")
    scratch.chmod(0o700)
    database = duckdb.connect(":memory:", config={"memory_limit": MEMORY, "threads": str(THREADS)})
    try:
        database.execute("SET temp_directory = ?", [str(scratch)])
        for task in found:
            _add_rows(database, tasks, task)
            _check_labels(database, tasks, task, len(questions[task]))
        sizes = [size for task in found for size in _sizes(database, task)]
        cells = [cell for task in found for cell in _cells(database, task, questions[task])]
        both = {"mortality", "los"} <= set(found)
        conditionals = _conditionals(database, questions) if both else []
    finally:
        database.close()
    return Counted(sizes, cells, conditionals, _windows(tasks), _source(tasks), _mean_days(tasks))


def _add_rows(database: duckdb.DuckDBPyConnection, tasks: Path, task: str) -> None:
    import duckdb

    paths = [str(tasks / task / f"{split}.parquet") for split in SPLITS if (tasks / task / f"{split}.parquet").exists()]
    if not paths:
        raise InputError(f"{tasks / task}: no {', '.join(f'{split}.parquet' for split in SPLITS)}")
    words = "CASE WHEN text = '' THEN 0 ELSE length(text) - length(replace(text, ' ', '')) + 1 END"
    try:
        # counted once: the texts are read a single time, what stays is narrow
        database.execute(
            f'CREATE TABLE "rows_{task}" AS SELECT split, label, patient_id, encounter_id, note_id, '
            f"prediction_time, {words} AS words FROM read_parquet(?)",
            [paths],
        )
    except duckdb.Error as error:
        kind = "a column is missing" if isinstance(error, duckdb.BinderException) else error.__class__.__name__
        raise InputError(
            f"{tasks / task}: not readable as task rows ({kind}); run the tasks stage again with --force"
        ) from None


def _check_labels(database: duckdb.DuckDBPyConnection, tasks: Path, task: str, options: int) -> None:
    """Raise InputError for labels that name no option: left out of B3-B7 they would disagree with B1."""
    for split, missing, outside in database.execute(
        "SELECT split, count(*) FILTER (label IS NULL), count(*) FILTER (label IS NOT NULL AND "
        "coalesce(TRY_CAST(label AS DOUBLE) NOT IN (SELECT range::DOUBLE FROM range(?)), true)) "
        f'FROM "rows_{task}" GROUP BY split ORDER BY split',
        [options],
    ).fetchall():
        if missing or outside:
            raise InputError(
                f"{tasks / task / f'{split}.parquet'}: {missing:,} labels are null and {outside:,} name none of the "
                f"{options} options of questions.json (0 to {options - 1}); mend these rows"
            )


def _sizes(database: duckdb.DuckDBPyConnection, task: str) -> list[Size]:
    sizes = []
    for split in (*SPLITS, "total"):
        [(notes, patients, words, first, last)] = database.execute(
            "SELECT count(DISTINCT note_id), count(DISTINCT patient_id), coalesce(sum(words), 0), "
            f"min(prediction_time), max(prediction_time) FROM \"rows_{task}\" WHERE ? IN (split, 'total')",
            [split],
        ).fetchall()
        days = [None if moment is None else moment.date().isoformat() for moment in (first, last)]
        sizes.append(Size(task, split, int(notes), int(patients), int(words), *days))
    return sizes


def _cells(database: duckdb.DuckDBPyConnection, task: str, options: Sequence[str]) -> list[Cell]:
    counts: dict[tuple[str, int], int] = {}
    for split, label, rows in database.execute(
        f'SELECT split, label, count(*) FROM "rows_{task}" GROUP BY split, label'
    ).fetchall():
        counts[split, int(label)] = int(rows)
        counts["total", int(label)] = counts.get(("total", int(label)), 0) + int(rows)
    cells = []
    for split in (*SPLITS, "total"):
        n = sum(counts.get((split, label), 0) for label in range(len(options)))
        cells += [
            Cell(task, split, label, option, counts.get((split, label), 0), n) for label, option in enumerate(options)
        ]
    return cells


def _conditionals(database: duckdb.DuckDBPyConnection, questions: dict[str, tuple[str, ...]]) -> list[Conditional]:
    """P(LOS | death) and P(death | LOS) over the encounters that are rows of both tasks (Appendix F)."""
    deaths, stays = questions["mortality"], questions["los"]
    found = []
    for split in ("total", *SPLITS):
        counts = {
            (int(died), int(stay)): int(rows)
            for died, stay, rows in database.execute(
                "SELECT m.label, l.label, count(*) FROM rows_mortality AS m JOIN rows_los AS l USING (encounter_id) "
                "WHERE ? IN (l.split, 'total') GROUP BY m.label, l.label",
                [split],
            ).fetchall()
        }
        by_death = [sum(counts.get((died, stay), 0) for stay in range(len(stays))) for died in (0, 1)]
        by_stay = [counts.get((0, stay), 0) + counts.get((1, stay), 0) for stay in range(len(stays))]
        found += [
            Conditional(split, "F6a", _died(died, deaths), option, counts.get((died, stay), 0), by_death[died])
            for died in (0, 1)
            for stay, option in enumerate(stays)
        ]
        found += [
            Conditional(split, "F6b", option, "died", counts.get((1, stay), 0), by_stay[stay])
            for stay, option in enumerate(stays)
        ]
    return found


def _died(label: int, options: Sequence[str]) -> str:
    return ("survived", "died")[label] if len(options) == 2 else options[label]


def _windows(tasks: Path) -> dict[str, dict[str, Any]]:
    if not runs.is_complete(tasks):
        return {}
    config = runs.read_manifest(tasks)["config"]
    if config.get("split_by", "time") != "time":
        return {}
    return {name: config[name] for name in ("windows", "denial_windows") if name in config}


def _source(tasks: Path) -> str | None:
    return runs.read_manifest(tasks).get("facts", {}).get("source") if runs.is_complete(tasks) else None


def _mean_days(tasks: Path) -> float | None:
    """As `lang1 tasks` counted it: the rows hold classes, not days."""
    path = tasks / "statistics.json"
    found = runs.read_json(path) if runs.is_complete(tasks) and path.exists() else {}
    return found.get("los", {}).get("mean_days")


def _published(counted: Counted) -> dict[tuple[str, str, str, str], float]:
    """The paper's values of the hospital whose rows these are; it has none of MIMIC-IV."""
    if counted.source == "mimic4":
        return {}
    return MIMIC3 if counted.source == "mimic3" else read_published()


def _pretraining(tokens: Path | None) -> tuple[str, str] | None:
    if tokens is None:
        return None
    import duckdb

    documents = tokens / "documents.parquet"
    try:
        [(first, last)] = (
            duckdb.connect(":memory:")
            .execute(
                "SELECT min(signed_time), max(signed_time) FROM read_parquet(?) WHERE source = 'clinical'",
                [str(documents)],
            )
            .fetchall()
        )
    except duckdb.Error:
        raise InputError(f"{documents}: not readable as the documents of `lang1 tokenize`") from None
    return None if first is None else (first.date().isoformat(), last.date().isoformat())


def wilson(rows: int, n: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a share of `rows` in `n`; none without rows."""
    return wilson_interval(rows, n) if n else (None, None)


# --- written ---------------------------------------------------------------------------------------------------


def read_published() -> dict[tuple[str, str, str, str], float]:
    """What the paper's Appendix B prints, by table, task, split and label (empty for B1 and B2)."""
    lines = (files("lang1.tasks") / "published.csv").read_text(encoding="utf-8").splitlines()
    return {(row[0], row[1], row[2], row[3]): float(row[4]) for row in csv.reader(lines[1:])}


def _tables(counted: Counted) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Every CSV by name: its header and rows."""
    published = _published(counted)
    tables: dict[str, tuple[list[str], list[list[Any]]]] = {
        "B1": (["task", "split", "notes", "paper_notes"], []),
        "B2": (["task", "split", "patients", "paper_patients", "remark"], []),
    }
    for size in counted.sizes:
        key = (size.task, size.split)
        tables["B1"][1].append([*key, size.notes, _whole(published.get(("B1", *key, "")))])
        remark = SLIPS.get(("B2", *key), "") if ("B2", *key, "") in published else ""
        tables["B2"][1].append([*key, size.patients, _whole(published.get(("B2", *key, ""))), remark])
    header = ["task", "split", "label", "option", "rows", "n", "share", "ci_low", "ci_high", "paper_share"]
    for cell in counted.cells:
        name = LABEL_TABLES.get(cell.task, f"labels-{cell.task}")
        paper = published.get((name, cell.task, cell.split, str(cell.label)))
        facts = [cell.task, cell.split, cell.label, cell.option, cell.rows, cell.n]
        tables.setdefault(name, (header, []))[1].append([*facts, *_shares(cell.rows, cell.n), paper])
    tables["A1"] = (["task", "split", "notes", "words", "first_prediction", "last_prediction"], [])
    for size in counted.sizes:
        if size.split != "total":
            tables["A1"][1].append([size.task, size.split, size.notes, size.words, size.first, size.last])
    if counted.conditionals:
        header = ["figure", "split", "given", "outcome", "rows", "n", "share", "ci_low", "ci_high"]
        rows = [
            [c.figure, c.split, c.given, c.outcome, c.rows, c.n, *_shares(c.rows, c.n)] for c in counted.conditionals
        ]
        tables["F6"] = (header, rows)
    return tables


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _shares(rows: int, n: int) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in (rows / n if n else None, *wilson(rows, n))]


def _write_csvs(counted: Counted, out: Path) -> None:
    for name, (header, rows) in _tables(counted).items():
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        runs.write_text(out / f"{name}.csv", sink.getvalue())


def render_markdown(counted: Counted, drawn: Iterable[str]) -> str:
    """The tables as the paper prints them, ours first and the paper's value in brackets."""
    published = _published(counted)
    tasks = list(dict.fromkeys(size.task for size in counted.sizes))
    columns = (*SPLITS, "total")
    parts = [
        "# Statistics of the task sets",
        _OF.get(counted.source or "", _OF_NYU) + " Shares carry their 95 % Wilson interval in the CSV files.",
    ]
    for table, what, of in (("B1", "Notes", "notes"), ("B2", "Patients", "patients")):
        by = {(size.task, size.split): getattr(size, of) for size in counted.sizes}
        lines = [
            [task, *(_beside(f"{by[task, s]:,}", published.get((table, task, s, "")), ",.0f") for s in columns)]
            for task in tasks
        ]
        parts += [f"## Table {table}. {what} a task and split", _grid(["task", *columns], lines)]
        slips = {} if published is MIMIC3 else SLIPS
        parts += [f"{task}, {split}: {why}." for (t, task, split), why in slips.items() if t == table and task in tasks]
    for task in tasks:
        name = LABEL_TABLES.get(task, f"labels-{task}")
        cells = [cell for cell in counted.cells if cell.task == task]
        options = list(dict.fromkeys(cell.option for cell in cells))
        lines = []
        for split in columns:
            row = [cell for cell in cells if cell.split == split]
            shares = [
                _beside(
                    f"{cell.rows / cell.n:.4f}" if cell.n else "",
                    published.get((name, task, split, str(cell.label))),
                    ".4f",
                )
                for cell in row
            ]
            lines.append([split, f"{row[0].n:,}", *shares])
        words = next(size.words for size in counted.sizes if size.task == task and size.split == "total")
        title = f"Table {name}" if task in LABEL_TABLES else "Labels"
        told = _beside(f"{words:,}", published.get(("words", task, "total", "")), ",.0f")
        if task == "los" and counted.mean_days is not None:
            days = _beside(f"{counted.mean_days:.2f}", published.get(("days", task, "total", "")), ".2f")
            told += f". Mean length of stay: {days} days"
        parts += [f"## {title}. {task}: share of each label", f"Words: {told}.", _grid(["split", "n", *options], lines)]
    parts += [f"![{name.removesuffix('.svg')}]({name})" for name in drawn if name.endswith(".svg")]
    return "\n\n".join(parts) + "\n"


def _beside(ours: str, paper: float | None, form: str) -> str:
    return ours if paper is None else f"{ours} ({format(paper, form)})"


def _grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
