"""A small tasks folder with its truth, and small real models: what `evaluate` reads, made in a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lang1 import config, runs
from lang1.corpus.hashes import hash_id
from lang1.corpus.schema import DOCUMENTS
from lang1.tasks import build_comprehension
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, OPTIONS_PER_TASK, question_for, render_question
from lang1.tasks.schema import ROWS

SIZES = {"train": 240, "val": 80, "test": 60, "temporal_1": 60, "temporal_2": 90}
TASKS = ("readmission", "mortality", "los", "cci")
PUBMED = ("yes", "no", "maybe")
SIGNS = ("cough", "sepsis", "fracture", "edema", "stroke")
FILLER = ("patient", "seen", "today", "on", "the", "ward", "with", "family", "plan", "discussed", "vitals", "stable")


def write_tasks(root: Path, tasks: tuple[str, ...] = TASKS, sizes: dict[str, int] = SIZES) -> Path:
    """The tasks folder: signs in the note make an outcome likelier; `truth.parquet` beside it knows by how much."""
    truth: list[dict[str, Any]] = []
    tables = {}
    for task in tasks:
        for split, size in sizes.items():
            tables[task, split] = _rows(task, split, size, truth)

    def work(stage: runs.Stage) -> None:
        for (task, split), table in tables.items():
            runs.write_table(stage.out / task / f"{split}.parquet", table)
        questions = {task: question_for(task, NOTE_TYPE_PER_TASK[task]) for task in tasks}
        runs.write_json(
            stage.out / "questions.json",
            {task: {"text": q.text, "options": list(q.options)} for task, q in questions.items()},
        )
        stage.record(skipped={} if "denial" in tasks else {"denial": "the source has no claims"})

    runs.run_stage(root / "tasks", "tasks", config.dump(config.TasksConfig()), 1, {}, work)
    schema = pa.schema(
        [("task", pa.string()), ("encounter_id", pa.string()), *((f"p_{k}", pa.float64()) for k in range(5))]
    )
    runs.write_table(root / "truth.parquet", pa.Table.from_pylist(truth, schema=schema))
    return root / "tasks"


def _rows(task: str, split: str, size: int, truth: list[dict[str, Any]]) -> pa.Table:
    # an H&P is shared by its tasks: the note depends on the encounter, not on the task
    note_type, options = NOTE_TYPE_PER_TASK[task], OPTIONS_PER_TASK[task]
    rows = []
    for i in range(size):
        encounter = f"{split}-{i}"
        draw = np.random.default_rng([len(note_type), len(split), i])
        signs = draw.random(len(SIGNS)) < 0.3
        words = [*draw.choice(FILLER, draw.integers(12, 40)), *np.array(SIGNS)[signs]]
        text = " ".join(draw.permutation(words))
        logits = np.zeros(options)
        logits[1:] = 2.2 * signs[: options - 1] - 1.2 + 0.6 * signs[4]
        p = np.exp(logits) / np.exp(logits).sum()
        truth.append({"task": task, "encounter_id": encounter, **{f"p_{k}": v for k, v in enumerate(p)}})
        label = int(np.random.default_rng([sum(map(ord, task)), len(split), i]).choice(options, p=p))
        rows.append(
            {
                "task": task,
                "row_id": f"{task}-{encounter}",
                "patient_id": f"p-{split}-{i // 2}",
                "encounter_id": encounter,
                "note_id": f"n-{encounter}-{note_type}",
                "note_type": note_type,
                "text": text,
                "label": label,
                "split": split,
                "note_hash": hash_id(text),
            }
        )
    return pa.Table.from_pylist([{name: row.get(name) for name in ROWS.names} for row in rows], schema=ROWS)


def write_tokens(root: Path, texts: list[str], patients: list[str], source: str = "clinical") -> Path:
    """A tokens folder whose corpus held these notes and patients."""
    rows = [
        {
            "source": source,
            "split": "train",
            "note_hash": hash_id(text),
            "patient_hash": hash_id(patient),
            "signed_time": None,
            "tokens": 5,
        }
        for text, patient in zip(texts, patients, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
    runs.run_stage(
        root / "tokens", "tokenize", {}, 1, {}, lambda stage: runs.write_table(stage.out / "documents.parquet", table)
    )
    return root / "tokens"


def write_comprehension(root: Path, rows: int, test: int = 0) -> Path:
    """A folder of `lang1 comprehension`: so many questions a set, of PubMedQA the first `test` in its test split."""
    rng = np.random.default_rng(3)

    def words(n: int) -> str:
        return " ".join(rng.choice(FILLER, n))

    def answers_of(n: int) -> dict[str, str]:
        """Of one to three words each, no two alike: equal answers would tie."""
        drawn = list(rng.permutation(FILLER))
        sizes = {"correct_answer": 1 + n % 3, "distractor1": 1, "distractor2": 2, "distractor3": 3}
        return {name: " ".join(drawn.pop() for _ in range(size)) for name, size in sizes.items()}

    sciq = [{"support": words(12), "question": f"{words(4)} {n}?"} | answers_of(n) for n in range(rows)]
    pubmed = {
        str(n): {"QUESTION": f"{words(4)}?", "CONTEXTS": [words(9), words(5)], "final_decision": PUBMED[n % 3]}
        for n in range(rows)
    }
    (root / "sciq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sciq))
    (root / "pubmed.json").write_text(json.dumps(pubmed))
    (root / "ids.json").write_text(json.dumps([str(n) for n in range(test)]))
    build_comprehension(
        sciq=(root / "sciq.jsonl",),
        pubmedqa=(root / "pubmed.json",),
        pubmedqa_test=root / "ids.json" if test else None,
        out=root / "sets",
        seed=1,
    )
    return root / "sets"


def write_model(folder: Path, seed: int, vocabulary: int | None = None) -> Path:
    """A Hugging Face folder: a Llama of 20,000 weights and a byte-level tokenizer that knows the prompts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    questions = [render_question(question_for(t, NOTE_TYPE_PER_TASK[t])) + " A B C D E" for t in OPTIONS_PER_TASK]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([" ".join((*FILLER, *SIGNS))] * 9 + questions * 9, trainer)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    shape = LlamaConfig(
        vocab_size=vocabulary or backend.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder
