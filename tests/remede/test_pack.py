"""The stock lm_eval command runs the pack offline and gives the AUROC of `lang1 evaluate`, few-shot and zero-shot."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from small_benchmark import write_comprehension

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.models.load import load_tokenizer
from lang1.remede.comprehension import evaluate_comprehension
from lang1.remede.pack import export_pack, remede_pack_utils

# no lang1, and no way out: a pack needs lm-eval alone
GUARD = """
import os, socket, sys
sys.modules["lang1"] = None
def refuse(*_args, **_more):
    open(os.environ["LEAK"], "a").write("tried to connect\\n")
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


@dataclass(frozen=True)
class Ran:
    """What one `lm_eval` run left, and ours beside it."""

    harness: dict[str, Any]
    ours: dict[str, float]
    folder: Path
    samples: int


@pytest.fixture(scope="module")
def comprehension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comprehension(tmp_path_factory.mktemp("comprehension"), 60, test=30)


def lm_eval(root: Path, pack: Path, model: Path, tasks: str) -> dict[str, Any]:
    """The stock command in a process of its own; its results file."""
    (root / "guard").mkdir()
    (root / "guard" / "sitecustomize.py").write_text(GUARD)
    environment = os.environ | {
        "PYTHONPATH": str(root / "guard"),
        "LEAK": str(root / "leak"),
        "HF_HOME": str(root / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "4"]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--tasks", tasks, "--include_path", str(pack)]
    done = subprocess.run(
        [*command, "--output_path", str(root / "results")], capture_output=True, text=True, env=environment, cwd=root
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (root / "leak").exists()
    (path,) = (root / "results").rglob("results_*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def few_shot(inputs: Any, config: EvaluateConfig, comprehension: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("pack")
    tasks = ("readmission", "mortality", "los")
    cfg = replace(
        config, baselines=(), tasks=tasks, splits=("temporal_2",), shots=2, shot_tokens=24, max_note_tokens=30
    )
    model = inputs.models["lang1 zero-shot"]
    export_pack(cfg, tasks=inputs.tasks, comprehension=comprehension, out=root / "pack", seed=5)
    harness = lm_eval(root, root / "pack", model, "remede")
    out = inputs.again("pack-scores", cfg, models={"m": model}).out
    ours = {row["task"]: row["value"] for row in runs.read_json(out / "summary.json")["results"]}
    evaluate_comprehension(cfg, models={"m": model}, comprehension=comprehension, out=root / "answers", seed=5)
    ours |= {row["task"]: row["value"] for row in runs.read_json(root / "answers" / "metrics.json")["rows"]}
    truncated = pq.read_table(out / "m/los/temporal_2.parquet")["truncated_tokens"].to_numpy()
    return Ran(harness, ours, root, int((truncated > 0).sum()))


def test_the_group_gives_the_auroc_of_lang1_evaluate(few_shot: Ran) -> None:
    results = few_shot.harness["results"]
    assert few_shot.samples > 20, "notes that are cut are among the rows"
    for task, metric in (("readmission", "auroc"), ("mortality", "auroc"), ("los", "auroc_ovr_macro")):
        assert results[f"remede_{task}"][f"{metric},none"] == pytest.approx(few_shot.ours[task], abs=1e-4)
    assert few_shot.harness["n-shot"]["remede_los"] == 2


def test_comprehension_in_the_pack_gives_the_accuracy_of_our_command(few_shot: Ran) -> None:
    for task in ("sciq", "pubmedqa"):
        assert few_shot.harness["results"][f"remede_{task}"]["acc,none"] == pytest.approx(few_shot.ours[task])


def test_no_note_is_in_the_pack_or_left_behind_by_the_harness(few_shot: Ran, inputs: Any) -> None:
    texts = [
        text
        for task in ("readmission", "mortality")
        for split in ("train", "temporal_2")
        for text in pq.read_table(inputs.tasks / task / f"{split}.parquet")["text"].to_pylist()
    ]
    planted = {" ".join(text.split()[:6]).encode() for text in texts}
    files = [path for name in ("pack", "results", "hf") for path in (few_shot.folder / name).rglob("*")]
    for path in files:
        if path.is_file():
            content = path.read_bytes()
            assert not any(words in content for words in planted), path


def test_every_split_zero_shot_through_simple_evaluate(inputs: Any, config: EvaluateConfig, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    model = inputs.models["lang1 finetuned joint"]
    cfg = replace(config, baselines=(), tasks=("mortality", "cci"), splits=("test", "temporal_2"))
    export_pack(cfg, tasks=inputs.tasks, out=tmp_path / "pack", seed=5)
    names = ["remede_mortality", "remede_mortality_test", "remede_cci", "remede_cci_test"]
    arguments = {"pretrained": str(model), "dtype": "float32"}
    manager = TaskManager(include_path=str(tmp_path / "pack"), include_defaults=False, metadata=arguments)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=names,
        task_manager=manager,
        device="cpu",
        batch_size=4,
        log_samples=False,
        bootstrap_iters=0,
    )["results"]
    out = inputs.again("pack-zero", cfg, models={"m": model}).out
    for row in runs.read_json(out / "summary.json")["results"]:
        name = f"remede_{row['task']}" + ("" if row["split"] == "temporal_2" else f"_{row['split']}")
        assert found[name][f"{row['metric']},none"] == pytest.approx(row["value"], abs=1e-4)


def test_the_pack_lists_its_examples_and_what_was_cut(few_shot: Ran) -> None:
    about = runs.read_json(few_shot.folder / "pack" / "pack.json")["tasks"]["los"]["shots"]
    assert about["k"] == len(about["row_ids"]) == 2
    assert about["kept_words"] == [12, 12]
    assert all(cut > 0 for cut in about["cut_words"])


def load_utils(pack: Path) -> Any:
    """The Python file of a pack, as lm-eval loads it."""
    spec = importlib.util.spec_from_file_location("utils_of_a_pack", pack / "remede_pack_utils.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_the_context_cuts_notes_are_as_long_as_ours(
    inputs: Any, config: EvaluateConfig, comprehension: Path, tmp_path: Path
) -> None:
    """A context of 60 and 30 tokens: room for question and answer stays, and no position more is given up."""
    pack = tmp_path / "pack"
    cfg = replace(config, baselines=(), tasks=("mortality", "los"), splits=("temporal_2",))
    export_pack(cfg, tasks=inputs.tasks, comprehension=comprehension, out=pack, seed=5)
    utils = load_utils(pack)
    for context, tasks in ((60, {"mortality": "temporal_2", "los": "temporal_2"}), (30, {"sciq": "val"})):
        model = tmp_path / f"model-{context}"
        shutil.copytree(inputs.models["lang1 zero-shot"], model)
        shape = runs.read_json(model / "config.json") | {"max_position_embeddings": context}
        runs.write_json(model / "config.json", shape)
        if "sciq" in tasks:
            out = tmp_path / "answers"
            evaluate_comprehension(cfg, models={"m": model}, comprehension=comprehension, out=out, seed=5)
        else:
            out = inputs.again("pack-context", cfg, models={"m": model}).out
        tokenizer = load_tokenizer(model)
        for task, split in tasks.items():
            ours = pq.read_table(out / "m" / task / f"{split}.parquet")
            docs = utils.dataset(task, split, pretrained=str(model))[split]
            assert docs["row_id"][:] == ours["row_id"].to_pylist()
            lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in docs["prompt"]]
            assert lengths == ours["prompt_tokens"].to_pylist()
            cut = ours["truncated_tokens"].to_numpy() > 0
            assert cut.any(), task
            if "sciq" not in tasks:
                assert {length for length, was_cut in zip(lengths, cut, strict=True) if was_cut} == {context - 2}


def test_no_note_of_a_scored_split_is_read_to_write_a_pack(
    inputs: Any, config: EvaluateConfig, comprehension: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[Path, set[str]] = {}
    read_table = pq.read_table

    def watched(source: Path, *given: Any, **more: Any) -> Any:
        table = read_table(source, *given, **more)
        read.setdefault(Path(source), set()).update(table.column_names)
        return table

    monkeypatch.setattr(pq, "read_table", watched)
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("temporal_2",), shots=2)
    export_pack(cfg, tasks=inputs.tasks, comprehension=comprehension, out=tmp_path / "pack", seed=5)
    texts = {path.stem for path, columns in read.items() if "text" in columns}
    assert texts == {"train"}, "examples are of train"
    assert {path.stem for path in read} == {"train", "val", "test", "temporal_1", "temporal_2"}


def test_the_name_of_the_prompts_knows_how_notes_and_examples_are_cut(
    inputs: Any, config: EvaluateConfig, tmp_path: Path
) -> None:
    cfg = replace(config, baselines=(), tasks=("mortality",), splits=("temporal_2",), shots=2)
    changed = (cfg, replace(cfg, max_note_tokens=99), replace(cfg, shot_tokens=9), replace(cfg, shots=3))
    for number, settings in enumerate(changed):
        export_pack(settings, tasks=inputs.tasks, out=tmp_path / str(number), seed=5)
    names = {runs.read_json(tmp_path / str(number) / "pack.json")["prompts"] for number in range(len(changed))}
    assert len(names) == len(changed)


def test_an_absent_class_is_in_no_average() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 50)
    labels = rng.integers(0, 3, 50)
    items = [(int(label), row.tolist()) for label, row in zip(labels, p, strict=True)]
    areas = [roc_auc_score(labels == k, p[:, k]) for k in range(3)]
    assert remede_pack_utils.auroc_ovr_macro(items) == pytest.approx(np.mean(areas))
    assert remede_pack_utils.auroc_ovr_weighted(items) == pytest.approx(np.average(areas, weights=np.bincount(labels)))
    assert np.isnan(remede_pack_utils.auroc([(1, [0.2, 0.8]), (1, [0.4, 0.6])]))
