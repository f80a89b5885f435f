"""The whole way that the data take, stage by stage, in the order of the paper's methods: what `lang1 run` does.

Every stage reads the folders of earlier stages and writes one folder of its own; a stage that is complete is skipped,
a killed one resumes. The run's folder then holds report.html, summary.json and model/.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.config import RunConfig, dump_yaml
from lang1.config.others import OtherModel
from lang1.errors import ConfigError, InputError
from lang1.remede.scores import slug

if TYPE_CHECKING:
    from lang1.remede import Entrant

MAKE_LOCAL = "give the folder or the GGUF file (make local fetches the one that recipes/local.yaml names)"

STAGES = ("simulate", "extract", "clean", "tokenize", "pretrain", "tasks", "finetune", "evaluate", "report")


@dataclass(frozen=True)
class Layout:
    """Where a run keeps what its stages write."""

    root: Path

    @property
    def warehouse(self) -> Path:
        """`simulate`: the OMOP warehouse and, apart, the truth."""
        return self.root / "warehouse"

    @property
    def records(self) -> Path:
        """`extract`: canonical records."""
        return self.root / "records"

    @property
    def corpus(self) -> Path:
        """`clean`: cleaned notes and rejects."""
        return self.root / "corpus"

    @property
    def duplicates(self) -> Path:
        """`duplicates`, where tokenize.drop_duplicates asks for it."""
        return self.root / "duplicates"

    @property
    def tokens(self) -> Path:
        """`tokenize`: the tokenizer and the shards."""
        return self.root / "tokens"

    @property
    def checkpoints(self) -> Path:
        """`pretrain`: the trajectory, and export/ with the last weights."""
        return self.root / "checkpoints"

    @property
    def tasks(self) -> Path:
        """`tasks`: ReMedE's rows."""
        return self.root / "tasks"

    @property
    def model(self) -> Path:
        """`finetune`: the finetuned model as a Hugging Face folder."""
        return self.root / "model"

    @property
    def model_random(self) -> Path:
        """`finetune`: its twin from random initial weights."""
        return self.root / "model-random"

    def other(self, name: str) -> Path:
        """What the stages make for a model of `others`: tokens, checkpoints and model, or model-TASK for each task."""
        return self.root / "others" / slug(name)

    @property
    def scores(self) -> Path:
        """`evaluate`: a row a task row, metrics, comparisons."""
        return self.root / "scores"

    @property
    def report(self) -> Path:
        """`report`: the HTML file."""
        return self.root / "report"


def run(config: RunConfig, root: Path, first: str | None = None, last: str | None = None, force: bool = False) -> Path:
    """Walk the stages from `first` to `last` (all when null) in `root`. Returns the run's folder.

    Raises ConfigError for an unknown stage, InputError for what a stage cannot use.
    """
    wanted = _between(first, last)
    layout = Layout(root)
    runs.set_file_mode(config.file_mode)
    _check_others(config)
    _claim(root, config)
    if "evaluate" in wanted:
        _say_caps(config)
    clock, times = time.monotonic(), dict[str, float]()
    for name in STAGES:
        if name not in wanted or (name == "simulate" and config.simulate is None):
            continue
        started = time.monotonic()
        _DO[name](config, layout, force)
        times[name] = time.monotonic() - started
    _publish(layout, wanted)
    runs.write_text(root / "config.yaml", dump_yaml(config))  # now true: no stage refused it
    width = max(len(name) for name in STAGES)
    for name, seconds in times.items():
        runs.say(f"  {name:<{width}} {seconds:8.1f} s")
    runs.say(
        f"  {'all':<{width}} {time.monotonic() - clock:8.1f} s, peak memory {runs.peak_memory_mib() / 1024:.2f} GiB"
    )
    return root


def _between(first: str | None, last: str | None) -> tuple[str, ...]:
    for name in (first, last):
        if name is not None and name not in STAGES:
            raise ConfigError(f"{name}: no such stage; the stages are {', '.join(STAGES)}")
    begin = STAGES.index(first) if first else 0
    end = STAGES.index(last) if last else len(STAGES) - 1
    if begin > end:
        raise ConfigError(f"--from {first} comes after --to {last}")
    return STAGES[begin : end + 1]


def _claim(root: Path, config: RunConfig) -> None:
    """Refuse a folder that belongs to another run; a new one gets its name and the resolved configuration."""
    marker = root / "run.json"
    if marker.exists():
        owner = runs.read_json(marker).get("name")
        if owner != config.name:
            raise InputError(f"{root}: holds the run {owner!r}, not {config.name!r}; choose another --out")
    elif root.exists() and (not root.is_dir() or any(p.suffix != ".tmp" for p in root.iterdir())):
        raise InputError(f"{root}: is not empty and holds no lang1 run; choose another --out")
    else:
        runs.write_json(marker, {"name": config.name})
        runs.write_text(root / "config.yaml", dump_yaml(config))


def _check_others(config: RunConfig) -> None:
    """Refuse, before hours are spent, a model that is not there and two names that would share a folder."""
    taken: dict[str, str] = {slug(name): name for name in models_of(config, Layout(Path()))}
    for name, other in config.others.items():
        if slug(name) in taken:
            raise ConfigError(f"others.{name}: the run has a model {taken[slug(name)]!r}; give it another name")
        taken[slug(name)] = name
        if other.model is not None and not Path(other.model).exists():
            raise InputError(f"others.{name}.model: {other.model}: not found; {MAKE_LOCAL}")


def _say_caps(config: RunConfig) -> None:
    """How many rows numbers will rest on: a report on part of the rows says so from the start."""
    cfg = config.evaluate
    most, elsewhere = cfg.max_rows, cfg.max_rows_elsewhere or cfg.max_rows
    runs.say(
        f"rows: {cfg.headline_split} {_cap(most)} a task, other splits {_cap(elsewhere)}; baselines learn from "
        f"{_cap(cfg.baseline_train_rows)}; validation of a finetuning reads {_cap(config.finetune.val_rows)}"
    )


def _cap(most: int | None) -> str:
    return "all" if most is None else f"at most {most:,}"


def _publish(layout: Layout, wanted: tuple[str, ...]) -> None:
    """Put what a reader looks for first into the run's folder."""
    for stage, source in (
        ("evaluate", layout.scores / "summary.json"),
        ("report", layout.report / "report.html"),
    ):
        target = layout.root / source.name
        if stage in wanted and source.exists() and not (target.exists() and _same(source, target)):
            with runs.atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and runs.sha256_file(a) == runs.sha256_file(b)


def _simulate(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.simulate import simulate_hospital

    assert config.simulate is not None  # run() skips the stage otherwise
    simulate_hospital(config.simulate, seed=config.seed, out=at.warehouse, force=force)


def _extract(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.ehr import extract

    source = config.extract.path or at.warehouse / "warehouse.duckdb"
    extract(config.extract, source=source, out=at.records, seed=config.seed, force=force)


def _clean(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.corpus import clean

    clean(config.clean, records=at.records, out=at.corpus, seed=config.seed, force=force)


def _tokenize(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.corpus import find_duplicates, tokenize

    asked = {"": config.tokenize} | {n: other.tokenize for n, other in config.others.items() if other.tokenize}
    for name, cfg in asked.items():
        if cfg.drop_duplicates != "none" and cfg.duplicates is None:
            find_duplicates(config.duplicates, corpus=at.corpus, out=at.duplicates, seed=config.seed, force=force)
            cfg = replace(cfg, duplicates=str(at.duplicates))
        if name:
            runs.say(f"tokenize: {name}")
        out = at.other(name) / "tokens" if name else at.tokens
        tokenize(cfg, corpus=at.corpus, records=at.records, out=out, seed=config.seed, force=force)


def _tokens_of(other: OtherModel, name: str, at: Layout) -> Path:
    """The corpus of another model's pretraining: the run's, or its own."""
    return at.tokens if other.tokenize is None else at.other(name) / "tokens"


def _pretrain(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.training import pretrain

    pretrain(config.pretrain, tokens=at.tokens, out=at.checkpoints, seed=config.seed, force=force)
    for name, other in config.others.items():
        if other.pretrain is not None:
            runs.say(f"pretrain: {name}")
            out = at.other(name) / "checkpoints"
            pretrain(other.pretrain, tokens=_tokens_of(other, name, at), out=out, seed=config.seed, force=force)


def _tasks(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.tasks import build_tasks

    build_tasks(config.tasks, records=at.records, corpus=at.corpus, out=at.tasks, seed=config.seed, force=force)


def _finetune(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.training import finetune

    start = at.checkpoints / "export"
    finetune(config.finetune, tasks=at.tasks, model=start, out=at.model, seed=config.seed, force=force)
    if config.random_twin:
        twin = replace(config.finetune, init="random")
        finetune(twin, tasks=at.tasks, model=start, out=at.model_random, seed=config.seed, force=force)
    for name, other in config.others.items():
        for tasks, out in _finetunings(other, name, at).items():
            assert other.finetune is not None  # it has no finetunings otherwise
            runs.say(f"finetune: {name}{f', {tasks[0]}' if other.single_task else ''}")
            cfg, start = replace(other.finetune, tasks=tasks), _start_of(other, name, at)
            finetune(cfg, tasks=at.tasks, model=start, out=out, seed=config.seed, force=force)


def _start_of(other: OtherModel, name: str, at: Layout) -> Path:
    """The model that another one starts from: the user's folder, its own pretraining, or the run's."""
    if other.model is not None:
        return Path(other.model)
    return (at.checkpoints if other.pretrain is None else at.other(name) / "checkpoints") / "export"


def _finetunings(other: OtherModel, name: str, at: Layout) -> dict[tuple[str, ...], Path]:
    """The finetunings of another model, by their tasks: none, a joint one, or one a task."""
    if other.finetune is None:
        return {}
    if not other.single_task:
        return {other.finetune.tasks: at.other(name) / "model"}
    return {(task,): at.other(name) / f"model-{task}" for task in other.finetune.tasks}


def _entrant(config: RunConfig, name: str, at: Layout) -> Entrant:
    """Another model as `evaluate` takes it."""
    from lang1.remede import Entrant

    other = config.others[name]
    finetuned = {task: out for tasks, out in _finetunings(other, name, at).items() for task in tasks}
    folders = finetuned or dict.fromkeys(config.evaluate.tasks, _start_of(other, name, at))
    return Entrant(folders, other.shots, None if other.tokenize is None else _tokens_of(other, name, at))


def models_of(config: RunConfig, at: Layout) -> dict[str, Path]:
    """The language models that a run compares, by the names that results carry; an encoder answers once finetuned."""
    from lang1.models.encoder import is_encoder_preset

    joint = " joint" if len(config.finetune.tasks) > 1 else ""
    if is_encoder_preset(config.pretrain.preset):
        models, whose = dict[str, Path](), "encoder"
    else:
        models, whose = {"lang1 zero-shot": at.checkpoints / "export"}, "lang1"
    models[f"{whose} finetuned{joint}"] = at.model
    if config.random_twin:
        models[f"{whose} random init finetuned{joint}"] = at.model_random
    return models


def _evaluate(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.remede import evaluate

    truth = at.warehouse / "truth.parquet"
    evaluate(
        config.evaluate,
        models={**models_of(config, at), **{name: _entrant(config, name, at) for name in config.others}},
        tasks=at.tasks,
        tokens=at.tokens,
        records=at.records,
        truth=truth if config.simulate is not None else None,
        out=at.scores,
        seed=config.seed,
        force=force,
    )


def _report(config: RunConfig, at: Layout, force: bool) -> None:
    from lang1.report import build_report

    build_report(config.report, run=at.root, out=at.report, seed=config.seed, force=force)


_DO: dict[str, Callable[[RunConfig, Layout, bool], None]] = {
    "simulate": _simulate,
    "extract": _extract,
    "clean": _clean,
    "tokenize": _tokenize,
    "pretrain": _pretrain,
    "tasks": _tasks,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "report": _report,
}


def facts(root: Path) -> dict[str, Any]:
    """What `lang1 run --json` prints: where the results are."""
    at = Layout(root)
    return {
        "run": str(root),
        "report": str(root / "report.html"),
        "summary": str(root / "summary.json"),
        "model": str(at.model),
    }
