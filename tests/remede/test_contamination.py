"""What a model met before is marked by note and by patient, from what travels with it; unknown is never false."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_benchmark import write_tokens

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.corpus.hashes import hash_id
from lang1.errors import InputError
from lang1.models.origin import NO_PRETRAINING, Pretraining, pretrained_on, read_pretraining
from lang1.remede.contamination import count_seen, what_was_seen
from lang1.remede.rows import TaskRows, open_tasks

FLAGS = (
    "seen_in_pretraining",
    "seen_in_pretraining_patient",
    "seen_in_finetuning",
    "seen_in_finetuning_patient",
)


@pytest.fixture
def rows(inputs: Any) -> TaskRows:
    found = open_tasks(inputs.tasks).read("mortality", "test")
    assert isinstance(found, TaskRows)
    return found


@pytest.fixture
def tokens(rows: TaskRows, tmp_path: Path) -> Path:
    """Row 0's note stood in the corpus under another patient's name, row 4's patient with another note."""
    texts, patients = rows.strings("text"), rows.strings("patient_id")
    return write_tokens(tmp_path, [texts[0], "a text of nobody"], ["somebody else", patients[4]])


def finetuned(folder: Path, origin: Pretraining, rows: TaskRows, note: int, patient: int) -> Path:
    """What `finetune` leaves beside the weights: row `note` was a training row, and a note of row `patient`'s."""
    folder.mkdir(exist_ok=True)
    runs.write_json(
        folder / "lang1.json", {"kind": "finetuned", "init": "pretrained", "pretraining": origin.as_facts()}
    )
    known = {
        "note_hash": [rows.strings("note_hash")[note], hash_id("x")],
        "patient_hash": [hash_id("somebody"), hash_id(rows.strings("patient_id")[patient])],
    }
    runs.write_table(folder / "seen.parquet", pa.table(known))
    return folder


@pytest.fixture
def subject(inputs: Any, rows: TaskRows, tokens: Path) -> Iterator[Path]:
    folder = inputs.models["lang1 finetuned joint"]
    yield finetuned(folder, pretrained_on(tokens, ("clinical",)), rows, note=1, patient=8)
    (folder / "seen.parquet").unlink()
    (folder / "lang1.json").unlink()


def only(config: EvaluateConfig, **changed: Any) -> EvaluateConfig:
    return replace(config, baselines=("tfidf+logistic",), tasks=("mortality",), splits=("test",), **changed)


def test_planted_notes_and_patients_are_marked_and_nothing_else(
    inputs: Any, rows: TaskRows, config: EvaluateConfig, tokens: Path, subject: Path
) -> None:
    found = inputs.again("planted", only(config), tokens=tokens)
    marked = pq.read_table(found.out / "lang1-finetuned-joint/mortality/test.parquet").to_pylist()
    ids, patients = rows.strings("row_id"), rows.strings("patient_id")

    def with_flag(name: str) -> list[str]:
        assert all(isinstance(row[name], bool) for row in marked)
        return [row["row_id"] for row in marked if row[name]]

    def of_patient(place: int) -> list[str]:
        return [i for i, patient in zip(ids, patients, strict=True) if patient == patients[place]]

    assert with_flag("seen_in_pretraining") == [ids[0]]  # the same text, though under another patient's name
    assert with_flag("seen_in_pretraining_patient") == of_patient(4)
    assert with_flag("seen_in_finetuning") == [ids[1]]
    assert with_flag("seen_in_finetuning_patient") == of_patient(8)
    (row,) = [r for r in found.json("metrics.json")["rows"] if r["model"] == "lang1 finetuned joint"]
    assert row["contamination"] == "notes"
    assert row["rows_of_notes_seen_in_pretraining"] == row["rows_of_notes_seen_in_finetuning"] == 1
    assert row["rows_of_patients_seen_in_pretraining"] == len(of_patient(4)) == 2
    assert row["rows_of_patients_seen_in_finetuning"] == len(of_patient(8)) == 2
    assert hash_id("somebody else") not in str(row)


def test_a_contaminated_evaluation_says_so_in_the_summary_and_a_stranger_is_unknown(
    inputs: Any, config: EvaluateConfig, tokens: Path, subject: Path
) -> None:
    found = inputs.again("labelled", only(config, headline_split="test"), tokens=tokens)
    summary = found.json("summary.json")
    words = {row["model"]: row["contamination"] for row in summary["results"]}
    # a baseline was fitted here on the train rows: other patients, other notes
    assert words == {"lang1 finetuned joint": "notes", "lang1 zero-shot": "unknown", "tfidf+logistic": "none"}
    assert {(c["model_b"], c["contamination_a"], c["contamination_b"]) for c in summary["comparisons"]} == {
        ("lang1 zero-shot", "notes", "unknown"),
        ("tfidf+logistic", "notes", "none"),
    }
    facts = summary["facts"]
    assert facts["contamination"] == {"test": {"notes": 1, "unknown": 1, "none": 1}}
    assert facts["seen"]["lang1 finetuned joint"] == {"pretraining": None, "finetuning": None}
    assert "does not say" in facts["seen"]["lang1 zero-shot"]["pretraining"]
    assert facts["headline_is_future_window"] is False
    strangers = pq.read_table(found.out / "lang1-zero-shot/mortality/test.parquet")
    assert all(strangers[name].null_count == len(strangers) for name in FLAGS)


def test_a_clean_evaluation_on_the_future_window_is_clean(
    inputs: Any, rows: TaskRows, config: EvaluateConfig, tmp_path: Path
) -> None:
    tokens = write_tokens(tmp_path, ["a text of nobody"], ["nobody"])
    folder = tmp_path / "model"
    shutil.copytree(inputs.models["lang1 zero-shot"], folder)
    runs.write_json(
        folder / "lang1.json", {"kind": "pretrained", "pretraining": pretrained_on(tokens, ("clinical",)).as_facts()}
    )
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("temporal_2",))
    found = inputs.again("clean", cfg, models={"m": folder}, tokens=tokens)
    (row,) = found.json("metrics.json")["rows"]
    assert row["contamination"] == "none"
    assert {row[key] for key in row if key.startswith("rows_of_")} == {0}
    scores = pq.read_table(found.out / "m/mortality/temporal_2.parquet")
    assert all(scores[name].null_count == 0 and not any(scores[name].to_pylist()) for name in FLAGS)
    assert found.json("summary.json")["facts"]["headline_is_future_window"] is True


def test_a_baseline_that_was_fitted_on_the_text_it_is_measured_on_is_marked(
    inputs: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    tasks = tmp_path / "copied"

    def plant(stage: runs.Stage) -> None:
        for path in sorted(inputs.tasks.rglob("*.parquet")):
            table = pq.read_table(path)
            if path == inputs.tasks / "mortality" / "train.parquet":
                test = pq.read_table(inputs.tasks / "mortality" / "test.parquet")
                copied = {
                    name: [*test[name].to_pylist()[:3], *table[name].to_pylist()[3:]] for name in ("text", "note_hash")
                }
                table = pa.table({name: copied.get(name, table[name]) for name in table.column_names}, table.schema)
            runs.write_table(stage.out / path.relative_to(inputs.tasks), table)

    runs.run_stage(tasks, "tasks", {}, 1, {}, plant)
    found = inputs.again("baseline", only(config), models={}, tasks=tasks)
    (row,) = found.json("metrics.json")["rows"]
    assert (row["contamination"], row["rows_of_notes_seen_in_finetuning"]) == ("notes", 3)
    assert row["rows_of_notes_seen_in_pretraining"] == row["rows_of_patients_seen_in_finetuning"] == 0


def test_the_tokens_must_be_those_that_the_model_names(rows: TaskRows, tokens: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", ["a text of nobody"], ["nobody"])
    model = finetuned(tmp_path / "m", pretrained_on(tokens, ("clinical",)), rows, 1, 8)
    assert what_was_seen(model, tokens, [rows]).pretraining.notes == {rows.strings("note_hash")[0]}
    wrong = what_was_seen(model, other, [rows])
    assert wrong.pretraining.notes is None
    assert "not the one" in str(wrong.reasons()["pretraining"])
    assert wrong.finetuning.notes == {rows.strings("note_hash")[1]}  # travels with the model
    without = what_was_seen(model, None, [rows]).pretraining
    assert (without.notes, without.patients) == (None, None)
    assert "--tokens" in str(without.unknown)


def test_only_sources_that_the_mix_drew_from_count(rows: TaskRows, tokens: Path, tmp_path: Path) -> None:
    web_only = finetuned(tmp_path / "web", pretrained_on(tokens, ("web",)), rows, 1, 8)
    assert what_was_seen(web_only, tokens, [rows]).pretraining.notes == frozenset()
    both = finetuned(tmp_path / "both", pretrained_on(tokens, ("clinical", "web")), rows, 1, 8)
    assert len(what_was_seen(both, tokens, [rows]).pretraining.notes or ()) == 1


def test_a_pretraining_folder_around_the_model_names_its_tokens(rows: TaskRows, tokens: Path, tmp_path: Path) -> None:
    run = tmp_path / "checkpoints"
    settings = {"mix": {"clinical": 0.5, "web": 0.0}}
    runs.run_stage(
        run, "pretrain", settings, 1, {"tokens": tokens}, lambda stage: runs.write_json(stage.out / "export/a.json", {})
    )
    origin = read_pretraining(run / "export")
    assert origin == pretrained_on(tokens, ("clinical",))
    seen = what_was_seen(run / "export", tokens, [rows])
    assert seen.pretraining.notes == {rows.strings("note_hash")[0]}
    assert seen.finetuning.notes == frozenset()


@pytest.mark.parametrize(
    ("facts", "pretraining", "finetuning"),
    [
        ({"kind": "finetuned", "init": "random"}, 0, None),
        ({"kind": "finetuned", "init": "pretrained"}, None, None),
        ({"kind": "pretrained", "pretraining": NO_PRETRAINING.as_facts()}, 0, 0),
        (None, None, None),
    ],
    ids=["random weights", "an older lang1.json", "never trained", "a stranger"],
)
def test_what_a_folder_does_not_say_is_unknown(
    facts: dict[str, Any] | None, pretraining: int | None, finetuning: int | None, rows: TaskRows, tmp_path: Path
) -> None:
    if facts is not None:
        runs.write_json(tmp_path / "lang1.json", facts)
    seen = what_was_seen(tmp_path, None, [rows])
    found = [None if part.notes is None else len(part.notes) for part in (seen.pretraining, seen.finetuning)]
    assert found == [pretraining, finetuning]
    assert [reason is None for reason in seen.reasons().values()] == [n is not None for n in found]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((False, False, False, False), "none"),
        ((False, True, False, False), "patients"),
        ((None, None, False, True), "unknown"),
        ((None, None, True, True), "notes"),
        ((True, False, None, None), "notes"),
        ((False, False, None, None), "unknown"),
    ],
)
def test_the_word_for_an_evaluation(flags: tuple[bool | None, ...], word: str) -> None:
    table = pa.table({name: pa.array([flag, flag], pa.bool_()) for name, flag in zip(FLAGS, flags, strict=True)})
    counted = count_seen(table)
    assert counted["contamination"] == word
    assert counted["rows_of_notes_seen_in_pretraining"] == (None if flags[0] is None else 2 * flags[0])
    assert counted["rows_of_patients_seen_in_finetuning"] == (None if flags[3] is None else 2 * flags[3])


def test_a_broken_list_of_what_was_seen_is_refused(rows: TaskRows, tokens: Path, tmp_path: Path) -> None:
    model = finetuned(tmp_path / "m", pretrained_on(tokens, ("clinical",)), rows, 1, 8)
    (model / "seen.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=r"seen\.parquet: not readable"):
        what_was_seen(model, tokens, [rows])
