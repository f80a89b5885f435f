"""Write a task pack: YAML and one Python file that lm-eval 0.4.13 runs from `--include_path`, offline.

    PACK/remede.yaml                 group `remede`: every task on the headline split, SciQ and PubMedQA
    PACK/remede_<task>.yaml          a task on the headline split; remede_<task>_<split>.yaml on another
    PACK/remede_pack_utils.py        reads the rows, makes the prompts, computes the metrics
    PACK/pack.json                   what is asked: folders, questions, examples by row id and what was cut of them

A pack holds no text of a note: the rows stay in the tasks folder, which it names. Prompts, examples and the order of
options are those of `lang1 evaluate`, whose AUROC lm-eval gives to 1e-4 (tests/remede/test_pack.py).
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lang1 import config, runs
from lang1.config import EvaluateConfig
from lang1.errors import InputError
from lang1.metrics.ranking import headline_metric
from lang1.remede.comprehension import WHOLE, choose_shots, open_comprehension
from lang1.remede.examples import choose_examples
from lang1.remede.rows import TaskFolder, open_tasks
from lang1.scoring.options import ANSWER_ROOM
from lang1.scoring.shots import Examples
from lang1.tasks.prompts import render_question, require_known

VERSION = 2
"""of the pack's format and prompts; raised when either changes"""
UTILS = "remede_pack_utils"
METRICS = {
    "process_two": ("auroc", "acc"),
    "process_several": ("auroc_ovr_macro", "auroc_ovr_weighted", "auroc_ovr_micro", "acc"),
    "process_accuracy": ("acc",),
}
"""by the function of remede_pack_utils.py that makes them of a row"""


def export_pack(
    cfg: EvaluateConfig, *, tasks: Path, comprehension: Path | None = None, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write the pack `out` of the tasks and splits of `cfg`; returns the manifest.

    Raises InputError for a folder without the rows that are asked for.
    """
    inputs = {"tasks": tasks} | ({"comprehension": comprehension} if comprehension else {})

    def work(stage: runs.Stage) -> None:
        folder = open_tasks(tasks)
        require_known(cfg.tasks, folder.questions, tasks, "evaluate.tasks")
        about, asked, skipped = _remede(cfg, folder, seed)
        if comprehension is not None:
            more, reading = _comprehension(cfg, comprehension, seed)
            about, asked = about | more, asked | reading
        folders = {"tasks": str(tasks.resolve())}
        folders |= {"comprehension": str(comprehension.resolve())} if comprehension else {}
        group = [name for name, (_, _, headline) in asked.items() if headline]
        for name, (task, split, _) in asked.items():
            _write_yaml(stage.out / f"{name}.yaml", _task_yaml(name, task, split, about[task]))
        _write_yaml(stage.out / "remede.yaml", {"group": "remede", "task": group, "metadata": {"version": VERSION}})
        runs.write_text(stage.out / f"{UTILS}.py", _utils())
        facts = {"version": VERSION, "folders": folders, "seed": seed, "prompts": _hash(about), "tasks": about}
        runs.write_json(stage.out / "pack.json", facts)
        stage.count(tasks=len(asked))
        stage.record(prompts=facts["prompts"], skipped=skipped, shots=cfg.shots)

    return runs.run_stage(out, "export-pack", config.dump(cfg), seed, inputs, work, force)


Asked = dict[str, tuple[str, str, bool]]
"""lm-eval's name -> (task, split, whether it is of the group)"""


def _remede(cfg: EvaluateConfig, folder: TaskFolder, seed: int) -> tuple[dict[str, Any], Asked, list[dict[str, str]]]:
    about, asked, skipped = dict[str, Any](), Asked(), list[dict[str, str]]()
    for task in cfg.tasks:
        for split in dict.fromkeys((cfg.headline_split, *cfg.splits)):
            why = folder.without_rows(task, split)
            if why is not None:
                skipped.append({"task": task, "split": split, "why": why})
                continue
            if task not in about:
                examples = choose_examples(folder, task, cfg.shots, cfg.shot_tokens, seed)
                question = folder.questions[task]
                about[task] = _about(
                    "tasks", render_question(question), question.options, cfg.max_note_tokens, examples
                )
            headline = split == cfg.headline_split
            asked[f"remede_{task}" + ("" if headline else f"_{split}")] = (task, split, headline)
    if not asked:
        raise InputError(f"{folder.path}: no rows for any task and split of evaluate.tasks and evaluate.splits")
    return about, asked, skipped


def _comprehension(cfg: EvaluateConfig, path: Path, seed: int) -> tuple[dict[str, Any], Asked]:
    """SciQ and PubMedQA in the paper's format: the question without letters, answered by an option's text (5.2.4)."""
    about, asked = dict[str, Any](), Asked()
    for task, split in open_comprehension(path).items():
        examples = choose_shots(path, task, cfg.shots, cfg.shot_tokens, seed)
        about[task] = _about("comprehension", None, (), WHOLE, examples)
        asked[f"remede_{task}"] = (task, split, True)
    return about, asked


def _about(
    folder: str, question: str | None, options: tuple[str, ...], max_note_tokens: int, examples: Examples
) -> dict[str, Any]:
    return {
        "folder": folder,
        "question": question,
        "options": list(options),
        "max_note_tokens": max_note_tokens,
        "answer_room": ANSWER_ROOM,
        "shots": examples.facts() | {"kept_characters": list(examples.kept_characters)},
    }


def _task_yaml(name: str, task: str, split: str, about: dict[str, Any]) -> dict[str, Any]:
    two = headline_metric(len(about["options"])) == "auroc"
    process = "process_accuracy" if about["question"] is None else "process_two" if two else "process_several"
    return {
        "task": name,
        "custom_dataset": _Function("dataset"),
        "dataset_kwargs": {"task": task, "split": split},
        "test_split": split,
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": about["shots"]["k"],
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "target_delimiter": " ",
        "fewshot_delimiter": "\n\n",
        "process_results": _Function(process),
        "metric_list": [
            {
                "metric": metric,
                "aggregation": "mean" if metric == "acc" else _Function(metric),
                "higher_is_better": True,
            }
            for metric in METRICS[process]
        ],
        "metadata": {"version": VERSION},
    }


class _Function(str):
    """A function of the pack's Python file, as lm-eval's YAML names it."""


class _Dumper(yaml.SafeDumper):
    """YAML with lm-eval's `!function`."""


_Dumper.add_representer(
    _Function, lambda dumper, name: dumper.represent_scalar("!function", f"{UTILS}.{name}", style="")
)


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    runs.write_text(path, yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120))


def _utils() -> str:
    return (files("lang1.remede.pack") / f"{UTILS}.py").read_text(encoding="utf-8")


def _hash(about: dict[str, Any]) -> str:
    """One name for all that is asked: questions, options, examples and how notes are cut, task by task."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
