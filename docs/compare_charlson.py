"""Writes the tables of charlson.md: our Charlson score of every ICD code beside pycomorb's.

    python docs/compare_charlson.py            # prints them
    python docs/compare_charlson.py --write    # puts them into charlson.md, between its marks

Reads the code lists of ../shared/data/icd (LANG1_DATA names another place). tests/tasks/test_charlson.py does the same
and fails when the page says something else.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lang1.tasks.charlson import Weights, read_map, score_codes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "charlson.md"
ICD = Path(os.environ.get("LANG1_DATA", ROOT / "../shared/data")).resolve() / "icd"
NINE, TEN = "ICD9CM", "ICD10CM"

PYCOMORB: dict[Weights, str] = {1987: "charlson", 2011: "quan"}
"""its names of the weights"""

CATEGORIES = {
    "diabetes without complication": "Diabetes without chronic complication",
    "diabetes with complication": "Diabetes with chronic complication",
    "malignancy": "Any malignancy, including lymphoma and leukemia, except malignant neoplasm of skin",
    "AIDS": "AIDS/HIV",
}
"""pycomorb's name of a category of ours, where more than the first letter differs"""

REASONS: dict[str, str] = {}
"""why a code is scored otherwise by pycomorb, and whose side we take, by prefix `<system>:<code>`"""

NEWER: list[tuple[str, str, str]] = [
    (
        "C4A",
        "Merkel cell carcinoma",
        "newer than the map. As a string `C4A` lies between `C49` and `C50`: a range would take it in",
    ),
    (
        "C7A",
        "malignant neuroendocrine tumours",
        "newer than the map. As a string `C7A` lies between `C79` and `C80`: a range would score it 6, metastatic",
    ),
    ("C7B", "secondary neuroendocrine tumours", "the same"),
    ("C86", "other T/NK-cell lymphomas", "newer than the map, which has C81-C85 and C88"),
    ("D46", "myelodysplastic syndromes", "in the map of neither ICD-9 (238.7) nor ICD-10"),
    ("E08", "diabetes due to another condition", "ICD-10-CM's own; the map has E10-E14"),
    ("E09", "drug-induced diabetes", "ICD-10-CM's own; the map has E10-E14"),
    ("K75", "other inflammatory liver diseases", "not in the map, though ICD-9's 573.3 (hepatitis, unspecified) is"),
]
"""codes that a reader may expect in a category and the published map does not hold"""


def all_codes() -> list[tuple[str, str, str]]:
    """(system, code without dot, title) of ICD-9-CM v32 and of ICD-10-CM 2018 and 2021, headings included."""
    nine = (ICD / "CMS32_DESC_LONG_DX.txt").read_text("latin-1").splitlines()
    found = {(NINE, line.split()[0]): line.split(None, 1)[1].strip() for line in nine if line.strip()}
    with zipfile.ZipFile(ICD / "icd10dx.zip") as archive:
        name = next(n for n in archive.namelist() if n.endswith("icd10cm_codes_2018.txt"))
        for line in archive.read(name).decode("latin-1").splitlines():
            if line.strip():
                found.setdefault((TEN, line.split()[0]), line.split(None, 1)[1].strip())
    with gzip.open(ICD / "icd10cm-order-Jan-2021.csv.gz", "rt", encoding="latin-1", newline="") as lines:
        for row in list(csv.reader(lines))[1:]:
            found[(TEN, row[0].strip())] = row[3].strip()
    return [(system, code, title) for (system, code), title in sorted(found.items())]


def our_scores(codes: Iterable[tuple[str, str, str]], weights: Weights) -> dict[str, int]:
    """Score a stay of (stay, system, code)."""
    import duckdb
    import pyarrow as pa

    rows = list(codes)
    database = duckdb.connect()
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(("stay_id", "code_system", "code"))})
    database.register("stay_codes", table)
    score_codes(database, weights)
    return dict(database.execute("SELECT * FROM charlson_scores").fetchall())


def our_categories(system: str, code: str) -> frozenset[str]:
    """Categories that a code belongs to, before a severe form silences a mild one."""
    return frozenset(row.category for row in _prefixes(system, code[:3]) if code.startswith(row.prefix))


_BY_START: dict[tuple[str, str], list[Any]] = {}


def _prefixes(system: str, start: str) -> list[Any]:
    if not _BY_START:
        for row in read_map():
            _BY_START.setdefault((row.code_system, row.prefix[:3]), []).append(row)
    return _BY_START.get((system, start), [])


def their_scores(
    stays: Iterable[tuple[str, str, str]], weights: Weights, ages: dict[str, float] | None = None
) -> tuple[dict[str, int], dict[str, frozenset[str]], dict[str, int]]:
    """pycomorb's score a stay of (stay, system, code), its categories where there are any, and its score with age."""
    import polars as pl
    from pycomorb import CharlsonComorbidityIndex

    rows = list(stays)
    frame = pl.DataFrame(
        {
            "id": [row[0] for row in rows],
            # "ICD-9" to the letter: it reads any other word as ICD-10, without a warning
            "version": [{NINE: "ICD-9", TEN: "ICD-10"}[row[1]] for row in rows],
            "code": [row[2] for row in rows],
            "age": [float((ages or {}).get(row[0], 30.0)) for row in rows],
        }
    )
    found = CharlsonComorbidityIndex(
        frame,
        icd_version="icd9_10",
        icd_version_col="version",
        implementation="quan",
        weights=PYCOMORB[weights],
        return_categories=True,
    )
    # its rows come in no fixed order: by id
    scores = dict(zip(found["id"], found["Charlson Comorbidity Index"], strict=True))
    with_age = dict(zip(found["id"], found["Charlson Age-Comorbidity Score"], strict=True))
    categories: dict[str, frozenset[str]] = {}
    for category in sorted({row.category for row in read_map()}):
        name = CATEGORIES.get(category, category[0].upper() + category[1:])
        for stay in found.filter(pl.col(name).cast(pl.Int64) > 0)["id"]:
            categories[stay] = categories.get(stay, frozenset()) | {category}
    return scores, categories, with_age


def tables() -> str:
    """The generated half of the page."""
    codes = all_codes()
    titles = {f"{system}:{code}": title for system, code, title in codes}
    lone = [(f"{system}:{code}", system, code) for system, code, _ in codes]
    theirs: dict[Weights, dict[str, int]] = {}
    for weights in PYCOMORB:
        theirs[weights], their_categories, _ = their_scores(lone, weights)
    ours = {weights: our_scores(lone, weights) for weights in PYCOMORB}
    lines = [
        "| code list | codes | in a category | other category in pycomorb | other score, weights of 1987 | of 2011 |",
        "|---|---|---|---|---|---|",
    ]
    apart: dict[str, list[str]] = {}
    for system, name in ((NINE, "ICD-9-CM v32"), (TEN, "ICD-10-CM 2018 and 2021, with headings")):
        keys = [key for key, of, _ in lone if of == system]
        in_map = {key: our_categories(system, key.split(":")[1]) for key in keys}
        other = [key for key in keys if in_map[key] != their_categories.get(key, frozenset())]
        differ = {w: [key for key in keys if ours[w][key] != theirs[w][key]] for w in PYCOMORB}
        for key in {*other, *differ[1987], *differ[2011]}:
            apart.setdefault(_reason(key), []).append(key)
        counts = (
            len(keys),
            sum(bool(found) for found in in_map.values()),
            len(other),
            *(len(differ[w]) for w in PYCOMORB),
        )
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    lines += ["", *_disagreements(apart, titles, ours, theirs), "", *_newer(codes)]
    return "\n".join(lines) + "\n"


def _reason(key: str) -> str:
    return next((why for prefix, why in REASONS.items() if key.startswith(prefix)), "not explained")


def _disagreements(
    apart: dict[str, list[str]],
    titles: dict[str, str],
    ours: dict[Weights, dict[str, int]],
    theirs: dict[Weights, dict[str, int]],
) -> list[str]:
    if not apart:
        return ["There is no code on which the two disagree, so there is nothing to explain: no side was taken."]
    lines = ["| code | title | ours, 1987 / 2011 | pycomorb's | why |", "|---|---|---|---|---|"]
    for why, keys in sorted(apart.items()):
        for key in sorted(keys):
            us = " / ".join(str(ours[w][key]) for w in PYCOMORB)
            them = " / ".join(str(theirs[w][key]) for w in PYCOMORB)
            lines.append(f"| {key.replace(':', ' ')} | {titles[key]} | {us} | {them} | {why} |")
    return lines


def _newer(codes: list[tuple[str, str, str]]) -> list[str]:
    lines = ["| ICD-10-CM | what | codes in the lists | score | why |", "|---|---|---|---|---|"]
    for prefix, what, why in NEWER:
        found = [code for system, code, _ in codes if system == TEN and code.startswith(prefix)]
        scores = set(our_scores(((code, TEN, code) for code in found), 1987).values())
        lines.append(f"| {prefix} | {what} | {len(found)} | {', '.join(map(str, sorted(scores)))} | {why} |")
    return lines


START, END = "<!-- generated by docs/compare_charlson.py -->", "<!-- end -->"


def between_marks(page: str) -> str:
    """What the page holds between its marks."""
    return page.split(START, 1)[1].split(END, 1)[0].strip() + "\n"


if __name__ == "__main__":
    made = tables()
    if "--write" in sys.argv:
        text = PAGE.read_text(encoding="utf-8")
        head, tail = text.split(START, 1)[0], text.split(END, 1)[1]
        PAGE.write_text(f"{head}{START}\n\n{made}\n{END}{tail}", encoding="utf-8")
    else:
        print(made, end="")
