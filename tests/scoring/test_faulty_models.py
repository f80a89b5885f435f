"""A model that cannot answer ends `lang1 evaluate` with one line that says why, and exit code 2."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_options import merges_the_answer, one_token_a_letter

from lang1 import cli, runs

sys.path.append(str(Path(__file__).parents[1] / "remede"))

from small_benchmark import write_model, write_tasks


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs.set_quiet(True)
    return write_tasks(tmp_path_factory.mktemp("tasks"), ("mortality",), {"train": 8, "val": 8, "test": 8})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", 1)


@pytest.fixture
def fault(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], str]:
    """What the command says of a model."""

    def run(model: Path) -> str:
        words = ["evaluate", "evaluate.splits=[test]", "evaluate.headline_split=test", "evaluate.baselines=[]"]
        words += ["evaluate.tasks=[mortality]", "evaluate.threads=1", "--quiet", "--tasks", str(tasks)]
        monkeypatch.setattr(sys, "argv", ["lang1", *words, "--model", str(model), "--out", str(tmp_path / "out")])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert ended.value.code == 2, said
        (line,) = said.splitlines()
        assert line.startswith("lang1: ")
        return line

    return run


def test_the_same_model_unbroken_is_scored(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", "evaluate.splits=[test]", "evaluate.headline_split=test", "evaluate.baselines=[]"]
    words += ["evaluate.tasks=[mortality]", "evaluate.threads=1", "evaluate.bootstrap_resamples=20", "--quiet"]
    words += ["--tasks", str(tasks), "--model", str(model), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["lang1", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def test_a_model_without_the_option_tokens(model: Path, fault: Callable[[Path], str]) -> None:
    one_token_a_letter().save_pretrained(model)
    assert "the option ' A' takes 2 tokens, one is needed" in fault(model)


def test_a_tokenizer_that_merges_the_answer_with_the_option(model: Path, fault: Callable[[Path], str]) -> None:
    merges_the_answer().save_pretrained(model)
    assert "it merges 'Answer:' with the option ' A', so there is no answer position" in fault(model)


def test_logits_that_are_no_numbers(model: Path, fault: Callable[[Path], str]) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "gives no finite logits for 8 of 8 rows of mortality, test" in fault(model)


def test_weights_of_another_vocabulary(model: Path, fault: Callable[[Path], str], tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", 1, vocabulary=300)
    shutil.copy(other / "model.safetensors", model / "model.safetensors")
    assert "a checkpoint of another vocabulary or shape" in fault(model)


def test_a_tokenizer_of_a_larger_vocabulary(fault: Callable[[Path], str], tmp_path: Path) -> None:
    assert "the two are not of one model" in fault(write_model(tmp_path / "small", 1, vocabulary=300))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_is_never_read(name: str, model: Path, fault: Callable[[Path], str], tmp_path: Path) -> None:
    """Neither under its own name nor in the clothes of safetensors."""
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (ran,)

    (model / "model.safetensors").unlink()
    torch.save({"payload": Payload()}, model / name)
    said = fault(model)
    assert ("its weights are a pickle (pytorch_model.bin)" if name.endswith("bin") else "SafetensorError") in said
    assert "safetensors" in said
    assert not ran.exists()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"hidden_size": "wide"}, "Field 'hidden_size' expected int, got str"),
        ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "(ZeroDivisionError)"),
        ({"intermediate_size": -5}, "(RuntimeError)"),
        ({"dtype": "bfloat17"}, "(AttributeError)"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "requires bitsandbytes"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "requires optimum"),
        ({"attn_implementation": "flash_attention_2"}, "the package for FlashAttention2"),
    ],
)
def test_a_config_that_asks_for_what_cannot_be(
    value: dict[str, object], told: str, model: Path, fault: Callable[[Path], str]
) -> None:
    runs.write_json(model / "config.json", runs.read_json(model / "config.json") | value)
    said = fault(model)
    assert told in said and str(model) in said


def test_a_tokenizer_of_another_kind(model: Path, fault: Callable[[Path], str]) -> None:
    runs.write_json(model / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    assert "its tokenizer cannot be read (TypeError)" in fault(model)


def test_a_gguf_file_that_is_none(fault: Callable[[Path], str], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    assert "model.gguf: " in fault(tmp_path / "model.gguf")
