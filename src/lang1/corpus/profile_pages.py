"""The figures and the Markdown summary of a profile, drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lang1 import figures, runs
from lang1.config import ProfileConfig

Row = dict[str, Any]
COLOURS = {"hospital": "#0072B2", "pathology": "#D55E00", "radiology": "#117733"}
COLUMNS = {"top_departments": "department", "top_diagnoses": "diagnosis", "top_boroughs": "borough"}
HEADINGS = {"top_departments": "Department", "top_diagnoses": "Main diagnosis", "top_boroughs": "Borough"}
LONGEST = 30
"""letters of a name on an axis"""


def draw_figures(cfg: ProfileConfig, tables: dict[str, list[Row]], out: Path) -> None:
    """Write top, notes_by_year, lengths and cleaning as SVG and PDF."""
    with figures.style():
        figures.save_figure(_draw_top(cfg, tables), out / "top")
        figures.save_figure(_draw_years(tables["notes_by_year_and_type"]), out / "notes_by_year")
        figures.save_figure(_draw_lengths(tables["length_histogram"]), out / "lengths")
        figures.save_figure(_draw_cleaning(cfg, tables["cleaning"]), out / "cleaning")


def _draw_top(cfg: ProfileConfig, tables: dict[str, list[Row]]) -> Any:
    """Figure G7: a row a category, a column a list, the share of the notes that specify it, or of all where hidden."""
    lists = [name for name in COLUMNS if name in tables]
    categories = list(dict.fromkeys(row["category"] for row in tables["top_departments"]))
    figure = figures.new_figure(3.6 * len(lists) + 0.4, 1.75 * len(categories) + 0.3)
    axes = figure.subplots(len(categories), len(lists), squeeze=False)
    for i, category in enumerate(categories):
        for j, name in enumerate(lists):
            rows = [row for row in tables[name] if row["category"] == category and row["rank"]]
            axis = axes[i][j]
            is_hidden = any(row["share_of_specified"] is None for row in rows)
            shares = [100 * row["share_of_notes" if is_hidden else "share_of_specified"] for row in rows]
            axis.barh(range(len(rows)), shares, color=COLOURS.get(category, figures.MUTED), height=0.7)
            axis.set_yticks(range(len(rows)), [_short(row.get("title") or row[COLUMNS[name]]) for row in rows])
            axis.set_ylim(cfg.top - 0.5, -0.5)
            axis.grid(visible=False, axis="y")
            axis.set_xlim(0, max([*shares, 1]) * 1.18)
            for place, share in enumerate(shares):
                axis.text(share, place, f" {share:.1f}", va="center", fontsize=7.5, color=figures.MUTED)
            if not rows:
                axis.text(0.5, 0.5, "none specified", transform=axis.transAxes, ha="center", color=figures.MUTED)
                axis.set_xticks([])
                axis.set_yticks([])
            if i == 0:
                axis.set_title(HEADINGS[name])
            if j == 0:
                axis.set_ylabel(category.capitalize(), fontweight="bold")
            if is_hidden or i == len(categories) - 1:
                axis.set_xlabel("% of all notes" if is_hidden else "% of the notes that specify it")
    return figure


def _draw_years(rows: list[Row]) -> Any:
    figure = figures.new_figure(7.2, 2.6)
    axes = figure.subplots(1, 2)
    years = sorted({int(row["year"]) for row in rows if row["year"].isdigit()})
    for axis, what in zip(axes, ("notes", "words"), strict=True):
        bottom = [0.0] * len(years)
        for category in sorted({row["category"] for row in rows} - {"other"}):
            values = [
                float(sum(r[what] for r in rows if r["year"] == str(year) and r["category"] == category))
                for year in years
            ]
            axis.bar(
                years, values, bottom=bottom, label=category, color=COLOURS.get(category, figures.MUTED), width=0.8
            )
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axis.set_title(f"{what.capitalize()} by year")
        axis.set_ylim(0, max([*bottom, 1]) * 1.05)
        axis.grid(visible=False, axis="x")
        axis.yaxis.set_major_formatter(lambda value, _: _compact(value))
        if years:
            step = -(-len(years) // 6)
            axis.set_xticks(years[::step], [str(year) for year in years[::step]])
    if axes[0].patches:
        axes[0].legend(loc="upper left")
    return figure


def _draw_lengths(rows: list[Row]) -> Any:
    figure = figures.new_figure(4.8, 2.8)
    axis = figure.subplots()
    for category in dict.fromkeys(row["category"] for row in rows):
        mine = [row for row in rows if row["category"] == category]
        # the share of a joined bin is spread evenly over its doublings
        edges = [mine[0]["words_from"], *(row["words_below"] for row in mine)]
        doublings = [_doublings(row) for row in mine]
        heights = [100 * row["share_of_notes"] / number for row, number in zip(mine, doublings, strict=True)]
        axis.stairs(heights, edges, label=category, color=COLOURS.get(category, figures.MUTED), linewidth=1.6)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_title("Length of the notes")
    axis.set_xlabel("words")
    axis.set_ylabel("% of notes a doubling")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper right")
    return figure


def _doublings(row: Row) -> int:
    return int(row["words_below"]).bit_length() - int(row["words_from"]).bit_length()


def _draw_cleaning(cfg: ProfileConfig, rows: list[Row]) -> Any:
    figure = figures.new_figure(5.4, 0.24 * max(len(rows), 2) + 0.9)
    axis = figure.subplots()
    labels = [
        row["name"].replace("_", " ") if row["kind"] == "rule" else f"rejected: {row['name'].replace('_', ' ')}"
        for row in rows
    ]
    shares = [100 * (row["share_of_notes"] or 0) for row in rows]
    colours = ["#0072B2" if row["kind"] == "rule" else "#D55E00" for row in rows]
    axis.barh(range(len(rows)), shares, color=colours, height=0.7)
    axis.set_yticks(range(len(rows)), labels)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlim(0, max([*shares, 1]) * 1.15)
    for place, (row, share) in enumerate(zip(rows, shares, strict=True)):
        said = f" <{cfg.suppress_below} notes" if row["share_of_notes"] is None else f" {share:.1f}"
        axis.text(share, place, said, va="center", fontsize=7.5, color=figures.MUTED)
    axis.set_title("What cleaning changed and left out")
    axis.set_xlabel("% of the notes")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _compact(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


# --- the page --------------------------------------------------------------------------------------------------------


def write_summary(cfg: ProfileConfig, tables: dict[str, list[Row]], out: Path, has_records: bool) -> None:
    """profile.md: the tables that fit a page, the figures, and what is not shown."""
    least = cfg.suppress_below
    small = (
        f"Groups of fewer than {least} patients are shown together with others as *other*, never alone."
        if least
        else "Every count is shown, however small (`profile.suppress_below=0`): read before it leaves."
    )
    parts = ["# Profile of the corpus", small, _markdown(tables["totals"]), "![top lists](top.svg)"]
    for name, column in COLUMNS.items():
        if name in tables:
            named = [row for row in tables[name] if row["rank"]]
            keys = ["category", "rank", column, *(["title"] if any(row.get("title") for row in named) else [])]
            parts += [f"## {HEADINGS[name]}", _markdown(named, [*keys, "notes", "share_of_specified"])]
    if not has_records:
        parts.append("No records were given, so diagnoses and boroughs are not known.")
    parts += ["## Notes and words by year", "![notes and words by year](notes_by_year.svg)"]
    parts += [
        "## Length",
        _markdown([r for r in tables["lengths"] if r["note_type"] == "all"]),
        "![lengths](lengths.svg)",
    ]
    parts += ["## Cleaning", _markdown(tables["cleaning"]), "![cleaning](cleaning.svg)"]
    listed = ", ".join(f"`{name}.csv`" for name in tables)
    runs.write_text(out / "profile.md", "\n\n".join([*parts, f"Every number: {listed}."]) + "\n")


def _markdown(rows: list[Row], keys: Iterable[str] | None = None) -> str:
    if not rows:
        return "*None.*"
    keys = list(keys or rows[0])
    lines = ["| " + " | ".join(key.replace("_", " ") for key in keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(_cell(key, row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.startswith("share"):
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
