"""Probabilities for a file of notes: those of evaluation, ids and no text, a bad row named before the model runs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from evaluation import Evaluation
from safetensors.torch import load_file, save_file

import warm
from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import ConfigError, InputError
from lang1.remede import predict

CFG = EvaluateConfig(threads=1, batch_tokens=2000)
CANARY = "quetzalcoatl"


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("note_id", "text")) -> Path:
    with path.open("w", newline="") as sink:
        csv.writer(sink).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def model(inputs: Evaluation) -> Path:
    return next(iter(inputs.models.values()))


@pytest.fixture(scope="module")
def notes(inputs: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 60 test notes of mortality, ids of the task rows."""
    table = pq.read_table(inputs.tasks / "mortality" / "test.parquet", columns=["row_id", "text", "patient_id"])
    path = tmp_path_factory.mktemp("notes") / "notes.parquet"
    pq.write_table(table, path, row_group_size=7)
    return path


def run(model: Path, notes: Path, out: Path, **options: Any) -> dict[str, Any]:
    return predict(CFG, model=model, notes=notes, task="mortality", out=out, **options)


def test_the_probabilities_are_those_of_the_evaluation(
    evaluation: Evaluation, model: Path, notes: Path, tmp_path: Path
) -> None:
    facts = run(model, notes, tmp_path / "p.parquet", id_column="row_id")
    ours = pq.read_table(tmp_path / "p.parquet")
    theirs = pq.read_table(evaluation.out / "lang1-zero-shot" / "mortality" / "test.parquet").to_pylist()
    wanted = {row["row_id"]: row for row in theirs}
    assert ours["note_id"].to_pylist() == pq.read_table(notes)["row_id"].to_pylist(), "the order of the notes"
    assert len(ours) == len(wanted) == facts["rows"] == 60
    for row in ours.to_pylist():
        assert row["p_1"] == pytest.approx(wanted[row["note_id"]]["p_1"], abs=1e-6)
        assert row["p_0"] + row["p_1"] == pytest.approx(1)
        assert row["prompt_tokens"] == wanted[row["note_id"]]["prompt_tokens"]
    assert facts["columns"] == {"p_0": "no", "p_1": "yes"}
    assert ours.column_names == ["note_id", "p_0", "p_1", "prompt_tokens", "truncated_tokens"]


def test_csv_and_parquet_give_the_same_in_and_out(model: Path, notes: Path, tmp_path: Path) -> None:
    table = pq.read_table(notes)
    pa.csv.write_csv(table, tmp_path / "notes.csv")
    for source, out in ((notes, "a.csv"), (tmp_path / "notes.csv", "b.csv"), (notes, "c.parquet")):
        run(model, source, tmp_path / out, id_column="row_id")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    for kind in (pa.large_string(), pa.string_view()):  # as other libraries write text
        as_kind = table.cast(pa.schema([(name, kind) for name in table.column_names]))
        pq.write_table(as_kind, tmp_path / "kind.parquet")
        run(model, tmp_path / "kind.parquet", tmp_path / "a.csv", id_column="row_id", force=True)
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes(), kind
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [float(r["p_1"]) for r in rows] == pq.read_table(tmp_path / "c.parquet")["p_1"].to_pylist()


def test_what_was_cut_is_reported_and_the_models_own_length_is_kept(model: Path, notes: Path, tmp_path: Path) -> None:
    whole = run(model, notes, tmp_path / "whole.csv", id_column="row_id")
    assert whole["max_note_tokens"] == 512
    cut = run(model, notes, tmp_path / "cut.parquet", id_column="row_id", max_note_tokens=5)
    table = pq.read_table(tmp_path / "cut.parquet")
    assert cut["rows_truncated"] == 60
    assert cut["tokens_truncated"] == sum(table["truncated_tokens"].to_pylist()) > 0
    shutil.copytree(model, tmp_path / "finetuned")
    runs.write_json(tmp_path / "finetuned" / "lang1.json", {"max_note_tokens": 9})
    assert run(tmp_path / "finetuned", notes, tmp_path / "own.csv", id_column="row_id")["max_note_tokens"] == 9


def test_the_question_is_the_models_own_then_yours(model: Path, notes: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "finetuned")
    asked = {"mortality": {"text": "Will the patient die?", "options": ["no", "yes", "cannot tell"]}}
    runs.write_json(tmp_path / "finetuned" / "questions.json", asked)
    facts = run(tmp_path / "finetuned", notes, tmp_path / "own.parquet", id_column="row_id")
    assert facts["question"]["from"] == "the model's folder"
    assert pq.read_table(tmp_path / "own.parquet").column_names[1:4] == ["p_0", "p_1", "p_2"]
    (tmp_path / "ask.yaml").write_text('text: Is the patient stable?\noptions: ["no", "yes"]\n')
    mine = predict(CFG, model=model, notes=notes, task="stable", out=tmp_path / "m.csv", id_column="row_id",
                   question=tmp_path / "ask.yaml")  # fmt: skip
    assert mine["question"] == {"text": "Is the patient stable?", "options": ["no", "yes"], "from": "ask.yaml"}
    with pytest.raises(InputError, match=r"--task stable: no question of that name \(there are readmission, mort"):
        predict(CFG, model=model, notes=notes, task="stable", out=tmp_path / "n.csv", id_column="row_id")
    (tmp_path / "ask.yaml").write_text("text: Is the patient stable?\noptions: [no, yes]\n")  # booleans to YAML
    with pytest.raises(InputError, match=r"ask\.yaml: must hold `text`, the question, and `options`, 2 to 26 answers"):
        predict(CFG, model=model, notes=notes, task="s", out=tmp_path / "o.csv", question=tmp_path / "ask.yaml")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", "seen today"), ("b", "")], "row 2, column text: empty; mend or leave out those rows"),
        ([("", "x"), ("b", "y"), ("b", CANARY)],
         "row 1, column note_id: empty; row 3, column note_id: this id stands in an earlier row too; mend"),
        ([(f"{i // 2}", "x") for i in range(40)],
         "row 10, column note_id: this id stands in an earlier row too and 15 more"),
        ([], "no rows"),
        ([("a", "x", "y")], "row 1: has fewer or more fields than the header's 2"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_and_nothing_is_written(
    rows: list[tuple[str, ...]], told: str, model: Path, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "notes.csv", rows)
    with pytest.raises(InputError) as raised:
        run(model, path, tmp_path / "p.csv")
    assert told in str(raised.value) and CANARY not in str(raised.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.csv"]


def test_of_a_first_row_that_is_a_note_no_word_is_told(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "headerless.csv"
    path.write_text(f"17,Patient {CANARY} admitted with chest pain.\n18,Stable and discharged.\n")
    with pytest.raises(InputError) as raised:
        run(model, path, tmp_path / "p.csv")
    assert str(raised.value).endswith("no column note_id, text; the first row is no header (2 fields)")


def test_other_files_are_refused_by_what_is_wrong(model: Path, notes: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (
            notes,
            {},
            r"no column note_id; name yours with --id and --text, did you mean row_id\?; the file has row_id, text",
        ),
        (tmp_path / "none.csv", {}, "no such file"),
        (write_csv(tmp_path / "notes.txt", [("a", "b")]), {}, r"notes come as \.parquet, \.csv or \.tsv"),
    ]
    (tmp_path / "latin.csv").write_bytes(b"note_id,text\n1,caf\xe9\n")
    cases.append((tmp_path / "latin.csv", {}, "row 1, column text: not UTF-8"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    cases.append((tmp_path / "broken.parquet", {}, "not readable as Parquet"))
    pq.write_table(pa.table({"note_id": [1.5], "text": ["x"]}), tmp_path / "floats.parquet")
    cases.append((tmp_path / "floats.parquet", {}, "column note_id is double, not text or whole numbers"))
    pq.write_table(pa.table({"note_id": [1, None], "text": ["x", "y"]}), tmp_path / "null.parquet")
    cases.append((tmp_path / "null.parquet", {}, "row 2, column note_id: empty"))
    for name in ("note_id", "text"):
        twice = pa.Table.from_arrays([pa.array(["1"]), pa.array(["x"]), pa.array(["2"])], ["note_id", "text", name])
        pq.write_table(twice, tmp_path / f"two_{name}.parquet")
        cases.append((tmp_path / f"two_{name}.parquet", {}, f"two columns are named {name}; rename one"))
        (tmp_path / f"two_{name}.csv").write_text(f"note_id,text,{name}\n1,x,2\n")
        cases.append((tmp_path / f"two_{name}.csv", {}, f"two columns are named {name}; rename one"))
    for path, options, told in cases:
        with pytest.raises(InputError, match=told):
            run(model, path, tmp_path / "p.csv", **options)
    ours = tmp_path / "ours.csv"
    run(model, notes, ours, id_column="row_id")
    with pytest.raises(InputError, match="is there already"):
        run(model, notes, ours, id_column="row_id")
    run(model, notes, ours, id_column="row_id", force=True)
    with pytest.raises(InputError, match="is the file of notes itself"):
        run(model, ours, ours, force=True)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):  # before the model runs
        run(model, notes, tmp_path / "folder.csv", id_column="row_id", force=True)
    assert not (tmp_path / "folder.csv.part").exists()
    with pytest.raises(InputError, match=r"a \.parquet or \.csv file"):
        run(model, notes, tmp_path / "p.xlsx")


def stop_at_the_second(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three pieces of 20 notes, the model's power gone in the second; returns what is asked, growing."""
    monkeypatch.setattr("lang1.remede.note_files.ROWS", 20)
    asked: list[str] = []

    def break_off(_model: Path, _logits: Any, which: str) -> None:
        asked.append(which)
        if len(asked) == 2:
            raise InputError("out of power")

    monkeypatch.setattr("lang1.remede.prediction.check_finite", break_off)
    return asked


def test_a_fault_midway_leaves_the_file_that_was_there_and_the_finished_notes(
    model: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.csv"
    run(model, notes, out, id_column="row_id")
    before = out.read_bytes()
    stop_at_the_second(monkeypatch)
    with pytest.raises(InputError, match="out of power"):
        run(model, notes, out, id_column="row_id", force=True)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "p.csv.json", "p.csv.part"]
    assert sorted(p.name for p in (tmp_path / "p.csv.part").iterdir()) == ["000000.parquet", "asked.json"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_finished_notes_are_not_read_by_the_model_again(
    suffix: str, model: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stop_at_the_second(monkeypatch)
    with pytest.raises(InputError, match="out of power"):
        run(model, notes, tmp_path / f"cut.{suffix}", id_column="row_id")
    cut = run(model, notes, tmp_path / f"cut.{suffix}", id_column="row_id")
    assert [which.rpartition("from ")[2] for which in asked] == [f"row {row} on" for row in (1, 21, 21, 41)]
    whole = run(model, notes, tmp_path / f"whole.{suffix}", id_column="row_id")
    assert cut == whole
    for name in (f"{{}}.{suffix}", f"{{}}.{suffix}.json"):
        assert (tmp_path / name.format("cut")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_finished_notes_of_another_command_are_read_again(
    model: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stop_at_the_second(monkeypatch)
    with pytest.raises(InputError, match="out of power"):
        run(model, notes, tmp_path / "p.csv", id_column="row_id")
    run(model, notes, tmp_path / "p.csv", id_column="row_id", max_note_tokens=5)
    assert len(asked) == 2 + 3
    run(model, notes, tmp_path / "fresh.csv", id_column="row_id", max_note_tokens=5)
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "fresh.csv").read_bytes()


def test_after_kill_9_the_same_command_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [(str(n), " ".join(rng.choice(["fever", "cough", "stable", "seen", "ward"], 30))) for n in range(4000)]
    path = write_csv(tmp_path / "notes.csv", rows)

    def start(out: Path) -> warm.Process:
        words = ["predict", model, path, "--task", "los", "--out", out, "evaluate.threads=1"]
        return warm.Process("-m", "lang1.cli", *words)

    killed = start(tmp_path / "killed.csv")
    while not (tmp_path / "killed.csv.part" / "000001.parquet").is_file():
        assert killed.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed.csv").exists()
    again, undisturbed = start(tmp_path / "killed.csv"), start(tmp_path / "whole.csv")
    said = again.communicate()[1]
    undisturbed.communicate()
    assert (again.returncode, undisturbed.returncode) == (0, 0)
    assert "resuming" in said
    for end in ("csv", "csv.json"):
        assert (tmp_path / f"killed.{end}").read_bytes() == (tmp_path / f"whole.{end}").read_bytes()
    left = ["killed.csv", "killed.csv.json", "notes.csv", "whole.csv", "whole.csv.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_a_model_without_numbers_is_told_with_its_rows(model: Path, notes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no finite logits for 60 of 60 rows of notes\.parquet from row 1 on"):
        run(broken, notes, tmp_path / "p.csv", id_column="row_id")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken"]


def test_no_tokens_of_a_note_is_no_number(model: Path, notes: Path, tmp_path: Path) -> None:
    for none in (0, -3):
        with pytest.raises(ConfigError, match=f"--max-note-tokens {none}: at least 1"):
            run(model, notes, tmp_path / "p.csv", id_column="row_id", max_note_tokens=none)


def test_the_command_says_what_it_did_and_no_text_is_anywhere(model: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "n.csv", [("1", f"seen today with {CANARY}"), ("2", "stable, \n family at bedside")])
    command = ["-m", "lang1.cli", "predict", model, path, "--task", "los", "--out", tmp_path / "o.csv"]
    done = warm.run(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == runs.read_json(tmp_path / "o.csv.json")
    for text in (done.stdout, done.stderr, (tmp_path / "o.csv").read_text(), (tmp_path / "o.csv.json").read_text()):
        assert CANARY not in text
    again = warm.run(*command)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.splitlines()[-1].startswith("lang1: --out") and "Traceback" not in again.stderr


READER = """
import sys, resource
from pathlib import Path
from lang1.remede.note_files import NoteFile
file = NoteFile(Path(sys.argv[1]), "note_id", "text")
import pyarrow.parquet, pyarrow.csv, numpy
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(file.check(), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_never_held_whole(suffix: str, tmp_path: Path) -> None:
    path, size = tmp_path / f"notes.{suffix}", 150
    table = pa.table(
        {"note_id": [str(i) for i in range(size * 10)], "text": [f"{i} " * 20_000 for i in range(10)] * size}
    )
    assert table.nbytes > 50 << 20
    pa.csv.write_csv(table, path) if suffix == "csv" else pq.write_table(table, path, row_group_size=100)
    done = subprocess.run([sys.executable, "-c", READER, path], capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == size * 10
    assert grown < 40, f"{grown} MiB for a file of {table.nbytes >> 20} MiB"
