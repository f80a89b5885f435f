"""What a result says of itself: which model and checkpoint, which prompts, which rows, made with what.

A model is named by what its folder says (lang1.json: kind, step, seed) and known by a hash of its weights, so that a
copy under another name is the same model and a changed one is not. Nothing here holds a path, a host or note text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.models.load import VOCABULARIES
from lang1.models.origin import CARD
from lang1.remede.rows import TaskRows
from lang1.tasks.prompts import render_question

WEIGHTS = ("*.safetensors", "*.gguf")
_ROWS = (".parquet", "questions.json")
_TOKENIZER = ("tokenizer*", *sorted(VOCABULARIES))


def describe_model(folder: Path) -> dict[str, Any]:
    """A model folder as metrics.json names it: kind, checkpoint, hash of its weights, hash of its tokenizer.

    A single file (GGUF) is known by its hash alone.
    """
    if folder.is_file():
        return {"kind": "foreign", "checkpoint": "foreign", "weights_sha256": runs.sha256_file(folder)}
    card = runs.read_json(folder / CARD) if (folder / CARD).exists() else {}
    step = card.get("best_step") if card.get("kind") == "finetuned" else card.get("steps")
    kind = card.get("kind", "foreign")
    return {
        "kind": kind,
        "checkpoint": kind if step is None else f"{kind}, step {step}",
        "weights_sha256": _hash_files(folder, WEIGHTS),
        "tokenizer_sha256": _hash_files(folder, _TOKENIZER),
        **{key: card[key] for key in ("init", "seed", "preset", "tasks", "max_note_tokens") if key in card},
    }


def _hash_files(folder: Path, patterns: tuple[str, ...]) -> str | None:
    """One hash of the named files' bytes and names; null when there are none."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not files:
        return None
    facts = "\n".join(f"{path.name} {runs.sha256_file(path)}" for path in files)
    return hashlib.sha256(facts.encode()).hexdigest()


def describe_prompt(rows: TaskRows, prompt_set: str | None) -> dict[str, Any]:
    """The question of a task: the prompt set that it is of (null: the site's own) and a hash of its exact wording."""
    rendered = render_question(rows.question)
    return {"version": prompt_set, "sha256": hashlib.sha256(rendered.encode()).hexdigest(), "options": rows.options}


def describe_tasks(folder: Path) -> dict[str, Any]:
    """The tasks folder: a hash of its rows and questions by the manifest's, and the prompt set of each task.

    Of the content, not the manifest's identity: that knows on which warehouse file, by how many workers they were made.
    """
    path = folder / "questions.json"
    asked = runs.read_json(path) if path.exists() else {}
    manifest = runs.read_manifest(folder)
    default = manifest.get("config", {}).get("prompt_set")
    rows = sorted((name, facts["sha256"]) for name, facts in manifest.get("files", {}).items() if name.endswith(_ROWS))
    return {
        "identity": hashlib.sha256("\n".join(map(" ".join, rows)).encode()).hexdigest(),
        "prompt_sets": {task: found.get("prompt_set", default) for task, found in asked.items()},
    }
