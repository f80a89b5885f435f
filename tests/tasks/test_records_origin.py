"""What the records' manifest decides: shifted dates take no calendar split, MIMIC's newborns leave, a line warns."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from timelines import Built, Hospital, config, fill

from lang1 import runs
from lang1.cli import main
from lang1.errors import InputError
from lang1.tasks import build_tasks
from lang1.tasks.cautions import SHIFTED


def extracted(folder: Path, **facts: Any) -> tuple[Path, Path]:
    """Records with a manifest, as the extract stage leaves them, and their corpus."""
    hospital = Hospital()
    fill(hospital)
    hospital.stay("newborn", "2101-01-01", "2101-01-04", "n", admission_type="NEWBORN")
    hospital.stay("last of all", "2190-01-01", "2190-01-04", "late")
    records = folder / "records"

    def work(stage: runs.Stage) -> None:
        hospital.write(folder)
        stage.record(**facts)

    runs.run_stage(records, "extract", {}, 7, {}, work)
    return records, folder / "corpus"


def make(folder: Path, facts: dict[str, Any], **changes: Any) -> Built:
    records, corpus = extracted(folder, **facts)
    out = folder / "tasks"
    cfg = config(tasks=("readmission", "los"), **changes)
    return Built(out, build_tasks(cfg, records=records, corpus=corpus, out=out, seed=7))


MIMIC = pytest.mark.parametrize("facts", [{"source": "mimic3"}, {"source": "sql", "dates_shifted": True}], ids=str)


@MIMIC
def test_shifted_dates_refuse_what_a_calendar_decides(facts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"split_by is 'time' but the dates .* are shifted .*; set tasks.split_by"
    ) as e:
        make(tmp_path / "time", facts)
    assert "\n" not in str(e.value)
    with pytest.raises(
        InputError, match=r"follow_up_end is 2150-01-01 but the dates .* leave tasks.follow_up_end null"
    ):
        make(tmp_path / "follow", facts, split_by="patient", follow_up_end=date(2150, 1, 1))
    assert not list(tmp_path.glob("*/tasks/**/*.parquet"))


@MIMIC
def test_shifted_dates_end_no_follow_up_and_newborns_leave(facts: dict[str, Any], tmp_path: Path) -> None:
    built = make(tmp_path, facts, split_by="patient")
    assert built.labels("readmission") == {"last of all": 0}
    assert built.reasons("los") == {"newborn": "is no newborn's"}
    statistics = json.loads((built.out / "statistics.json").read_text())
    assert statistics["readmission"]["cautions"][0] == SHIFTED
    assert statistics["los"]["cautions"] == []
    facts = built.manifest["facts"]
    assert (facts["dates_shifted"], facts["exclude_newborns"]) == (True, True)
    kept = make(tmp_path / "kept", {"source": "mimic3"}, split_by="patient", exclude_newborns=False)
    assert "newborn" in kept.labels("los")


@pytest.mark.parametrize("facts", [{}, {"source": "omop", "signed_time_from": "note_signed_datetime"}], ids=str)
def test_other_records_are_split_by_time_and_keep_newborns(facts: dict[str, Any], tmp_path: Path) -> None:
    built = make(tmp_path, facts)
    statistics = json.loads((built.out / "statistics.json").read_text())
    assert statistics["readmission"]["cautions"] == []
    assert "followed up" not in built.reasons("los").get("newborn", "")
    assert pq.read_table(built.out / "left_out" / "los.parquet").num_rows == 2  # 2101 and 2190 are in no window
    assert not built.manifest["facts"]["exclude_newborns"]


def test_clock_that_stands_in_for_signing_is_said(tmp_path: Path) -> None:
    built = make(tmp_path, {"source": "omop", "signed_time_from": "note_datetime"})
    assert built.manifest["facts"]["signed_time_from"] == "note_datetime"
    assert "note_datetime stands in" in json.loads((built.out / "statistics.json").read_text())["los"]["cautions"][0]


def test_command_prints_the_warning_each_time_and_refuses_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, corpus = extracted(tmp_path, source="mimic3", dates_shifted=True)

    def lang1_tasks(*overrides: str) -> int:
        command = ["lang1", "tasks", "--records", records, "--corpus", corpus, "--out", tmp_path / "t", "--quiet"]
        monkeypatch.setattr("sys.argv", [str(word) for word in command] + list(overrides))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert lang1_tasks() == 2
    told = capsys.readouterr()
    assert told.err.startswith("lang1: tasks: split_by is 'time' but the dates")
    assert told.err.count("\n") == 1
    for _ in range(2):  # the second time the stage is up to date
        assert lang1_tasks("tasks.tasks=[readmission]", "tasks.split_by=patient") == 0
        assert f"readmission: note: {SHIFTED}\n" in capsys.readouterr().out
