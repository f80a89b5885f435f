"""SciQ and PubMedQA as task rows: splits, shuffled options, files that are not of the set."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.errors import InputError
from lang1.tasks import build_comprehension
from lang1.tasks.schema import COMPREHENSION

DATA = Path(os.environ.get("LANG1_DATA", Path(__file__).parents[3] / "shared" / "data"))


def sciq_row(number: int) -> dict[str, str]:
    return {
        "question": f"What is {number} plus one?",
        "correct_answer": f"right {number}",
        **{f"distractor{i}": f"wrong {number}.{i}" for i in (1, 2, 3)},
        "support": "" if number % 7 == 0 else f"One more than {number} follows {number}.",
    }


def pubmed_row(number: int) -> dict[str, Any]:
    answer = ("yes", "no", "maybe")[number % 3]
    return {"QUESTION": f"Does {number} help?", "CONTEXTS": ["First.", "Second."], "final_decision": answer}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.fixture
def sciq(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "sciq_validation.jsonl", [sciq_row(n) for n in range(200)])


@pytest.fixture
def pubmedqa(tmp_path: Path) -> Path:
    path = tmp_path / "ori_pqal.json"
    path.write_text(json.dumps({str(n): pubmed_row(n) for n in range(100, 160)}))
    return path


def read(out: Path, task: str) -> list[dict[str, Any]]:
    rows = []
    for split in ("train", "val", "test"):
        table = pq.read_table(out / task / f"{split}.parquet")
        assert table.schema.equals(COMPREHENSION)
        found = table.to_pylist()
        assert {row["split"] for row in found} <= {split}
        rows += found
    return rows


def test_the_true_option_stands_at_every_letter_and_is_the_true_one(sciq: Path, tmp_path: Path) -> None:
    build_comprehension(sciq=(sciq,), out=tmp_path / "out", seed=1)
    rows = read(tmp_path / "out", "sciq")
    assert len(rows) == 200
    for row in rows:
        number = row["question"].split()[2]
        assert row["options"][row["label"]] == f"right {number}"
        assert sorted(row["options"]) == sorted([f"right {number}", *(f"wrong {number}.{i}" for i in (1, 2, 3))])
    assert all(30 < count < 70 for count in Counter(row["label"] for row in rows).values())
    assert sum(row["text"] == "" for row in rows) == 29
    assert [row["row_id"] for row in rows if row["split"] == "val"] == sorted(
        row["row_id"] for row in rows if row["split"] == "val"
    )


def test_a_set_without_a_train_file_lends_a_fifth_for_shots(sciq: Path, tmp_path: Path) -> None:
    counts = build_comprehension(sciq=(sciq,), out=tmp_path / "out", seed=1)["counts"]
    assert 20 < counts["sciq_train"] < 60
    assert counts["sciq_train"] + counts["sciq_val"] == 200
    assert counts["sciq_test"] == 0


def test_files_are_told_apart_by_name_and_no_row_is_lent_where_train_is_there(tmp_path: Path) -> None:
    files = [
        write_lines(tmp_path / f"{name}.jsonl", [sciq_row(n) for n in range(start, start + 20)])
        for name, start in (("train-00000-of-00001", 0), ("valid", 100), ("test", 200))
    ]
    counts = build_comprehension(sciq=tuple(files), out=tmp_path / "out", seed=1)["counts"]
    assert counts == {"sciq_train": 20, "sciq_val": 20, "sciq_test": 20}


def test_the_same_seed_gives_the_same_bytes_and_another_shuffles_anew(sciq: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_comprehension(sciq=(sciq,), out=tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "sciq/val.parquet").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_pubmedqas_test_ids_are_held_out(pubmedqa: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "test_ground_truth.json"
    held_out.write_text(json.dumps({str(n): "yes" for n in range(100, 130)}))
    build_comprehension(pubmedqa=(pubmedqa,), pubmedqa_test=held_out, out=tmp_path / "out", seed=1)
    rows = read(tmp_path / "out", "pubmedqa")
    assert {row["row_id"] for row in rows if row["split"] == "test"} == {f"pubmedqa-{n}" for n in range(100, 130)}
    assert rows[0]["options"] == ["yes", "no", "maybe"]
    assert rows[0]["text"] == "Abstract: First.\nSecond."
    for row in rows:
        assert row["label"] == int(row["row_id"].partition("-")[2]) % 3


def test_the_columns_of_hugging_faces_parquet_are_read(tmp_path: Path) -> None:
    rows = [
        {"pubid": n, "question": f"Does {n} help?", "context": {"contexts": ["One."]}, "final_decision": "no"}
        for n in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pqa_labeled.parquet")
    build_comprehension(pubmedqa=(tmp_path / "pqa_labeled.parquet",), out=tmp_path / "out", seed=1)
    assert {row["label"] for row in read(tmp_path / "out", "pubmedqa")} == {1}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"question": "Why?"}\n', "row 1: not of SciQ"),
        ("a.jsonl", "{}\nnot json\n", "line 2: not JSON"),
        ("a.json", "[1, 2]", "no rows"),
        ("a.json", '{"question": "Why?"}\n{}\n', "one object a line needs the ending .jsonl"),
        ("a.parquet", "PAR1", "not readable as Parquet"),
    ],
)
def test_a_file_that_is_not_of_the_set_is_refused(name: str, content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=told):
        build_comprehension(sciq=(tmp_path / name,), out=tmp_path / "out", seed=1)


def test_test_ids_of_another_release_are_refused(pubmedqa: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text('{"999": "yes"}')
    with pytest.raises(InputError, match="names 1 ids, such as 999"):
        build_comprehension(pubmedqa=(pubmedqa,), pubmedqa_test=tmp_path / "ids.json", out=tmp_path / "out", seed=1)


def test_a_question_in_two_splits_is_refused(tmp_path: Path) -> None:
    files = tuple(write_lines(tmp_path / name, [sciq_row(1)]) for name in ("train.jsonl", "test.jsonl"))
    with pytest.raises(InputError, match="stands in two splits"):
        build_comprehension(sciq=files, out=tmp_path / "out", seed=1)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to read"):
        build_comprehension(out=tmp_path / "out", seed=1)


@pytest.mark.skipif(not (DATA / "sciq").is_dir(), reason=f"no {DATA}/sciq")
def test_the_published_sets_give_their_published_counts(tmp_path: Path) -> None:
    manifest = build_comprehension(
        sciq=(DATA / "sciq/sciq_validation.jsonl",),
        pubmedqa=(DATA / "pubmedqa/ori_pqal.json",),
        pubmedqa_test=DATA / "pubmedqa/test_ground_truth.json",
        out=tmp_path / "out",
        seed=3407,
    )
    counts = manifest["counts"]
    assert counts["sciq_train"] + counts["sciq_val"] == 1000
    assert counts["pubmedqa_train"] + counts["pubmedqa_val"] == counts["pubmedqa_test"] == 500
    assert Counter(row["label"] for row in read(tmp_path / "out", "pubmedqa")) == {0: 552, 1: 338, 2: 110}
    truth = runs.read_json(DATA / "pubmedqa/test_ground_truth.json")
    for row in pq.read_table(tmp_path / "out/pubmedqa/test.parquet").to_pylist():
        assert row["options"][row["label"]] == truth[row["row_id"].partition("-")[2]]
