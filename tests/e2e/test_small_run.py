"""`lang1 run` on a small hospital: what it leaves, that it is done once, and that the model is anybody's to load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from running import ALONE, RECIPE, Run, lang1

from lang1.config import TasksConfig, TokenizeConfig, Window, WindowsConfig
from lang1.corpus import tokenize
from lang1.tasks import build_tasks

STAGES = (
    *("warehouse", "records", "corpus", "tokens", "checkpoints"),
    *("tasks", "model", "model-random", "scores", "report"),
)
MODELS = {
    "lang1 zero-shot",
    "lang1 finetuned joint",
    "lang1 random init finetuned joint",
    "tfidf+xgboost",
    "tfidf+logistic",
}
TASKS = {"readmission", "mortality", "los", "cci", "denial"}


def summary(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
    return found


def test_run_without_a_network_ends_with_every_stage_and_says_how_long_each_took(small: Run) -> None:
    for stage in STAGES:
        assert (small.folder / stage / "manifest.json").exists(), stage
        assert not list((small.folder / stage).rglob(".*")), f"{stage} left something behind"
    assert small.stdout == f"report: {small.folder / 'report.html'}\n"
    for stage in ("simulate", "extract", "clean", "tokenize", "pretrain", "tasks", "finetune", "evaluate", "report"):
        assert re.search(rf"^  {stage} +\d+\.\d s$", small.stderr, re.MULTILINE), stage
    assert re.search(r"^  all +\d+\.\d s, peak memory \d\.\d\d GiB$", small.stderr, re.MULTILINE)


def test_run_leaves_nothing_in_the_home_folder_but_matplotlibs_list_of_fonts(small: Run) -> None:
    left = [p.name for p in (small.folder.parent / "home").rglob("*") if p.is_file()]
    assert [name for name in left if not name.startswith("fontlist-")] == []


def test_summary_holds_the_contract(small: Run) -> None:
    found = summary(small)
    assert {"results", "comparisons"} <= found.keys()
    fields = {"task", "model", "split", "metric", "value", "ci_low", "ci_high", "n", "events", "ceiling", "share"}
    for row in found["results"]:
        assert fields <= row.keys()
        assert row["metric"] == ("auroc_ovr_macro" if row["task"] in {"los", "cci"} else "auroc")
        assert row["n"] == sum(row["events"].values()) > 0
        if row["value"] is None:
            assert row["share"] is None
        else:
            assert 0 <= row["value"] <= 1
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
        if row["share"] is not None:
            assert abs(row["share"] - (row["value"] - 0.5) / (row["ceiling"] - 0.5)) < 1e-9
    assert {row["task"] for row in found["results"]} == TASKS
    assert {row["model"] for row in found["results"]} == MODELS
    assert {row["split"] for row in found["results"]} == {"test", "temporal_2"}
    fields = {"task", "split", "model_a", "model_b", "difference", "ci_low", "ci_high", "p"}
    assert all(fields <= row.keys() for row in found["comparisons"])
    assert {row["model_a"] for row in found["comparisons"]} == {"lang1 finetuned joint"}
    assert {row["model_b"] for row in found["comparisons"]} == MODELS - {"lang1 finetuned joint"}


def test_ceiling_is_known_where_both_classes_are_there(small: Run) -> None:
    for row in summary(small)["results"]:
        assert (row["ceiling"] is None) == (row["value"] is None), row


def test_models_of_a_task_and_split_were_measured_on_the_same_rows(small: Run) -> None:
    seen = defaultdict(set)
    for row in summary(small)["results"]:
        seen[row["task"], row["split"]].add((row["n"], tuple(sorted(row["events"].items()))))
    assert {len(rows) for rows in seen.values()} == {1}


def test_report_opens_from_disk_alone(small: Run) -> None:
    page = (small.folder / "report.html").read_text()
    outside = re.findall(r"(?:src|href)=[\"']?(?!#|data:)([^\"' >]+)", page)
    assert [link for link in outside if not link.startswith("https://")] == [], "nothing beside the file is needed"
    assert not re.search(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"']?https?:", page)
    assert "@import" not in page
    for task in ("readmission", "mortality", "denial"):
        assert task in page.lower()


def test_run_again_does_nothing_anew(small: Run) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in small.folder.rglob("*") if p.is_file()}
    done = lang1("run", RECIPE, "--out", small.folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": up to date (") == len(STAGES)
    assert not re.search(": (started|resuming)", done.stderr)
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in small.folder.rglob("*") if p.is_file()}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed <= {"config.yaml"}


def test_files_are_not_world_readable(small: Run) -> None:
    assert [p for p in small.folder.rglob("*") if p.is_file() and p.stat().st_mode & 0o007] == []
    rejects = list((small.folder / "corpus" / "rejects").glob("*.parquet"))
    assert {p.stat().st_mode & 0o777 for p in rejects} == {0o600}


def test_manifests_balance(small: Run) -> None:
    clean = json.loads((small.folder / "corpus" / "manifest.json").read_text())["counts"]
    rejected = sum(n for reason, n in clean.items() if reason.startswith("rejected_"))
    assert clean["notes_in"] == clean["notes_out"] + rejected
    assert rejected > 0, "the simulated hospital gives the cleaner work"
    extract = json.loads((small.folder / "records" / "manifest.json").read_text())["counts"]
    assert extract["notes_kept"] == clean["notes_in"]


def test_corpus_ends_before_the_last_window_and_scores_say_what_was_seen(small: Run) -> None:
    import pyarrow.parquet as pq

    documents = pq.read_table(small.folder / "tokens" / "documents.parquet").to_pydict()
    assert max(time for time in documents["signed_time"] if time is not None) < datetime(2024, 1, 1)
    hashes = set(documents["note_hash"])
    for task in TASKS:
        rows = pq.read_table(small.folder / "tasks" / task / "temporal_2.parquet").to_pydict()
        seen = dict(zip(rows["row_id"], (note in hashes for note in rows["note_hash"]), strict=True))
        scores = pq.read_table(small.folder / "scores" / "lang1-zero-shot" / task / "temporal_2.parquet").to_pydict()
        said = dict(zip(scores["row_id"], scores["seen_in_pretraining"], strict=True))
        assert said == {row: seen[row] for row in said}, task


def test_models_load_in_a_fresh_process_with_plain_transformers_and_generate(small: Run) -> None:
    code = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("The patient is", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    grown = ids.shape[1] - prompt["input_ids"].shape[1]
    assert 1 <= grown <= 8, grown
    assert torch.isfinite(model(ids).logits).all()
    print(type(model).__name__, repr(tokenizer.decode(ids[0])))
assert not [name for name in sys.modules if name.startswith("lang1")]
"""
    folders = [small.folder / "model", small.folder / "model-random", small.folder / "checkpoints" / "export"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        env={**ALONE, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["LlamaForCausalLM"] * 3


def test_checkpoint_exports_by_command_to_the_same_weights(small: Run, tmp_path: Path) -> None:
    last = max((small.folder / "checkpoints").glob("step-*"))
    done = lang1("export", last, "--out", tmp_path / "export")
    assert done.returncode == 0, done.stderr
    exported = tmp_path / "export" / "model.safetensors"
    assert exported.read_bytes() == (small.folder / "checkpoints" / "export" / "model.safetensors").read_bytes()


def test_other_settings_are_refused_before_anything_is_done(small: Run) -> None:
    done = lang1("run", RECIPE, "pretrain.steps=13", "--out", small.folder)
    assert done.returncode == 2
    assert "made with other settings or inputs (steps: 12 -> 13)" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.access(small.folder / "checkpoints" / "manifest.json", os.R_OK)


@pytest.mark.parametrize("left_out", [False, True])
def test_index_notes_of_the_last_window_stand_in_the_corpus_only_where_open_stays_do(
    small: Run, tmp_path: Path, left_out: bool
) -> None:
    import pyarrow.parquet as pq

    records, corpus = small.folder / "records", small.folder / "corpus"
    encounters = pq.read_table(records / "encounters").to_pylist()
    nights: Counter[date] = Counter()
    for stay in encounters:
        if stay["encounter_class"] == "inpatient" and stay["discharge_time"] is not None:
            first, last = stay["admit_time"].date(), stay["discharge_time"].date()
            nights.update(first + timedelta(days=n) for n in range(1, (last - first).days + 1))
    [(end, patients)] = nights.most_common(1)
    assert patients > 1, "nobody was in the hospital that night"
    cfg = TokenizeConfig(vocab_size=300, end=end, leave_out_open_stays=left_out)
    tokenize(cfg, corpus=corpus, records=records, out=tmp_path / "tokens", seed=7)
    year = timedelta(days=365)
    windows = WindowsConfig(Window(date(2000, 1, 1), end - year), Window(end - year, end), Window(end, end + year))
    tasks = TasksConfig(windows=windows, denial_windows=windows)
    build_tasks(tasks, records=records, corpus=corpus, out=tmp_path / "tasks", seed=7)
    documents = set(pq.read_table(tmp_path / "tokens" / "documents.parquet")["note_hash"].to_pylist())
    rows = [
        note
        for task in TASKS
        for note in pq.read_table(tmp_path / "tasks" / task / "temporal_2.parquet")["note_hash"].to_pylist()
    ]
    assert len(rows) > 50
    assert (sum(note in documents for note in rows) == 0) == left_out
