"""A leaderboard of many evaluations: a row a model, a column a task, as HTML, Markdown or LaTeX.

Every cell has its value, its 95 % interval, n and events, and a mark where the model's notes were seen in training or
nobody can tell. Models are only comparable on the same rows, so cells of a column that were measured on other rows
than most are marked too. Models stand in the order of their mean over the tasks that all of them have.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lang1.errors import InputError
from lang1.metrics.calibration import LOWER_IS_BETTER
from lang1.remede.folders import ScoresFolder, open_scores

Format = Literal["html", "md", "latex"]
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "log_loss": "log-loss (nats)",
    "ece": "ECE, 15 bins",
    "smece": "smooth calibration error",
    "accuracy": "accuracy",
}
CONTAMINATION = {
    "notes": ("N", "the note of at least one row was seen in training"),
    "unknown": ("?", "nobody can tell whether the notes were seen in training"),
    "patients": ("P", "other notes of some rows' patients were seen in training"),
    "none": ("", ""),
}
OTHER_ROWS = ("R", "measured on other rows than most of this column: not comparable with it")
ROWS_UNKNOWN = ("r", "the evaluation does not say on which rows: not known to be comparable")
NONE = "\N{EM DASH}"


@dataclass(frozen=True)
class Cell:
    """One model on one task."""

    value: str
    interval: str
    counts: str
    """n and events"""
    marks: tuple[str, ...]
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """One model of one evaluation."""

    model: str
    about: str
    """evaluation, checkpoint, shots, prompts"""
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Board:
    """The table, ready to be written in any format."""

    title: str
    columns: tuple[tuple[str, str], ...]
    """task, and what the number is"""
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """A model's rows of one evaluation, by task."""

    folder: ScoresFolder
    model: str
    rows: dict[str, dict[str, Any]]


def make_table(paths: list[Path], how: Format, split: str | None = None, metric: str = "auroc") -> str:
    """The leaderboard of the scores folders or runs in `paths`, as a text in the format `how`.

    `split`: the first evaluation's headline split when null. Raises InputError for folders without such results.
    """
    if metric not in METRICS:
        raise InputError(f"--metric {metric}: not one of {', '.join(METRICS)}")
    board = build_board([open_scores(path) for path in paths], split, metric)
    return {"html": to_html, "md": to_markdown, "latex": to_latex}[how](board)


def build_board(folders: list[ScoresFolder], split: str | None, metric: str) -> Board:
    """What the table says. Raises InputError when no evaluation has the split."""
    split = split or str(folders[0].facts.get("headline_split"))
    entries = [entry for folder in folders for entry in _entries(folder, split)]
    if not entries:
        has = sorted({row["split"] for folder in folders for row in folder.rows})
        raise InputError(f"{folders[0].path}: no results on the split {split}; there are {', '.join(has) or 'none'}")
    tasks = list(dict.fromkeys(task for entry in entries for task in entry.rows))
    key = "value" if metric == "auroc" else metric
    usual = {task: _usual_rows(entries, task) for task in tasks}
    best = {task: _best(entries, task, key, usual[task]) for task in tasks}
    shared = [task for task in tasks if all(entry.rows.get(task, {}).get(key) is not None for entry in entries)]

    def mean(entry: _Entry) -> float:
        values = [entry.rows[task][key] for task in shared]
        return sum(values) / len(values) if values else 0.0

    entries = sorted(entries, key=mean, reverse=metric not in LOWER_IS_BETTER)
    lines = tuple(
        Line(entry.model, _about(entry), tuple(_cell(entry.rows.get(t), key, usual[t], best[t]) for t in tasks))
        for entry in entries
    )
    columns = tuple((task, _column_metric(entries, task, metric)) for task in tasks)
    return Board(
        f"ReMedE, {METRICS[metric]}, split {split}", columns, lines, _notes(entries, lines, metric, bool(shared))
    )


def _entries(folder: ScoresFolder, split: str) -> list[_Entry]:
    rows = [row for row in folder.rows if row["split"] == split]
    return [
        _Entry(folder, model, {row["task"]: row for row in rows if row["model"] == model})
        for model in dict.fromkeys(row["model"] for row in rows)
    ]


def _usual_rows(entries: list[_Entry], task: str) -> str | None:
    """The hash of the rows that most entries were measured on; of equally many, the first."""
    hashes = [entry.rows[task].get("rows_sha256") for entry in entries if task in entry.rows]
    counted = Counter(found for found in hashes if found is not None)
    return counted.most_common(1)[0][0] if counted else None


def _best(entries: list[_Entry], task: str, key: str, usual: str | None) -> float | None:
    """The best value of a column among those of the usual rows, whose notes were not seen in training."""
    values = [
        entry.rows[task][key]
        for entry in entries
        if task in entry.rows
        and entry.rows[task].get(key) is not None
        and entry.rows[task].get("rows_sha256") == usual
        and entry.rows[task].get("contamination") in ("none", "patients")
    ]
    return (min if key in LOWER_IS_BETTER else max)(values, default=None)


def _cell(row: dict[str, Any] | None, key: str, usual: str | None, best: float | None) -> Cell | None:
    if row is None:
        return None
    value = row.get(key)
    low, high = (row.get(f"ci_{end}" if key == "value" else f"{key}_ci_{end}") for end in ("low", "high"))
    marks = [CONTAMINATION.get(str(row.get("contamination")), CONTAMINATION["unknown"])[0]]
    mine = row.get("rows_sha256")
    marks.append("" if mine is not None and mine == usual else (ROWS_UNKNOWN if mine is None else OTHER_ROWS)[0])
    events = list(row["events"].values())
    counted = f"{events[1]:,} events" if len(events) == 2 else "/".join(f"{count:,}" for count in events)
    return Cell(
        value=NONE if value is None else f"{value:.3f}",
        interval="" if low is None or high is None else f"[{low:.3f}, {high:.3f}]",
        counts=f"n {row['n']:,}, {counted}",
        marks=tuple(mark for mark in marks if mark),
        is_best=value is not None and value == best and not {"R", "r", "N", "?"} & set(marks),
    )


def _column_metric(entries: list[_Entry], task: str, metric: str) -> str:
    row = next(entry.rows[task] for entry in entries if task in entry.rows)
    if metric == "auroc":
        return "AUROC" if row.get("average") is None else f"AUROC, OVR {row['average']}"
    if metric == "auprc" and row.get("average") is not None:
        return f"AUPRC, OVR {row['average']}"
    return METRICS[metric]


def _about(entry: _Entry) -> str:
    row = next(iter(entry.rows.values()))
    weights, shots = row.get("weights_sha256"), row.get("shots")
    parts = [
        entry.folder.name,
        str(row.get("checkpoint") or "checkpoint not known") + (f" ({weights[:8]})" if weights else ""),
        "" if shots is None else f"{shots}-shot",
    ]
    return ", ".join(part for part in parts if part)


def _notes(entries: list[_Entry], lines: tuple[Line, ...], metric: str, is_ordered: bool) -> tuple[str, ...]:
    used = {mark for line in lines for cell in line.cells if cell is not None for mark in cell.marks}
    marks = [*(pair for pair in CONTAMINATION.values() if pair[0]), OTHER_ROWS, ROWS_UNKNOWN]
    folders = list({id(entry.folder): entry.folder for entry in entries}.values())
    ways = {(f.facts.get("bootstrap_resamples"), f.facts.get("interval")) for f in folders}
    prompts = {
        (task, row["prompt"]["version"] or "own", row["prompt"]["sha256"][:8])
        for entry in entries
        for task, row in entry.rows.items()
        if row.get("prompt")
    }
    told = [
        "In brackets the 95 % interval: "
        + "; ".join(sorted(f"{way}, {count:,} resamples" for count, way in ways))
        + ".",
        f"{METRICS[metric]}: {'lower' if metric in LOWER_IS_BETTER else 'higher'} is better; bold is the best of a "
        "column among models measured on the same rows whose notes were not seen in training.",
        "OVR macro: each option against the rest, the plain mean over the options that have rows.",
        "n: rows; events: rows of option 1, or of each option in turn.",
        *(f"{mark}: {meaning}." for mark, meaning in marks if mark in used),
        "All models of a column were measured on the same rows."
        if not used & {OTHER_ROWS[0], ROWS_UNKNOWN[0]}
        else "Not all models were measured on the same rows.",
        "Models stand in the order of their mean over the tasks that all have."
        if is_ordered
        else "No task is measured for all models: they stand in the order given.",
    ]
    if prompts:
        told.append("Prompts: " + "; ".join(" ".join(prompt) for prompt in sorted(prompts)) + ".")
    return tuple(told)


# --- formats -----------------------------------------------------------------------------------------------------


def to_html(board: Board) -> str:
    """One self-contained page: style inside, no script, nothing fetched."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lang1.remede", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("table.html").render(board=board, dash=NONE)


def to_markdown(board: Board) -> str:
    """A GitHub table, notes below."""
    head = ["model", *(f"{task}<br>{metric}" for task, metric in board.columns)]
    rows = [head, ["---"] * len(head)]
    for line in board.lines:
        rows.append([f"{_md(line.model)}<br>{_md(line.about)}", *(_md_cell(cell) for cell in line.cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"# {_md(board.title)}\n\n{table}\n\n" + "\n".join(f"- {_md(note)}" for note in board.notes) + "\n"


def _md(text: str) -> str:
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _md_cell(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    value = f"**{cell.value}**" if cell.is_best else cell.value
    marks = f" <sup>{' '.join(_md(mark) for mark in cell.marks)}</sup>" if cell.marks else ""
    return f"{value}{marks}<br>{_md(cell.interval)}<br>{cell.counts}"


def to_latex(board: Board) -> str:
    """A table for the packages booktabs and makecell."""
    head = " & ".join(
        [
            "Model",
            *(f"\\makecell[l]{{{_tex(task)}\\\\{{\\footnotesize {_tex(metric)}}}}}" for task, metric in board.columns),
        ]
    )
    rows = [
        " & ".join(
            [
                f"\\makecell[l]{{{_tex(line.model)}\\\\{{\\footnotesize {_tex(line.about)}}}}}",
                *map(_tex_cell, line.cells),
            ]
        )
        for line in board.lines
    ]
    notes = "\\\\\n".join(f"\\footnotesize {_tex(note)}" for note in board.notes)
    body = " \\\\\n".join(rows)
    return (
        "% \\usepackage{booktabs,makecell}\n"
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_tex(board.title)}}}\n"
        f"\\begin{{tabular}}{{l{'l' * len(board.columns)}}}\n\\toprule\n"
        f"{head} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n"
        f"\\end{{tabular}}\n\n\\begin{{flushleft}}\n{notes}\n\\end{{flushleft}}\n\\end{{table}}\n"
    )


_TEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    NONE: "---",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def _tex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "---"
    value = f"\\textbf{{{cell.value}}}" if cell.is_best else _tex(cell.value)
    marks = f"\\textsuperscript{{{' '.join(_tex(mark) for mark in cell.marks)}}}" if cell.marks else ""
    below = "\\\\".join(f"{{\\footnotesize {{}}{_tex(part)}}}" for part in (cell.interval, cell.counts) if part)
    return f"\\makecell[l]{{{value}{marks}\\\\{below}}}"
