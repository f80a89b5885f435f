"""The Charlson Comorbidity Index of a stay's ICD codes: the map of Quan 2005 with the weights of Charlson 1987.

`charlson.csv` is Table 1 of Quan H et al., Coding algorithms for defining comorbidities in ICD-9-CM and ICD-10
administrative data, Med Care 2005;43:1130-9 (enhanced ICD-9-CM and ICD-10), typed in by hand: `published` is the
entry as the table prints it, `prefix` what a code must begin with. Weights: Charlson ME et al., J Chronic Dis
1987;40:373-83, or, by option, those of Quan H et al., Am J Epidemiol 2011;173:676-82. No age points (the paper's 69 %
of zeros speak against them) unless an option adds them (Charlson M et al., J Clin Epidemiol 1994;47:1245-51). Codes
that ICD-10-CM added after the map was published (C4A, C7A, C7B, C86, ...) belong to no category, as in the paper that
we follow. docs/charlson.md compares every code with another program.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, NamedTuple

from lang1.tasks.database import run_sql

if TYPE_CHECKING:
    import duckdb

Weights = Literal[1987, 2011]


class Prefix(NamedTuple):
    """A line of charlson.csv."""

    category: str
    weight: int
    """of 1987"""
    weight_2011: int
    code_system: str
    published: str
    prefix: str


def read_map() -> list[Prefix]:
    """Every line of charlson.csv."""
    lines = (files("lang1.tasks") / "charlson.csv").read_text(encoding="utf-8").splitlines()
    return [Prefix(row[0], int(row[1]), int(row[2]), *row[3:]) for row in csv.reader(lines[1:])]


def score_codes(
    database: duckdb.DuckDBPyConnection, weights: Weights | Mapping[str, int] = 1987, has_age_points: bool = False
) -> None:
    """From the table `stay_codes` (stay_id, code_system, code) to `charlson_scores` (stay_id, score).

    `weights`: a published set by its year, or those of another index by category, which give every other category 0.
    `has_age_points` reads the age at admission from the table `stays` too.
    """
    import pyarrow as pa

    rows = read_map()
    chosen = {
        "category": [row.category for row in rows],
        "weight": [_weight(row, weights) for row in rows],
        "code_system": [row.code_system for row in rows],
        "prefix": [row.prefix for row in rows],
    }
    database.register("charlson", pa.table(chosen))
    run_sql(database, "charlson")
    database.unregister("charlson")
    if has_age_points:
        run_sql(database, "charlson_age")


def _weight(row: Prefix, weights: Weights | Mapping[str, int]) -> int:
    if isinstance(weights, Mapping):
        return weights.get(row.category, 0)
    return row.weight if weights == 1987 else row.weight_2011
