"""`tokenize`: a corpus version holds what the selection says, nothing of the time to come, and counts the rest."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_records import file_hashes, note, prose, write_corpus
from typer.testing import CliRunner

from lang1 import runs
from lang1.cli import app
from lang1.config import PretrainConfig, TokenizeConfig
from lang1.corpus import tokenize, tokenizer
from lang1.corpus.hashes import hash_id, patient_fold
from lang1.corpus.schema import DOCUMENTS
from lang1.corpus.shards import open_shards
from lang1.ehr.schema import ENCOUNTERS
from lang1.errors import InputError
from lang1.training.blocks import open_corpus

CFG = TokenizeConfig(vocab_size=400, end=date(2023, 6, 1), validation_fraction=0.2)
END = datetime(2023, 6, 1)


def rows() -> list[dict[str, Any]]:
    """60 notes from 2020 to 2024: some after the end, unsigned, of other categories and authors."""
    made = [note(i, f"{prose(i)} mark{i:03d}") for i in range(60)]
    for i in range(60):
        if i % 5 == 1:
            made[i] |= {"category": "radiology", "note_type": "radiology", "author_role": None}
        if i % 7 == 3:
            made[i]["signed_time"] = None
    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), rows())


def documents_of(tokens: Path, source: str = "clinical") -> dict[str, list[str]]:
    """Every document of the shards as text again, by split."""
    shards = open_shards(tokens)
    encoder = tokenizer.open_encoder(tokens / "tokenizer")
    found: dict[str, list[str]] = {}
    for split in ("train", "val"):
        ids = _stream(tokens, source, split)
        assert not ids or ids[-1] == shards.separator_id
        documents, current = [], []
        for i in ids:
            if i == shards.separator_id:
                documents.append(encoder.backend.decode(current, skip_special_tokens=False))
                current = []
            else:
                current.append(i)
        found[split] = documents
    return found


def all_of(documents: dict[str, list[str]]) -> list[str]:
    return documents["train"] + documents["val"]


def _stream(tokens: Path, source: str, split: str) -> list[int]:
    shards = open_shards(tokens)
    return [int(block[0]) for block in shards.blocks(source, split, 1)] + _last(tokens, source, split)


def _last(tokens: Path, source: str, split: str) -> list[int]:
    files = open_shards(tokens).blocks(source, split, 1).files
    return files[-1].read(files[-1].count - 1, files[-1].count).tolist() if files else []


def test_the_shards_hold_the_selected_notes_word_for_word(corpus: Path, tmp_path: Path) -> None:
    tokenize(CFG, corpus=corpus, out=tmp_path / "t", seed=3)
    found = documents_of(tmp_path / "t")
    wanted = [r["text"] for r in rows() if r["signed_time"] is not None and r["signed_time"] < END]
    assert sorted(found["train"] + found["val"]) == sorted(wanted)
    assert found["val"] and found["train"]
    assert found["train"] == [text for text in wanted if text in set(found["train"])]  # in the order of the corpus


def test_no_note_from_the_end_on_is_in_the_shards(corpus: Path, tmp_path: Path) -> None:
    last = note(42, None)["signed_time"]
    for end, holds in ((last.date(), False), (date(last.year, last.month, last.day + 1), True)):
        out = tmp_path / end.isoformat()
        tokenize(replace(CFG, end=end), corpus=corpus, out=out, seed=3)
        text = " ".join(all_of(documents_of(out)))
        later = [r["text"][-7:] for r in rows() if r["signed_time"] and r["signed_time"] > last]
        assert later and not [mark for mark in later if mark in text]
        assert ("mark042" in text) is holds
        listed = pq.read_table(out / "documents.parquet")["signed_time"].to_pylist()
        assert max(listed) < datetime(end.year, end.month, end.day)


def test_what_is_left_out_is_counted_by_reason_and_adds_up(corpus: Path, tmp_path: Path) -> None:
    cfg = replace(
        CFG,
        start=date(2020, 3, 1),
        categories=("hospital",),
        author_roles=("resident",),
        leave_out_folds=("val", "test"),
    )
    counts = tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)["counts"]
    expected: dict[str, int] = {}
    kept = []
    for row in rows():
        why = (
            "unsigned" if row["signed_time"] is None
            else "before_start" if row["signed_time"] < datetime(2020, 3, 1)
            else "from_end_on" if row["signed_time"] >= END
            else "category" if row["category"] != "hospital"
            else "fold" if patient_fold(3, row["patient_id"]) != "train"
            else None
        )  # fmt: skip
        kept += [row] if why is None else []
        expected[f"left_out_{why}"] = expected.get(f"left_out_{why}", 0) + 1
    del expected["left_out_None"]
    assert {k: n for k, n in counts.items() if k.startswith("left_out") and n} == expected
    assert counts["notes_in"] == 60 == len(kept) + sum(expected.values())
    assert counts["clinical_train_documents"] + counts["clinical_val_documents"] == len(kept)
    assert counts["clinical_train_patients"] + counts["clinical_val_patients"] == len({r["patient_id"] for r in kept})


def test_author_roles_are_kept_by_name_and_an_unknown_author_is_not(corpus: Path, tmp_path: Path) -> None:
    counts = tokenize(replace(CFG, author_roles=("resident",)), corpus=corpus, out=tmp_path / "t", seed=3)["counts"]
    signed = [r for r in rows() if r["signed_time"] and r["signed_time"] < END]
    assert counts["left_out_author_role"] == sum(r["author_role"] is None for r in signed) > 0


def test_patients_are_on_one_side_and_the_list_agrees_with_the_index(corpus: Path, tmp_path: Path) -> None:
    manifest = tokenize(CFG, corpus=corpus, out=tmp_path / "t", seed=3)
    table = pq.read_table(tmp_path / "t" / "documents.parquet")
    assert table.schema.equals(DOCUMENTS)
    listed = table.to_pylist()
    sides = [{r["patient_hash"] for r in listed if r["split"] == split} for split in ("train", "val")]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert sides[0] | sides[1] <= {hash_id(r["patient_id"]) for r in rows()}
    assert {r["note_hash"] for r in listed} == {hash_id(t) for t in all_of(documents_of(tmp_path / "t"))}
    index = runs.read_json(tmp_path / "t" / "index.json")["sources"]["clinical"]
    for split, texts in documents_of(tmp_path / "t").items():
        mine = [r for r in listed if r["split"] == split]
        facts = index[split]
        assert facts["tokens"] == sum(f["tokens"] for f in facts["files"]) == sum(r["tokens"] for r in mine)
        assert facts["documents"] == len(mine) == manifest["counts"][f"clinical_{split}_documents"]
        assert facts["words"] == sum(len(text.split()) for text in texts)
        assert facts["patients"] == len({r["patient_hash"] for r in mine})


def test_one_patient_is_held_out_where_the_share_takes_none_or_all(corpus: Path, tmp_path: Path) -> None:
    for share in (1e-9, 0.499):
        out = tmp_path / str(share)
        cfg = replace(CFG, validation_fraction=share, end=date(2020, 8, 1))  # two patients
        counts = tokenize(cfg, corpus=corpus, out=out, seed=2)["counts"]
        assert (counts["clinical_train_patients"], counts["clinical_val_patients"]) == (1, 1)
    only = replace(CFG, end=date(2020, 2, 1))
    counts = tokenize(only, corpus=corpus, out=tmp_path / "one", seed=2)["counts"]
    assert (counts["clinical_train_patients"], counts["clinical_val_patients"]) == (1, 0)


def test_records_without_any_time_are_kept_whole(tmp_path: Path) -> None:
    timeless = [row | {"signed_time": None, "written_time": None} for row in rows()]
    corpus = write_corpus(tmp_path, timeless)
    counts = tokenize(CFG, corpus=corpus, out=tmp_path / "t", seed=3)["counts"]
    assert counts["clinical_train_documents"] + counts["clinical_val_documents"] == 60
    assert not [k for k, n in counts.items() if k.startswith("left_out") and n]


def test_same_seed_same_bytes_and_another_seed_another_split(corpus: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        tokenize(CFG, corpus=corpus, out=tmp_path / name, seed=seed)
    assert file_hashes(tmp_path / "a") == file_hashes(tmp_path / "b")
    assert documents_of(tmp_path / "a")["val"] != documents_of(tmp_path / "c")["val"]


def test_shards_are_cut_at_the_size_asked_for(corpus: Path, tmp_path: Path) -> None:
    tokenize(CFG, corpus=corpus, out=tmp_path / "one", seed=3)
    tokenize(replace(CFG, shard_tokens=100), corpus=corpus, out=tmp_path / "many", seed=3)
    one, many = open_shards(tmp_path / "one"), open_shards(tmp_path / "many")
    sizes = [file["tokens"] for file in many.index["sources"]["clinical"]["train"]["files"]]
    assert len(sizes) > 3 and set(sizes[:-1]) == {100}
    blocks = [shards.blocks("clinical", "train", 64) for shards in (one, many)]
    assert len(blocks[0]) == len(blocks[1]) > 3
    assert all((a == b).all() for a, b in zip(*blocks, strict=True))


def test_a_special_token_in_a_note_stays_text(tmp_path: Path) -> None:
    texts = [f"{prose(i)} </s> <s> <pad> end" for i in range(8)]
    corpus = write_corpus(tmp_path, [note(i, text) for i, text in enumerate(texts)])
    tokenize(CFG, corpus=corpus, out=tmp_path / "t", seed=3)
    assert sorted(all_of(documents_of(tmp_path / "t"))) == sorted(texts)


def test_the_tokenizer_is_trained_on_train_patients_only_and_few_documents(corpus: Path, tmp_path: Path) -> None:
    tokenize(CFG, corpus=corpus, out=tmp_path / "all", seed=3)
    held_out = documents_of(tmp_path / "all")["val"]
    changed = [row | {"text": row["text"].replace("patient", "zzyzx") if row["text"] in held_out else row["text"]}
               for row in rows()]  # fmt: skip
    tokenize(CFG, corpus=write_corpus(tmp_path, changed), out=tmp_path / "other", seed=3)
    one, other = (tmp_path / name / "tokenizer" / "tokenizer.json" for name in ("all", "other"))
    assert one.read_bytes() == other.read_bytes()
    plain = replace(CFG, question_words=False)
    tokenize(plain, corpus=corpus, out=tmp_path / "plain", seed=3)
    tokenize(replace(plain, train_documents=5), corpus=corpus, out=tmp_path / "few", seed=3)
    few = tokenizer.open_encoder(tmp_path / "few" / "tokenizer")
    assert few.vocab_size < tokenizer.open_encoder(tmp_path / "plain" / "tokenizer").vocab_size


def test_a_given_tokenizer_is_used(corpus: Path, tmp_path: Path) -> None:
    tokenize(CFG, corpus=corpus, out=tmp_path / "a", seed=3)
    given = replace(CFG, tokenizer=str(tmp_path / "a" / "tokenizer" / "tokenizer.json"))
    tokenize(given, corpus=corpus, out=tmp_path / "b", seed=3)
    hashes = [file_hashes(tmp_path / name) for name in ("a", "b")]
    assert {k: v for k, v in hashes[0].items() if k.endswith(".bin")} == {
        k: v for k, v in hashes[1].items() if k.endswith(".bin")
    }


@pytest.mark.parametrize(
    "changed",
    [{"end": date(2019, 1, 1)}, {"author_roles": ("nobody",)}, {"categories": ("pathology",)}],
    ids=["end", "author_roles", "categories"],
)
def test_a_version_without_notes_is_one_line(corpus: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        tokenize(replace(CFG, **changed), corpus=corpus, out=tmp_path / "t", seed=3)
    assert "holds none of 60 notes" in str(caught.value) and "\n" not in str(caught.value)
    assert not runs.is_complete(tmp_path / "t")


def test_a_folder_that_clean_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="run lang1 clean first"):
        tokenize(CFG, corpus=tmp_path / "empty", out=tmp_path / "t", seed=3)


# --- the class of an encounter, the name of a version --------------------------------------------------------------


def write_encounters(folder: Path, classes: dict[str, str]) -> Path:
    rows = [{"encounter_id": e, "patient_id": "p0", "encounter_class": name} for e, name in classes.items()]
    (folder / "encounters").mkdir(parents=True)
    half = len(rows) // 2
    for part, some in enumerate((rows[:half], rows[half:])):
        pq.write_table(
            pa.Table.from_pylist(some, schema=ENCOUNTERS), folder / "encounters" / f"part-{part:05d}.parquet"
        )
    return folder


def test_notes_of_other_encounters_and_of_none_are_left_out(tmp_path: Path) -> None:
    made = rows()
    for i in (2, 9, 17):
        made[i]["encounter_id"] = None
    made[20]["encounter_id"] = "unknown"
    corpus = write_corpus(tmp_path, made)
    names = ("inpatient", "emergency", "outpatient")
    classes = {f"e{i}": names[i % 3] for i in range(30)}
    records = write_encounters(tmp_path / "visits", classes)
    cfg = replace(CFG, encounter_classes=("inpatient", "emergency"))
    counts = tokenize(cfg, corpus=corpus, records=records, out=tmp_path / "t", seed=3)["counts"]
    timed = [r for r in made if r["signed_time"] and r["signed_time"] < END]
    wanted = [r["text"] for r in timed if classes.get(r["encounter_id"] or "") in {"inpatient", "emergency"}]
    assert sorted(all_of(documents_of(tmp_path / "t"))) == sorted(wanted)
    assert counts["left_out_encounter_class"] == len(timed) - len(wanted) > 4


def test_a_class_needs_records_that_have_it(corpus: Path, tmp_path: Path) -> None:
    cfg = replace(CFG, encounter_classes=("hospice",))
    with pytest.raises(InputError, match="give --records"):
        tokenize(cfg, corpus=corpus, out=tmp_path / "a", seed=3)
    with pytest.raises(InputError, match=r"no encounters/part-\*\.parquet"):
        tokenize(cfg, corpus=corpus, records=tmp_path, out=tmp_path / "b", seed=3)
    records = write_encounters(tmp_path / "visits", {"e1": "inpatient", "e2": "emergency"})
    with pytest.raises(InputError, match=r"no encounter of tokenize.encounter_classes \(hospice\); emergency 1, inp"):
        tokenize(cfg, corpus=corpus, records=records, out=tmp_path / "c", seed=3)


def write_stays(folder: Path, stays: dict[str, tuple[str, str, float, float | None]]) -> Path:
    """Encounters by patient, class, admission and discharge in hours from END."""
    (folder / "encounters").mkdir(parents=True)
    made = [
        {
            "encounter_id": encounter,
            "patient_id": patient,
            "encounter_class": kind,
            "admit_time": END + timedelta(hours=admitted),
            "discharge_time": None if ended is None else END + timedelta(hours=ended),
        }
        for encounter, (patient, kind, admitted, ended) in stays.items()
    ]
    pq.write_table(pa.Table.from_pylist(made, schema=ENCOUNTERS), folder / "encounters" / "part-00000.parquet")
    return folder


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (24.0, {"open", "later", "transferred", "at midnight", "without an end", "touching"}),
        (0.0, {"open", "later", "at midnight", "without an end", "touching"}),
    ],
)
def test_notes_of_stays_that_end_after_the_corpus_are_left_out(
    tmp_path: Path, hours: float, expected: set[str]
) -> None:
    stays: dict[str, tuple[str, str, float, float | None]] = {
        "ended": ("a", "inpatient", -90, -1),
        "later": ("a", "inpatient", 40, 60),
        "open": ("b", "inpatient", -30, 50),
        "transferred": ("b", "inpatient", -90, -50),
        "long before": ("b", "inpatient", -200, -115),
        "at midnight": ("c", "inpatient", -5, 0),
        "without an end": ("d", "inpatient", -5, None),
        "touching": ("b", "inpatient", -40, -30),
        "within care at home": ("e", "inpatient", -900, -800),
        "care at home": ("e", "outpatient", -1000, 1000),
    }
    made = rows()
    chosen = [r for r in made if r["signed_time"] and r["signed_time"] < END][: len(stays)]
    for row, encounter in zip(chosen, stays, strict=True):
        row["encounter_id"] = encounter
    corpus, records = write_corpus(tmp_path, made), write_stays(tmp_path / "visits", stays)
    cfg = replace(CFG, leave_out_open_stays=True, transfer_hours=hours)
    counts = tokenize(cfg, corpus=corpus, records=records, out=tmp_path / "t", seed=3)["counts"]
    kept = set(all_of(documents_of(tmp_path / "t")))
    assert {r["encounter_id"] for r in chosen if r["text"] not in kept} == expected
    assert counts["left_out_open_stay"] == len(expected)


def test_the_end_of_a_stay_needs_records(corpus: Path, tmp_path: Path) -> None:
    cfg = replace(CFG, leave_out_open_stays=True)
    with pytest.raises(InputError, match="the records know when a stay ended; give --records"):
        tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    (tmp_path / "other" / "encounters").mkdir(parents=True)
    pq.write_table(pa.table({"encounter_id": ["e"]}), tmp_path / "other" / "encounters" / "part-00000.parquet")
    with pytest.raises(InputError, match="no column patient_id"):
        tokenize(cfg, corpus=corpus, records=tmp_path / "other", out=tmp_path / "t", seed=3)


def test_a_second_run_in_one_process_has_its_own_tokenizer_and_stays(tmp_path: Path) -> None:
    made = rows()
    chosen = next(r for r in made if r["signed_time"] and r["signed_time"] < END)
    chosen["encounter_id"] = "open"
    corpus = write_corpus(tmp_path, made)
    stays: dict[str, tuple[str, str, float, float | None]] = {"open": ("b", "inpatient", -3, 5)}
    first = replace(CFG, leave_out_open_stays=True)
    for cfg, records, there in (
        (first, write_stays(tmp_path / "a", stays), False),
        (replace(first, vocab_size=300), write_stays(tmp_path / "b", {"other": ("b", "inpatient", -3, 5)}), True),
    ):
        tokenize(cfg, corpus=corpus, records=records, out=tmp_path / "t", seed=3, force=True)
        assert (chosen["text"] in all_of(documents_of(tmp_path / "t"))) == there


def test_the_table_counts_what_the_version_holds_beside_the_papers_numbers(corpus: Path, tmp_path: Path) -> None:
    write_web(tmp_path / "web.jsonl", 30)
    for version in ("NYUNotes+", "ours"):
        cfg = replace(CFG, version=version, web=str(tmp_path / "web.jsonl"))
        manifest = tokenize(cfg, corpus=corpus, out=tmp_path / version, seed=3)
        assert manifest["facts"]["version"] == version
        assert runs.read_json(tmp_path / version / "index.json")["version"] == version
    table = list(csv.DictReader((tmp_path / "NYUNotes+" / "corpus.csv").open()))
    kept = [r for r in rows() if r["signed_time"] and r["signed_time"] < END]
    whole = next(r for r in table if (r["source"], r["split"]) == ("clinical", "all"))
    assert int(whole["notes"]) == len(kept)
    assert int(whole["words"]) == sum(len(r["text"].split()) for r in kept)
    assert int(whole["patients"]) == len({r["patient_id"] for r in kept})
    lengths = pq.read_table(tmp_path / "NYUNotes+" / "documents.parquet", filters=[("source", "=", "clinical")])[
        "tokens"
    ]
    assert int(whole["tokens"]) == sum(lengths.to_pylist())
    assert whole["paper_words"] == "59917646788" and whole["paper_tokens"] == "80000000000"
    assert [r["patients"] for r in table if r["source"] == "web"] == ["", "", ""]
    assert "paper's words" in (tmp_path / "NYUNotes+" / "corpus.md").read_text()
    assert "paper" not in (tmp_path / "ours" / "corpus.md").read_text()


# --- web text ------------------------------------------------------------------------------------------------------


def write_web(path: Path, count: int) -> list[str]:
    texts = [f"Web page number {i}.\nIt has caf\u00e9 </s> and two lines." for i in range(count)]
    rows = [json.dumps({"text": text}) for text in texts]
    path.write_text("\n".join([*rows, "{broken"]))
    return texts


def test_web_text_is_a_source_of_its_own(corpus: Path, tmp_path: Path) -> None:
    texts = write_web(tmp_path / "web.jsonl", 50)
    cfg = replace(CFG, web=str(tmp_path / "web.jsonl"))
    manifest = tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    found = documents_of(tmp_path / "t", "web")
    assert found["val"] and sorted(found["train"] + found["val"]) == sorted(texts)
    index = runs.read_json(tmp_path / "t" / "index.json")
    assert index["web"] == {"path": cfg.web, "used": True, "why": "found", "rows": {"bad_not_json": 1}}
    assert index["sources"]["web"]["train"]["patients"] is None
    assert manifest["counts"]["web_train_documents"] == len(found["train"])
    listed = pq.read_table(tmp_path / "t" / "documents.parquet").to_pylist()
    assert {r["note_hash"] for r in listed if r["source"] == "web"} == {hash_id(text) for text in texts}
    assert {r["patient_hash"] for r in listed if r["source"] == "web"} == {None}


def test_one_web_document_is_held_out_where_the_share_takes_none(corpus: Path, tmp_path: Path) -> None:
    texts = write_web(tmp_path / "web.jsonl", 30)
    cfg = replace(CFG, web=str(tmp_path / "web.jsonl"), validation_fraction=1e-9)
    tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    found = documents_of(tmp_path / "t", "web")
    assert len(found["val"]) == 1 and sorted(found["train"] + found["val"]) == sorted(texts)
    write_web(tmp_path / "one.jsonl", 1)
    tokenize(replace(cfg, web=str(tmp_path / "one.jsonl")), corpus=corpus, out=tmp_path / "u", seed=3)
    assert [len(texts) for texts in documents_of(tmp_path / "u", "web").values()] == [1, 0]


def test_web_text_that_is_not_there(corpus: Path, tmp_path: Path) -> None:
    cfg = replace(CFG, web=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere: not found; give its path, or tokenize\.web_required=false"):
        tokenize(cfg, corpus=corpus, out=tmp_path / "a", seed=3)
    tokenize(replace(cfg, web_required=False), corpus=corpus, out=tmp_path / "b", seed=3)
    index = runs.read_json(tmp_path / "b" / "index.json")
    assert index["web"]["used"] is False and index["web"]["why"].endswith("nowhere not found")
    assert list(index["sources"]) == ["clinical"]
    tokenize(CFG, corpus=corpus, out=tmp_path / "c", seed=3)
    assert runs.read_json(tmp_path / "c" / "index.json")["web"]["why"] == "no web text in the configuration"


def test_web_text_without_a_document_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text("{broken\n")
    with pytest.raises(InputError, match="holds no document"):
        tokenize(replace(CFG, web=str(tmp_path / "web.jsonl")), corpus=corpus, out=tmp_path / "t", seed=3)


def write_slimpajama(folder: Path) -> dict[str, list[str]]:
    """train/chunk1/example_train_0.jsonl.zst and so on; texts by set."""
    sets = {"RedPajamaC4": 40, "RedPajamaGithub": 30, "../../evil": 3, "RedPajamaBook": 1}
    texts = {name: [f"{name} document {i} says {prose(i, 8)}" for i in range(n)] for name, n in sets.items()}
    rows = [json.dumps({"text": t, "meta": {"redpajama_set_name": name}}) for name, ts in texts.items() for t in ts]
    rows.append(json.dumps({"text": "of no set"}))
    for number in range(4):
        path = folder / "train" / f"chunk{1 + number // 2}" / f"example_train_{number}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.ZstdCompressor().compress("\n".join(rows[number::4]).encode()))
    return texts


def test_slimpajamas_sets_are_sources_of_their_own_when_asked_for(corpus: Path, tmp_path: Path) -> None:
    texts = write_slimpajama(tmp_path / "slim")
    cfg = replace(CFG, web=str(tmp_path / "slim"), validation_fraction=1e-9)
    tokenize(cfg, corpus=corpus, out=tmp_path / "one", seed=3)
    assert open_shards(tmp_path / "one").sources() == ("clinical", "web")
    tokenize(replace(cfg, web_by_set=True), corpus=corpus, out=tmp_path / "sets", seed=3)
    shards = open_shards(tmp_path / "sets")
    assert set(shards.sources()) == {
        *("clinical", "web", "web-RedPajamaC4", "web-RedPajamaGithub", "web-_evil", "web-RedPajamaBook"),
    }
    for name, wanted in texts.items():
        found = documents_of(tmp_path / "sets", f"web-{name.removeprefix('../..').replace('/', '_')}")
        assert sorted(all_of(found)) == sorted(wanted)
        assert len(found["val"]) == (1 if len(wanted) > 1 else 0)
    assert shards.index["web"]["rows"]["set_RedPajamaGithub"] == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "sets", "slim"]


def test_several_sources_have_names_that_a_mix_can_weigh(corpus: Path, tmp_path: Path) -> None:
    texts = write_web(tmp_path / "web.jsonl", 40)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("\n\n".join("line " * 500 for _ in range(9)))
    cfg = replace(
        CFG,
        web={"pages": str(tmp_path / "web.jsonl"), "books": str(tmp_path / "books"), "gone": str(tmp_path / "gone")},
        web_required=False,
    )
    manifest = tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    assert sorted(manifest["inputs"]) == ["corpus", "web.books", "web.pages"]
    shards = open_shards(tmp_path / "t")
    assert set(shards.sources()) == {"clinical", "pages", "books"}
    assert sorted(all_of(documents_of(tmp_path / "t", "pages"))) == sorted(texts)
    told = shards.index["web"]
    assert (told["used"], told["path"]) == (True, "pages, books")
    assert told["sources"]["pages"]["rows"] == {"bad_not_json": 1}
    assert told["sources"]["gone"] == {
        "path": str(tmp_path / "gone"), "used": False, "why": f"{tmp_path / 'gone'} not found", "rows": {},
    }  # fmt: skip
    mixed = open_corpus(PretrainConfig(mix={"clinical": 2, "pages": 1, "books": 1}), shards, 16, seed=1)
    assert mixed.weights == {"clinical": 0.5, "pages": 0.25, "books": 0.25}
    with pytest.raises(InputError, match=r"tokenize\.web\.gone: .*gone: not found"):
        tokenize(replace(cfg, web_required=True), corpus=corpus, out=tmp_path / "u", seed=3)


def test_the_command_verifies_and_names_file_and_block(corpus: Path, tmp_path: Path) -> None:
    tokenize(CFG, corpus=corpus, out=tmp_path / "t", seed=3)
    done = CliRunner().invoke(app, ["tokenize", "--verify", str(tmp_path / "t")])
    assert done.exit_code == 0
    assert "clinical/train-00000.bin: " in done.stdout and "1 blocks\n" in done.stdout
    assert f"{tmp_path / 't'}: whole: " in done.stdout
    path = tmp_path / "t" / "clinical" / "train-00000.bin"
    broken = bytearray(path.read_bytes())
    broken[100] ^= 16
    path.write_bytes(bytes(broken))
    command = [sys.executable, "-m", "lang1.cli", "tokenize", "--verify", str(tmp_path / "t")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "train-00000.bin: block 0 (bytes 64 to " in ended.stderr
