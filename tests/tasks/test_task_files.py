"""What the stage writes: closed schemas, attrition that adds up, the same bytes again, MEDS labels, clear refusals."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import random
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from timelines import Built, Hospital, build, config

from lang1 import runs
from lang1.config import TASK_IDS
from lang1.corpus.hashes import hash_id
from lang1.errors import InputError
from lang1.tasks import build_tasks
from lang1.tasks.prompts import OPTIONS_PER_TASK
from lang1.tasks.schema import ATTRITION, LEFT_OUT, MEDS_ROWS, ROWS, SPLITS, meds_labels


def hospital_of_all_sorts() -> Hospital:
    draw, hospital = random.Random(1), Hospital()
    hospital.patient("p", birth_date=date(2010, 5, 5), sex="female", race="White", ethnicity="x", borough="Kings")
    hospital.stay("child", "2020-05-04 10:00", "2020-05-08 10:00", department="4 West")
    for n in range(60):
        day = 1 + n % 28
        to = "Expired" if n % 20 == 3 else "Home"
        hospital.stay(f"s{n}", f"2020-01-{day:02d} 10:00", f"2020-02-{day:02d} 10:00", f"q{n}", to)
        hospital.code(f"s{n}", draw.choice(["I10", "C78.7", "E11.9"]), patient_id=f"q{n}")
        hospital.claim(f"s{n}", draw.choice(["no denial", "pending", "final, favorable determination"]))
    hospital.note("s5", "H&P", "2020-01-01", "q5", "earlier and rejected", rejected=True, author_role="resident")
    hospital.stay("end", "2021-01-01", "2021-01-02", "end")
    return hospital


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(hospital_of_all_sorts(), tmp_path_factory.mktemp("files"))


def attrition(built: Built, task: str) -> list[dict[str, str]]:
    with (built.out / "attrition.csv").open() as lines:
        return [row for row in csv.DictReader(lines) if row["task"] == task]


@pytest.mark.parametrize("task", TASK_IDS)
def test_attrition_adds_up_from_encounters_to_rows(built: Built, task: str) -> None:
    steps = attrition(built, task)
    assert list(steps[0]) == ATTRITION.names
    assert [int(s["step"]) for s in steps] == list(range(len(steps)))
    encounters = pq.read_table(built.out.parent / "records" / "encounters").num_rows
    assert int(steps[0]["remaining"]) == encounters == built.manifest["counts"]["encounters"]
    for before, after in itertools.pairwise(steps):
        assert int(before["remaining"]) - int(after["left_out"]) == int(after["remaining"])
    rows = built.rows(task)
    assert int(steps[-1]["remaining"]) == len(rows) == built.manifest["counts"][f"{task}_rows"]
    assert len(built.reasons(task)) + len(rows) == encounters
    assert not set(built.reasons(task)) & {row["encounter_id"] for row in rows}


@pytest.mark.parametrize("task", TASK_IDS)
def test_files_have_the_declared_columns_and_order(built: Built, task: str) -> None:
    for split in SPLITS:
        table = pq.read_table(built.out / task / f"{split}.parquet")
        assert table.schema.equals(ROWS)
        table.validate(full=True)
        ids = table["row_id"].to_pylist()
        assert ids == sorted(ids)
        assert set(table["split"].to_pylist()) <= {split}
    rows = built.rows(task)
    assert len({row["row_id"] for row in rows}) == len(rows) > 40
    assert all(row["row_id"] == f"{task}-{row['encounter_id']}" and row["task"] == task for row in rows)
    assert pq.read_schema(built.out / "left_out" / f"{task}.parquet").equals(LEFT_OUT)


def test_row_carries_text_hash_and_strata(built: Built) -> None:
    row = next(row for row in built.rows("los") if row["encounter_id"] == "child")
    assert row["text"] == "the text of child-H&P"
    assert row["note_hash"] == hash_id(row["text"])
    strata = ("age_band", "is_child", "sex", "race", "ethnicity", "borough", "department", "note_type")
    assert [row[name] for name in strata] == ["0-17", True, "female", "White", "x", "Kings", "4 West", "H&P"]
    assert str(row["prediction_time"]) == "2020-05-04 10:00:00"


def test_statistics_count_the_rows(built: Built) -> None:
    statistics = json.loads((built.out / "statistics.json").read_text())
    for task in TASK_IDS:
        for split in SPLITS:
            rows, found = built.rows(task, split), statistics[task][split]
            labels = [sum(row["label"] == k for row in rows) for k in range(OPTIONS_PER_TASK[task])]
            assert found["rows"] == len(rows)
            assert found["patients"] == len({row["patient_id"] for row in rows})
            assert found["labels"] == labels
            assert found["words"] == sum(len(row["text"].split()) for row in rows)
            rates = [round(n / len(rows), 6) for n in labels] if rows else None
            assert found["base_rates"] == rates
        assert statistics[task]["total"]["rows"] == len(built.rows(task))


def test_statistics_report_both_readings_both_ways_with_deaths_and_small_classes(tmp_path: Path) -> None:
    hospital = Hospital()
    for n, (returns, note, dies) in enumerate([(1, 1, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1)]):
        hospital.patient(f"r{n}", death_date=date(2020, 1, 25) if dies else None)
        hospital.stay(f"r{n}", "2020-01-01", "2020-01-04", f"r{n}", admission_type="newborn" if n == 0 else None)
        if returns:
            hospital.stay(f"r{n} again", "2020-01-15", "2020-01-16", f"r{n}", notes=False)
        if note:
            again = f"r{n} again" if returns else f"r{n} visit"
            if not returns:
                hospital.stay(again, "2020-01-15", "2020-01-16", f"r{n}", encounter_class="emergency", notes=False)
            hospital.note(again, "H&P", "2020-01-15", f"r{n}")
        hospital.claim(f"r{n}", "no denial", f"2020-01-{10 + n}")
    hospital.stay("end", "2021-01-01", "2021-01-02", "end")
    built = build(hospital, tmp_path)
    found = json.loads((built.out / "statistics.json").read_text())
    total = found["readmission"]["total"]
    assert found["readmission"]["readings"] == {
        "both": 1, "adt_only": 1, "admission_note_only": 1, "neither": 42, "agreement": round(43 / 45, 6)
    }  # fmt: skip
    assert (total["rows"], total["labels"][1], total["died_after_discharge"]) == (45, 2, 2)
    assert total["rate_with_deaths_as_0"] == round(2 / 45, 6)
    assert total["rate_without_deaths"] == round(2 / 43, 6)
    assert total["newborns"] == 1
    assert ["train", "yes"] in found["readmission"]["small_classes"]
    assert ["temporal_1", "yes"] not in found["readmission"]["small_classes"]  # a split without rows
    days = found["denial"]["claim_days_median_and_95th_by_label"]
    assert days[1] is None
    assert set(days[0]) <= {6, 7, 8, 9, 10}
    assert any("not prognostic" in line for line in found["cci"]["cautions"])


def test_two_top_classes_are_one_when_asked(tmp_path: Path) -> None:
    from lang1.remede.rows import TaskRows, open_tasks

    hospital = hospital_of_all_sorts()
    for code in ("C78.7", "B20"):
        hospital.code("child", code)
    built = build(hospital, tmp_path, config(cci_classes=4))
    assert built.labels("cci")["child"] == 3
    questions = json.loads((built.out / "questions.json").read_text())
    assert questions["cci"]["options"] == ["score 0", "score 1 to 2", "score 3 to 4", "score more than 4"]
    statistics = json.loads((built.out / "statistics.json").read_text())["cci"]["total"]
    assert len(statistics["labels"]) == 4
    assert sum(statistics["labels"]) == statistics["rows"]
    rows = open_tasks(built.out).read("cci", "train")
    assert isinstance(rows, TaskRows)
    assert list(rows.question.options) == questions["cci"]["options"]


def test_questions_are_those_of_the_prompt_set(built: Built, tmp_path: Path) -> None:
    questions = json.loads((built.out / "questions.json").read_text())
    assert questions["cci"]["options"][3] == "score 5 to 7"
    assert questions["denial"]["rendered"].startswith("\nQuestion: Given the above admission note")
    verbatim = build(hospital_of_all_sorts(), tmp_path, config(prompt_set="paper-verbatim"))
    questions = json.loads((verbatim.out / "questions.json").read_text())
    assert questions["cci"]["options"][3] == "score 4 to 7"


def files_of(built: Built) -> dict[str, str]:
    return {
        str(path.relative_to(built.out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(built.out.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_same_records_in_another_order_give_the_same_bytes(built: Built, tmp_path: Path) -> None:
    hospital = hospital_of_all_sorts()
    for name in ("patients", "encounters", "notes", "diagnoses", "claims"):
        random.Random(5).shuffle(getattr(hospital, name))
    assert files_of(build(hospital, tmp_path)) == files_of(built)


def test_meds_labels_are_closed_and_the_sidecar_names_their_rows(built: Built) -> None:
    meds = built.out / "meds"
    ids = dict(zip(*(c.to_pylist() for c in pq.read_table(meds / "subject_id_map.parquet").columns), strict=True))
    assert len(set(ids.values())) == len(ids)
    splits = pq.read_table(meds / "metadata" / "subject_splits.parquet").to_pydict()
    assert set(splits["split"]) == {"train", "tuning", "held_out"}
    assert sorted(splits["subject_id"]) == sorted(ids.values())
    for task in TASK_IDS:
        rows = {row["row_id"]: row for row in built.rows(task)}
        labels = pq.read_table(meds / "labels" / f"{task}.parquet")
        kind = "integer" if task in ("los", "cci") else "boolean"
        assert labels.schema.equals(meds_labels(kind))
        sidecar = pq.read_table(meds / "rows" / f"{task}.parquet")
        assert sidecar.schema.equals(MEDS_ROWS)
        assert [int(v) for v in labels[f"{kind}_value"].to_pylist()] == [
            rows[row_id]["label"] for row_id in sidecar["row_id"].to_pylist()
        ]
        for row in sidecar.to_pylist():
            found = rows[row["row_id"]]
            assert ids[found["patient_id"]] == row["subject_id"]
            assert (found["split"], found["encounter_id"]) == (row["split"], row["encounter_id"])


def test_second_build_does_nothing(built: Built) -> None:
    records, corpus = built.out.parent / "records", built.out.parent / "corpus"
    before = files_of(built)
    again = build_tasks(config(), records=records, corpus=corpus, out=built.out, seed=7)
    assert again == built.manifest
    assert files_of(built) == before


def test_task_that_is_not_asked_for_is_not_made(tmp_path: Path) -> None:
    built = build(hospital_of_all_sorts(), tmp_path, config(tasks=("los",)))
    assert sorted(p.name for p in built.out.iterdir() if p.is_dir()) == ["audit", "left_out", "los", "meds"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("notes", "none of .* encounters is left at step 10, 'an H&P was signed'"),
        ("window", "has 102 rows but none in train at step"),
        ("table", r"records/diagnoses: no Parquet files; .*corpus/notes: no Parquet files"),
        ("column", "column discharge_time is missing; .*column service is int64, expected dictionary"),
        ("broken", r"part-0.parquet: not readable as Parquet"),
        ("twice", r"encounters.encounter_id is not unique \(1 rows too many\)"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, spoil: str, said: str) -> None:
    hospital, cfg = hospital_of_all_sorts(), config(tasks=("los",))
    if spoil == "twice":
        hospital.encounters.append(hospital.encounters[0])
    if spoil == "window":
        from lang1.config import Window, WindowsConfig

        far = WindowsConfig(
            Window(date(1900, 1, 1), date(1901, 1, 1)),
            Window(date(1990, 1, 1), date(2030, 1, 1)),
            Window(date(2030, 1, 1), date(2031, 1, 1)),
        )
        cfg = config(tasks=("los",), windows=far)
    from timelines import fill

    fill(hospital)
    if spoil == "notes":
        for note in hospital.notes:
            note["signed_time"] = None
    records, corpus = hospital.write(tmp_path)
    encounters = records / "encounters" / "part-0.parquet"
    if spoil == "table":
        (records / "diagnoses" / "part-0.parquet").unlink()
        (corpus / "notes" / "part-0.parquet").unlink()
    if spoil == "column":
        table = pq.read_table(encounters).drop_columns(["discharge_time", "service"])
        runs.write_table(encounters, table.append_column("service", pa.array([1] * table.num_rows)))
    if spoil == "broken":
        encounters.write_bytes(encounters.read_bytes()[:200])
    with pytest.raises(InputError, match=said) as caught:
        build_tasks(cfg, records=records, corpus=corpus, out=tmp_path / "out", seed=7)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_note_text_is_in_no_message_and_no_manifest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hospital = hospital_of_all_sorts()
    for note in hospital.notes:
        note["text"] = f"CANARY {note['note_id']}"
    runs.set_quiet(False)
    try:
        built = build(hospital, tmp_path)
    finally:
        runs.set_quiet(True)
    assert "CANARY" not in "".join(capfd.readouterr())
    for path in built.out.rglob("*"):
        if path.is_file() and path.parent.name not in TASK_IDS:
            assert b"CANARY" not in path.read_bytes(), path
