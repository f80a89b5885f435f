"""SciQ and PubMedQA (5.2.4) as task rows: `lang1 comprehension`.

A row is a passage, a question of its own and its options; the prompt, the letters and the scoring are those of ReMedE.
SciQ has four options, shuffled by seed and row so that the true one stands at every letter; PubMedQA has yes, no and
maybe in this order. The paper shows the same prompts without options (answers scored by their text): a letter asks
more of a small model, so numbers are read along a run, not beside the paper's.

Splits. SciQ files are told apart by their names (train, val or dev, test). PubMedQA's 500 official test ids are given
as a file; the other 500 are val. A set that has no train file lends a fifth of what is not test to train, by a hash of
seed and row: shots come from there and are never scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lang1 import runs
from lang1.corpus.hashes import hash_fraction, hash_id
from lang1.errors import InputError
from lang1.tasks.schema import COMPREHENSION

ANSWERS = ("yes", "no", "maybe")
SHOTS_SHARE = 0.2
"""of the rows outside test, lent to train where a set has no train file"""
SPLITS = ("train", "val", "test")
_SCIQ = ("question", "correct_answer", "distractor1", "distractor2", "distractor3")
_SPLIT_WORDS = {"train": "train", "valid": "val", "val": "val", "dev": "val", "test": "test"}


def build_comprehension(
    *, sciq: tuple[Path, ...], pubmedqa: tuple[Path, ...], pubmedqa_test: Path | None, out: Path, seed: int, force: bool
) -> dict[str, Any]:
    """Write `out`/<task>/<split>.parquet (`schema.COMPREHENSION`), rows ordered by row_id; returns the manifest.

    Raises InputError for a file that is not of the set, naming the row.
    """
    if not sciq and not pubmedqa:
        raise InputError("lang1 comprehension: nothing to read; give --sciq FILE or --pubmedqa FILE")
    named = {"sciq": sciq, "pubmedqa": pubmedqa, "pubmedqa_test": (pubmedqa_test,) if pubmedqa_test else ()}
    inputs = {f"{name}.{number}": path for name, paths in named.items() for number, path in enumerate(paths)}

    def work(stage: runs.Stage) -> None:
        found = {"sciq": _sciq_rows(sciq, seed), "pubmedqa": _pubmedqa_rows(pubmedqa, pubmedqa_test)}
        for task, rows in found.items():
            if rows:
                _write(stage, task, _with_shots(task, rows, seed))

    return runs.run_stage(out, "comprehension", {}, seed, inputs, work, force)


def _sciq_rows(paths: Iterable[Path], seed: int) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        split = _split_of(path)
        for place, raw in enumerate(_records(path)):
            if not all(isinstance(raw.get(key), str) and raw[key].strip() for key in _SCIQ):
                raise InputError(f"{path}: row {place + 1}: not of SciQ, which has {', '.join(_SCIQ)} and support")
            text = str(raw.get("support") or "").lstrip()  # as lm-eval's sciq
            row_id = f"sciq-{hash_id(text + raw['question'])[:16]}"
            options = _shuffled(_SCIQ[1:], seed, row_id)
            rows.append(
                _row("sciq", row_id, text, raw["question"], [raw[key] for key in options],
                     options.index("correct_answer"), split)
            )  # fmt: skip
    return rows


def _shuffled(keys: Sequence[str], seed: int, row_id: str) -> list[str]:
    return sorted(keys, key=lambda key: hash_fraction(seed, f"{row_id}:{key}"))


def _pubmedqa_rows(paths: Iterable[Path], test: Path | None) -> list[dict[str, Any]]:
    ids = _read_json(test) if test is not None else []
    if not isinstance(ids, dict | list) or not all(isinstance(key, str | int) for key in ids):
        raise InputError(f"{test}: not a JSON list, or object, of PubMed ids")
    held_out = {str(key) for key in ids}
    rows = []
    for path in paths:
        for place, raw in enumerate(_records(path)):
            key = str(raw.get("pubid", raw.get("PMID", "")))
            question = raw.get("QUESTION", raw.get("question"))
            contexts = raw.get("CONTEXTS", raw.get("context"))
            contexts = contexts.get("contexts") if isinstance(contexts, dict) else contexts
            answer = raw.get("final_decision")
            if not (key and isinstance(question, str) and isinstance(contexts, list) and answer in ANSWERS):
                raise InputError(
                    f"{path}: row {place + 1}: not of PubMedQA's labelled set, which has a PubMed id, a question, "
                    "contexts and final_decision (yes, no or maybe)"
                )
            text = "Abstract: " + "\n".join(str(part) for part in contexts)
            split = "test" if key in held_out else "val"
            rows.append(
                _row("pubmedqa", f"pubmedqa-{key}", text, question, list(ANSWERS), ANSWERS.index(answer), split)
            )
    missing = held_out - {row["row_id"].removeprefix("pubmedqa-") for row in rows}
    if missing:
        raise InputError(f"{test}: names {len(missing)} ids, such as {min(missing)}, that --pubmedqa does not have")
    return rows


def _row(
    task: str, row_id: str, text: str, question: str, options: list[str], label: int, split: str
) -> dict[str, Any]:
    return {
        "task": task,
        "row_id": row_id,
        "text": text,
        "question": question,
        "options": options,
        "label": label,
        "split": split,
        "note_hash": hash_id(text or question),  # two questions on one passage share it: neither is the other's shot
    }


def _with_shots(task: str, rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """One row an id, in order; a fifth of val moved to train where there is no train."""
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        if by_id.setdefault(row["row_id"], row)["split"] != row["split"]:
            raise InputError(f"{task}: a question stands in two splits ({row['row_id']}); give each file once")
    kept = [by_id[row_id] for row_id in sorted(by_id)]
    if any(row["split"] == "train" for row in kept):
        return kept
    return [
        row | {"split": "train"}
        if row["split"] == "val" and hash_fraction(seed, f"shots:{row['row_id']}") < SHOTS_SHARE
        else row
        for row in kept
    ]


def _write(stage: runs.Stage, task: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        runs.write_table(stage.out / task / f"{split}.parquet", pa.Table.from_pylist(mine, COMPREHENSION))
        stage.count(**{f"{task}_{split}": len(mine)})


def _split_of(path: Path) -> str:
    """train, val or test by the file's name; a name that says nothing is val."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    found = [split for word in words for start, split in _SPLIT_WORDS.items() if word.startswith(start)]
    return found[0] if found else "val"


def _records(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON list, a JSON object by id, a JSONL or a Parquet file."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_table(path).to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: not readable as Parquet ({type(error).__name__})") from None
    raw = _read_json(path) if path.suffix == ".json" else _read_json_lines(path)
    rows = [{"PMID": key, **row} for key, row in raw.items() if isinstance(row, dict)] if isinstance(raw, dict) else raw
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: no rows: JSON (a list, or an object by id), JSONL or Parquet is read")
    return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: not readable as JSON; one object a line needs the ending .jsonl") from None


def _read_json_lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as UTF-8 text; give JSON, JSONL or Parquet") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError:
            raise InputError(f"{path}: line {number}: not JSON; give JSON, JSONL or Parquet") from None
    return rows
