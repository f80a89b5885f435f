"""The leaderboard shows what metrics.json holds, marks what cannot be compared, and is safe in every format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_benchmark import TASKS
from typer.testing import CliRunner

from lang1 import runs
from lang1.cli import app
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.remede.folders import ScoresFolder, open_scores
from lang1.remede.table import build_board, make_table, to_html, to_latex, to_markdown


@pytest.fixture(scope="module")
def few(inputs: Any, config: EvaluateConfig) -> Any:
    """The same models on fewer rows."""
    return inputs.again("table-few", replace(config, baselines=(), splits=("test",), max_rows=20))


def cells(text: str) -> set[str]:
    """Values with their intervals, whatever the format's signs between them."""
    plain = re.sub(r"<[^>]+>|\\makecell\[l\]|\\footnotesize|\\text\w+|\\\\", " ", text)
    plain = re.sub(r"[{}\\*]", "", plain)
    return set(re.findall(r"\d\.\d{3}(?= +\[\d)|\[\d\.\d{3}, \d\.\d{3}\]", re.sub(r"\s+", " ", plain)))


def test_every_cell_is_that_of_metrics_json(evaluation: Any) -> None:
    board = build_board([open_scores(evaluation.out)], "test", "auroc")
    assert [task for task, _ in board.columns] == list(TASKS)
    rows = {(r["model"], r["task"]): r for r in evaluation.json("metrics.json")["rows"] if r["split"] == "test"}
    assert {line.model for line in board.lines} == {model for model, _ in rows}
    for line in board.lines:
        for (task, metric), cell in zip(board.columns, line.cells, strict=True):
            row = rows[line.model, task]
            assert cell is not None
            assert cell.value == f"{row['value']:.3f}"
            assert cell.interval == f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            assert cell.counts.startswith(f"n {row['n']}, ")
            assert metric == ("AUROC" if len(row["events"]) == 2 else "AUROC, OVR macro")


def test_models_stand_by_their_mean_and_the_best_of_a_column_is_marked(evaluation: Any) -> None:
    board = build_board([open_scores(evaluation.out)], "test", "brier")
    means = [sum(float(cell.value) for cell in line.cells if cell) / len(TASKS) for line in board.lines]
    assert means == sorted(means)
    for column in range(len(TASKS)):
        column_cells = [line.cells[column] for line in board.lines]
        known = [c for c in column_cells if c and not {"?", "N"} & set(c.marks)]
        best = [c.value for c in column_cells if c and c.is_best]
        assert set(best) == {min(c.value for c in known)}


def test_what_nobody_can_tell_of_is_never_the_best(evaluation: Any) -> None:
    folder = open_scores(evaluation.out)
    (best,) = {
        cell.value for line in build_board([folder], "test", "auroc").lines if (cell := line.cells[0]) and cell.is_best
    }
    for row in folder.rows:  # as good as the best, but its notes may have been seen
        if (row["model"], row["task"], row["split"]) == ("lang1 zero-shot", TASKS[0], "test"):
            known = [r for r in folder.rows if (r["task"], r["split"]) == (TASKS[0], "test") and r is not row]
            row |= {"contamination": "unknown", "value": next(r["value"] for r in known if f"{r['value']:.3f}" == best)}
    column = {line.model: line.cells[0] for line in build_board([folder], "test", "auroc").lines}
    cell = column["lang1 zero-shot"]
    assert cell is not None
    assert (cell.value, cell.marks, cell.is_best) == (best, ("?",), False)


def test_all_formats_hold_the_same_numbers(evaluation: Any) -> None:
    board = build_board([open_scores(evaluation.out)], "test", "auroc")
    found = [cells(write(board)) for write in (to_html, to_markdown, to_latex)]
    assert len(found[0]) > len(TASKS) * 4
    assert found[0] == found[1] == found[2]


def test_other_rows_are_marked_and_never_the_best(evaluation: Any, few: Any) -> None:
    board = build_board([open_scores(evaluation.out), open_scores(few.out)], "test", "auroc")
    marked = {
        (line.about.split(",")[0], cell.is_best)
        for line in board.lines
        for cell in line.cells
        if cell and "R" in cell.marks
    }
    assert marked == {("table-few", False)}
    assert any(note.startswith("R: measured on other rows") for note in board.notes)
    assert "Not all models were measured on the same rows." in board.notes
    alone = build_board([open_scores(evaluation.out)], "test", "auroc")
    assert "All models of a column were measured on the same rows." in alone.notes


def test_a_better_value_on_other_rows_does_not_take_the_place_of_the_best(evaluation: Any, few: Any) -> None:
    other = open_scores(few.out)
    other = replace(other, rows=[row | {"value": 0.999, "contamination": "none"} for row in other.rows])
    board = build_board([open_scores(evaluation.out), other], "test", "auroc")
    alone = build_board([open_scores(evaluation.out)], "test", "auroc")
    best = [
        {(n, cell.value) for line in b.lines for n, cell in enumerate(line.cells) if cell and cell.is_best}
        for b in (board, alone)
    ]
    assert best[0] == best[1]
    assert {n for n, _ in best[0]} == set(range(len(TASKS)))


def test_an_evaluation_that_does_not_say_its_rows_is_marked(evaluation: Any) -> None:
    folder = open_scores(evaluation.out)
    old = [{key: value for key, value in row.items() if key != "rows_sha256"} for row in folder.rows]
    board = build_board([replace(folder, rows=old)], "test", "auroc")
    assert all("r" in cell.marks and not cell.is_best for line in board.lines for cell in line.cells if cell)
    assert any(note.startswith("r: the evaluation does not say") for note in board.notes)


def test_models_of_unknown_training_are_marked_and_never_the_best(evaluation: Any) -> None:
    folder = open_scores(evaluation.out)
    rows = [row | {"contamination": "unknown"} for row in folder.rows]
    board = build_board([replace(folder, rows=rows)], "test", "auroc")
    assert all(cell.marks == ("?",) and not cell.is_best for line in board.lines for cell in line.cells if cell)


def test_a_lacking_task_and_a_lacking_value_are_dashes(evaluation: Any) -> None:
    folder = open_scores(evaluation.out)
    rows = [row for row in folder.rows if not (row["task"] == "cci" and row["model"].startswith("tfidf"))]
    rows = [row | ({"value": None, "ci_low": None, "ci_high": None} if row["task"] == "los" else {}) for row in rows]
    board = build_board([replace(folder, rows=rows)], "test", "auroc")
    for line in board.lines:
        assert (line.cells[3] is None) == line.model.startswith("tfidf")
        assert line.cells[2] is not None and line.cells[2].value == "\N{EM DASH}"
    assert board.lines[0].cells[0] is not None
    assert to_markdown(board).count("| \N{EM DASH} |") == 2
    assert to_html(board).count("<td>\N{EM DASH}</td>") == 2 and "None" not in to_html(board)


class Tags(HTMLParser):
    """Every tag of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def strange(folder: ScoresFolder) -> ScoresFolder:
    name = "<b>50% & {x}_y|z\\"
    return replace(folder, rows=[row | {"model": name} for row in folder.rows if row["model"] == "tfidf+xgboost"])


def test_a_models_name_cannot_break_a_format(evaluation: Any) -> None:
    board = build_board([strange(open_scores(evaluation.out))], "test", "auroc")
    page, tags = to_html(board), Tags()
    tags.feed(page)
    assert tags.open == []
    assert "b" not in tags.seen and "script" not in tags.seen
    assert "http" not in page
    rows = [line for line in to_markdown(board).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(TASKS) + 2}
    tex = to_latex(board)
    assert "\\textless{}b\\textgreater{}50\\% \\& \\{x\\}\\_y|z\\textbackslash{}" in tex
    body = tex.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
    assert body.count("{") == body.count("}")
    lines = tex.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(TASKS)}


def test_the_command_writes_a_file_or_prints(evaluation: Any, tmp_path: Path) -> None:
    command = ["remede", "table", str(evaluation.out), "--split", "test"]
    printed = CliRunner().invoke(app, command)
    assert printed.exit_code == 0, printed.output
    assert printed.output == make_table([evaluation.out], "md", "test")
    written = CliRunner().invoke(app, [*command, "--format", "html", "--out", str(tmp_path / "t.html")])
    assert written.output == f"{tmp_path / 't.html'}\n"
    assert (tmp_path / "t.html").read_text() == make_table([evaluation.out], "html", "test")


def test_another_table_is_not_overwritten(evaluation: Any, tmp_path: Path) -> None:
    out = tmp_path / "t.md"
    command = ["remede", "table", str(evaluation.out), "--split", "test", "--out", str(out)]
    for _ in range(2):  # the same table again is no fault
        assert CliRunner().invoke(app, command).exit_code == 0
    before = out.read_bytes()
    refused = CliRunner().invoke(app, [*command, "--metric", "brier"])
    assert str(refused.exception) == f"--out {out}: is there already; choose another name, or --force to replace it"
    assert out.read_bytes() == before
    assert CliRunner().invoke(app, [*command, "--metric", "brier", "--force"]).exit_code == 0
    assert b"Brier" in out.read_bytes()


def test_faults_are_one_line(evaluation: Any, few: Any) -> None:
    with pytest.raises(InputError, match="no results on the split val; there are test"):
        make_table([few.out], "md", "val")
    with pytest.raises(InputError, match="--metric auc: not one of auroc, auprc"):
        make_table([few.out], "md", metric="auc")
    with pytest.raises(InputError, match="written by the stage tasks, not evaluate"):
        make_table([evaluation.tasks], "md")


def test_every_run_of_the_same_folders_gives_the_same_bytes(evaluation: Any, few: Any) -> None:
    for how in ("html", "md", "latex"):
        once, twice = (make_table([evaluation.out, few.out], how, "test") for _ in range(2))  # type: ignore[arg-type]
        assert once == twice


def test_recalibrated_models_are_rows_of_their_own(inputs: Any, config: EvaluateConfig) -> None:
    cfg = replace(config, baselines=(), splits=("val", "test"), tasks=("los",), recalibrate="temperature")
    out = inputs.again("table-recalibrated", cfg).out
    board = build_board([open_scores(out)], "test", "ece")
    names = {line.model for line in board.lines}
    assert {f"{name}, temperature on val" for name in inputs.models} | set(inputs.models) == names
    assert json.dumps(runs.read_json(out / "summary.json")["results"]).count("on val") == 0
