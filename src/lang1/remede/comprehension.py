"""Reading comprehension in the paper's format (5.2.4): accuracy of a model on SciQ and PubMedQA.

    passage \\nQuestion: ... \\nAnswer:      followed by the text of an option, the likeliest being the model's answer

The likelihood of an option is the sum of its tokens' log-probabilities, as `acc` of lm-eval's own sciq and pubmedqa,
whose numbers these equal on the same rows (tests/remede/test_comprehension_scores.py). Letters after a list of options,
as the monitor of pretraining asks (tasks/comprehension.py), ask more of a small model. The test split is scored, or val
where a set has no rows of test. Rows are independent: Wilson's interval.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lang1 import config, runs
from lang1.config import EvaluateConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.metrics.proportion import wilson_interval
from lang1.models.load import load_scorer
from lang1.remede.provenance import describe_models, describe_tasks, library_versions
from lang1.remede.scores import check_names, count_tokens, score_path
from lang1.scoring import likelihood, options
from lang1.scoring.schema import answers_schema
from lang1.scoring.shots import NO_EXAMPLES, Examples, Item, in_turn, render_examples
from lang1.tasks.prompts import Question, render_question

SETS = ("sciq", "pubmedqa")
WHOLE = 1_000_000
"""tokens of a passage that are kept, where the model's context holds them"""


def evaluate_comprehension(
    cfg: EvaluateConfig, *, models: dict[str, Path], comprehension: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Score `models` (name -> folder or GGUF file) on a folder of `lang1 comprehension`; returns the manifest.

    `out` gets a score file a model and set (scoring/schema.py) and metrics.json: `rows` of task, model, split, metric,
    value, ci_low, ci_high, n, events, shots, method and what was cut; `facts` of the models, sets and libraries. Raises
    InputError for a folder without rows, or a model that cannot answer.
    """
    check_names(models)
    inputs = {"comprehension": comprehension, **{f"model {name}": path for name, path in models.items()}}

    def work(stage: runs.Stage) -> None:
        from lang1.training.numerics import prepare_torch

        dtype = prepare_torch(cfg.threads, cfg.precision)
        found = open_comprehension(comprehension)
        shots = {task: choose_shots(comprehension, task, cfg.shots, cfg.shot_tokens, seed) for task in found}
        results = []
        for name, path in models.items():
            missing = [task for task in found if not score_path(stage.out, name, task, found[task]).exists()]
            reader = load_scorer(path, dtype) if missing else None
            for task, split in found.items():
                if reader is not None and task in missing:
                    runs.say(f"comprehension: {name}, {task}")
                    rows = _draw(_read(comprehension, task, split), cfg.max_rows, seed)
                    with options.in_precision(reader[0], dtype):
                        _score(cfg, name, path, reader, task, split, rows, shots[task], stage.out)
                results.append(_accuracy(name, task, split, score_path(stage.out, name, task, split)))
        facts = {
            "seed": seed,
            "interval": "Wilson, rows are independent",
            "precision": str(dtype).removeprefix("torch."),
            "format": "paper: answers by their text",
            "prompt_sha256": hashlib.sha256(render_question(Question("?", ())).encode()).hexdigest(),
            "shots": {task: examples.facts() for task, examples in shots.items()} if cfg.shots else {},
            "models": describe_models(models),
            "comprehension": describe_tasks(comprehension)["identity"],
            "versions": library_versions(),
        }
        runs.write_json(stage.out / "metrics.json", {"rows": results, "facts": facts})
        stage.count(results=len(results), rows=sum(row["n"] for row in results))

    settings = {**config.dump(cfg), "models": list(models)}
    return runs.run_stage(out, "remede-comprehension", settings, seed, inputs, work, force)


def open_comprehension(path: Path) -> dict[str, str]:
    """The sets of a folder of `lang1 comprehension`, with the split that is scored. Raises InputError without any."""
    import pyarrow.parquet as pq

    stage = runs.read_manifest(path).get("stage")
    if stage != "comprehension":
        raise InputError(
            f"{path}: written by the stage {stage}, not comprehension; give a folder of lang1 comprehension"
        )
    found = {}
    for task in SETS:
        for split in ("val", "test"):
            file = path / task / f"{split}.parquet"
            if file.is_file() and pq.read_metadata(file).num_rows:
                found[task] = split
    if not found:
        raise InputError(f"{path}: no rows of {' or '.join(SETS)}; run lang1 comprehension again")
    return found


def choose_shots(path: Path, task: str, count: int, budget_words: int, seed: int) -> Examples:
    """`count` answered questions of train, every label in its turn; none whose passage is scored."""
    if count == 0:
        return NO_EXAMPLES
    scored = {
        row["note_hash"] for split in ("val", "test") for row in _read(path, task, split, ["row_id", "note_hash"])
    }
    rows = {row["row_id"]: row for row in _read(path, task, "train") if row["note_hash"] not in scored}
    if len(rows) < count:
        raise InputError(
            f"{path / task / 'train.parquet'}: {len(rows)} rows whose passage is not scored, {count} are wanted as "
            "examples; lower evaluate.shots"
        )
    chosen = in_turn([(row_id, row["label"]) for row_id, row in rows.items()], count, seed)
    items = [
        (row_id, Item(row["text"], Question(row["question"], ()), row["label"], row["options"][row["label"]]))
        for row_id, row in ((row_id, rows[row_id]) for row_id in chosen)
    ]
    return render_examples(items, budget_words)


def _read(path: Path, task: str, split: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / task / f"{split}.parquet"
    try:
        rows: list[dict[str, Any]] = pq.read_table(file, columns=columns).sort_by("row_id").to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not readable ({type(error).__name__}); run lang1 comprehension again") from None
    return rows


def _draw(rows: list[dict[str, Any]], most: int | None, seed: int) -> list[dict[str, Any]]:
    """At most so many rows, drawn by hash, in their order."""
    drawn = sorted(rows, key=lambda row: (hash_fraction(seed, row["row_id"]), row["row_id"]))[:most]
    return sorted(drawn, key=lambda row: str(row["row_id"]))


def _score(
    cfg: EvaluateConfig,
    name: str,
    path: Path,
    reader: tuple[Any, Any],
    task: str,
    split: str,
    rows: list[dict[str, Any]],
    examples: Examples,
    out: Path,
) -> None:
    import pyarrow as pa

    model, tokenizer = reader
    asked = _ask(tokenizer, rows, examples, getattr(model.config, "max_position_embeddings", None))
    pad_id = options.pad_id_of(tokenizer)
    sums_NK = np.array(likelihood.score_answers(model, asked, batch_tokens=cfg.batch_tokens, pad_id=pad_id))
    options.check_finite(path, sums_NK, f" of {task}, {split}")
    p_NK = options.option_probabilities(sums_NK)
    found = [
        {
            "model_id": name,
            "task": task,
            "split": split,
            "row_id": row["row_id"],
            "label": row["label"],
            **{f"p_{k}": float(p) for k, p in enumerate(p_NK[i])},
            **{f"log_likelihood_{k}": float(value) for k, value in enumerate(sums_NK[i])},
            "method": options.METHOD if all(len(ids) == 1 for ids in item.answers) else likelihood.METHOD,
            "prompt_tokens": len(item.prompt.ids),
            "truncated_tokens": item.prompt.truncated_tokens,
            "shots": len(examples.row_ids),
            "shots_cut_words": sum(examples.cut_words),
        }
        for i, (row, item) in enumerate(zip(rows, asked, strict=True))
    ]
    table = pa.Table.from_pylist(found, answers_schema(p_NK.shape[1]))
    runs.write_table(score_path(out, name, task, split), table)


def _ask(
    tokenizer: Any, rows: list[dict[str, Any]], examples: Examples, context_length: int | None
) -> list[likelihood.AnsweredPrompt]:
    """A passage leaves room for the longest answer of its question, short of the last token, which is not read."""
    questions = [Question(row["question"], ()) for row in rows]
    answers = [options.answer_ids(tokenizer, q, row["options"]) for q, row in zip(questions, rows, strict=True)]
    rooms = [max(map(len, found)) - 1 for found in answers]
    asked = list(zip([row["text"] for row in rows], questions, rooms, strict=True))
    prompts = options.encode_each(tokenizer, asked, WHOLE, context_length, examples.text)
    return [likelihood.AnsweredPrompt(*pair) for pair in zip(prompts, answers, strict=True)]


def _accuracy(model: str, task: str, split: str, path: Path) -> dict[str, Any]:
    """A row of metrics.json, from a score file alone."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = [name for name in table.column_names if name.startswith("log_likelihood_")]
    sums_NK = np.column_stack([table[name].to_numpy() for name in names])
    labels = table["label"].to_numpy()
    right, n = int((sums_NK.argmax(axis=1) == labels).sum()), len(labels)
    low, high = wilson_interval(right, n)
    return {
        "task": task,
        "model": model,
        "split": split,
        "metric": "accuracy",
        "value": right / n,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "events": {str(k): int(count) for k, count in enumerate(np.bincount(labels, minlength=len(names)))},
        "shots": table["shots"][0].as_py(),
        "method": sorted(set(table["method"].to_pylist())),
        **count_tokens(table),
    }
