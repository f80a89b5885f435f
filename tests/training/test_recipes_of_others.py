"""The recipes for models that others made, each as its first lines say: a search, then what it found, on a folder as
the makers would save it, with their class, their positions and their way of tokenizing, in small."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from training_data import WORDS

from foreign_tokenizers import byte_level, sentencepiece
from lang1 import runs
from lang1.cli import main
from lang1.models.load import load_model, load_tokenizer
from lang1.tasks.prompts import question_for, render_question

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "vocab_size": 600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIGS: dict[str, Any] = {
    "llama-3.2-1b": transformers.LlamaConfig(
        **SMALL, max_position_embeddings=131072, rope_parameters=LLAMA_3, tie_word_embeddings=True, dtype="bfloat16"
    ),
    "llama-2-7b": transformers.LlamaConfig(
        **{**SMALL, "num_key_value_heads": 4}, max_position_embeddings=4096, rms_norm_eps=1e-5, dtype="float16"
    ),
    "deepseek-r1-distill-llama-70b": transformers.LlamaConfig(
        **SMALL, max_position_embeddings=131072, rope_parameters=LLAMA_3 | {"factor": 8.0}, dtype="bfloat16"
    ),
    "medmobile": transformers.Phi3Config(
        **SMALL, max_position_embeddings=4096, sliding_window=2047, pad_token_id=2, resid_pdrop=0.0, dtype="bfloat16"
    ),
}


def tokenizer_of(name: str) -> Any:
    """Byte-level BPE as of Llama 3, SentencePiece's way as of Llama 2 and Phi 3; both put BOS before a text."""
    texts = [render_question(question_for(task, "H&P")) for task in ("mortality", "los", "cci")]
    texts += [" ".join(WORDS), " x A B C D E"] * 20
    if name in ("llama-3.2-1b", "deepseek-r1-distill-llama-70b"):
        return byte_level(texts, SMALL["vocab_size"], bos_first=True)
    return sentencepiece(texts, SMALL["vocab_size"])


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["lang1", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recipe_searches_and_finetunes_what_its_makers_saved(
    name: str, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    start = tmp_path / "start"
    config = CONFIGS[name]
    transformers.AutoModelForCausalLM.from_config(config, dtype=config.dtype).save_pretrained(start)
    tokenizer_of(name).save_pretrained(start)

    folders = ("--tasks", tasks, "--model", start, "--quiet")
    shorter = ("finetune.max_steps_per_task=4", "finetune.batch_size=8", "finetune.val_every=2", "finetune.threads=1")
    run(
        monkeypatch, "sweep", RECIPES / f"finetune-{name}.yaml", *shorter, "sweep.trials=2", "sweep.steps=2",
        *folders, "--out", tmp_path / "sweep",
    )  # fmt: skip
    run(monkeypatch, "finetune", tmp_path / "sweep" / "finetune.yaml", *folders, "--out", tmp_path / "model")

    before, after = load_model(start), load_model(tmp_path / "model")
    assert type(after) is type(before)
    assert after.config.rope_parameters == before.config.rope_parameters
    assert len(runs.read_lines(tmp_path / "model" / "curve.jsonl")) == 4
    text = "patient denies fever"
    assert load_tokenizer(tmp_path / "model")(text)["input_ids"] == load_tokenizer(start)(text)["input_ids"]
    moved = {
        key
        for key, weight in after.state_dict().items()
        if not torch.equal(weight.float(), before.state_dict()[key].float())
    }
    if name == "deepseek-r1-distill-llama-70b":  # LoRA, merged: q and v of each layer alone
        assert moved == {f"model.layers.{i}.self_attn.{part}_proj.weight" for i in range(2) for part in "qv"}
    else:
        assert any("mlp" in key for key in moved)
        assert any("norm" in key for key in moved)
