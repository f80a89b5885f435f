"""What cannot be evaluated ends as one line that says what and where."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from small_benchmark import write_model, write_tasks

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError


@pytest.fixture
def fast(config: EvaluateConfig) -> EvaluateConfig:
    return replace(config, baselines=(), tasks=("mortality",), splits=("test",))


def fault(inputs: Any, out: str, cfg: EvaluateConfig, **changed: Any) -> str:
    with pytest.raises(InputError) as raised:
        inputs.again(out, cfg, **changed)
    message = str(raised.value)
    assert "\n" not in message
    assert not (inputs.root / out / "summary.json").exists()
    return message


def test_a_folder_that_is_no_model(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    message = fault(inputs, "f1", fast, models={"m": tmp_path / "x"})
    assert message.startswith(f"{tmp_path / 'x'}: not a Hugging Face folder")


def test_a_model_folder_that_is_not_there(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    assert fault(inputs, "f2", fast, models={"m": tmp_path / "nowhere"}) == f"{tmp_path / 'nowhere'}: not found"


def test_weights_that_give_no_numbers(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    folder = shutil.copytree(inputs.models["lang1 zero-shot"], tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = fault(inputs, "f3", fast, models={"m": folder})
    assert message == (
        f"{folder}: gives no finite logits for 60 of 60 rows of mortality, test; "
        "its weights are broken or its training diverged"
    )


def test_a_tokenizer_of_another_model(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "small", 1, vocabulary=300)
    assert "entries and the model 300; the two are not of one model" in fault(inputs, "f4", fast, models={"m": folder})


def test_a_tasks_folder_of_another_stage(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    runs.run_stage(tmp_path / "records", "extract", {}, 1, {}, lambda stage: None)
    message = fault(inputs, "f5", fast, tasks=tmp_path / "records")
    assert message == f"{tmp_path / 'records'}: written by the stage extract, not tasks; give a tasks folder"


def test_a_tasks_folder_that_lost_a_file(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, ("mortality",))
    (tasks / "mortality" / "test.parquet").unlink()
    assert "mortality/test.parquet: missing, though manifest.json lists it" in fault(inputs, "f6", fast, tasks=tasks)


def test_a_label_that_is_no_option(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    rows = pq.read_table(inputs.tasks / "mortality" / "test.parquet")
    place = rows.column_names.index("label")
    wrong = rows.set_column(place, rows.schema.field("label"), pa.array([7] * len(rows), pa.int32()))
    runs.run_stage(
        tmp_path / "tasks",
        "tasks",
        {},
        1,
        {},
        lambda stage: runs.write_table(stage.out / "mortality" / "test.parquet", wrong),
    )
    message = fault(inputs, "f7", fast, tasks=tmp_path / "tasks")
    assert message.endswith("label 7 is not one of the 2 options; run lang1 tasks again")
    assert "test.parquet: row mortality-test-0:" in message


def test_nothing_to_score(inputs: Any, fast: EvaluateConfig) -> None:
    message = fault(inputs, "f8", replace(fast, tasks=("denial",)))
    assert message.endswith("no rows for any task and split that is asked for (denial: the source has no claims)")


def test_names_that_would_share_a_folder(inputs: Any, fast: EvaluateConfig) -> None:
    folder = inputs.models["lang1 zero-shot"]
    message = fault(inputs, "f9", fast, models={"my model": folder, "my-model": folder})
    assert message.startswith("models 'my model' and 'my-model' would share the folder my-model")


def test_a_truth_file_that_is_none(inputs: Any, fast: EvaluateConfig, tmp_path: Path) -> None:
    (tmp_path / "truth.parquet").write_text("no")
    assert "not readable as a truth file" in fault(inputs, "f10", fast, truth=tmp_path / "truth.parquet")
