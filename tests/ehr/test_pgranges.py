"""Ranges of ids on PostgreSQL: each id in one of them, in the order of the ids' text."""

from __future__ import annotations

import random

import duckdb
import pytest

from lang1.ehr.pgranges import WIDEST, spread, text_ranges, value_ranges


def parts(ids: list[int | None], conditions: list[str]) -> list[list[int | None]]:
    """The ids that each condition gives."""
    con = duckdb.connect(":memory:")
    con.execute("CREATE TABLE q AS SELECT unnest(?::BIGINT[]) AS id", [ids])
    return [[row[0] for row in con.execute(f"SELECT id FROM q WHERE {c}").fetchall()] for c in conditions]


def in_text_order(ids: list[int | None]) -> list[int | None]:
    return sorted(ids, key=lambda i: (i is None, str(i)))


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint"])
@pytest.mark.parametrize("seed", range(5))
def test_partitions_of_whole_numbers_follow_the_order_of_their_text(kind: str, seed: int) -> None:
    rng = random.Random(f"{kind} {seed}")
    most = WIDEST[kind]
    digits = len(str(most))
    ids: list[int | None] = [rng.randrange(min(10 ** rng.randint(1, digits), most + 1)) for _ in range(500)]
    ids += [0, 1, 9, 10, 99, 100, most, most - 1, None, None]
    if seed % 2:  # a hash of 64 bits has half of its ids there
        ids += [-1, -10, -2, -most - 1, *(-1 - i for i in rng.choices([i for i in ids if i is not None], k=400))]
    cuts = spread(sorted(str(i) for i in rng.sample(ids, 60) if i is not None), rng.randint(3, 12))
    found = parts(ids, text_ranges("id", kind, cuts))
    assert sum(map(bool, found)) > len(cuts), "a cut cuts nothing"
    together = [i for part in found for i in in_text_order(part)]
    assert together == in_text_order(ids)


def test_dense_numbers_are_shared_out_evenly_though_text_puts_10_before_9() -> None:
    ids = list(range(1, 5_001))
    cuts = spread(sorted(str(i) for i in ids[::7]), 5)
    sizes = [len(part) for part in parts([*ids], text_ranges("id", "integer", cuts))]
    assert len(sizes) == 5
    assert all(900 <= size <= 1_100 for size in sizes)


def test_ranges_of_values_take_each_value_once_and_null_with_the_last() -> None:
    ids: list[int | None] = [5, 1, None, 3, 9, 7]
    assert parts(ids, value_ranges("id", "bigint", ["3", "7"])) == [[1], [5, 3], [None, 9, 7]]
    assert value_ranges("id", "bigint", []) == [""]  # no condition: all rows


def test_few_ids_give_few_cuts() -> None:
    assert spread([], 4) == []
    assert spread(["7"], 4) == []
    assert spread(["7"] * 50, 4) == ["7"]
