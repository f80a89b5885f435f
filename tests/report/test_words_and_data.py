"""How numbers are written, how the flow is laid out, and that the paper's table was copied without a slip."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import date
from importlib.resources import files

import pytest

from lang1.report import words
from lang1.report.collect import AttritionStep
from lang1.report.flow import BOX_HEIGHT, draw_flow
from lang1.report.plots import thin_out


def test_differences_are_signed_percentage_points() -> None:
    assert words.points(0.0314) == "+3.1" and words.points(-0.0314) == "\N{MINUS SIGN}3.1"
    assert words.points(-0.0001) == "0.0" and words.points(None) == "\N{EM DASH}"
    assert words.points_interval(-0.01, 0.02) == "[\N{MINUS SIGN}1.0, +2.0]"
    assert words.points_interval(None, 0.02) == ""


def test_rare_rates_keep_two_digits() -> None:
    assert [words.rate(x) for x in (0.110, 0.0189, 0.000904, 0.0)] == [
        f"{x}\N{NO-BREAK SPACE}%" for x in ("11.0", "1.9", "0.09", "0.0")
    ]


def test_p_values_are_never_zero() -> None:
    assert [words.p_value(x) for x in (0.0, 0.0009, 0.012, 0.34, None)] == [
        "< 0.001",
        "< 0.001",
        "0.012",
        "0.34",
        "\N{EM DASH}",
    ]


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (date(2024, 1, 1), date(2025, 1, 1), "2024"),
        (date(2024, 1, 1), date(2024, 2, 1), "Jan 2024"),
        (date(2021, 6, 1), date(2021, 12, 1), "Jun–Nov 2021"),
        (date(2013, 1, 1), date(2021, 6, 1), "Jan 2013–May 2021"),
        (date(2011, 1, 1), date(2021, 1, 1), "2011–2020"),
        (date(2024, 1, 5), date(2024, 2, 1), "2024-01-05 to 2024-01-31"),
    ],
)
def test_a_window_reads_as_months(start: date, end: date, text: str) -> None:
    assert words.period(start, end) == text


def test_durations() -> None:
    assert [words.duration(x) for x in (4.26, 125, 7500, None)] == ["4.3 s", "2 min 5 s", "2 h 5 min", "\N{EM DASH}"]


def test_the_papers_rates_add_up_to_one_and_its_counts_are_there() -> None:
    folder = files("lang1.report") / "paper"
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for row in csv.DictReader((folder / "base_rates.csv").read_text().splitlines()):
        sums[row["task"], row["split"]] += float(row["share"])
    assert len(sums) == 25 and all(total == pytest.approx(1, abs=5e-6) for total in sums.values())
    totals: dict[str, int] = defaultdict(int)
    for row in csv.DictReader((folder / "note_counts.csv").read_text().splitlines()):
        totals[row["task"]] += int(row["notes"])
    # the last column of Table B1; field.md says where the denial counts come from
    assert dict(totals) == {
        "readmission": 604_326,
        "cci": 443_915,
        "los": 566_748,
        "denial": 97_837,
        "mortality": 566_748,
    }


STEPS = [
    AttritionStep(0, "is an encounter of the records", 0, 1000),
    AttritionStep(1, "is inpatient", 200, 800),
    AttritionStep(2, "has ended", 0, 800),
    AttritionStep(3, "has a note that was signed within a number of hours after it was admitted to the ward", 100, 700),
]


def test_a_flow_draws_the_rules_that_left_someone_out_and_names_the_others() -> None:
    flow = draw_flow("los", STEPS, {"train": {"rows": 600}, "test": {"rows": 100}})
    assert [step.remaining for step in flow.steps] == ["1,000", "800", "700"]
    assert flow.idle == ["has ended"] and flow.problems == []
    assert flow.splits == "train: 600; test: 100"
    gaps = [after.top - before.top - BOX_HEIGHT for before, after in zip(flow.steps, flow.steps[1:], strict=False)]
    assert all(gap >= 20 for gap in gaps)
    assert flow.height >= flow.steps[-1].top + BOX_HEIGHT


def test_a_flow_says_when_the_splits_do_not_hold_what_remains() -> None:
    flow = draw_flow("los", STEPS, {"train": {"rows": 600}})
    assert flow.problems == ["the splits hold 600 rows, the last rule left 700"]


def test_a_thinned_curve_hides_no_step_and_keeps_its_mean() -> None:
    line = [(step, float(step % 7)) for step in range(1, 1001)]
    thin = thin_out(line, 100)
    assert len(thin) == 100 and thin[-1][0] == 1000
    assert sum(v for _, v in thin) / 100 == pytest.approx(sum(v for _, v in line) / 1000)
    assert thin_out(line[:50], 100) == line[:50]
