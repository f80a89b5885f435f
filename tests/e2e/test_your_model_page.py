"""docs/your-model.md, command by command, on a model that transformers and tokenizers made and this package did not."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from running import ALONE, TRIMMED, lang1

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def foreign_model(folder: Path) -> Path:
    """A GPT-2 with a byte-level BPE learned from our pages, as its makers' libraries save it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    bpe = ByteLevelBPETokenizer()
    pages = sorted(map(str, (ROOT / "docs").rglob("*.md")))
    bpe.train([str(ROOT / "LICENSE"), *pages], vocab_size=3000, special_tokens=["<|endoftext|>"])
    folder.mkdir()
    bpe.save_model(str(folder))
    tokenizer = GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=2048, n_embd=48, n_layer=2, n_head=4, bos_token_id=end, eos_token_id=end
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def commands(page: Path) -> list[list[str]]:
    text = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL))
    return [shlex.split(line) for line in text.splitlines() if line.startswith("lang1 ")]


def test_the_pages_commands_measure_a_model_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = foreign_model(tmp_path / "theirs")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    smaller = {"simulate.encounters=6000": "simulate.encounters=2500"} if TRIMMED else {}
    shown = {}
    for words in commands(ROOT / "docs" / "your-model.md"):
        arguments = [smaller.get(word, word.replace("/models/mine", str(model))) for word in words[1:]]
        done = lang1(*arguments, environment=None if TRIMMED else ALONE)
        assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr[-2000:]}"
        shown[arguments[0], len(shown)] = done.stdout
    results = {
        name: [
            row
            for row in json.loads((tmp_path / "remede" / name / "summary.json").read_text())["results"]
            if row["model"] == "mine"
        ]
        for name in ("zero-shot", "two-shot")
    }
    for rows in results.values():
        assert {row["task"] for row in rows} == {"readmission", "mortality", "los", "cci", "denial"}
        assert all(row["n"] <= 200 and row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    assert [r["value"] for r in results["zero-shot"]] != [r["value"] for r in results["two-shot"]]
    assert "mortality" in next(text for (name, place), text in shown.items() if name == "evaluate" and place == 6)
    table = (tmp_path / "remede" / "table.html").read_text()
    assert "mine" in table and "tfidf+xgboost" in table
    probabilities = pq.read_table(tmp_path / "remede" / "probabilities.parquet")
    assert probabilities.num_rows == pq.read_metadata(tmp_path / "remede/tasks/mortality/temporal_2.parquet").num_rows
    assert "text" not in probabilities.column_names
