"""Small tokens and task folders, written through the real contracts: real tokenizer, shards, index, rows."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lang1 import runs
from lang1.corpus.hashes import hash_id
from lang1.corpus.shards import ShardWriter
from lang1.corpus.tokenizer import open_encoder, write_trained
from lang1.tasks.prompts import NOTE_TYPE_PER_TASK, question_for
from lang1.tasks.schema import ROWS

WORDS = "patient admitted with chest pain denies fever cough history of diabetes on insulin alert stable frail".split()
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
    texts = [make_note(random_, {task: 1 for task in SIGNS}) for _ in range(200)]
    questions = [question_for(t, n).text for t, n in NOTE_TYPE_PER_TASK.items()]
    write_trained(iter([texts + questions * 20]), 600, folder)


def write_tokens(out: Path, sources: dict[str, int]) -> Path:
    """A tokens folder with so many documents by source; a tenth of them for validation."""

    def work(stage: runs.Stage) -> None:
        write_tokenizer(stage.out / "tokenizer")
        encoder = open_encoder(stage.out / "tokenizer")
        index = {"dtype": "uint16", "vocab_size": encoder.vocab_size, "bos_id": encoder.bos_id,
                 "eos_id": encoder.eos_id, "separator_id": encoder.eos_id, "sources": {}}
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


def write_tasks(out: Path, rows: int, tasks: tuple[str, ...] = tuple(SIGNS), rare: float = 0.3) -> Path:
    """Task folders whose labels are planted in the notes: the sign's count is the label."""

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
                levels = {t: (random_.random() < rare if len(questions[t]["options"]) == 2
                              else random_.randrange(len(questions[t]["options"]))) for t in tasks}
                for note_type in ("H&P", "discharge summary"):
                    asking = [t for t in tasks if NOTE_TYPE_PER_TASK[t] == note_type]
                    text = make_note(random_, {t: int(levels[t]) for t in asking})
                    for task in asking:
                        tables[task].append(_row(task, split, f"{split}{number}", note_type, text, int(levels[task])))
            for task, found in tables.items():
                runs.write_table(stage.out / task / f"{split}.parquet", pa.Table.from_pylist(found, ROWS))

    runs.run_stage(out, "tasks", {}, 1, {}, work)
    return out


def _row(task: str, split: str, stay: str, note_type: str, text: str, label: int) -> dict[str, object]:
    return {"task": task, "row_id": f"{task}-{stay}", "patient_id": f"p{stay}", "encounter_id": stay,
            "note_id": f"n{stay}{note_type}", "note_type": note_type, "prediction_time": None, "text": text,
            "label": label, "split": split, "note_hash": hash_id(text)}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens", {"clinical": 600})


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks", 240)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model, exported with its tokenizer."""
    from lang1.models.build import build_model
    from lang1.models.export import export_model

    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder / "tokenizer")
    model = build_model("tiny", 600, seed=1, context_length=256, bos_id=0, eos_id=1)
    return export_model(model, folder / "tokenizer", folder / "export", {})


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    runs.set_quiet(True)
