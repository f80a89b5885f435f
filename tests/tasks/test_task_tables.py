"""Tables B1-B7 and Figures A1 and F6: the counts are those of the rows, the paper's values those of its Appendix B."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest
from timelines import Hospital, config, fill

from lang1 import runs
from lang1.errors import InputError
from lang1.tasks import build_tasks, write_statistics
from lang1.tasks.schema import SPLITS
from lang1.tasks.tables import LABEL_TABLES, read_published, wilson

QUESTIONS = {
    "mortality": ["no", "yes"],
    "los": ["0 to 2 days", "3 days", "4 to 5 days", "more than 5 days"],
    "icu": ["no", "yes"],
}
# encounter, patient, split, died, days' class, words
STAYS = [
    ("e1", "p1", "train", 0, 0, 3),
    ("e2", "p1", "train", 0, 3, 4),
    ("e3", "p2", "train", 1, 3, 5),
    ("e4", "p3", "test", 1, 0, 1),
    ("e5", "p1", "temporal_2", 0, 1, 2),
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    for task in QUESTIONS:
        (folder / task).mkdir(parents=True)
        for split in SPLITS:
            here = [stay for stay in STAYS if stay[2] == split]
            table = pa.table(
                {
                    "split": pa.array([split] * len(here), pa.string()),
                    "label": pa.array([stay[4] if task == "los" else stay[3] for stay in here], pa.int32()),
                    "patient_id": pa.array([stay[1] for stay in here], pa.string()),
                    "encounter_id": pa.array([stay[0] for stay in here], pa.string()),
                    "note_id": pa.array([f"n{stay[0]}" for stay in here], pa.string()),
                    "prediction_time": pa.array([datetime(2020, 1, 2)] * len(here), pa.timestamp("us")),
                    "text": pa.array([" ".join(["word"] * stay[5]) for stay in here], pa.large_string()),
                }
            )
            pq.write_table(table, folder / task / f"{split}.parquet")
    runs.write_json(
        folder / "questions.json", {task: {"text": "?", "options": options} for task, options in QUESTIONS.items()}
    )
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source))


def test_notes_patients_and_words_are_counted_by_split_with_patients_once_in_the_total(tasks: Path) -> None:
    out = tasks.parent / "out"
    write_statistics(tasks=tasks, out=out)
    notes = {(row["task"], row["split"]): int(row["notes"]) for row in read(out / "B1.csv")}
    patients = {(row["task"], row["split"]): int(row["patients"]) for row in read(out / "B2.csv")}
    assert (notes["los", "train"], notes["los", "val"], notes["los", "total"]) == (3, 0, 5)
    assert (patients["los", "train"], patients["los", "temporal_2"], patients["los", "total"]) == (2, 1, 3)
    words = {row["split"]: int(row["words"]) for row in read(out / "A1.csv") if row["task"] == "los"}
    assert (words["train"], words["test"], words["val"]) == (12, 1, 0)


def test_share_of_each_label_stands_beside_the_papers(tasks: Path) -> None:
    out = tasks.parent / "out"
    write_statistics(tasks=tasks, out=out)
    train = [row for row in read(out / "B4.csv") if row["split"] == "train"]
    assert [(row["rows"], row["n"]) for row in train] == [("2", "3"), ("1", "3")]
    assert train[1]["share"] == "0.333333"
    assert train[1]["paper_share"] == "0.018839"
    assert [row["paper_share"] for row in read(out / "labels-icu.csv")] == [""] * 12  # a task of one's own
    page = (out / "statistics.md").read_text()
    assert "0.3333 (0.0188)" in page
    assert "| los | 3 (334,515) |" in page


@pytest.mark.parametrize("source", ["mimic3", "mimic4", "omop"])
def test_values_beside_ours_are_those_of_the_same_hospital(tmp_path: Path, source: str) -> None:
    hospital = Hospital()
    hospital.stay("a", "2020-01-01 08:00", "2020-01-09 20:00", "a", "Expired")
    fill(hospital)
    runs.run_stage(tmp_path / "records", "extract", {}, 0, {}, lambda stage: stage.record(source=source))
    records, corpus = hospital.write(tmp_path)
    cfg = config(tasks=("readmission", "mortality", "los"), split_by="patient", los_unit="elapsed")
    made = build_tasks(cfg, records=records, corpus=corpus, out=tmp_path / "tasks", seed=7)
    assert made["facts"]["source"] == source
    days = json.loads((tmp_path / "tasks" / "statistics.json").read_text())["los"]["mean_days"]
    assert days == pytest.approx((40 * 2 + 8.5) / 41, abs=1e-4)
    out = tmp_path / "out"
    write_statistics(tasks=tmp_path / "tasks", out=out)
    paper = {(r["task"], r["split"]): r["paper_notes"] for r in read(out / "B1.csv")}
    shares = {(r["split"], r["label"]): r["paper_share"] for r in read(out / "B4.csv")}
    page = (out / "statistics.md").read_text()
    if source == "mimic3":
        assert {key: value for key, value in paper.items() if value} == {
            ("readmission", "total"): "52725", ("mortality", "total"): "5658", ("los", "total"): "5658"
        }  # fmt: skip
        assert {key: value for key, value in shares.items() if value} == {("total", "1"): "0.1055"}
        assert "Mean length of stay: 2.16 (7.96) days" in page and "(0.0600)" in page and "Appendix B" not in page
    elif source == "mimic4":
        assert not any([*paper.values(), *shares.values()]) and "Appendix B" not in page and "(0." not in page
    else:
        assert paper["los", "train"] == "334515" and shares["train", "1"] == "0.018839"
        assert "Mean length of stay: 2.16 days" in page and "7.96" not in page
        assert "Appendix B" in page


def test_conditional_shares_condition_on_what_they_say(tasks: Path) -> None:
    out = tasks.parent / "out"
    write_statistics(tasks=tasks, out=out)
    shares = {
        (row["figure"], row["given"], row["outcome"]): (row["rows"], row["n"])
        for row in read(out / "F6.csv")
        if row["split"] == "total"
    }
    assert shares["F6a", "died", "more than 5 days"] == ("1", "2")
    assert shares["F6a", "survived", "more than 5 days"] == ("1", "3")
    assert shares["F6b", "more than 5 days", "died"] == ("1", "2")
    assert shares["F6b", "4 to 5 days", "died"] == ("0", "0")


def test_figures_are_drawn_and_the_same_rows_give_the_same_bytes(tasks: Path) -> None:
    first, second = tasks.parent / "first", tasks.parent / "second"
    manifest = write_statistics(tasks=tasks, out=first)
    assert {"A1.svg", "F6a.svg", "F6b.svg"} <= set(manifest["files"])
    assert manifest["files"] == write_statistics(tasks=tasks, out=second)["files"]


def test_published_values_add_up_as_the_paper_prints_them() -> None:
    published = read_published()
    for task, table in LABEL_TABLES.items():
        assert sum(published["B1", task, split, ""] for split in SPLITS) == published["B1", task, "total", ""]
        for split in SPLITS:
            labels = [value for (name, _, at, _), value in published.items() if name == table and at == split]
            assert len(labels) in (2, 4, 5)
            assert sum(labels) == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize(("rows", "n"), [(0, 7), (3, 10), (10, 10), (78, 3863)])
def test_interval_is_wilsons(rows: int, n: int) -> None:
    expected = binomtest(rows, n).proportion_ci(method="wilson")
    assert wilson(rows, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_share_lies_within_its_interval_also_of_none_and_of_all_rows() -> None:
    for n in range(1, 300):
        for rows in (0, n):
            low, high = wilson(rows, n)
            assert low is not None and high is not None and low <= rows / n <= high


def test_folder_without_task_rows_and_rows_without_a_column_are_one_line(tasks: Path) -> None:
    with pytest.raises(InputError, match="nothing-here: not found"):
        write_statistics(tasks=tasks.parent / "nothing-here", out=tasks.parent / "a")
    broken = tasks / "los" / "train.parquet"
    pq.write_table(pq.read_table(broken).drop_columns(["label"]), broken)
    with pytest.raises(InputError, match=r"los.*column"):
        write_statistics(tasks=tasks, out=tasks.parent / "b")


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (None, r"los/train\.parquet: 1 labels are null and 0 name none of the 4 options"),
        (4, r"los/train\.parquet: 0 labels are null and 1 name none of the 4 options"),
        (-1, r"los/train\.parquet: 0 labels are null and 1 name none of the 4 options"),
        (3, None),
    ],
)
def test_label_that_names_no_option_is_refused_with_file_and_count(
    tasks: Path, label: int | None, told: str | None
) -> None:
    path, out = tasks / "los" / "train.parquet", tasks.parent / "out"
    table = pq.read_table(path)
    labels = [label, *table["label"].to_pylist()[1:]]
    place = table.schema.get_field_index("label")
    pq.write_table(table.set_column(place, "label", pa.array(labels, pa.int32())), path)
    if told is None:
        write_statistics(tasks=tasks, out=out)
        notes = {(r["task"], r["split"]): r["notes"] for r in read(out / "B1.csv")}
        assert {r["n"] for r in read(out / "B5.csv") if r["split"] == "train"} == {notes["los", "train"]}
    else:
        with pytest.raises(InputError, match=told):
            write_statistics(tasks=tasks, out=out)


def test_question_without_options_is_refused(tasks: Path) -> None:
    runs.write_json(tasks / "questions.json", {"los": {"text": "How long?"}})
    with pytest.raises(InputError, match=r"questions\.json: not the text and options of each task"):
        write_statistics(tasks=tasks, out=tasks.parent / "out")
