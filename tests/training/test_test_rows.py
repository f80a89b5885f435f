"""No row of a test split is opened before the final evaluation: every file that is opened is traced; none is needed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from training_data import write_tasks

import warm
from lang1 import config as configuration
from lang1 import runs
from lang1.config import FinetuneConfig, SweepConfig
from lang1.models.load import load_tokenizer
from lang1.training import finetune, sweep
from lang1.training.asked import read_questions, read_rows

CFG = FinetuneConfig(
    tasks=("mortality", "readmission"), batch_size=4, max_steps_per_task=2, val_every=2, max_note_tokens=20, threads=1
)
SEARCH = SweepConfig(trials=2, steps=2)
TRACED = """
import json, sys
opened = []
def trace(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes):
        opened.append(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode())
sys.addaudithook(trace)
import pyarrow.parquet as pq
for name in ("read_table", "read_metadata", "ParquetFile", "read_schema"):  # Arrow opens files without Python's hooks
    def told(path, *more, inner=getattr(pq, name), **options):
        opened.append(str(path))
        return inner(path, *more, **options)
    setattr(pq, name, told)
from pathlib import Path
from pydantic import TypeAdapter
from lang1 import config
from lang1.training import finetune, sweep
search, cfg = (TypeAdapter(kind).validate_json(text)
               for kind, text in zip((config.SweepConfig, config.FinetuneConfig), sys.argv[1:3]))
tasks, model, out = map(Path, sys.argv[3:6])
sweep(search, cfg, tasks=tasks, model=model, out=out / "sweep", seed=1)
finetune(cfg, tasks=tasks, model=model, out=out / "model", seed=1)
print(json.dumps([path for path in opened if str(tasks) in path]))
"""


@pytest.fixture(scope="module")
def with_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tasks folder with all five splits."""
    tasks = write_tasks(tmp_path_factory.mktemp("tasks") / "tasks", 40, CFG.tasks)
    manifest = runs.read_json(tasks / "manifest.json")
    for task in CFG.tasks:
        for split in ("test", "temporal_1", "temporal_2"):
            path = tasks / task / f"{split}.parquet"
            shutil.copy(tasks / task / "val.parquet", path)
            facts = {"bytes": path.stat().st_size, "sha256": runs.sha256_file(path)}
            manifest["files"][f"{task}/{split}.parquet"] = facts
    runs.write_json(tasks / "manifest.json", manifest)
    return tasks


@pytest.mark.parametrize("kind", ["model_folder", "encoder"])
def test_every_file_of_the_tasks_that_is_opened_is_one_to_learn_from(
    with_tests: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(kind)
    arguments = [json.dumps(configuration.dump(value)) for value in (SEARCH, CFG)]
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    done = warm.run("-c", TRACED, *arguments, with_tests, model, tmp_path, env=one)
    assert done.returncode == 0, done.stderr
    opened = {Path(path).relative_to(with_tests).as_posix() for path in json.loads(done.stdout.splitlines()[-1])}
    learned = {f"{task}/{split}.parquet" for task in CFG.tasks for split in ("train", "val")}
    assert learned <= opened, "the trace sees nothing"
    assert opened - learned <= {"manifest.json", "questions.json"}


@pytest.mark.parametrize("kind", ["model_folder", "encoder"])
def test_both_run_where_the_test_splits_are_not(
    with_tests: Path, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(kind)
    bare = tmp_path / "tasks"
    shutil.copytree(with_tests, bare)
    for path in [*bare.glob("*/te*.parquet")]:
        path.unlink()
    for tasks, out in ((with_tests, "whole"), (bare, "bare")):
        sweep(SEARCH, CFG, tasks=tasks, model=model, out=tmp_path / out / "sweep", seed=1)
        finetune(CFG, tasks=tasks, model=model, out=tmp_path / out / "model", seed=1)
    for name in ("sweep/trials.json", "model/curve.jsonl", "model/model.safetensors"):
        assert (tmp_path / "bare" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    ours, theirs = (runs.read_manifest(tmp_path / out / "model")["inputs"] for out in ("whole", "bare"))
    assert ours == theirs


@pytest.mark.parametrize("split", ["test", "temporal_1", "temporal_2"])
def test_the_reader_of_training_rows_refuses_a_test_split(with_tests: Path, model_folder: Path, split: str) -> None:
    tokenizer = load_tokenizer(model_folder)
    asked = read_questions(with_tests, CFG.tasks, tokenizer)
    with pytest.raises(ValueError, match="opened by lang1 evaluate alone"):
        read_rows(with_tests, split, asked, tokenizer, CFG, 256, seed=1)  # type: ignore[arg-type]
