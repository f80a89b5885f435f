"""A recipe, then dotted overrides, then validation: every fault at once, each with the nearest known key."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from lang1.config.benchmark import EvaluateConfig, ReportConfig
from lang1.config.checks import STRICT, TASK_IDS, require
from lang1.config.data import (
    CleanConfig,
    DuplicatesConfig,
    ExtractConfig,
    ProfileConfig,
    SimulateConfig,
    TokenizeConfig,
)
from lang1.config.files import read_mapping
from lang1.config.others import OtherModel
from lang1.config.own_task import read_own_tasks
from lang1.config.tasks import TasksConfig
from lang1.config.training import FinetuneConfig, PretrainConfig, SweepConfig
from lang1.errors import ConfigError


@dataclass(frozen=True)
class RunConfig:
    """A whole run: one recipe. Stages that a recipe does not mention take their defaults."""

    name: str = "run"
    """the run's folder is runs/<name>"""
    seed: int = 3407
    """fixes simulation, data order, initial weights, splits and resampling (5.3)"""
    simulate: SimulateConfig | None = None
    """null: the records come from extract.path"""
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    tokenize: TokenizeConfig = field(default_factory=TokenizeConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    random_twin: bool = True
    """also finetune the same architecture from random initial weights"""
    others: dict[str, OtherModel] = field(default_factory=dict)
    """more models for the comparison, by the names that results carry"""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    file_mode: str = "0640"
    """octal mode of every file written; never world-readable unless you say so"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Names and modes that the file system can take."""
        require(
            (self.seed >= 0, "seed", "0 or more"),
            (bool(self.name) and "/" not in self.name and not self.name.startswith("."), "name", "a plain folder name"),
            (
                self.simulate is not None or self.extract.path is not None,
                "extract.path",
                "given when there is no simulate section: where are the records to come from?",
            ),
            (
                not self.tokenize.leave_out_folds or self.tokenize.fold_ratio == self.tasks.split_ratio,
                "tokenize.fold_ratio",
                "the same as tasks.split_ratio, or notes of val and test patients are pretrained on",
            ),
            (
                not self.tokenize.leave_out_open_stays or self.tokenize.transfer_hours >= self.tasks.transfer_hours,
                "tokenize.transfer_hours",
                "tasks.transfer_hours or more, or a stay that is open to the tasks has ended for the corpus",
            ),
            (
                not self.tokenize.leave_out_folds or self.tasks.split_unit == "patient",
                "tasks.split_unit",
                "patient with tokenize.leave_out_folds, which leaves out patients",
            ),
        )


_SECTIONS = ("tokenize", "pretrain", "finetune")
"""of a run, which another model may change"""


def load_config(recipe: Path | None, overrides: list[str], section: str | None = None) -> RunConfig:
    """Read a recipe, apply `a.b=value` overrides, validate.

    `section` names the stage of a single-stage command: an override whose first key is not one of RunConfig's is
    then read within that stage. Raises ConfigError with every fault at once, each with the nearest known key.
    """
    raw: dict[str, Any] = {}
    if recipe is not None:
        raw = read_mapping(recipe, "recipe", "recipes/ holds the ones that come with lang1")
    problems: list[str] = []
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            problems.append(f"{text}: an override is written key=value, such as pretrain.steps=100")
            continue
        path = key.split(".")
        if section is not None and path[0] not in {f.name for f in fields(RunConfig)}:
            path = [section, *path]
        _set(raw, path, _scalar(value), problems)
    if section == "simulate":
        raw.setdefault("simulate", {})
    elif section is not None and section != "extract" and raw.get("simulate") is None:
        # a single stage reads the folders it is given; where records came from is not its business
        raw.setdefault("extract", {}).setdefault("path", "")
    others = raw.pop("others", None) or {}
    try:
        config = _validate(raw)
        config = _validate(raw | {"others": _over_the_runs(config, others)}) if others else config
    except ValidationError as error:
        problems += [line for e in error.errors() for line in _explain(e)]
        config = None
    if config is not None:
        problems += _check_task_ids(config, section)
    if problems or config is None:
        where = f"{recipe}: " if recipe is not None else ""
        raise ConfigError(where + "; ".join(dict.fromkeys(problems)))
    return config


def _validate(raw: dict[str, Any]) -> RunConfig:
    return TypeAdapter(RunConfig).validate_python(_over_defaults(RunConfig(extract=ExtractConfig(path="")), raw))


def _over_the_runs(config: RunConfig, others: Any) -> Any:
    """The sections of other models, each over the run's own section of that name."""
    if not isinstance(others, dict):
        return others

    def filled(other: Any) -> Any:
        if not isinstance(other, dict):
            return {} if other is None else other
        sections = {key: value for key, value in other.items() if key in _SECTIONS and isinstance(value, dict)}
        return other | {key: _over_defaults(getattr(config, key), value) for key, value in sections.items()}

    return {str(name): filled(other) for name, other in others.items()}


def _check_task_ids(config: RunConfig, section: str | None) -> list[str]:
    """Own tasks that cannot be read; and, of a whole recipe, task ids that are neither built in nor its own.

    A single stage reads the ids from its tasks folder instead: the recipe of another may have built that.
    """
    if section not in (None, "tasks"):
        return []
    try:
        own = [task.id for task in read_own_tasks(config.tasks.own)]
    except ConfigError as error:
        return [str(error)]
    known = [*TASK_IDS, *own]
    problems = []
    finetunings = {f"others.{name}.finetune": o.finetune for name, o in config.others.items() if o.finetune is not None}
    asked = {name: cfg.tasks for name, cfg in ({"finetune": config.finetune} | finetunings).items()}
    for name, ids in (*asked.items(), ("evaluate", config.evaluate.tasks)):
        for task in ids if section is None else ():
            if task not in known:
                near = difflib.get_close_matches(task, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                problems.append(f"{name}.tasks: {task}: no such task; {hint}")
    return problems


def dump(config: Any) -> dict[str, Any]:
    """A dataclass of this module as plain JSON values."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def dump_yaml(config: Any) -> str:
    """The whole resolved configuration, as `--print-config` shows it."""
    return as_yaml(dump(config))


def as_yaml(values: dict[str, Any]) -> str:
    """Plain values as a recipe holds them."""
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=False)


def _scalar(text: str) -> Any:
    """An override's value as YAML; 3e-4 and 1e3 are numbers here, though YAML 1.1 reads them as text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        return text  # a title with a colon in it
    if isinstance(value, str) and value == text:  # one in quotes stays text
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() and "." not in value else number
    return value


def _set(raw: dict[str, Any], path: list[str], value: Any, problems: list[str]) -> None:
    node = raw
    for key in path[:-1]:
        if node.get(key) is None:
            node[key] = {}
        if not isinstance(node[key], dict):
            problems.append(f"{'.'.join(path)}: {key} is a value, not a section")
            return
        node = node[key]
    node[path[-1]] = value


def _over_defaults(default: Any, raw: Any) -> Any:
    """A section that names one key keeps its section's own defaults for the others (finetuning's AdamW is not
    pretraining's)."""
    if is_dataclass(default) and raw is None:
        return default  # a section whose keys are all commented out
    if not (is_dataclass(default) and isinstance(raw, dict)):
        return raw
    values = {f.name: getattr(default, f.name) for f in fields(default)} if not isinstance(default, RunConfig) else {}
    merged = {key: _over_defaults(getattr(default, key, None), value) for key, value in raw.items()}
    return values | merged


def _explain(error: Any) -> list[str]:
    where = [str(part) for part in error["loc"]]
    # a union (SimulateConfig | None, str | dict) puts its members' names into the path; the user never wrote them
    path = [part for part in where if not part.endswith("Config") and "[" not in part and part != "str"]
    name = ".".join(path)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _known_keys()
        of = f"{path[0]}.{path[1]}." if path[0] == "others" else ""  # its keys stand below names that the user gives
        if of:
            path = [path[0], *path[2:]]
        parent = ".".join(path[:-1])
        siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
        near = [siblings[k] for k in difflib.get_close_matches(path[-1], siblings, 1)]
        near = near or difflib.get_close_matches(".".join(path), known, 1, 0.8)
        near = [of + key.removeprefix("others.") for key in near]
        hint = f"did you mean {near[0]}?" if near else "known here: " + ", ".join(siblings)
        return [f"{name}: unknown key; {hint}"]
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] == "value_error":
        return [f"{name}.{line}" if name else line for line in message.split("\n")]
    quotes = "; write it in quotes" if error["type"] == "string_type" else ""
    return [f"{name}: {message} (found {type(error.get('input')).__name__}){quotes}"]


def _known_keys(cls: type = RunConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    hints = get_type_hints(cls)
    for f in fields(cls):
        keys.append(prefix + f.name)
        for candidate in (hints[f.name], *get_args(hints[f.name])):
            if isinstance(candidate, type) and is_dataclass(candidate):
                keys += _known_keys(candidate, f"{prefix}{f.name}.")
    return keys
