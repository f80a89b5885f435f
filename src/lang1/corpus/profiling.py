"""`lang1 profile`: what the cleaned notes are, as CSV, figures and a Markdown summary (appendix G of the paper).

Written to leave the hospital, so no count of fewer than `suppress_below` patients stands alone. Small groups are put
together, and one group that is large enough joins them, so that neither the sum nor a difference of two tables gives
one away: every total is the sum of what is shown. Nothing here holds a note's text or an id.

DuckDB counts; quantiles come from exact counts by length, so memory does not grow with the notes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.config import ProfileConfig, dump
from lang1.corpus.database import open_notes, quote, run_sql
from lang1.corpus.rules import RULES
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
OUTER = (0.05, 0.95)
"""in a small group these are its shortest and its longest note"""
LISTS = {"department": "departments", "diagnosis": "diagnoses", "borough": "boroughs"}
OTHER = "other"
UNSPECIFIED = "unspecified"
Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Notes that are counted together."""

    key: tuple[str, ...]
    notes: int
    patients: int
    words: int = 0


def profile(
    cfg: ProfileConfig, *, corpus: Path, records: Path | None, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the tables, figures and summary of `corpus` into `out`; returns the manifest. Raises InputError."""
    inputs = {"corpus": corpus}
    inputs |= {"records": records} if records is not None else {}
    inputs |= {"titles": Path(cfg.titles)} if cfg.titles else {}

    def work(stage: runs.Stage) -> None:
        from lang1.corpus.profile_pages import draw_figures, write_summary

        titles = read_titles(Path(cfg.titles)) if cfg.titles else {}
        cleaning = runs.read_manifest(corpus)
        with open_notes(corpus, stage.scratch(), threads=cfg.threads, memory_gb=cfg.memory_gb) as database:
            _add_records(database, records)
            run_sql(database, "profile")
            tables = make_tables(cfg, database, cleaning, titles, has_records=records is not None)
        for name, rows in tables.items():
            write_csv(stage.out / f"{name}.csv", rows)
        draw_figures(cfg, tables, stage.out)
        write_summary(cfg, tables, stage.out, has_records=records is not None)
        stage.count(tables=len(tables), notes_described=sum(row["notes"] for row in tables["totals"][:-1]))

    return runs.run_stage(out, "profile", dump(cfg), seed, inputs, work, force)


# --- what is read --------------------------------------------------------------------------------------------------


def _add_records(database: duckdb.DuckDBPyConnection, records: Path | None) -> None:
    """The tables `people`, `stays` and `coded`; empty without records."""
    wanted = {
        "people": ("patients", "patient_id, borough", "patient_id VARCHAR, borough VARCHAR"),
        "stays": (
            "encounters",
            "encounter_id, primary_diagnosis",
            "encounter_id VARCHAR, primary_diagnosis VARCHAR",
        ),
        "coded": ("diagnoses", "encounter_id, min(code) AS code", "encounter_id VARCHAR, code VARCHAR"),
    }
    for name, (table, columns, empty) in wanted.items():
        database.execute(f"CREATE TABLE {name} ({empty})")
        if records is None:
            continue
        parts = sorted((records / table).glob("*.parquet"))
        if not parts:
            raise InputError(f"{records / table}: no Parquet files; give the folder that lang1 extract wrote")
        listed = ", ".join(quote(str(part)) for part in parts)
        only = " WHERE position = 1 AND encounter_id IS NOT NULL GROUP BY encounter_id" if name == "coded" else ""
        try:
            database.execute(f"INSERT INTO {name} SELECT {columns} FROM read_parquet([{listed}]){only}")
        except Exception as error:  # DuckDB's own kinds: a missing column, a broken file
            raise InputError(
                f"{records / table}: not readable as records ({type(error).__name__}); run lang1 extract again"
            ) from None


def read_titles(path: Path) -> dict[str, str]:
    """Titles by code without dots, upper case. Lines are `code,title` or `code title`; Latin-1 is read too."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"profile.titles: {path}: {error.strerror}; give a text file of codes and titles") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    titles: dict[str, str] = {}
    for line in text.splitlines():
        code, comma, title = line.partition(",")
        if not comma or " " in code.strip():
            code, _, title = line.strip().partition(" ")
        if code.strip() and title.strip():
            titles[_plain_code(code)] = title.strip().strip('"')
    if not titles:
        raise InputError(f"profile.titles: {path}: no line with a code and a title")
    return titles


def _plain_code(code: str) -> str:
    return code.strip().strip('"').replace(".", "").upper()


# --- tables --------------------------------------------------------------------------------------------------------


def make_tables(
    cfg: ProfileConfig,
    database: duckdb.DuckDBPyConnection,
    cleaning: dict[str, Any],
    titles: dict[str, str],
    has_records: bool,
) -> dict[str, list[Row]]:
    """Every table by the name of its file."""
    shown, left_out = pool(_groups(database, "category"), cfg.suppress_below, keep_pool=False)
    categories = [group.key[0] for group in shown]
    if not categories:
        raise InputError(
            f"every category has fewer than {cfg.suppress_below} patients; a profile of them may not leave "
            "(profile.suppress_below)"
        )
    tables = {"totals": _totals(shown)}
    for column, name in LISTS.items():
        if column == "department" or has_records:
            tables[f"top_{name}"] = _top(cfg, database, column, categories, titles)
    tables["notes_by_year_and_type"] = _by_year(cfg, database, categories)
    tables["lengths"] = _lengths(cfg, database, categories)
    tables["length_histogram"] = _histogram(cfg, database, categories)
    # cleaning counted all categories: a count and its share, less the totals, would give one that is left out
    tables["cleaning"] = [] if left_out else _cleaning(cfg, cleaning)
    return tables


def _groups(database: duckdb.DuckDBPyConnection, *columns: str, where: str = "TRUE") -> list[Group]:
    """Groups of `columns`, the largest first, then by name; null is `unspecified`."""
    keys = [f"coalesce({column}::VARCHAR, '{UNSPECIFIED}') AS {column}_key" for column in columns]
    found = database.execute(
        f"""
        SELECT {", ".join(keys)}, count(*), count(DISTINCT patient_id), sum(words)::BIGINT
        FROM described WHERE {where} GROUP BY ALL
        """
    ).fetchall()
    groups = [Group(tuple(row[:-3]), *(int(value) for value in row[-3:])) for row in found]
    return sorted(groups, key=lambda group: (-group.notes, group.key))


def pool(groups: list[Group], least: int, keep_pool: bool = True) -> tuple[list[Group], list[Group]]:
    """Groups shown alone, and those put together: all of fewer than `least` patients and the smallest of the others.

    The last makes the pool as large as itself: without it, the pool could be one patient. `unspecified` is that last
    only where no other is left. With `keep_pool` false the small ones are left out of everything and need no company.
    """
    shown = [group for group in groups if group.patients >= least]
    pooled = [group for group in groups if group.patients < least]
    if pooled and keep_pool and shown:
        smallest = min(shown, key=lambda group: (UNSPECIFIED in group.key, group.patients, group.key))
        shown.remove(smallest)
        pooled.append(smallest)
    return shown, pooled


def _totals(shown: list[Group]) -> list[Row]:
    rows: list[Row] = [
        {
            "category": group.key[0],
            "notes": group.notes,
            "patients": group.patients,
            "words": group.words,
            "words_a_note": round(group.words / group.notes, 1),
        }
        for group in sorted(shown, key=lambda group: group.key)
    ]
    notes, words = sum(row["notes"] for row in rows), sum(row["words"] for row in rows)
    average = round(words / notes, 1)
    return [*rows, {"category": "all", "notes": notes, "patients": None, "words": words, "words_a_note": average}]


def _top(
    cfg: ProfileConfig,
    database: duckdb.DuckDBPyConnection,
    column: str,
    categories: list[str],
    titles: dict[str, str],
) -> list[Row]:
    """The largest groups of each category, then `other` and `unspecified`, which together are all of its notes."""
    rows: list[Row] = []
    for category in categories:
        shown, pooled = pool(_groups(database, column, where=f"category = {quote(category)}"), cfg.suppress_below)
        named = [group for group in shown if group.key[0] != UNSPECIFIED]
        unspecified = [group for group in shown if group.key[0] == UNSPECIFIED]
        listed, rest = named[: cfg.top], [*named[cfg.top :], *pooled]
        total = sum(group.notes for group in (*shown, *pooled))
        specified = total - sum(group.notes for group in unspecified)
        # shares of what is specified would give the notes that are not, by the difference to the total
        is_hidden = any(group.key[0] == UNSPECIFIED for group in pooled)
        entries = [(str(rank), group.key[0], group.notes) for rank, group in enumerate(listed, start=1)]
        entries += [("", OTHER, sum(group.notes for group in rest))] if rest else []
        entries += [("", UNSPECIFIED, group.notes) for group in unspecified]
        for rank, value, notes in entries:
            row: Row = {"category": category, "rank": rank, column: value}
            if column == "diagnosis":
                row["title"] = titles.get(_plain_code(value), "") if rank else ""
            row |= {"notes": notes, "share_of_notes": _share(notes, total)}
            row["share_of_specified"] = None if is_hidden or value == UNSPECIFIED else _share(notes, specified)
            rows.append(row)
    return rows


def _pool_types(
    cfg: ProfileConfig, database: duckdb.DuckDBPyConnection, category: str
) -> tuple[list[Group], list[Group]]:
    """Note types of a category that are shown, and those put together: the same in every table, or two would differ."""
    return pool(_groups(database, "note_type", where=f"category = {quote(category)}"), cfg.suppress_below)


def _by_year(cfg: ProfileConfig, database: duckdb.DuckDBPyConnection, categories: list[str]) -> list[Row]:
    """Notes by year of each category and type that `lengths` shows, which gives their sum.

    So the years that are put together are those of one type: a pool over several would be known type by type.
    """
    of_type: dict[tuple[str, str], list[Group]] = {}
    for group in _groups(database, "category", "note_type", "year"):
        of_type.setdefault((group.key[0], group.key[1]), []).append(replace(group, key=group.key[2:]))
    rows: list[Row] = []
    for category in sorted(categories):
        kinds, hidden = _pool_types(cfg, database, category)
        for kind in (group.key[0] for group in kinds):
            shown, pooled = pool(of_type[category, kind], cfg.suppress_below)
            rows += [_year_row(group.key[0], category, kind, [group]) for group in shown]
            rows += [_year_row(OTHER, category, kind, pooled)] if pooled else []
        rows += [_year_row(OTHER, category, OTHER, hidden)] if hidden else []
    return sorted(rows, key=lambda row: (row["year"] == OTHER, row["year"], row["category"], row["note_type"]))


def _year_row(year: str, category: str, kind: str, groups: list[Group]) -> Row:
    notes, words = sum(group.notes for group in groups), sum(group.words for group in groups)
    return {"year": year, "category": category, "note_type": kind, "notes": notes, "words": words}


def _lengths(cfg: ProfileConfig, database: duckdb.DuckDBPyConnection, categories: list[str]) -> list[Row]:
    rows: list[Row] = []
    for category in sorted(categories):
        where = f"category = {quote(category)}"
        shown, _ = _pool_types(cfg, database, category)
        kinds = sorted(group.key[0] for group in shown)
        for kind in ["all", *kinds]:
            also = "" if kind == "all" else f" AND coalesce(note_type::VARCHAR, '{UNSPECIFIED}') = {quote(kind)}"
            counts = database.execute(
                f"SELECT words, count(*) FROM described WHERE {where}{also} GROUP BY words ORDER BY words"
            ).fetchall()
            notes = sum(number for _, number in counts)
            mean = sum(words * number for words, number in counts) / notes
            row: Row = {"category": category, "note_type": kind, "notes": notes, "mean": round(mean, 1)}
            for q in QUANTILES:
                # so many notes are at least as short, and as long
                is_shown = q not in OUTER or round(min(q, 1 - q) * notes, 6) >= cfg.suppress_below
                row[f"p{100 * q:.0f}"] = quantile(counts, q) if is_shown else None
            rows.append(row)
    return rows


def quantile(counts: list[tuple[int, int]], q: float) -> int:
    """The smallest value that at least a share `q` does not exceed, from values with their counts, ascending."""
    total, seen = sum(number for _, number in counts), 0
    for value, number in counts:
        seen += number
        if seen >= q * total:
            return value
    raise ValueError("no counts")


def _histogram(cfg: ProfileConfig, database: duckdb.DuckDBPyConnection, categories: list[str]) -> list[Row]:
    """Notes by words in bins that double; a bin of few patients is joined with the next."""
    rows: list[Row] = []
    for category in sorted(categories):
        bins = database.execute(
            f"""
            SELECT floor(log2(greatest(words, 1)))::INTEGER, count(*), count(DISTINCT patient_id)
            FROM described WHERE category = {quote(category)} GROUP BY 1 ORDER BY 1
            """
        ).fetchall()
        joined: list[list[int]] = []  # power from, power to, notes, patients of the largest
        for power, notes, patients in bins:
            if joined and joined[-1][3] < cfg.suppress_below:
                joined[-1] = [joined[-1][0], power, joined[-1][2] + notes, max(joined[-1][3], patients)]
            else:
                joined.append([power, power, notes, patients])
        if len(joined) > 1 and joined[-1][3] < cfg.suppress_below:
            last = joined.pop()
            joined[-1] = [joined[-1][0], last[1], joined[-1][2] + last[2], joined[-1][3]]
        total = sum(entry[2] for entry in joined)
        rows += [
            {
                "category": category,
                "words_from": 2**low,
                "words_below": 2 ** (high + 1),
                "notes": notes,
                "share_of_notes": _share(notes, total),
            }
            for low, high, notes, _ in joined
        ]
    return rows


def _cleaning(cfg: ProfileConfig, cleaning: dict[str, Any]) -> list[Row]:
    """What the corpus manifest counted: notes that each rule changed, in their order, and notes rejected by reason."""
    counts: dict[str, int] = cleaning.get("counts", {})
    total, least = int(counts.get("notes_in", 0)), cfg.suppress_below
    changed: dict[str, int] = cleaning.get("facts", {}).get("rules", {})
    order = ["decode", *(name for name, _ in RULES)]
    names = sorted(changed, key=lambda name: (order.index(name) if name in order else len(order), name))
    rows = [_cleaning_row("rule", name, int(changed[name]), total, least) for name in names]
    rejected = {key.removeprefix("rejected_"): n for key, n in sorted(counts.items()) if key.startswith("rejected_")}
    # reasons add up to what is missing, so a small one needs company; rules do not: a note may be changed by several
    shown, pooled = pool([Group((why,), number, number) for why, number in rejected.items() if number], least)
    rows += [_cleaning_row("rejected", g.key[0], g.notes, total, least) for g in sorted(shown, key=lambda g: g.key)]
    if pooled:
        rows.append(_cleaning_row("rejected", OTHER, sum(group.notes for group in pooled), total, least))
    return rows


def _cleaning_row(kind: str, name: str, number: int, total: int, least: int) -> Row:
    is_shown = number == 0 or number >= least
    share = _share(number, total) if is_shown else None
    return {"kind": kind, "name": name, "notes": number if is_shown else f"<{least}", "share_of_notes": share}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Rows as CSV; null is empty. A text that a spreadsheet would run as a formula is set off by an apostrophe."""
    rows = list(rows)
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]) if rows else ["empty"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"'{v}" if isinstance(v, str) and v[:1] in "=+@-" and v else v for key, v in row.items()})
    runs.write_text(path, sink.getvalue())
