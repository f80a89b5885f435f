"""The page as a reader gets it: one file, honest where a stage is missing, free of real notes."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_run import NOTE, SIZES, write_run

from lang1 import runs
from lang1.config import ReportConfig
from lang1.errors import InputError
from lang1.report import build_report
from lang1.report.collect import RunData, collect, complete_folders
from lang1.report.limits import find_limits
from lang1.report.rows import read_seen

NOTE_START = NOTE[:40]


def report(run: Path, out: Path, **settings: object) -> str:
    build_report(ReportConfig(**settings), run=run, out=out, seed=1)  # type: ignore[arg-type]
    return (out / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Attributes that could fetch something, ids, references, and tags left open."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_same_run_gives_the_same_bytes(whole_run: Path, page: str, tmp_path: Path) -> None:
    again = report(whole_run, tmp_path / "again", title="ReMedE <on> the hospital", example_prompts=True)
    assert again == page


def test_a_second_report_of_an_unchanged_run_does_nothing(whole_run: Path) -> None:
    before = (whole_run / "report" / "report.html").stat().st_mtime_ns
    cfg = ReportConfig(title="ReMedE <on> the hospital", example_prompts=True)
    manifest = build_report(cfg, run=whole_run, out=whole_run / "report", seed=1)
    assert (whole_run / "report" / "report.html").stat().st_mtime_ns == before
    assert manifest["counts"]["stages"] == 9


def test_the_page_is_well_formed_and_points_nowhere_outside(page: str) -> None:
    found = Page(page)
    assert found.open == []
    assert "script" not in found.tags and "iframe" not in found.tags and "img" not in found.tags
    assert all(address.startswith("#") or address == "data:," for address in found.addresses)
    assert {a[1:] for a in found.addresses if a.startswith("#")} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert not re.search(r"url\(\s*['\"]?(?!#)", page) and "@import" not in page
    outside = page.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert not re.search(r"https?://", outside)


def test_every_figure_is_small_and_has_alt_text(page: str) -> None:
    figures = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", page, flags=re.DOTALL)
    assert len(figures) >= 5 * 4 + 3  # flows, AUROC, decay, calibration a task; pretraining; finetuning
    for svg in figures:
        assert len(svg) < 60_000
        assert re.search(r"<title id=\"[^\"]+\">[^<]+</title><desc id=\"[^\"]+\">[^<]+</desc>", svg)


def test_decision_curves_are_drawn_for_the_binary_tasks(whole_run: Path, page: str) -> None:
    drawn = set(re.findall(r'aria-labelledby="decision-(\w+)-t', page))
    assert drawn == {"readmission", "mortality", "denial"}
    rows = runs.read_json(whole_run / "scores" / "decision_curves.json")
    for row in rows:
        if row["model"] == "lang1 finetuned joint":
            at = {point["threshold"]: point["net_benefit"] for point in row["points"]}
            assert f"LANG1 finetuned: {at[0.05]:.3f} at 5\N{NO-BREAK SPACE}%" in page
    assert "recalibrated (" not in page and "A dashed line is the model of that colour" not in page
    assert page.count(">ECE recalibrated<") == 0


def test_recalibrated_models_are_marked_and_are_no_models_of_their_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", recalibrated=True, stages=("tasks", "scores"))
    page = report(run, tmp_path / "out")
    assert "on val" not in page  # the name under which they stand in the files is in no legend, table or figure
    assert "LANG1 finetuned, recalibrated (platt): " in page
    assert "after recalibration (platt, fitted on the validation rows)" in page
    table = page.partition(">ECE recalibrated<")[2].partition("</table>")[0]
    rows = runs.read_json(run / "scores" / "calibration.json")
    assert table.count("<td>platt</td>") == sum(row["recalibration"] is not None for row in rows)
    ece = {(row["task"], row["model"]): row["ece"] for row in rows}
    before, after = ece["los", "lang1 zero-shot"], ece["los", "lang1 zero-shot, platt on val"]
    assert f'<td class="n">{before:.3f}</td><td class="n">{after:.3f}</td>' in table


def test_what_comes_from_files_is_escaped(page: str) -> None:
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "ReMedE &lt;on&gt; the hospital" in page


def test_every_result_of_the_headline_split_stands_in_the_table(whole_run: Path, page: str) -> None:
    results = runs.read_json(whole_run / "scores" / "summary.json")["results"]
    for row in (r for r in results if r["split"] == "temporal_2"):
        assert f">{row['value']:.3f}</span>" in page
        assert f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]" in page


def test_the_answer_says_where_boosting_wins(page: str) -> None:
    assert "TF-IDF + boosting wins on death in hospital." in page
    assert '<span class="chip worse">worse</span>' in page


def test_base_rates_stand_beside_the_papers(page: str) -> None:
    assert "paper&#39;s Table B4" in page or "paper's Table B4" in page
    assert re.search(r"2\.0\N{NO-BREAK SPACE}%<span class=\"sub\">1\.8\N{NO-BREAK SPACE}%", page)  # died, temporal_2
    assert "97,586" in page


def test_only_the_hospital_that_aims_at_the_papers_rates_is_said_to(page: str, tmp_path: Path) -> None:
    assert "for this simulated one they are the target" in page
    stages = ("warehouse", "records", "tasks")
    text = report(write_run(tmp_path / "run", hospital="external", stages=stages), tmp_path / "out")
    assert "they are the target" not in text and "this simulated one has older and sicker patients" in text


def test_the_headline_split_is_told_by_the_outcomes_that_were_learned(page: str) -> None:
    # notes of its days may have been read in pretraining, as the contamination says
    assert "stays that ended after all whose outcome a model was trained on, discharged in 2024" in page


def test_the_cohorts_counts_add_up_and_are_said_not_to_when_they_do_not(page: str, tmp_path: Path) -> None:
    assert "do not add up" not in page
    run = write_run(tmp_path / "run", stages=("tasks",))
    broken = tmp_path / "broken"
    text = (run / "tasks" / "attrition.csv").read_text().replace(f",37,{sum(SIZES.values()) + 763}\n", ",36,3463\n", 1)
    runs.run_stage(
        broken / "tasks", "tasks", {}, 1, {}, lambda stage: runs.write_text(stage.out / "attrition.csv", text)
    )
    assert "The counts do not add up: step 1: 3,500 less 36 is not 3,463." in report(broken, tmp_path / "out")


def test_a_task_without_rows_is_shown_with_its_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", skip_denial=True, stages=("warehouse", "records", "corpus", "tasks", "scores"))
    text = report(run, tmp_path / "out")
    assert "Insurance denial was left out: no claims in these records." in text
    assert "all four tasks" in text


def test_rows_in_the_order_of_records_are_called_exploratory(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulated=False, split_by="sequence", stages=("records", "tasks", "scores"))
    text = report(run, tmp_path / "out")
    assert "exploratory split" in text and "An exploratory split" in text
    assert "Simulated patients" not in text and "One source of records" in text


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (("warehouse",), ["No cohort: the stage <code>tasks</code> was not run", "no model has been evaluated"]),
        (("warehouse", "records", "corpus", "tokens"), ["No pretraining curves: the stage <code>pretrain</code>"]),
        (
            ("tasks",),
            ["No AUROC: the stage <code>evaluate</code>", "No finetuning curves: the stage <code>finetune</code>"],
        ),
        (("scores",), ["No tokens: the stage <code>tokenize</code>", "No base rates: the stage <code>tasks</code>"]),
    ],
)
def test_a_run_that_stopped_early_has_a_report_that_says_so(
    stages: tuple[str, ...], says: list[str], tmp_path: Path
) -> None:
    text = report(write_run(tmp_path / "run", stages=stages), tmp_path / "out", example_prompts=True)
    assert Page(text).open == []
    for sentence in says:
        assert sentence in text


def test_a_stage_that_is_not_finished_is_not_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks", "scores"))
    (run / "scores" / "manifest.json").unlink()
    assert "no model has been evaluated" in report(run, tmp_path / "out")


def test_notes_met_before_are_counted_on_the_split_that_is_shown(page: str) -> None:
    assert "No note was seen before" in page
    assert (
        "Other notes of the same patients were met for up to 50\N{NO-BREAK SPACE}% of a task's rows"
        in html.unescape(page)
    )


def test_notes_met_before_are_said_plainly(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks", "scores"), headline_split="test")
    text = report(run, tmp_path / "out")
    assert "LANG1 finetuned had met the words of up to 200 of 200 notes in pretraining and 0 in finetuning" in text
    header = text[text.index("<header>") : text.index("</header>")]
    answer = text[text.index('id="answer"') : text.index('aria-label="Contents"')]
    assert "contaminated rows" in header and "not the future window" in header
    assert "Measured on rows that were met before." in answer and "200 of 200 notes in pretraining" in answer


def test_the_future_window_without_notes_met_before_carries_no_warning(page: str) -> None:
    header = page[page.index("<header>") : page.index("</header>")]
    assert "Headline split: Temporal 2" in header
    assert "warn" not in header and "Measured on rows that were met before" not in page


def test_a_model_of_which_nobody_can_tell_is_not_called_clean(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks", "scores"))
    metrics = json.loads((run / "scores" / "metrics.json").read_text())
    for row in metrics["rows"]:
        if row["model"] == "lang1 zero-shot":
            row |= {key: None for key in row if key.startswith("rows_of_")}
    data = replace(collect(complete_folders(run), run), metrics=metrics)
    seen = read_seen(data, "temporal_2")
    (limit,) = [found for found in find_limits(data, "temporal_2", seen) if "seen before" in found.title]
    assert limit.title == "What was seen before is not known of every model"
    assert "Nobody can tell what LANG1 zero-shot met in training" in limit.text
    assert "No note was seen before" not in limit.text


def test_a_split_that_was_scored_in_part_is_named_with_both_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks", "scores"))
    data = collect(complete_folders(run), run)

    def limits(data: RunData) -> list[str]:
        return [
            found.text for found in find_limits(data, "temporal_2", []) if found.title == "Not every row was scored"
        ]

    held = data.statistics["los"]["temporal_2"]["rows"]
    whole = [row | {"n": data.statistics[row["task"]][row["split"]]["rows"]} for row in data.results]
    assert limits(replace(data, results=whole)) == []
    part = [row | {"n": 7} if (row["task"], row["split"]) == ("los", "temporal_2") else row for row in whole]
    (text,) = limits(replace(data, results=part))
    assert f"Temporal 2: length of stay 7 of {held:,}." in text and "mortality" not in text
    other = next(row for row in whole if (row["task"], row["split"]) == ("los", "temporal_2"))
    assert limits(replace(data, results=[*part, other])) == [], "a model's own bound takes no rows from the others"


def test_what_was_not_measured_is_named(page: str) -> None:
    assert "Columns + boosting, Charlson comorbidity: no records were given." in page


# --- notes -----------------------------------------------------------------------------------------------------


def test_notes_of_the_simulated_hospital_may_be_shown_with_what_the_model_answered(page: str) -> None:
    assert page.count(NOTE_START) == 5
    assert "True answer: A, no." in page and "B 11.0\N{NO-BREAK SPACE}%." in page


def test_notes_are_not_shown_unless_asked_for(whole_run: Path, tmp_path: Path) -> None:
    text = report(whole_run, tmp_path / "out", example_prompts=False)
    assert NOTE_START not in text and "does not ask for examples" in text


def test_notes_of_a_real_source_are_never_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", simulated=False, stages=("records", "corpus", "tasks", "scores"))
    text = report(run, tmp_path / "out", example_prompts=True)
    assert NOTE_START not in text and "so none is shown" in text


@pytest.mark.parametrize("forged", ["records", "corpus", "tasks"])
def test_notes_are_not_shown_when_a_link_to_the_simulated_hospital_is_missing(forged: str, tmp_path: Path) -> None:
    """A simulated warehouse lies in the run, but a stage was fed from elsewhere: hashes tell, not folder names."""
    run = write_run(tmp_path / "run", stages=("warehouse", "records", "corpus", "tasks"))
    path = run / forged / "manifest.json"
    manifest = runs.read_json(path)
    runs.write_json(path, manifest | {"inputs": dict.fromkeys(manifest["inputs"], "0" * 64)})
    text = report(run, tmp_path / "out", example_prompts=True)
    assert NOTE_START not in text and "so none is shown" in text


# --- faults ----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        report(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no finished stage"):
        report(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stage_folder_out_of_place_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks",))
    (run / "tasks").rename(run / "scores")
    with pytest.raises(InputError, match="was written by the stage tasks, not evaluate"):
        report(run, tmp_path / "out")


def test_a_file_changed_by_hand_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", stages=("tasks",))
    (run / "tasks" / "attrition.csv").write_text("task,step,rule,left_out,remaining\nlos,zero,a,0,1\n")
    with pytest.raises(InputError, match="changed since its stage ended"):
        report(run, tmp_path / "out")
