"""The Charlson Comorbidity Index of a stay's ICD codes: the map of Quan 2005 with the weights of Charlson 1987.

`charlson.csv` is Table 1 of Quan H et al., Coding algorithms for defining comorbidities in ICD-9-CM and ICD-10
administrative data, Med Care 2005;43:1130-9 (enhanced ICD-9-CM and ICD-10), typed in by hand: `published` is the
entry as the table prints it, `prefix` what a code must begin with. Weights: Charlson ME et al., J Chronic Dis
1987;40:373-83. No age points (the paper's 69 % of zeros speak against them). Codes that ICD-10-CM added after the
map was published (C4A, C7A, C7B, C86, ...) belong to no category, as in the paper that we follow; docs/tasks.md
lists what that touches.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from lang1.tasks.database import run_sql

if TYPE_CHECKING:
    import duckdb


class Prefix(NamedTuple):
    """A line of charlson.csv."""

    category: str
    weight: int
    code_system: str
    published: str
    prefix: str


def read_map() -> list[Prefix]:
    """Every line of charlson.csv."""
    lines = (files("lang1.tasks") / "charlson.csv").read_text(encoding="utf-8").splitlines()
    return [Prefix(row[0], int(row[1]), *row[2:]) for row in csv.reader(lines[1:])]


def score_codes(database: duckdb.DuckDBPyConnection) -> None:
    """From the table `stay_codes` (stay_id, code_system, code) to `charlson_scores` (stay_id, score)."""
    import pyarrow as pa

    rows = read_map()
    table = pa.table({name: [getattr(row, name) for row in rows] for name in Prefix._fields})
    database.register("charlson", table)
    run_sql(database, "charlson")
    database.unregister("charlson")
