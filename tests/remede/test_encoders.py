"""`evaluate` knows an encoder's folder: its heads' probabilities in the same score files, what was cut counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_benchmark import FILLER, SIGNS

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.corpus.tokenizer import write_wordpiece
from lang1.errors import InputError
from lang1.models.encoder import build_encoder, draw_head, encoder_config, special_ids
from lang1.models.export import export_model

HEADS = {"readmission": [0, 2], "los": [2, 6]}
POSITIONS = 24


def write_encoder(folder: Path, heads: dict[str, list[int]] | None = None, whole: bool = True) -> Path:
    """A tiny BERT with WordPiece; a classifier with heads, or as pretraining leaves it."""
    import torch
    from transformers import BertForSequenceClassification

    write_wordpiece(iter([[" ".join((*FILLER, *SIGNS))] * 9]), 400, folder / "tokenizer")
    ids = special_ids(folder / "tokenizer")
    if not whole:
        model: Any = build_encoder("encoder-tiny", ids, 1, POSITIONS)
        return export_model(model, folder / "tokenizer", folder / "model", {"kind": "pretrained"})
    config = encoder_config("encoder-tiny", ids.entries, POSITIONS, ids.pad)
    config.num_labels = max(end for _, end in (heads or HEADS).values())
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    draw_head(model, 3)
    return export_model(
        model, folder / "tokenizer", folder / "model", {"kind": "finetuned", "heads": heads or HEADS, "init": "random"}
    )


@pytest.fixture(scope="module")
def cfg(config: EvaluateConfig) -> EvaluateConfig:
    return replace(config, baselines=(), tasks=("readmission", "los"), splits=("test", "temporal_2"), batch_tokens=90)


def test_scores_are_the_classifier_s_on_the_note_alone(inputs: Any, cfg: EvaluateConfig, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = write_encoder(tmp_path)
    found = inputs.again("encoder", cfg, models={"nyutron": folder})
    model, tokenizer = BertForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    cut = 0
    for task, (first, end) in HEADS.items():
        table = pq.read_table(found.out / "nyutron" / task / "temporal_2.parquet").to_pylist()
        rows = pq.read_table(inputs.tasks / task / "temporal_2.parquet").to_pylist()
        text = {row["row_id"]: row["text"] for row in rows}
        for score in table:
            ids = tokenizer(text[score["row_id"]], add_special_tokens=False)["input_ids"]
            kept = ids[: POSITIONS - 2]
            with torch.no_grad():
                logits = model(torch.tensor([[tokenizer.cls_token_id, *kept, tokenizer.sep_token_id]])).logits
            p = logits[0, first:end].double().softmax(-1).numpy()
            np.testing.assert_allclose([score[f"p_{k}"] for k in range(end - first)], p, atol=1e-5)
            assert (score["prompt_tokens"], score["truncated_tokens"]) == (len(kept) + 2, len(ids) - len(kept))
            assert score["method"] == "encoder"
            cut += score["truncated_tokens"]
    assert cut > 0
    results = found.json("summary.json")["results"]
    assert {(row["task"], row["split"]) for row in results} == {(t, s) for t in HEADS for s in cfg.splits}
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in results)


def test_beside_a_language_model_a_task_without_a_head_is_left_out(
    inputs: Any, cfg: EvaluateConfig, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path, {"readmission": [0, 2]})
    ours = next(iter(inputs.models.items()))
    found = inputs.again("both", replace(cfg, splits=("test",)), models={"nyutron": folder, ours[0]: ours[1]})
    scored = {(row["model"], row["task"]) for row in found.json("summary.json")["results"]}
    assert scored == {("nyutron", "readmission"), (ours[0], "readmission"), (ours[0], "los")}


def test_what_cannot_answer_is_refused_in_a_line(inputs: Any, cfg: EvaluateConfig, tmp_path: Path) -> None:
    few = replace(cfg, splits=("test",))
    plain = write_encoder(tmp_path / "plain", whole=False)
    with pytest.raises(InputError, match=r"without the head of a task .* lang1 finetune --model"):
        inputs.again("plain", few, models={"nyutron": plain})
    other = write_encoder(tmp_path / "other", {"denial": [0, 2]})
    with pytest.raises(InputError, match="heads for denial, not for readmission, los"):
        inputs.again("other", few, models={"nyutron": other})
    wrong = write_encoder(tmp_path / "wrong", {"readmission": [0, 3], "los": [3, 7]})
    with pytest.raises(InputError, match="head for readmission has 3 options, the question 2"):
        inputs.again("wrong", few, models={"nyutron": wrong})
    lacking = write_encoder(tmp_path / "lacking")
    card = runs.read_json(plain / "lang1.json") | {"heads": HEADS}
    runs.write_json(plain / "lang1.json", card)
    (lacking / "model.safetensors").unlink()
    (lacking / "model.safetensors").write_bytes((plain / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="weights lack"):
        inputs.again("lacking", few, models={"nyutron": lacking})
