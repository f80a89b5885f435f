"""Conditions that cut a query on PostgreSQL into ranges of its id, each of which an index on the id can serve.

Records are sorted by id as text, and there 10 comes before 9. Ranges of whole numbers follow that order too: between
two cuts lie, for each count of digits, the numbers whose text lies between them. Rows that are read so are sorted a
partition at a time (extraction.py), and never as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lang1.ehr.rules import literal

WIDEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
"""whole numbers of PostgreSQL, and the largest of each"""
ORDERED = {*WIDEST, "uuid"}
"""types whose partitions come in the order of the ids' text; text itself has the order of its collation"""


def spread(ids: Sequence[str], n: int) -> list[str]:
    """Cuts that share out a sorted sample of ids among `n` ranges; fewer where the ids are few."""
    every = max(1, len(ids) // n)
    return list(dict.fromkeys(ids[every::every]))[: n - 1]


def between_bounds(bounds: Sequence[str], n: int) -> list[str]:
    """`n` whole numbers, sorted, as a sample would have them: between two bounds lie about as many rows each.

    None where there are no two bounds.
    """
    numbers = [int(bound) for bound in bounds]
    steps = len(numbers) - 1
    if steps < 1:
        return []
    found = []
    for i in range(n):
        step, rest = divmod(i * steps, n)
        found.append(numbers[step] + (numbers[step + 1] - numbers[step]) * rest // n)
    return [str(number) for number in found]


def value_ranges(column: str, kind: str, cuts: Sequence[str]) -> list[str]:
    """Ranges in the order of the column's own type; a null id is in the last, which is sorted with nulls last."""
    values = [f"CAST({literal(cut)} AS {kind})" for cut in cuts]
    if not values:
        return [""]
    wheres = [f"{column} < {values[0]}"]
    wheres += [f"{column} >= {a} AND {column} < {b}" for a, b in itertools.pairwise(values)]
    return [*wheres, f"{column} >= {values[-1]} OR {column} IS NULL"]


def text_ranges(column: str, kind: str, cuts: Sequence[str]) -> list[str]:
    """Ranges of whole numbers in the order of their text; a null id is in the last, which is sorted with nulls last.

    `cuts`: numbers as text, in the order of text: first those below zero, since "-" comes before every digit.
    """
    most = WIDEST[kind]
    below = [cut.removeprefix("-") for cut in cuts if cut.startswith("-")]
    above = [cut for cut in cuts if not cut.startswith("-")]
    ranges = [[(-end, -start) for start, end in spans] for spans in _between(below, most + 1, least=1)]
    with_zero = _between(above, most, least=0)
    if not below:  # what there is below zero is no range of its own
        ranges = [ranges[0] + with_zero[0], *with_zero[1:]]
    else:
        ranges += with_zero
    wheres = [" OR ".join(f"{column} BETWEEN {start} AND {end}" for start, end in spans) for spans in ranges]
    return [*wheres[:-1], " OR ".join(filter(None, (wheres[-1], f"{column} IS NULL")))]


def _between(cuts: Sequence[str], most: int, least: int) -> list[list[tuple[int, int]]]:
    """The numbers from `least` to `most` whose text lies between two cuts, as spans; before the first and after the
    last cut too."""
    found = []
    for low, high in itertools.pairwise([None, *cuts, None]):
        spans = []
        for digits in range(1, len(str(most)) + 1):
            first = max(least, 0 if digits == 1 else 10 ** (digits - 1))
            start = first if low is None else max(first, _first(low, digits))
            end = min(10**digits - 1, most, most if high is None else _first(high, digits) - 1)
            if start <= end:
                spans.append((start, end))
        found.append(_joined(spans))
    return found


def _first(cut: str, digits: int) -> int:
    """The least number of so many digits whose text is not before `cut`."""
    if digits < len(cut):
        return int(cut[:digits]) + 1  # a text that only begins the cut comes before it
    return int(cut) * 10 ** (digits - len(cut))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours as one: all of 5 to 9 and of 10 to 19, say."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] + 1 == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
