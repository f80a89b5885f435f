"""Hashes of word shingles agree with plain Python, whatever the slices, and note borders are kept."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from lang1.corpus import shingles
from lang1.corpus.shingles import shingle_notes


def plainly(text: str, n: int, fold_case: bool, whole: bool) -> list[tuple[str, ...]]:
    words = (text.lower() if fold_case else text).split(" ") if text else []
    found = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return found or ([tuple(words)] if whole else [])


def notes() -> list[str]:
    draw = random.Random(1)
    words = ["alpha", "beta", "Alpha", "120/80", "mg,", "x" * 5000, "a"]
    return [" ".join(draw.choices(words, [9, 9, 9, 5, 5, 0.05, 5], k=draw.randint(0, 40))) for _ in range(400)]


@pytest.mark.parametrize("slice_bytes", [64, 1000, 1 << 17])
@pytest.mark.parametrize(("fold_case", "whole"), [(False, True), (True, False)])
def test_equal_shingles_and_no_others_share_a_hash(
    slice_bytes: int, fold_case: bool, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shingles, "SLICE_BYTES", slice_bytes)
    texts = notes()
    found = shingle_notes(pa.array(texts, pa.large_string()), 5, fold_case, whole)
    names: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        hashes = found.hashes[found.offsets[i] : found.offsets[i + 1]].tolist()
        wanted = plainly(text, 5, fold_case, whole)
        assert len(hashes) == len(wanted)
        assert found.words[i] == len(text.split())
        assert all(names.setdefault(name, value) == value for name, value in zip(wanted, hashes, strict=True))
    assert len(set(names.values())) == len(names) > 1000


def test_a_batch_gives_what_its_notes_give_alone_in_any_kind_of_array() -> None:
    texts = notes()[:50]
    together = shingle_notes(pa.array(texts, pa.large_string()), 4)
    again = shingle_notes(pa.chunked_array([texts[:7], texts[7:]], pa.string()), 4)
    assert together.hashes.tolist() == again.hashes.tolist()
    sliced = shingle_notes(pa.array(["not this", *texts, "nor this"]).slice(1, 50), 4)
    assert sliced.hashes.tolist() == together.hashes.tolist()
    alone = [h for text in texts for h in shingle_notes(pa.array([text]), 4).hashes.tolist()]
    assert alone == together.hashes.tolist()


def test_hashes_are_the_same_on_every_machine() -> None:
    found = shingle_notes(pa.array(["patient denies chest pain"]), 4)
    assert found.hashes.tolist() == [17843090623286393188]
