"""Comprehension rows that a small model meets in tests, and a small model with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.tasks import build_comprehension
from lang1.training.events import EVENTS, event_line


def write_comprehension(folder: Path, rows: int = 40) -> Path:
    """Rows of both sets, made from files in their own formats."""
    folder.mkdir(parents=True, exist_ok=True)
    sciq = [
        {
            "question": f"which sign has patient {n}",
            "correct_answer": "fever",
            "distractor1": "cough",
            "distractor2": "pain",
            "distractor3": "rash",
            "support": f"patient {n} has a fever",
        }
        for n in range(rows)
    ]
    pubmed = {
        str(n): {"QUESTION": f"does {n} help", "CONTEXTS": [f"part {n}"], "final_decision": ("yes", "no")[n % 2]}
        for n in range(rows)
    }
    (folder / "valid.jsonl").write_text("\n".join(json.dumps(row) for row in sciq))
    (folder / "ori_pqal.json").write_text(json.dumps(pubmed))
    out = folder / "comprehension"
    build_comprehension(sciq=(folder / "valid.jsonl",), pubmedqa=(folder / "ori_pqal.json",), out=out, seed=1)
    return out


def append_event(out: Path, kind: str, *, step: int, **facts: Any) -> None:
    """An event in the file, as the monitor writes it."""
    with runs.append_lines(out / EVENTS) as append:
        append(event_line(kind, step=step, **facts))
