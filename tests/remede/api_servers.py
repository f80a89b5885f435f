"""A tasks folder, a model that answers with letters, and its server: what the tests of the backends share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from small_benchmark import write_model

from lang1.config import ApiConfig, EvaluateConfig
from lang1.remede import Server, evaluate

QUICK = ApiConfig(backoff_s=0.01, retries=2, timeout_s=30, context_length=256)
CONFIG = EvaluateConfig(
    tasks=("mortality", "los"),
    splits=("test",),
    headline_split="test",
    baselines=(),
    bootstrap_resamples=20,
    threads=1,
    api=QUICK,
)


def write_letter_model(folder: Path, hidden: int = 32, heads: int = 2) -> Path:
    """The small model of small_benchmark, taught for a few seconds to answer a question with one of its letters."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    from lang1.scoring.options import encode_prompts, option_token_ids
    from lang1.tasks.prompts import question_for

    write_model(folder, 4)
    torch.set_num_threads(1)
    shape = LlamaForCausalLM.from_pretrained(folder).config
    shape.hidden_size, shape.num_attention_heads, shape.head_dim = hidden, heads, hidden // heads
    torch.manual_seed(4)
    model: Any = LlamaForCausalLM(shape)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    draw = np.random.default_rng(1)
    words = ("cough", "sepsis", "fracture", "edema", "stroke", "patient", "seen", "ward", "family", "stable")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(100):
        question = question_for(("mortality", "los", "cci")[step % 3], "H&P")
        options = option_token_ids(tokenizer, question)
        notes = [" ".join(draw.choice(words, 12)) for _ in range(8)]
        labels = [options[int(("sepsis" in note) + draw.integers(0, len(options) - 1))] for note in notes]
        prompts = [prompt.ids for prompt in encode_prompts(tokenizer, notes, question, 64)]
        width = max(map(len, prompts))
        tokens_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids in prompts])
        last_B1 = torch.tensor([[len(ids) - 1] for ids in prompts])
        logits_BV = model(tokens_BT, logits_to_keep=last_B1).logits[:, 0]
        loss = torch.nn.functional.cross_entropy(logits_BV, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def completions(url: str, tokenizer: Path) -> Server:
    return Server(url, "model", "completions", tokenizer)


def chat(url: str, tokenizer: Path | None = None) -> Server:
    return Server(url, "model", "chat", tokenizer)


def run(out: Path, tasks: Path, models: dict[str, Any], cfg: EvaluateConfig = CONFIG, **changed: Any) -> dict[str, Any]:
    """Evaluate, and return the manifest."""
    return evaluate(cfg, models=models, tasks=tasks, out=out, seed=5, **changed)


def scores(out: Path, model: str, task: str) -> Any:
    return pq.read_table(out / model / task / "test.parquet")


def probabilities(out: Path, model: str, task: str) -> Any:
    table = scores(out, model, task)
    return np.column_stack([table[name].to_numpy() for name in table.column_names if name.startswith("p_")])
