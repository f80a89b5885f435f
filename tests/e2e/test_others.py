"""Models beside the run's own, of every kind that recipes/local.yaml names: made, scored on the same rows, reported."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ALONE, LANG1, RECIPE, Run, lang1

pytestmark = pytest.mark.slow

OTHERS: dict[str, Any] = {
    "lang1 one-shot": {"shots": 1},
    "lang1 finetuned": {"single_task": True, "finetune": {"tasks": ["los", "cci"]}},
    "lang1 LoRA finetuned joint": {"finetune": {"method": "lora"}},
    "web-only finetuned joint": {"pretrain": {"mix": {"web": 1.0}, "steps": 6}, "finetune": {}},
    "encoder finetuned joint": {
        "tokenize": {"algorithm": "wordpiece", "question_words": False},
        "pretrain": {"preset": "encoder-tiny", "mix": {"clinical": 1.0}},
        "finetune": {},
    },
}
SHORT = ("pretrain.context_length=256", "evaluate.shot_tokens=20", "evaluate.max_rows=30", "random_twin=false")


def recipe(folder: Path, old: Path) -> Path:
    """tests/e2e/small.yaml with a page of web text and the others, `old` among them."""
    (folder / "web").mkdir(parents=True)
    (folder / "web" / "page.txt").write_text("\n\n".join(f"The {n}th house stood by the river." for n in range(900)))
    settings = yaml.safe_load(RECIPE.read_text())
    settings["tokenize"]["web"] = str(folder / "web")
    settings["others"] = {**OTHERS, "our old model": {"model": str(old)}}
    (folder / "others.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder / "others.yaml"


def test_a_run_with_other_models_killed_on_the_way_ends_with_all_of_them_on_the_same_rows(
    small: Run, tmp_path: Path
) -> None:
    made, out = recipe(tmp_path, small.folder / "checkpoints" / "export"), tmp_path / "run"
    process = subprocess.Popen([LANG1, "run", made, *SHORT, "--out", out], env=ALONE, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((out / "others").glob("*/model-los")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "summary.json").exists(), "it ended before the kill: nothing was tested"
    done = lang1("run", made, *SHORT, "--out", out)
    assert done.returncode == 0, done.stderr

    found = json.loads((out / "summary.json").read_text())
    rows = {(r["model"], r["task"]): r for r in found["results"] if r["split"] == "temporal_2"}
    tasks = {task for model, task in rows if model == "lang1 finetuned joint"}
    for name in (*OTHERS, "our old model"):
        answered = {task for model, task in rows if model == name}
        assert answered == ({"los", "cci"} if name == "lang1 finetuned" else tasks), name
    assert len({rows[model, "los"]["n"] for model, task in rows if task == "los"}) == 1
    details = json.loads((out / "scores" / "metrics.json").read_text())["rows"]
    assert len({row["rows_sha256"] for row in details if (row["task"], row["split"]) == ("los", "temporal_2")}) == 1
    shots = {row["model"]: row["shots"] for row in details if row["task"] == "los"}
    assert (shots["lang1 one-shot"], shots["lang1 zero-shot"], shots["our old model"]) == (1, 0, 0)
    seen = found["facts"]["seen"]
    assert seen["encoder finetuned joint"] == seen["lang1 finetuned joint"] == {"pretraining": None, "finetuning": None}

    page = (out / "report.html").read_text()
    for name in ("lang1 one-shot", "our old model", "LANG1 finetuned, LoRA", "Encoder finetuned"):
        assert f'<th scope="row">{name}</th>' in page, name
    again = lang1("run", made, *SHORT, "--out", out).stderr
    assert again.count("up to date") >= 17 and "started" not in again
