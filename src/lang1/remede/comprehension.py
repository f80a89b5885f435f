"""Reading comprehension in the paper's format (5.2.4): accuracy of a model on SciQ and PubMedQA.

    passage \\nQuestion: ... \\nAnswer:      followed by the text of an option, the likeliest being the model's answer

The likelihood of an option is the sum of its tokens' log-probabilities, as `acc` of lm-eval's own sciq and pubmedqa,
whose numbers these equal on the same rows (tests/remede/test_comprehension_scores.py). Letters after a list of options,
as the monitor of pretraining asks (tasks/comprehension.py), ask more of a small model. The test split is scored, or val
where a set has no rows of test. Rows are independent: Wilson's interval.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang1 import runs
from lang1.config import EvaluateConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.metrics.proportion import wilson_interval
from lang1.models.load import load_scorer
from lang1.remede.backends import Server
from lang1.remede.backends.journal import RowAnswer
from lang1.remede.backends.limits import most_rows
from lang1.remede.entrants import describe_models, model_inputs
from lang1.remede.evaluating import settings_of
from lang1.remede.provenance import describe_tasks
from lang1.remede.scores import check_names, count_tokens, score_path
from lang1.scoring import likelihood, options
from lang1.scoring.schema import answers_schema
from lang1.scoring.shots import NO_EXAMPLES, Examples, Item, in_turn, render_examples
from lang1.tasks.prompts import Question, render_question

SETS = ("sciq", "pubmedqa")
WHOLE = 1_000_000
"""tokens of a passage that are kept, where the model's context holds them"""


@dataclass(frozen=True)
class ReadingSet:
    """The rows of a set that are scored, and the examples that stand before each."""

    task: str
    split: str
    rows: list[dict[str, Any]]
    examples: Examples
    """answered by an option's text"""
    lettered: Examples
    """the same rows with their options, answered by a letter: for a chat"""

    @property
    def row_ids(self) -> list[str]:
        """Of the rows, in their order."""
        return [str(row["row_id"]) for row in self.rows]


def evaluate_comprehension(
    cfg: EvaluateConfig,
    *,
    models: Mapping[str, Path | Server],
    comprehension: Path,
    out: Path,
    seed: int,
    force: bool = False,
) -> dict[str, Any]:
    """Score `models` (name -> folder, GGUF file or server) on a folder of `lang1 comprehension`; returns the manifest.

    `out` gets a score file a model and set (scoring/schema.py) and metrics.json: `rows` of task, model, split, metric,
    value, ci_low, ci_high, n, events, shots, method and what was cut; `facts` of the models, sets and libraries. Raises
    InputError for a folder without rows, or a model that cannot answer.
    """
    check_names(models)
    inputs: dict[str, Path | str] = {"comprehension": comprehension, **model_inputs(models)}

    def work(stage: runs.Stage) -> None:
        from lang1.training.numerics import prepare_torch

        in_memory = any(isinstance(model, Path) for model in models.values())
        dtype = prepare_torch(cfg.threads, cfg.precision) if in_memory else None
        sets = _read_sets(cfg, comprehension, models, seed)
        served = {}
        for name, model in models.items():
            if isinstance(model, Server):
                served[name] = _score_served(cfg, name, model, sets, stage, seed)
            else:
                _score_in_memory(cfg, name, model, dtype, sets, stage.out)
        paths = [(name, part, score_path(stage.out, name, part.task, part.split)) for name in models for part in sets]
        results = [_accuracy(name, part, path) for name, part, path in paths]
        facts = {
            "seed": seed,
            "interval": "Wilson, rows are independent",
            "precision": None if dtype is None else str(dtype).removeprefix("torch."),
            "format": "paper: answers by their text; of a chat: by the letter of an option",
            "prompt_sha256": hashlib.sha256(render_question(Question("?", ())).encode()).hexdigest(),
            "shots": {part.task: part.examples.facts() for part in sets} if cfg.shots else {},
            "models": describe_models(models),
            "api": served,
            "comprehension": describe_tasks(comprehension)["identity"],
            "versions": runs.versions(),
        }
        runs.write_json(stage.out / "metrics.json", {"rows": results, "facts": facts})
        stage.count(results=len(results), rows=sum(row["n"] for row in results))
        stage.record(api=served)

    return runs.run_stage(out, "remede-comprehension", settings_of(cfg, models), seed, inputs, work, force)


def _read_sets(cfg: EvaluateConfig, path: Path, models: Mapping[str, Path | Server], seed: int) -> list[ReadingSet]:
    """The sets of a folder; where a chat may be asked about so many rows only, all models are."""
    has_chat = any(isinstance(model, Server) and model.kind == "chat" for model in models.values())
    sets = []
    for task, split in open_comprehension(path).items():
        bounds = (cfg.max_rows, most_rows(cfg.api, task) if has_chat else None)
        most = min((bound for bound in bounds if bound is not None), default=None)
        examples = choose_shots(path, task, cfg.shots, cfg.shot_tokens, seed)
        lettered = choose_shots(path, task, cfg.shots, cfg.shot_tokens, seed, lettered=True)
        sets.append(ReadingSet(task, split, _draw(_read(path, task, split), most, seed), examples, lettered))
    return sets


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


def choose_shots(
    path: Path, task: str, count: int, budget_words: int, seed: int, *, lettered: bool = False
) -> Examples:
    """`count` answered questions of train, every label in its turn; none whose passage is scored.

    `lettered`: with their options, answered by a letter.
    """
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
    items = [(row_id, _example(rows[row_id], lettered)) for row_id in chosen]
    return render_examples(items, budget_words)


def _example(row: dict[str, Any], lettered: bool) -> Item:
    if lettered:
        return Item(row["text"], Question(row["question"], tuple(row["options"])), row["label"])
    return Item(row["text"], Question(row["question"], ()), row["label"], row["options"][row["label"]])


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


def _score_in_memory(cfg: EvaluateConfig, name: str, path: Path, dtype: Any, sets: list[ReadingSet], out: Path) -> None:
    """Write the score files of a folder or GGUF file that are not there yet."""
    waiting = [part for part in sets if not score_path(out, name, part.task, part.split).exists()]
    if not waiting:
        return
    model, tokenizer = load_scorer(path, dtype)
    for part in waiting:
        runs.say(f"comprehension: {name}, {part.task}")
        asked = ask_rows(tokenizer, part, getattr(model.config, "max_position_embeddings", None))
        with options.in_precision(model, dtype):
            sums = likelihood.score_answers(
                model, asked, batch_tokens=cfg.batch_tokens, pad_id=options.pad_id_of(tokenizer)
            )
        sums_NK = np.array(sums)
        options.check_finite(path, sums_NK, f" of {part.task}, {part.split}")
        p_NK = options.option_probabilities(sums_NK)
        answers = [
            RowAnswer(row, _method(item), p.tolist(), logits.tolist(), None, None, len(item.prompt.ids))
            for row, item, p, logits in zip(part.row_ids, asked, p_NK, sums_NK, strict=True)
        ]
        write_answers(out, name, part, answers, [item.prompt.truncated_tokens for item in asked], part.examples)


def _method(item: likelihood.AnsweredPrompt) -> str:
    return options.METHOD if all(len(ids) == 1 for ids in item.answers) else likelihood.METHOD


def _score_served(
    cfg: EvaluateConfig, name: str, server: Server, sets: list[ReadingSet], stage: runs.Stage, seed: int
) -> dict[str, Any]:
    from lang1.remede.backends.reading import score_served_reading  # lm-eval takes a second to import

    return score_served_reading(cfg, name, server, sets, stage, seed)


def ask_rows(tokenizer: Any, part: ReadingSet, context_length: int | None) -> list[likelihood.AnsweredPrompt]:
    """The prompts of a set's rows, with the tokens of their options.

    A passage leaves room for the longest answer of its question, and for the token that a server always writes.
    """
    questions = [Question(row["question"], ()) for row in part.rows]
    answers = [options.answer_ids(tokenizer, q, row["options"]) for q, row in zip(questions, part.rows, strict=True)]
    rooms = [max(map(len, found)) - 1 + options.ANSWER_ROOM for found in answers]
    asked = list(zip([row["text"] for row in part.rows], questions, rooms, strict=True))
    prompts = options.encode_each(tokenizer, asked, WHOLE, context_length, part.examples.text)
    return [likelihood.AnsweredPrompt(*pair) for pair in zip(prompts, answers, strict=True)]


def write_answers(
    out: Path, name: str, part: ReadingSet, answers: list[RowAnswer], truncated: list[int], examples: Examples
) -> None:
    """Write the score file of a model and set; `truncated`: tokens cut of each passage."""
    import pyarrow as pa

    count = len(answers[0].p)
    found = [
        {
            "model_id": name,
            "task": part.task,
            "split": part.split,
            "row_id": answer.row,
            "label": row["label"],
            **{f"p_{k}": p for k, p in enumerate(answer.p)},
            **{f"log_likelihood_{k}": value for k, value in enumerate(answer.logits or [None] * count)},
            "method": answer.method,
            "prompt_tokens": answer.prompt_tokens,
            "truncated_tokens": cut,
            "shots": len(examples.row_ids),
            "shots_cut_words": sum(examples.cut_words),
            "options_missing": answer.missing,
            "answers_refused": answer.refused,
        }
        for row, answer, cut in zip(part.rows, answers, truncated, strict=True)
    ]
    runs.write_table(score_path(out, name, part.task, part.split), pa.Table.from_pylist(found, answers_schema(count)))


def _accuracy(model: str, part: ReadingSet, path: Path) -> dict[str, Any]:
    """A row of metrics.json, from a score file alone. Answers drawn equally often are no answer."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    drawn = table["log_likelihood_0"].null_count > 0
    prefix = "p_" if drawn else "log_likelihood_"
    names = [name for name in table.column_names if name.startswith(prefix)]
    values_NK = np.column_stack([table[name].to_numpy() for name in names])
    labels = table["label"].to_numpy()
    undecided = (values_NK == values_NK.max(axis=1, keepdims=True)).sum(axis=1) > 1 if drawn else np.zeros(len(labels))
    right, n = int(((values_NK.argmax(axis=1) == labels) & (undecided == 0)).sum()), len(labels)
    low, high = wilson_interval(right, n)
    return {
        "task": part.task,
        "model": model,
        "split": part.split,
        "metric": "accuracy",
        "value": right / n,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "events": {str(k): int(count) for k, count in enumerate(np.bincount(labels, minlength=len(names)))},
        "undecided": int(undecided.sum()),
        "shots": table["shots"][0].as_py(),
        "method": sorted(set(table["method"].to_pylist())),
        **count_tokens(table),
    }
