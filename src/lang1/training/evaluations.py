"""Few-shot evaluation during pretraining (5.3): a fixed sample of rows, scored as `lang1 evaluate` scores.

Rows of ReMedE come from a folder of `lang1 tasks`, SciQ and PubMedQA from one of `lang1 comprehension`. The sample and
its examples (shots) are drawn once, by hash of seed and row, so every point of a curve is of the same prompts. Shots
are rows of train whose text and patient are not among the scored ones, every label in its turn.

Measured, with n and the rows of every label: AUROC for ReMedE (one-versus-rest macro for several options, as results
quote it), with a 95 % bootstrap interval over patients; accuracy for comprehension, whose rows are independent, with
Wilson's. A sample of 200 rows has few deaths: read the interval.

Under FSDP2 a forward is a collective, so every rank scores the whole sample with the same batches; the cost is the
sample's forwards, once for all ranks side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang1 import runs
from lang1.config.monitoring import EvaluationConfig
from lang1.corpus.hashes import hash_fraction
from lang1.errors import InputError
from lang1.metrics.bootstrap import bootstrap_auroc, interval, rank
from lang1.metrics.proportion import wilson_interval
from lang1.metrics.ranking import Floats, Ints, auroc, headline_metric
from lang1.scoring.options import (
    EncodedPrompt,
    option_probabilities,
    option_token_ids,
    pad_id_of,
    score_prompts,
)
from lang1.scoring.shots import Item, encode_with_shots, in_turn
from lang1.tasks.prompts import Question, read_questions

EVALUATIONS = "evaluations.jsonl"


@dataclass(frozen=True)
class Sample:
    """The prompts of one task, ready to be scored."""

    task: str
    metric: str
    """accuracy, auroc or auroc_ovr_macro"""
    encoded: list[EncodedPrompt]
    option_ids: list[int]
    labels: Ints
    clusters: Ints
    """number of each row's patient: the unit of resampling"""
    shots: int
    """examples before every question: the least that fitted the context"""


@dataclass(frozen=True)
class _Source:
    """Where a task's rows are."""

    task: str
    folder: Path
    question: Question | None
    """None: every row has its own"""


def open_samples(config: EvaluationConfig, tokenizer: Any, *, context_length: int, seed: int) -> list[Sample]:
    """The samples of `config`, tokenised; read at the start so that a fault is told before training.

    Raises InputError for a folder of another stage, a task that neither folder has, a split without rows, a train
    split without rows when shots are wanted, a label that is no option.
    """
    return [_sample(config, source, tokenizer, context_length, seed) for source in _sources(config)]


def evaluate(model: Any, tokenizer: Any, samples: Sequence[Sample], config: EvaluationConfig, *, seed: int) -> list[
    dict[str, Any]
]:  # fmt: skip
    """A result a sample: task, split, shots, metric, value, ci_low, ci_high, n, labels. All ranks call it together.

    Where the model gives a row no finite logits, value and bounds are None and `broken` counts such rows.
    """
    results = []
    for sample in samples:
        logits_NK = score_prompts(
            model, sample.encoded, sample.option_ids, batch_tokens=config.batch_tokens, pad_id=pad_id_of(tokenizer)
        )
        broken = int((~np.isfinite(logits_NK)).any(axis=1).sum())
        value, low, high = (None, None, None)
        if not broken:
            value, low, high = _measure(sample, option_probabilities(logits_NK), config.resamples, seed)
        labels = np.bincount(sample.labels, minlength=len(sample.option_ids))
        results.append(
            {
                "task": sample.task,
                "split": config.split,
                "shots": sample.shots,
                "metric": sample.metric,
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "n": len(sample.labels),
                "labels": labels.tolist(),
                "broken": broken,
            }
        )
    return results


def _sources(config: EvaluationConfig) -> list[_Source]:
    found: dict[str, _Source] = {}
    if config.tasks is not None:
        folder = _open(config.tasks, "tasks")
        found |= {name: _Source(name, folder / name, asked) for name, asked in read_questions(folder).items()}
    if config.comprehension is not None:
        folder = _open(config.comprehension, "comprehension")
        found |= {p.name: _Source(p.name, p, None) for p in sorted(folder.iterdir()) if (p / "val.parquet").is_file()}
    unknown = [name for name in config.names if name not in found]
    if unknown:
        raise InputError(f"monitor.evaluations.names: {unknown[0]}: no such task; the folders have {', '.join(found)}")
    if config.names:
        return [found[name] for name in config.names]
    usable = [source for source in found.values() if _has_rows(source.folder / f"{config.split}.parquet")]
    if not usable:
        raise InputError(f"monitor.evaluations: no task of the folders has rows in split {config.split}")
    return usable


def _has_rows(path: Path) -> bool:
    import pyarrow.parquet as pq

    return path.is_file() and pq.read_metadata(path).num_rows > 0


def _open(path: str, stage: str) -> Path:
    folder = Path(path)
    written_by = runs.read_manifest(folder).get("stage")
    if written_by != stage:
        raise InputError(f"monitor.evaluations.{stage}: {folder}: written by lang1 {written_by}, not by lang1 {stage}")
    return folder


def _sample(config: EvaluationConfig, source: _Source, tokenizer: Any, context_length: int, seed: int) -> Sample:
    rows = _draw(source, config.split, config.rows, seed)
    items = [_item(source, row) for row in rows]
    shots = _draw_shots(source, rows, config.shots, seed) if config.shots else []
    counts = {len(item.question.options) for item in (*items, *shots)}
    if len(counts) > 1:
        raise InputError(
            f"{source.folder}: rows with {min(counts)} and with {max(counts)} options; one number is needed"
        )
    option_ids = option_token_ids(tokenizer, items[0].question)
    encoded, fitted = encode_with_shots(
        tokenizer, items, shots, option_ids, max_note_tokens=config.max_note_tokens, context_length=context_length
    )
    if fitted < config.shots:
        runs.say(
            f"monitor.evaluations: {source.task}: {fitted} of {config.shots} shots fit {context_length} positions and "
            "what train has"
        )
    _, clusters = np.unique([row.get("patient_id") or row["row_id"] for row in rows], return_inverse=True)
    metric = "accuracy" if source.question is None else headline_metric(len(option_ids))
    labels = np.array([item.label for item in items], dtype=np.int64)
    return Sample(source.task, metric, encoded, option_ids, labels, clusters.astype(np.int64), fitted)


def _draw(source: _Source, split: str, most: int, seed: int) -> list[dict[str, Any]]:
    """At most so many rows of a split, drawn by hash of seed and row, in the order of their ids."""
    ids = sorted(_read(source, split, ["row_id"])["row_id"].to_pylist(), key=lambda r: (hash_fraction(seed, r), r))
    if not ids:
        raise InputError(f"{source.folder / split}.parquet: no rows to evaluate; leave {source.task} out of names")
    return _rows_of(source, split, ids[:most])


def _draw_shots(source: _Source, scored: list[dict[str, Any]], count: int, seed: int) -> list[Item]:
    """Rows of train, every label in its turn, whose text and patient are not scored. Raises InputError without any."""
    seen = {row[key] for row in scored for key in ("row_id", "patient_id", "note_hash") if row.get(key)}
    columns = _columns(source, with_text=False)
    free = [
        (row["row_id"], row["label"])
        for row in _read(source, "train", columns).to_pylist()
        if seen.isdisjoint(row[key] for key in ("row_id", "patient_id", "note_hash") if key in row)
    ]
    if not free:
        raise InputError(
            f"{source.folder / 'train'}.parquet: no row that could be a shot; set monitor.evaluations.shots to 0"
        )
    chosen = in_turn(free, count, seed)
    rows = {row["row_id"]: row for row in _rows_of(source, "train", chosen)}
    return [_item(source, rows[row_id]) for row_id in chosen]


def _rows_of(source: _Source, split: str, ids: list[str]) -> list[dict[str, Any]]:
    table = _read(source, split, _columns(source, with_text=True), ids)
    return sorted(table.to_pylist(), key=lambda row: str(row["row_id"]))


def _columns(source: _Source, *, with_text: bool) -> list[str]:
    columns = ["row_id", "label", "note_hash", *(["patient_id"] if source.question is not None else [])]
    own = ["question", "options"] if source.question is None else []
    return [*columns, "text", *own] if with_text else columns


def _read(source: _Source, split: str, columns: list[str], ids: list[str] | None = None) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source.folder / f"{split}.parquet"
    try:
        return pq.read_table(path, columns=columns, filters=None if ids is None else [("row_id", "in", ids)])
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path}: not readable as task rows ({type(error).__name__}); make that folder again"
        ) from None


def _item(source: _Source, row: dict[str, Any]) -> Item:
    question = source.question or Question(row["question"], tuple(row["options"]))
    if not 0 <= row["label"] < len(question.options):
        raise InputError(f"{source.folder}: row {row['row_id']}: label {row['label']} is no option of its question")
    return Item(row["text"], question, row["label"])


def _measure(
    sample: Sample, p_NK: Floats, resamples: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """The value of a sample's metric and its bounds."""
    if sample.metric == "accuracy":
        right = int((p_NK.argmax(axis=1) == sample.labels).sum())
        return right / len(sample.labels), *wilson_interval(right, len(sample.labels))
    classes = [1] if p_NK.shape[1] == 2 else list(range(p_NK.shape[1]))
    values = [auroc(sample.labels == k, p_NK[:, k]) for k in classes]
    present = [i for i, value in enumerate(values) if value is not None]
    if not present:
        return None, None, None
    rankings = [rank(sample.labels == k, p_NK[:, k], sample.clusters) for k in classes]
    patients = int(sample.clusters.max()) + 1
    draws = bootstrap_auroc(rankings, patients, resamples=resamples, seed=seed, name=sample.task)
    value = float(np.mean([values[i] for i in present]))
    bounds = interval(value, draws[:, present].mean(axis=1))
    return value, bounds.low, bounds.high
