"""A small run folder that looks like a real one: every stage's manifest is real, every number is drawn for the test.

The results are made up to cover what a report must be able to say: a win, a loss, no clear difference, few events.
"""

from __future__ import annotations

import csv
import io
import math
import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lang1 import config, runs
from lang1.metrics.bootstrap import holm
from lang1.metrics.operating import net_benefit
from lang1.scoring.schema import scores_schema
from lang1.tasks.prompts import OPTIONS_PER_TASK, question_for
from lang1.tasks.schema import ROWS

SEED = 11
SPLITS = ("train", "val", "test", "temporal_1", "temporal_2")
SIZES = {"train": 1600, "val": 200, "test": 200, "temporal_1": 300, "temporal_2": 400}
RATES = {
    "readmission": (0.89, 0.11),
    "mortality": (0.98, 0.02),
    "los": (0.42, 0.18, 0.17, 0.23),
    "cci": (0.69, 0.225, 0.055, 0.029, 0.001),
    "denial": (0.87, 0.13),
}
CEILINGS = {"readmission": 0.79, "mortality": 0.91, "los": 0.77, "cci": 0.93, "denial": 0.82}
SHARES = {
    "lang1 zero-shot": 0.02,
    "lang1 finetuned joint": 0.72,
    "lang1 random init finetuned joint": 0.55,
    "tfidf+xgboost": 0.61,
    "tfidf+logistic": 0.60,
}
BOOSTING_WINS = "mortality"
NOTE = (
    "CHIEF COMPLAINT: shortness of breath. HPI: pt is a 71 yo with chf and copd who presents with worsening dyspnea "
    "over 3 days. Denies chest pain or fever. Has gained weight since last visit and ran out of furosemide. PMH: "
    "chf, copd, no diabetes. FH: father with mi at 60. SOCIAL: lives alone, former smoker. EXAM: bp 148/86, rr 24, "
    "o2 sat 91 on room air, crackles at both bases, 2+ edema. A/P: acute on chronic heart failure, iv diuresis, "
    "monitor electrolytes, social work to see. <script>alert(1)</script>"
)


def write_run(
    root: Path,
    *,
    simulated: bool = True,
    skip_denial: bool = False,
    split_by: str = "time",
    headline_split: str = "temporal_2",
    stages: tuple[str, ...] = (),
    recalibrated: bool = False,
    hospital: Literal["main", "external"] = "main",
) -> Path:
    """Write the stage folders of a run; `stages` limits them (all when empty)."""
    tasks = tuple(t for t in RATES if not (skip_denial and t == "denial"))
    random.seed(SEED)
    makers = {
        "warehouse": lambda: _stage(
            root,
            "warehouse",
            "simulate",
            config.SimulateConfig(hospital=hospital),
            {},
            {"warehouse.duckdb": b"x"},
            counts={"patients": 1500, "encounters": 3000, "notes": 14000},
        ),
        "records": lambda: _stage(
            root,
            "records",
            "extract",
            config.ExtractConfig(),
            {"source": root / "warehouse"} if simulated else {},
            {},
            counts={"notes": 14000, "rejects": 12},
        ),
        "corpus": lambda: _stage(
            root,
            "corpus",
            "clean",
            config.CleanConfig(),
            {"records": root / "records"},
            {},
            counts={"notes_in": 14000, "kept": 13800, "rejected_too_short": 150, "rejected_malformed": 50},
        ),
        "tokens": lambda: _tokens(root),
        "checkpoints": lambda: _checkpoints(root),
        "tasks": lambda: _tasks(root, tasks, split_by),
        "model": lambda: _model(root, "model", "pretrained", tasks),
        "model-random": lambda: _model(root, "model-random", "random", tasks),
        "scores": lambda: _scores(root, tasks, headline_split, recalibrated),
    }
    for name, make in makers.items():
        if (not stages or name in stages) and (simulated or name != "warehouse"):
            make()
    return root


def _stage(
    root: Path,
    folder: str,
    name: str,
    cfg: Any,
    inputs: dict[str, Path],
    files: dict[str, Any],
    counts: dict[str, int] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    def work(stage: runs.Stage) -> None:
        for path, content in files.items():
            target = stage.out / path
            if isinstance(content, pa.Table):
                runs.write_table(target, content)
            elif target.suffix == ".jsonl":
                with runs.append_lines(target) as append:
                    for line in content:
                        append(line)
            elif isinstance(content, str | bytes):
                runs.write_text(target, content if isinstance(content, str) else content.decode())
            else:
                runs.write_json(target, content)
        stage.count(**(counts or {}))
        stage.record(**(facts or {}))

    present = {key: path for key, path in inputs.items() if path.exists()}
    runs.run_stage(root / folder, name, config.dump(cfg), SEED, present, work)


def _tokens(root: Path) -> None:
    def facts(documents: int, tokens: int) -> dict[str, Any]:
        return {
            "files": [],
            "documents": documents,
            "patients": documents // 9,
            "words": int(tokens * 0.72),
            "tokens": tokens,
        }

    index = {
        "dtype": "uint16",
        "vocab_size": 4096,
        "bos_id": 1,
        "eos_id": 2,
        "separator_id": 2,
        "sources": {
            "clinical": {"train": facts(12900, 2_310_000), "val": facts(130, 22_500)},
            "web": {"train": facts(210, 640_000) | {"patients": None}, "val": facts(3, 7000) | {"patients": None}},
        },
        "web": {"path": "shared/data/text_general", "used": True, "why": "found"},
    }
    _stage(
        root,
        "tokens",
        "tokenize",
        config.TokenizeConfig(vocab_size=4096),
        {"corpus": root / "corpus"},
        {"index.json": index},
    )


def _checkpoints(root: Path) -> None:
    curve = []
    for step in range(1, 401):
        loss = 3.1 + 5.2 * math.exp(-step / 70) + random.gauss(0, 0.06)
        row: dict[str, Any] = {
            "step": step,
            "tokens": step * 4096,
            "loss": loss,
            "lr": 0.002,
            "grad_norm": 1.0,
            "tokens_per_second": 21000.0,
        }
        if step % 50 == 0:
            clinical, web = 3.0 + 5.0 * math.exp(-step / 70), 5.2 + 3.0 * math.exp(-step / 120)
            row["val"] = {
                "clinical": {"loss": clinical, "perplexity": math.exp(clinical)},
                "web": {"loss": web, "perplexity": math.exp(web)},
            }
        curve.append(row)
    _stage(
        root,
        "checkpoints",
        "pretrain",
        config.PretrainConfig(steps=400, global_batch=16, micro_batch=16),
        {"tokens": root / "tokens"},
        {"curve.jsonl": curve},
        facts={
            "tokens_by_source": {"clinical": 1_474_560, "web": 163_840},
            "epochs_by_source": {"clinical": 0.6383, "web": 0.256},
        },
    )


def _counts(task: str, size: int) -> list[int]:
    labels = [round(size * rate) for rate in RATES[task]]
    labels[0] += size - sum(labels)
    return labels


def _tasks(root: Path, tasks: tuple[str, ...], split_by: str) -> None:
    attrition = io.StringIO()
    writer = csv.writer(attrition, lineterminator="\n")
    writer.writerow(["task", "step", "rule", "left_out", "remaining"])
    files: dict[str, Any] = {}
    total = sum(SIZES.values())
    for task in tasks:
        remaining = total + 800
        rules = [
            ("is an encounter of the records", 0),
            ("is inpatient", 37),
            ("begins before the patient's death", 0),
            ("not on an excluded service (rehabilitation, dialysis, palliative care)", 163),
            ("the patient left alive", 48),
            ("has ended", 0),
            ("an H&P was signed within 120 h of admission", 402),
            ("was discharged within a window", 150),
        ]
        for step, (rule, left_out) in enumerate(rules):
            remaining -= left_out
            writer.writerow([task, step, rule, left_out, remaining])
        for split in SPLITS:
            files[f"{task}/{split}.parquet"] = _rows(task, split)
    files["attrition.csv"] = attrition.getvalue()
    files["statistics.json"] = {task: _statistics(task, task in tasks) for task in RATES}
    questions = {task: question_for(task, "discharge summary" if task == "readmission" else "H&P") for task in tasks}
    files["questions.json"] = {task: {"text": q.text, "options": list(q.options)} for task, q in questions.items()}
    _stage(
        root,
        "tasks",
        "tasks",
        config.TasksConfig(split_by=split_by),  # type: ignore[arg-type]
        {"records": root / "records", "corpus": root / "corpus"},
        files,
    )


def _statistics(task: str, has_rows: bool) -> dict[str, Any]:
    splits = {
        split: {"rows": size, "patients": int(size * 0.8), "words": size * 110, "labels": _counts(task, size)}
        if has_rows
        else {"rows": 0, "patients": 0, "words": 0, "labels": [0] * OPTIONS_PER_TASK[task]}
        for split, size in SIZES.items()
    }
    return {"note_type": "H&P", **splits, "message": None if has_rows else "no claims in these records"}


def _rows(task: str, split: str) -> pa.Table:
    size = 12
    values: dict[str, Any] = {name: [None] * size for name in ROWS.names}
    values |= {
        "task": [task] * size,
        "row_id": [f"{task}-{split}-{i}" for i in range(size)],
        "patient_id": [f"p{i}" for i in range(size)],
        "encounter_id": [str(i) for i in range(size)],
        "note_id": [str(i) for i in range(size)],
        "note_type": ["discharge summary" if task == "readmission" else "H&P"] * size,
        "text": [f"{NOTE} {task} {i}" for i in range(size)],
        "label": [i % OPTIONS_PER_TASK[task] for i in range(size)],
        "split": [split] * size,
        "note_hash": [f"{i:032x}" for i in range(size)],
    }
    return pa.table(values, schema=ROWS)


def _model(root: Path, folder: str, init: str, tasks: tuple[str, ...]) -> None:
    curve = []
    for step in range(1, 1001):
        row: dict[str, Any] = {
            "step": step,
            "loss": 0.9 * math.exp(-step / 300) + 0.45 + random.gauss(0, 0.03),
            "lr": 0.001,
        }
        if step % 200 == 0:
            gain = (1 - math.exp(-step / 350)) * (0.8 if init == "pretrained" else 0.6)
            row["val"] = {task: {"auroc": 0.5 + (CEILINGS[task] - 0.5) * gain} for task in tasks}
        curve.append(row)
    facts = {
        "kind": "finetuned",
        "init": init,
        "tasks": list(tasks),
        "steps": 1000,
        "best_step": 800,
        "rows_seen": {},
        "balance": "sqrt",
    }
    _stage(
        root,
        folder,
        "finetune",
        config.FinetuneConfig(tasks=tasks, init=init, balance="sqrt"),  # type: ignore[arg-type]
        {"tasks": root / "tasks", "model": root / "checkpoints"},
        {"curve.jsonl": curve, "lang1.json": facts},
    )


def _scores(root: Path, tasks: tuple[str, ...], headline_split: str, recalibrated: bool) -> None:
    files: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    for task in tasks:
        for split in SPLITS[1:]:
            for model in SHARES:
                results.append(_result(task, split, model))
                files[f"{model.replace(' ', '-').replace('+', '-')}/{task}/{split}.parquet"] = _score_rows(
                    task, split, model
                )
    seen = [row | _seen(row) for row in results]
    files["summary.json"] = {"results": results, "comparisons": _comparisons(results), "facts": {}}
    files["calibration.json"] = [_calibration(task, headline_split, model) for task in tasks for model in SHARES]
    files["decision_curves.json"] = [
        _decisions(task, headline_split, model) for task in tasks for model in SHARES if OPTIONS_PER_TASK[task] == 2
    ]
    if recalibrated:
        files |= {name: _with_recalibrated(files[name]) for name in ("calibration.json", "decision_curves.json")}
    files["metrics.json"] = {"rows": seen, "facts": {}}
    skipped = [{"task": "cci", "model": "columns+xgboost", "why": "no records were given"}]
    _stage(
        root,
        "scores",
        "evaluate",
        config.EvaluateConfig(tasks=tasks, headline_split=headline_split),  # type: ignore[arg-type]
        {"tasks": root / "tasks"},
        files,
        facts={"skipped": skipped},
    )


def _width(task: str, split: str) -> float:
    return 0.9 / math.sqrt(SIZES[split]) * (1.6 if task == "mortality" else 1.0)


def _result(task: str, split: str, model: str) -> dict[str, Any]:
    share = 0.9 if model == "tfidf+xgboost" and task == BOOSTING_WINS else SHARES[model]
    drop = {"val": 0.0, "test": 0.0, "temporal_1": 0.01, "temporal_2": 0.025}[split]
    value = 0.5 + share * (CEILINGS[task] - 0.5) - drop + random.gauss(0, 0.004)
    return {
        "task": task,
        "model": model,
        "split": split,
        "metric": "auroc" if OPTIONS_PER_TASK[task] == 2 else "auroc_ovr_macro",
        "value": value,
        "ci_low": value - _width(task, split),
        "ci_high": value + _width(task, split),
        "n": SIZES[split],
        "patients": int(SIZES[split] * 0.8),
        "events": {str(k): n for k, n in enumerate(_counts(task, SIZES[split]))},
        "ceiling": CEILINGS[task],
        "ceiling_ci_low": CEILINGS[task] - 0.02,
        "ceiling_ci_high": CEILINGS[task] + 0.02,
        "share": (value - 0.5) / (CEILINGS[task] - 0.5),
    }


def _seen(row: dict[str, Any]) -> dict[str, int | None]:
    ours, met = row["model"].startswith("lang1"), row["split"] in ("val", "test")
    return {
        "rows_of_notes_seen_in_pretraining": row["n"] if met and ours else 0,
        "rows_of_notes_seen_in_finetuning": 0,
        "rows_of_patients_seen_in_pretraining": row["n"] // 2 if ours else 0,
        "rows_of_patients_seen_in_finetuning": row["n"] // 3,
    }


def _comparisons(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours, comparisons = "lang1 finetuned joint", []
    values = {(row["task"], row["split"], row["model"]): row["value"] for row in results}
    for split in SPLITS[1:]:
        for other in SHARES:
            tasks = [task for task, s, model in values if s == split and model == other and other != ours]
            rows = []
            for task in tasks:
                difference, half = values[task, split, ours] - values[task, split, other], 0.75 * _width(task, split)
                p = max(0.001, math.erfc(abs(difference) / half * 1.96 / math.sqrt(2)))
                interval = {"ci_low": difference - half, "ci_high": difference + half}
                names = {"task": task, "split": split, "model_a": ours, "model_b": other}
                rows.append({**names, "difference": difference, **interval, "p": p})
            for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
                comparisons.append(row | {"p_holm": p_holm})
    return comparisons


def _calibration(task: str, split: str, model: str) -> dict[str, Any]:
    bins = []
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        n = int(SIZES[split] * math.exp(-b / 2) * 0.4)
        if n:
            middle = (low + high) / 2
            bins.append(
                {
                    "low": low,
                    "high": high,
                    "predicted": middle,
                    "observed": min(1.0, max(0.0, middle * 0.9 + random.gauss(0, 0.03))),
                    "n": n,
                }
            )
    of = "option 1" if OPTIONS_PER_TASK[task] == 2 else "most likely option"
    ece = 0.02 + abs(random.gauss(0, 0.01))
    return {"task": task, "split": split, "model": model, "of": of, "ece": ece, "bins": bins}


def _with_recalibrated(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each curve a second time, named as `evaluate.recalibrate=platt` names it."""
    after = [
        row | {"model": f"{row['model']}, platt on val", "recalibration": {"method": "platt", "of": row["model"]}}
        for row in rows
    ]
    for row in after:
        if "ece" in row:
            row["ece"] /= 8
        else:
            row["points"] = [
                p | {"net_benefit": p["net_benefit"] + 0.008 * (p["threshold"] > 0.02)} for p in row["points"]
            ]
    return [row | {"recalibration": None} for row in rows] + after


def _decisions(task: str, split: str, model: str) -> dict[str, Any]:
    """The decision curve of rows drawn from the task's rate, the better the model the more apart."""
    rng = np.random.default_rng(len(model) + 100 * len(task))
    rate, n = RATES[task][1], SIZES[split]
    positive = rng.random(n) < rate
    odds = math.log(rate / (1 - rate)) + SHARES[model] * (1.5 * positive + rng.normal(size=n))
    thresholds = [round(0.01 * i, 2) for i in range(1, 51)]
    values = net_benefit(positive, 1 / (1 + np.exp(-odds)), thresholds).value().tolist()
    points = [
        {
            "threshold": t,
            "net_benefit": values[i],
            "net_benefit_ci_low": values[i] - 0.01,
            "net_benefit_ci_high": values[i] + 0.01,
            "treat_all": values[50 + i],
        }
        for i, t in enumerate(thresholds)
    ]
    return {"task": task, "model": model, "split": split, "n": n, "points": points}


def _score_rows(task: str, split: str, model: str) -> pa.Table:
    size, options = 12, OPTIONS_PER_TASK[task]
    schema = scores_schema(options)
    values: dict[str, Any] = {name: [None] * size for name in schema.names}
    language_model = model.startswith("lang1")
    values |= {
        "model_id": [model] * size,
        "task": [task] * size,
        "split": [split] * size,
        "row_id": [f"{task}-{split}-{i}" for i in range(size)],
        "encounter_id": [str(i) for i in range(size)],
        "patient_id": [f"p{i}" for i in range(size)],
        "label": [i % options for i in range(size)],
        "method": ["one-token" if language_model else "classifier"] * size,
        **{f"p_{k}": [RATES[task][k]] * size for k in range(options)},
    }
    if language_model:
        values |= {
            "truncated_tokens": [0] * 11 + [40],
            "prompt_tokens": [200] * size,
            "seen_in_pretraining": [split in ("val", "test")] * size,
            "seen_in_finetuning": [False] * size,
        }
    return pa.table(values, schema=schema)
