"""Small tokens and task folders through the real contracts, and stages started in processes of their own."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from lang1 import config as configuration
from lang1 import runs
from lang1.corpus.hashes import hash_id
from lang1.corpus.shards import ShardWriter
from lang1.corpus.tokenizer import open_encoder, write_given, write_trained
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, question_for
from lang1.tasks.schema import ROWS
from warm import Process

WORDS = (
    "patient admitted with chest pain denies fever cough history of diabetes on insulin alert stable frail".split()  # noqa: SIM905
)
SIGNS = {"readmission": "noncompliant", "mortality": "septic", "los": "drain", "cci": "tumor", "denial": "uninsured"}


def make_note(random_: random.Random, levels: dict[str, int]) -> str:
    """A short note in which a task's sign stands `level` times."""
    words = [random_.choice(WORDS) for _ in range(random_.randint(12, 30))]
    for task, level in levels.items():
        for _ in range(level):
            words.insert(random_.randrange(len(words)), SIGNS[task])
    return " ".join(words)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer trained on such notes."""
    random_ = random.Random(0)
    texts = [make_note(random_, dict.fromkeys(SIGNS, 1)) for _ in range(200)]
    questions = [question_for(t, n).text for t, n in NOTE_TYPE_PER_TASK.items()]
    write_trained(iter([texts + questions * 20]), 600, folder)


def write_tokens(out: Path, sources: dict[str, int], given: Path | None = None) -> Path:
    """A tokens folder with so many documents by source; a tenth of them for validation. `given`: a tokenizer."""

    def work(stage: runs.Stage) -> None:
        if given is None:
            write_tokenizer(stage.out / "tokenizer")
        else:
            write_given(given, stage.out / "tokenizer", stage.scratch())
        encoder = open_encoder(stage.out / "tokenizer")
        index = {
            "dtype": "uint16",
            "vocab_size": encoder.vocab_size,
            "bos_id": encoder.bos_id,
            "eos_id": encoder.eos_id,
            "separator_id": encoder.eos_id,
            "sources": {},
        }
        for number, (source, documents) in enumerate(sources.items()):
            random_, index["sources"][source] = random.Random(number), {}
            for split, count in (("train", documents), ("val", documents // 10)):
                writer = ShardWriter(stage.out, source, split, "uint16", 5000)
                for _ in range(count):
                    ids = encoder.encode([make_note(random_, {"mortality": random_.randint(0, 2)})])[0]
                    writer.write(np.array([*ids, encoder.eos_id]))
                writer.close()
                index["sources"][source][split] = {"files": writer.files, "documents": count}
        runs.write_json(stage.out / "index.json", index)

    runs.run_stage(out, "tokenize", {}, 1, {}, work)
    return out


def write_tasks(out: Path, rows: int, tasks: tuple[str, ...] = tuple(SIGNS), rare: float = 0.3, loud: int = 1) -> Path:
    """Task folders whose labels are planted in the notes: the sign stands `loud` times the label."""

    def work(stage: runs.Stage) -> None:
        random_ = random.Random(1)
        questions = {}
        for task in tasks:
            question = question_for(task, NOTE_TYPE_PER_TASK[task])
            questions[task] = {"text": question.text, "options": list(question.options)}
        runs.write_json(stage.out / "questions.json", questions)
        for split, count in (("train", rows), ("val", rows // 4)):
            tables: dict[str, list[dict[str, object]]] = {task: [] for task in tasks}
            for number in range(count):
                levels = {
                    t: (
                        random_.random() < rare
                        if len(questions[t]["options"]) == 2
                        else random_.randrange(len(questions[t]["options"]))
                    )
                    for t in tasks
                }
                for note_type in ("H&P", "discharge summary"):
                    asking = [t for t in tasks if NOTE_TYPE_PER_TASK[t] == note_type]
                    text = make_note(random_, {t: loud * int(levels[t]) for t in asking})
                    for task in asking:
                        tables[task].append(_row(task, split, f"{split}{number}", note_type, text, int(levels[task])))
            for task, found in tables.items():
                runs.write_table(stage.out / task / f"{split}.parquet", pa.Table.from_pylist(found, ROWS))

    runs.run_stage(out, "tasks", {}, 1, {}, work)
    return out


def _row(task: str, split: str, stay: str, note_type: str, text: str, label: int) -> dict[str, object]:
    return {
        "task": task,
        "row_id": f"{task}-{stay}",
        "patient_id": f"p{stay}",
        "encounter_id": stay,
        "note_id": f"n{stay}{note_type}",
        "note_type": note_type,
        "prediction_time": None,
        "text": text,
        "label": label,
        "split": split,
        "note_hash": hash_id(text),
    }


CHILD = """
import json, sys
from pathlib import Path
from lang1.config import FinetuneConfig, PretrainConfig
from lang1.training import finetune, pretrain
from pydantic import TypeAdapter
from lang1.errors import LangError
stage, cfg, inputs, out = sys.argv[1:5]
inputs = {key: Path(value) for key, value in json.loads(inputs).items()}
kind, run = {"pretrain": (PretrainConfig, pretrain), "finetune": (FinetuneConfig, finetune)}[stage]
try:
    run(TypeAdapter(kind).validate_json(cfg), **inputs, out=Path(out), seed=1)
except LangError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
"""


def start(stage: str, cfg: object, inputs: dict[str, Path], out: Path) -> Process:
    """The stage in a process of its own."""
    arguments = [json.dumps(configuration.dump(cfg)), json.dumps({k: str(v) for k, v in inputs.items()}), str(out)]
    return Process("-c", CHILD, stage, *arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_steps(process: Process, curve: Path, steps: int) -> None:
    """Return once the curve has so many lines."""
    deadline = time.monotonic() + 300
    while not curve.exists() or curve.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
