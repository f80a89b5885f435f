"""`duplicates`: exact and near copies are found, the earliest stays, removal is by choice, and bytes do not move."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from corpus_records import file_hashes, note, prose, write_corpus, write_records
from datasketch import MinHash, MinHashLSH

from lang1 import runs
from lang1.config import CleanConfig, DuplicatesConfig, TokenizeConfig
from lang1.corpus import clean, find_duplicates, tokenize
from lang1.corpus.duplicates import bands_of
from lang1.corpus.schema import CLEAN_NOTES
from lang1.errors import ConfigError, InputError

DATA = Path(os.environ.get("LANG1_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
CFG = DuplicatesConfig(threads=1, memory_gb=0.5)
VOCABULARY = [f"word{i}" for i in range(2000)]


def text_of(number: int, words: int = 120) -> str:
    """A text of its own: two numbers share hardly a shingle."""
    return " ".join(random.Random(number).choices(VOCABULARY, k=words))


def changed(text: str, words: int, seed: int) -> str:
    """The text with some words exchanged, spread over it."""
    draw, parts = random.Random(seed), text.split()
    for place in draw.sample(range(len(parts)), words):
        parts[place] = f"other{draw.randrange(10**6)}"
    return " ".join(parts)


def find(rows: list[dict[str, Any]], folder: Path, cfg: DuplicatesConfig = CFG) -> tuple[dict[str, Any], list[Any]]:
    corpus = write_corpus(folder, rows)
    manifest = find_duplicates(cfg, corpus=corpus, out=folder / "dup", seed=1)
    return manifest["counts"], pq.read_table(folder / "dup" / "clusters.parquet").to_pylist()


def shingles(text: str, n: int = 5) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


def jaccard(a: str, b: str) -> float:
    first, second = shingles(a), shingles(b)
    return len(first & second) / len(first | second)


# --- exact and near ----------------------------------------------------------------------------------------------


def test_copies_are_found_whoever_they_are_of_and_the_earliest_signed_stays(tmp_path: Path) -> None:
    same, late = text_of(1), datetime(2024, 1, 1)
    rows = [
        note(0, same, note_id="b", patient_id="p1", signed_time=late),
        note(1, same, note_id="c", patient_id="p2", signed_time=datetime(2021, 1, 1)),
        note(2, same, note_id="a", patient_id="p2", signed_time=datetime(2021, 1, 1)),  # of equal times the smaller id
        note(3, same, note_id="0", patient_id="p2", signed_time=None, written_time=None),  # no time: after all others
        note(4, text_of(2), note_id="d"),
    ]
    counts, clusters = find(rows, tmp_path)
    assert [(c["note_id"], c["kind"], c["kept"], c["same_patient"]) for c in clusters] == [
        ("a", "kept", True, True),
        ("c", "exact", False, True),
        ("b", "exact", False, False),
        ("0", "exact", False, True),
    ]
    assert {c["cluster_id"] for c in clusters} == {"a"}
    assert (counts["notes"], counts["distinct_texts"], counts["exact_duplicates"]) == (5, 2, 3)
    assert (counts["exact_duplicates_of_another_patient"], counts["near_duplicates"]) == (1, 0)
    assert (counts["notes_left_without_exact"], counts["notes_left_without_near"]) == (2, 2)


def test_planted_near_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    rows, near, far = [], [], []
    for i in range(60):
        original = text_of(i)
        rows.append(note(len(rows), original, note_id=f"o{i:02d}"))
        near.append((f"o{i:02d}", f"n{i:02d}", changed(original, 1, i).upper()))  # one word, and capitals
        far.append((f"o{i:02d}", f"f{i:02d}", changed(original, 16, i)))
    for _, note_id, text in [*near, *far]:
        rows.append(note(len(rows), text, note_id=note_id))
    texts = {row["note_id"]: row["text"] for row in rows}
    assert min(jaccard(texts[a], texts[b]) for a, b, _ in near) > 0.9
    assert max(jaccard(texts[a], texts[b]) for a, b, _ in far) < 0.55
    counts, clusters = find(rows, tmp_path)
    found = {(c["cluster_id"], c["note_id"]) for c in clusters if c["kind"] == "near"}
    assert found == {(a, b) for a, b, _ in near}
    assert counts["near_duplicates"] == counts["clusters"] == 60
    worst = max(abs(c["similarity"] - jaccard(texts[c["note_id"]], texts[c["cluster_id"]])) for c in clusters)
    assert worst < 0.12  # four standard errors of an estimate from 128 numbers at 0.9


def test_near_pairs_agree_with_another_library(tmp_path: Path) -> None:
    rows = []
    for i in range(80):
        original = text_of(i)
        copies = [changed(original, words, i + words) for words in (1, 2, 4, 8)]
        rows += [note(len(rows) + k, text, note_id=f"{i:02d}-{k}") for k, text in enumerate([original, *copies])]
    texts = {row["note_id"]: row["text"] for row in rows}
    _, clusters = find(rows, tmp_path)
    ours = {(c["cluster_id"], c["note_id"]) for c in clusters if c["kind"] == "near"}
    index = MinHashLSH(threshold=0.8, num_perm=128)
    theirs: set[tuple[str, str]] = set()
    signatures = {}
    for note_id, text in texts.items():  # in time order, as ours
        signature = MinHash(num_perm=128)
        signature.update_batch([s.encode() for s in shingles(text)])
        earlier = [k for k in index.query(signature) if signature.jaccard(signatures[k]) >= 0.8]
        if earlier:
            theirs.add((min(earlier), note_id))
        else:
            index.insert(note_id, signature)
        signatures[note_id] = signature
    for found in (ours, theirs):
        sure = {(a, b) for a in texts for b in texts if a < b and a[:2] == b[:2] and jaccard(texts[a], texts[b]) > 0.93}
        assert {b for _, b in found} >= {b for _, b in sure if b.endswith("1")}
        assert min(jaccard(texts[a], texts[b]) for a, b in found) > 0.65
    assert len(ours & theirs) / len(ours | theirs) > 0.8  # they differ where the similarity is about the threshold


def test_a_chain_of_small_changes_does_not_shrink_to_its_first(tmp_path: Path) -> None:
    """Each note is near to the one before it and the last is far from the first: both ends stay."""
    chain, rows = text_of(1, 200), []
    for day in range(12):
        parts = chain.split()
        parts[day * 16 : day * 16 + 16] = [f"day{day}x{k}" for k in range(16)]
        chain = " ".join(parts)
        rows.append(note(day, chain, note_id=f"{day:02d}", patient_id="p"))
    texts = {row["note_id"]: row["text"] for row in rows}
    assert all(jaccard(a["text"], b["text"]) > 0.8 for a, b in itertools.pairwise(rows))
    assert jaccard(texts["00"], texts["11"]) < 0.2
    _, clusters = find(rows, tmp_path, replace(CFG, near_similarity=0.75, permutations=512))
    assert {c["cluster_id"] for c in clusters if c["kind"] == "near"} > {"00"}
    assert all(jaccard(texts[c["note_id"]], texts[c["cluster_id"]]) > 0.65 for c in clusters)
    assert not [
        c
        for c in clusters
        if c["kind"] == "near" and any(k["note_id"] == c["cluster_id"] and not k["kept"] for k in clusters)
    ]


def test_a_form_that_every_ward_prints_is_one_cluster(tmp_path: Path) -> None:
    """More copies in one bucket than are compared each with each: all follow the first."""
    form = text_of(9, 150)
    rows = [note(i, changed(form, 1, i), note_id=f"{i:03d}", patient_id=f"p{i}") for i in range(120)]
    counts, clusters = find(rows, tmp_path)
    assert counts["crowded_keys"] > 0
    assert Counter(c["kind"] for c in clusters) == {"near": 119, "kept": 1}
    assert {c["cluster_id"] for c in clusters} == {"000"}


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_bands_find_nearly_all_pairs_at_the_threshold(similarity: float) -> None:
    bands, rows = bands_of(128, similarity)
    assert bands * rows <= 128
    assert 1 - (1 - similarity**rows) ** bands >= 0.99
    assert 1 - (1 - similarity ** (rows + 1)) ** (128 // (rows + 1)) < 0.99


# --- the same bytes ------------------------------------------------------------------------------------------------


def crowd(count: int = 300) -> list[dict[str, Any]]:
    """Originals, exact and near copies, several patients, some without a time."""
    rows = []
    for i in range(count):
        kind = i % 5
        text = text_of(i // 5) if kind < 2 else changed(text_of(i // 5), kind - 1, i)
        signed = None if i % 11 == 0 else datetime(2020, 1, 1 + (i * 7) % 28)
        rows.append(note(i, text, patient_id=f"p{i % 9}", signed_time=signed, written_time=None))
    return rows


def test_threads_and_memory_do_not_move_a_byte(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, crowd())
    hashes = []
    for name, cfg in (("a", CFG), ("b", replace(CFG, threads=4, memory_gb=0.3))):
        find_duplicates(cfg, corpus=corpus, out=tmp_path / name, seed=1)
        hashes.append(file_hashes(tmp_path / name))
    assert hashes[0] == hashes[1]
    assert "clusters.parquet" in hashes[0]


def test_the_cut_into_files_and_the_order_of_rows_do_not_matter(tmp_path: Path) -> None:
    whole = write_corpus(tmp_path, crowd())
    table = pq.read_table(whole / "notes").cast(CLEAN_NOTES)
    order = list(range(len(table)))
    random.Random(2).shuffle(order)
    shuffled = table.take(order)
    for part in range(4):
        path = tmp_path / "cut" / "notes" / f"part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(shuffled.slice(part * 80, 80), path, row_group_size=17)
    for name, corpus in (("a", whole), ("b", tmp_path / "cut")):
        find_duplicates(CFG, corpus=corpus, out=tmp_path / name, seed=1)
    for file in ("clusters.parquet", "copied.parquet", "copied.csv", "copied_histogram.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    left = [
        Counter(
            (r["note_id"], r["kind"])
            for p in (tmp_path / n / "left_out").iterdir()
            for r in pq.read_table(p).to_pylist()
        )
        for n in ("a", "b")
    ]
    assert left[0] == left[1]


def test_a_run_killed_between_parts_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path, crowd())
    table = pq.read_table(corpus / "notes").cast(CLEAN_NOTES)
    cut = tmp_path / "cut" / "notes"
    cut.mkdir(parents=True)
    for part in range(3):
        pq.write_table(table.slice(part * 100, 100), cut / f"part-{part:05d}.parquet")
    find_duplicates(CFG, corpus=cut.parent, out=tmp_path / "whole", seed=1)
    from lang1.corpus import duplicates

    made = duplicates._signatures
    calls: list[int] = []

    def dies(*arguments: Any) -> pa.Table:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return made(*arguments)

    monkeypatch.setattr(duplicates, "_signatures", dies)
    with pytest.raises(KeyboardInterrupt):
        find_duplicates(CFG, corpus=cut.parent, out=tmp_path / "killed", seed=1)
    find_duplicates(CFG, corpus=cut.parent, out=tmp_path / "killed", seed=1)
    assert len(calls) == 4  # the first part's signatures were kept
    assert file_hashes(tmp_path / "killed") == file_hashes(tmp_path / "whole")


# --- copied forward ------------------------------------------------------------------------------------------------


def copied_of(folder: Path) -> dict[str, tuple[int, int, bool]]:
    rows = pq.read_table(folder / "dup" / "copied.parquet").to_pylist()
    return {r["note_id"]: (r["copied_words"], r["words"], r["has_earlier"]) for r in rows}


def test_words_that_stand_in_an_earlier_note_of_the_patient_are_counted(tmp_path: Path) -> None:
    old, new = text_of(1, 40).split(), text_of(2, 40).split()
    rows = [
        note(1, " ".join(old), note_id="first", patient_id="p"),
        note(2, " ".join(new[:10] + old[5:25] + new[10:30]), note_id="copies", patient_id="p"),
        note(3, " ".join(new[:10] + old[5:12] + new[30:]), note_id="short runs", patient_id="p"),
        note(0, " ".join(old), note_id="before", patient_id="q"),  # of another patient, though earlier
        note(4, " ".join(w.upper() for w in old), note_id="capitals", patient_id="p"),
        note(5, " ".join(old[20:] + old[:20]), note_id="turned", patient_id="p"),
    ]
    counts, _ = find(rows, tmp_path)
    assert copied_of(tmp_path) == {
        "before": (0, 40, False),
        "first": (0, 40, False),
        "copies": (20, 50, True),
        "short runs": (17, 27, True),  # new[:10] + old[5:12] is one run of 17 in "copies"
        "capitals": (0, 40, True),
        "turned": (40, 40, True),
    }
    assert (counts["copied_words"], counts["words"]) == (77, 237)


def slow_copied(rows: list[dict[str, Any]], n: int) -> dict[str, int]:
    """The definition, word by word."""
    found: dict[str, int] = {}
    known: dict[str, set[tuple[str, ...]]] = {}
    last = datetime.max
    for row in sorted(rows, key=lambda r: (r["patient_id"], r["signed_time"] or last, r["note_id"])):
        words, seen = row["text"].split(), known.setdefault(row["patient_id"], set())
        runs_of_n = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        covered = {i + k for i, run in enumerate(runs_of_n) if run in seen for k in range(n)}
        seen.update(runs_of_n)
        found[row["note_id"]] = len(covered)
    return found


@pytest.mark.parametrize("batch", [1, 3, 2048])
def test_shares_equal_the_plain_definition_whatever_the_batches(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lang1.corpus import copied

    draw = random.Random(5)
    rows = []
    for i in range(90):
        text = " ".join(prose(draw.randrange(12), 12) for _ in range(draw.randint(1, 5)))
        rows.append(note(i, text, note_id=f"{i:02d}", patient_id=f"p{draw.randrange(6)}"))
    rows[7]["signed_time"] = rows[7]["written_time"] = None
    monkeypatch.setattr(copied, "BATCH_ROWS", batch)
    batches = copied._iter_copied

    def in_small_batches(given: Any, n: int) -> Any:
        return batches((b.slice(k, batch) for b in given for k in range(0, len(b), batch)), n)

    monkeypatch.setattr(copied, "_iter_copied", in_small_batches)
    counts, _ = find(rows, tmp_path)
    assert {note_id: words for note_id, (words, _, _) in copied_of(tmp_path).items()} == slow_copied(rows, 8)
    assert counts["notes_without_a_time"] == 1
    assert counts["notes_with_an_earlier_one"] == 90 - 6


def test_the_table_by_group_adds_up(tmp_path: Path) -> None:
    rows = [
        note(i, text_of(0 if i % 3 else i), note_type="H&P" if i % 2 else "progress", department=None)
        for i in range(24)
    ]
    find(rows, tmp_path)
    table = pyarrow.csv.read_csv(tmp_path / "dup" / "copied.csv").to_pylist()
    whole, *groups = table
    assert (whole["group"], whole["notes"]) == ("all", 24)
    for name in ("note_type", "author_role", "department"):
        mine = [g for g in groups if g["group"] == name]
        for column in ("notes", "words", "copied_words", "notes_half_copied", "notes_with_an_earlier_one"):
            assert sum(g[column] for g in mine) == whole[column]
    assert [g["value"] for g in groups if g["group"] == "department"] == ["unknown"]
    histogram = pyarrow.csv.read_csv(tmp_path / "dup" / "copied_histogram.csv").to_pylist()
    assert sum(row["notes"] for row in histogram) == whole["notes_with_an_earlier_one"]
    assert whole["notes_half_copied"] == sum(row["notes"] for row in histogram if row["share_from"] >= 0.5) > 0


# --- removal by choice ---------------------------------------------------------------------------------------------

TOKENIZE = TokenizeConfig(vocab_size=400, validation_fraction=0.2)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    rows = [row for row in crowd(100) if row["signed_time"] is not None]
    find(rows, folder)
    return folder


@pytest.mark.parametrize("drop", ["none", "exact", "near"])
def test_tokenize_leaves_out_what_it_is_told_and_counts_it(drop: str, marked: Path, tmp_path: Path) -> None:
    named = None if drop == "none" else str(marked / "dup")
    cfg = replace(TOKENIZE, drop_duplicates=drop, duplicates=named)
    counts = tokenize(cfg, corpus=marked / "corpus", out=tmp_path / "t", seed=1)["counts"]
    found = runs.read_manifest(marked / "dup")["counts"]
    exact = found["exact_duplicates"] if drop != "none" else 0
    near = found["near_duplicates"] if drop == "near" else 0
    assert found["exact_duplicates"] > 0 and found["near_duplicates"] > 0
    assert counts.get("left_out_exact_duplicate", 0) == exact
    assert counts.get("left_out_near_duplicate", 0) == near
    documents = pq.read_table(tmp_path / "t" / "documents.parquet")
    assert len(documents) == found["notes"] - exact - near
    if drop == "near":
        kept = pq.read_table(marked / "dup" / "clusters.parquet").to_pylist()
        left_out = {row["note_id"] for row in kept if not row["kept"]}
        notes = pq.read_table(marked / "corpus" / "notes").to_pylist()
        wanted = Counter(row["note_hash"] for row in notes if row["note_id"] not in left_out)
        assert Counter(documents["note_hash"].to_pylist()) == wanted


def test_a_run_that_was_moved_is_still_up_to_date(marked: Path, tmp_path: Path) -> None:
    shutil.copytree(marked, tmp_path / "moved")
    cfg = replace(TOKENIZE, drop_duplicates="exact")
    for root in (marked, tmp_path / "moved"):
        named = replace(cfg, duplicates=str(root / "dup"))
        manifest = tokenize(named, corpus=root / "corpus", out=tmp_path / "t", seed=1)
    assert "duplicates" in manifest["inputs"]


def test_duplicates_of_another_corpus_or_stage_are_refused(marked: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path, crowd(20))
    cfg = replace(TOKENIZE, drop_duplicates="exact", duplicates=str(marked / "dup"))
    with pytest.raises(InputError, match="found in another corpus"):
        tokenize(cfg, corpus=other, out=tmp_path / "t", seed=1)
    wrong = replace(cfg, duplicates=str(marked / "corpus"))
    with pytest.raises(InputError, match="written by the stage clean, not duplicates"):
        tokenize(wrong, corpus=marked / "corpus", out=tmp_path / "t", seed=1)
    with pytest.raises(ConfigError, match=r"give tokenize\.duplicates"):
        tokenize(replace(cfg, duplicates=None), corpus=marked / "corpus", out=tmp_path / "t", seed=1)
    with pytest.raises(ValueError, match="drop_duplicates"):
        replace(cfg, drop_duplicates="none")


def test_a_folder_that_is_no_corpus_is_refused_with_its_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column words, note_hash; it is no part of a cleaned corpus"):
        find_duplicates(CFG, corpus=write_records(tmp_path / "r", [note(0, "x")]), out=tmp_path / "d", seed=1)
    broken = tmp_path / "broken" / "notes"
    broken.mkdir(parents=True)
    (broken / "part-00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"part-00000\.parquet: not readable"):
        find_duplicates(CFG, corpus=broken.parent, out=tmp_path / "d", seed=1)
    corpus = write_corpus(tmp_path, crowd(10))
    twice = tmp_path / "twice" / "notes"
    shutil.copytree(corpus / "notes", twice)
    shutil.copy(twice / "part-00000.parquet", twice / "part-00001.parquet")
    with pytest.raises(InputError, match=r"note_id is not unique \(10 rows"):
        find_duplicates(CFG, corpus=twice.parent, out=tmp_path / "d", seed=1)


# --- real reports --------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> pa.Table:
    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))


@pytest.fixture(scope="module")
def reports() -> list[str | None]:
    path = DATA / "mtsamples" / "mtsamples.csv.gz"
    if not path.exists():
        pytest.skip("no mtsamples in LANG1_DATA")
    texts: list[str | None] = read_csv(path)["transcription"].to_pylist()
    return texts


def test_real_reports_filed_twice_are_counted_exactly(reports: list[str | None], tmp_path: Path) -> None:
    rows = [note(i, text, patient_id=f"p{i}") for i, text in enumerate(reports)]
    clean(CleanConfig(workers=1, min_words=0), records=write_records(tmp_path / "r", rows), out=tmp_path / "c", seed=1)
    counts = find_duplicates(CFG, corpus=tmp_path / "c", out=tmp_path / "dup", seed=1)["counts"]
    kept = [int(i[1:]) for i in pq.read_table(tmp_path / "c" / "notes", columns=["note_id"])["note_id"].to_pylist()]
    assert len(reports) == 4999
    assert len({text for text in reports if text}) == 2357
    assert counts["notes"] == len(kept)
    # cleaning makes two of them one: they differ in spaces before a comma
    assert counts["distinct_texts"] == len({re.sub(r"\s+(?=,)", "", str(reports[i])) for i in kept}) == 2356
    assert counts["exact_duplicates"] == len(kept) - counts["distinct_texts"] > 2500
    assert 3 <= counts["near_duplicates"] <= 8  # four pairs by counting every shingle, one more near the threshold


def test_sections_that_were_cut_from_reports_are_measured_as_copied(reports: list[str | None], tmp_path: Path) -> None:
    """MTS-Dialog's sections stand in MTSamples: no near duplicates (a part is not the whole), but copied forward."""
    folder = DATA / "mts_dialog"
    if not folder.exists():
        pytest.skip("no mts_dialog in LANG1_DATA")
    sections = read_csv(folder / "MTS-Dialog-ValidationSet.csv")["section_text"].to_pylist()
    long = [s for s in sections if len(s.split()) >= 30]
    whole = sorted({text for text in reports if text})
    rows = [note(0, text, note_id=f"r{i}", patient_id="all") for i, text in enumerate(whole)]
    rows += [note(1, text, note_id=f"s{i}", patient_id="all") for i, text in enumerate(long)]
    counts, _ = find(rows, tmp_path)
    found = copied_of(tmp_path)
    shares = sorted(found[f"s{i}"][0] / found[f"s{i}"][1] for i in range(len(long)) if f"s{i}" in found)
    assert len(shares) > 20
    assert sum(share > 0.5 for share in shares) / len(shares) > 0.85
    assert counts["near_duplicates"] < 0.1 * len(whole)
