"""Perplexity of the answer given the question on ReMedE pairs (Figure 4c): `lang1 remede perplexity`.

exp(-mean log p(answer token | note, question)) over the rows of a task, log p over the whole vocabulary: how surprised
a model is by the true answer, a letter, where an AUROC only asks for the order of the options. The prompts are those of
`lang1 evaluate`. Intervals by resampling patients; the ratio of sums is formed anew in each resample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lang1 import config, runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.bootstrap import draw_counts, interval
from lang1.models.load import load_scorer
from lang1.remede.contamination import what_was_seen
from lang1.remede.entrants import describe_models
from lang1.remede.examples import choose_examples
from lang1.remede.provenance import describe_prompt, describe_tasks
from lang1.remede.rows import TaskRows, open_tasks
from lang1.remede.scores import check_names, count_tokens, score_path
from lang1.scoring.likelihood import AnsweredPrompt, score_answers
from lang1.scoring.options import METHOD, check_finite, encode_prompts, in_precision, option_token_ids, pad_id_of
from lang1.scoring.schema import perplexity_schema
from lang1.scoring.shots import Examples
from lang1.tasks.prompts import require_known


def measure_perplexity(
    cfg: EvaluateConfig, *, models: dict[str, Path], tasks: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Perplexity of `models` (name -> folder or GGUF file) on the tasks of `cfg`, headline split; returns the manifest.

    `out` gets a file a model and task (scoring/schema.py, no text) and metrics.json: `rows` of task, model, split,
    metric, value, ci_low, ci_high, n, events, prompt, shots and what was cut; `facts` of the models, tasks and
    libraries. Raises InputError for folders that cannot be evaluated.
    """
    check_names(models)
    inputs = {"tasks": tasks, **{f"model {name}": path for name, path in models.items()}}

    def work(stage: runs.Stage) -> None:
        from lang1.training.numerics import prepare_torch

        dtype = prepare_torch(cfg.threads, cfg.precision)
        folder = open_tasks(tasks)
        require_known(cfg.tasks, folder.questions, tasks, "evaluate.tasks")
        read = {task: folder.read(task, cfg.headline_split, cfg.max_rows, seed) for task in cfg.tasks}
        skipped = [{"task": task, "why": found} for task, found in read.items() if isinstance(found, str)]
        rows = {task: found for task, found in read.items() if not isinstance(found, str)}
        if not rows:
            raise InputError(f"{tasks}: no rows of {cfg.headline_split} ({'; '.join(s['why'] for s in skipped)})")
        examples = {task: choose_examples(folder, task, cfg.shots, cfg.shot_tokens, seed) for task in rows}
        told = describe_tasks(tasks)
        results = []
        for name, path in models.items():
            missing = [task for task in rows if not score_path(stage.out, name, task, cfg.headline_split).exists()]
            reader = load_scorer(path, dtype) if missing else None
            for task, part in rows.items():
                if reader is not None and task in missing:
                    runs.say(f"perplexity: {name}, {task}")
                    with in_precision(reader[0], dtype):
                        _score(cfg, name, path, reader, part, examples[task], stage.out)
                found = _perplexity(cfg, name, part, score_path(stage.out, name, task, part.split), seed)
                prompt = describe_prompt(part, told["prompt_sets"].get(task))
                results.append(found | {"prompt": prompt, "shots": len(examples[task].row_ids)})
        facts = {
            "seed": seed,
            "bootstrap_resamples": cfg.bootstrap_resamples,
            "interval": "percentile, patients resampled",
            "precision": str(dtype).removeprefix("torch."),
            "skipped": skipped,
            "shots": {task: before.facts() for task, before in examples.items()} if cfg.shots else {},
            "seen": {name: what_was_seen(path, None, rows.values()).reasons() for name, path in models.items()},
            "models": describe_models(models),
            "tasks": told,
            "versions": runs.versions(),
        }
        runs.write_json(stage.out / "metrics.json", {"rows": results, "facts": facts})
        stage.count(results=len(results), rows=sum(len(part.table) for part in rows.values()))
        stage.record(skipped=skipped)

    settings = {**config.dump(cfg), "models": list(models)}
    return runs.run_stage(out, "remede-perplexity", settings, seed, inputs, work, force)


def _score(
    cfg: EvaluateConfig, name: str, path: Path, reader: tuple[Any, Any], part: TaskRows, examples: Examples, out: Path
) -> None:
    import pyarrow as pa

    model, tokenizer = reader
    context = getattr(model.config, "max_position_embeddings", None)
    option_ids = option_token_ids(tokenizer, part.question)
    prompts = encode_prompts(
        tokenizer, part.strings("text"), part.question, cfg.max_note_tokens, context, examples.text
    )
    asked = [AnsweredPrompt(p, [[option_ids[k]]]) for p, k in zip(prompts, part.labels, strict=True)]
    found = score_answers(model, asked, batch_tokens=cfg.batch_tokens, pad_id=pad_id_of(tokenizer))
    check_finite(path, np.array(found), f" of {part.task}, {part.split}")
    n = len(prompts)
    columns = {
        "model_id": [name] * n,
        "task": [part.task] * n,
        "split": [part.split] * n,
        "row_id": part.strings("row_id"),
        "patient_id": part.strings("patient_id"),
        "label": part.labels.astype(np.int32),
        "answer_tokens": [len(item.answers[0]) for item in asked],
        "log_likelihood": [float(value[0]) for value in found],
        "prompt_tokens": [len(prompt.ids) for prompt in prompts],
        "truncated_tokens": [prompt.truncated_tokens for prompt in prompts],
    }
    runs.write_table(score_path(out, name, part.task, part.split), pa.Table.from_pydict(columns, perplexity_schema()))


def _perplexity(cfg: EvaluateConfig, model: str, part: TaskRows, path: Path, seed: int) -> dict[str, Any]:
    """A row of metrics.json, from a score file alone."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    nats, tokens = -table["log_likelihood"].to_numpy(), table["answer_tokens"].to_numpy().astype(np.float64)
    _, clusters = np.unique(table["patient_id"].to_pylist(), return_inverse=True)
    patients = int(clusters.max()) + 1
    by_patient = [np.bincount(clusters, weights=values, minlength=patients) for values in (nats, tokens)]
    name = f"perplexity/{part.task}/{part.split}"
    blocks = draw_counts(patients, cfg.bootstrap_resamples, seed, name)
    draws = np.concatenate([np.exp((counts @ by_patient[0]) / (counts @ by_patient[1])) for counts in blocks])
    value = float(np.exp(nats.sum() / tokens.sum()))
    bounds = interval(value, draws)
    labels = np.bincount(table["label"].to_numpy(), minlength=part.options)
    return {
        "task": part.task,
        "model": model,
        "split": part.split,
        "metric": "answer_perplexity",
        "value": value,
        "ci_low": bounds.low,
        "ci_high": bounds.high,
        "n": len(nats),
        "events": {str(k): int(count) for k, count in enumerate(labels)},
        "patients": patients,
        "method": METHOD,
        **count_tokens(table),
    }
