"""The typed run configuration: frozen dataclasses, YAML recipes that name only what they change, dotted overrides.

One dataclass a stage, in the order in which the data flow; units stand in the line under each field. pydantic
validates (docs/decisions/0001-configuration.md): every error at once, each with the nearest known key.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lang1.errors import ConfigError

TaskId = Literal["readmission", "mortality", "los", "cci", "denial"]
TASK_IDS: tuple[TaskId, ...] = get_args(TaskId)
STRICT = ConfigDict(extra="forbid")


def _require(*rules: tuple[bool, str, str]) -> None:
    """Raise with every rule (it holds, key, what is wanted) that is broken, a line each."""
    broken = [f"{key}: must be {wanted}" for holds, key, wanted in rules if not holds]
    if broken:
        raise ValueError("\n".join(broken))


@dataclass(frozen=True)
class SimulateConfig:
    """The embedded hospital (docs/simulated-hospital.md)."""

    hospital: Literal["main", "external"] = "main"
    """which hospital: case mix, codes and style differ in `external`"""
    encounters: int = 30_000
    """inpatient encounters to write, about"""
    note_length: float = 1.0
    """factor on the length of note bodies; 1 keeps the median note at 150 tokens or fewer"""
    workers: int = 0
    """processes; 0 is one a core. The bytes of the notes do not depend on it"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Refuse sizes that make no hospital."""
        _require(
            (self.encounters >= 1, "encounters", "at least 1"),
            (0.2 <= self.note_length <= 50, "note_length", "between 0.2 and 50"),
        )


@dataclass(frozen=True)
class ExtractConfig:
    """From a warehouse to canonical records."""

    source: Literal["omop", "sql"] = "omop"
    """`omop`: an OMOP CDM 5.4 DuckDB file; `sql`: CSV or Parquet files through the SQL files that `sql_dir` holds"""
    path: str | None = None
    """the warehouse file, or the file or folder that the SQL reads; null: the simulated hospital of this run"""
    sql_dir: str | None = None
    """folder with one <table>.sql a canonical table; null: the source's own files"""
    exclude_patients: str | None = None
    """text file, one patient_id a line (opt-outs, staff, legal holds): left out here and counted"""

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CleanConfig:
    """Section 5.1 of the paper, on Dask."""

    min_words: int = 10
    """notes with fewer words are rejected (5.1)"""
    partition_rows: int = 20_000
    """notes a Dask partition; the output's bytes do not depend on it"""
    workers: int = 0
    """local Dask worker processes; 0 is one a core, 1 cleans in the command's own process"""
    scheduler: str | None = None
    """address of a running Dask scheduler (tcp://...); null starts a local cluster"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A partition holds at least a note."""
        _require(
            (self.min_words >= 0, "min_words", "0 or more"),
            (self.partition_rows >= 1, "partition_rows", "at least 1"),
            (self.workers >= 0, "workers", "0 or more"),
        )


@dataclass(frozen=True)
class TokenizeConfig:
    """A corpus version as token shards."""

    vocab_size: int = 32_000
    """entries of the tokenizer trained on the corpus; ignored when `tokenizer` names one"""
    tokenizer: str | None = None
    """a tokenizer.json, a Llama-2 tokenizer.model, or a Hugging Face folder; null trains one"""
    train_documents: int = 200_000
    """documents that the tokenizer is trained on, at most, drawn by hash"""
    question_words: bool = True
    """the words of ReMedE's questions take part in training the tokenizer, so that prompts stay short"""
    start: date | None = None
    """first signed date of the corpus version; null: no bound"""
    end: date = date(2024, 1, 1)
    """the corpus ends before this date by signed time: the temporal_2 window must stay unseen"""
    categories: tuple[Literal["hospital", "pathology", "radiology"], ...] = (
        "hospital",
        "pathology",
        "radiology",
    )
    """note categories of the corpus version (NYU Notes+ has all three, 5.2.1)"""
    author_roles: tuple[str, ...] | None = None
    """author roles kept; null keeps all"""
    leave_out_folds: tuple[Literal["val", "test"], ...] = ()
    """patients of these folds stay out of the corpus: for records without dates, where no window keeps them unseen"""
    validation_fraction: float = 0.001
    """share of patients, and of web documents, held out for validation (5.3: 0.1 %)"""
    web: str | None = None
    """file or folder of web text (JSONL, JSONL.zst, Parquet, plain text; SlimPajama's layout); null: clinical only"""
    web_required: bool = True
    """false: a web path that is not there gives a clinical-only mix, and the report says so"""
    shard_tokens: int = 100_000_000
    """tokens a shard file, at most"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Bounds that would make an unusable tokenizer or split."""
        _require(
            (self.vocab_size >= 300, "vocab_size", "at least 300 (256 bytes and the special tokens)"),
            (0 < self.validation_fraction < 0.5, "validation_fraction", "between 0 and 0.5"),
            (self.train_documents >= 1, "train_documents", "at least 1"),
            (self.shard_tokens >= 1, "shard_tokens", "at least 1"),
            (self.start is None or self.start < self.end, "start", "before end"),
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    lr: float = 4e-4
    """peak learning rate; the paper gives none, 4e-4 is TinyLlama's"""
    min_lr: float = 4e-5
    """where the cosine ends (5.3)"""
    warmup_steps: int = 2000
    """linear warm-up, optimizer steps (5.3)"""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    """gradient norm is clipped to this; null: no clipping"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Signs that would train nothing."""
        _require(
            (self.lr > 0, "lr", "above 0"),
            (0 <= self.min_lr <= self.lr, "min_lr", "between 0 and lr"),
            (self.warmup_steps >= 0, "warmup_steps", "0 or more"),
        )


Preset = Literal["tiny", "100m", "1b", "7b"]


@dataclass(frozen=True)
class PretrainConfig:
    """Next-token pretraining on a weighted mix of sources (5.3)."""

    preset: Preset = "tiny"
    """shape of the model: tiny (the demo), 100m smol_llama-101M-GQA, 1b TinyLlama-1.1B, 7b Llama-2-7B"""
    context_length: int | None = None
    """positions a sequence; null: the preset's"""
    mix: dict[str, float] = field(default_factory=lambda: {"clinical": 0.5, "web": 0.5})
    """weight a source of tokens; a source that the tokens folder lacks is dropped and the rest rescaled (logged)"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 150_000
    """optimizer steps"""
    global_batch: int = 1024
    """sequences an optimizer step, all ranks"""
    micro_batch: int = 8
    """sequences a forward"""
    val_every: int = 1000
    """steps between validation losses"""
    val_batches: int = 16
    """micro-batches a source in a validation"""
    checkpoint_every: int = 1000
    """steps between resumable checkpoints"""
    keep_checkpoints: int = 3
    """newest checkpoints kept"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast over fp32 weights; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """The global batch is a whole number of micro-batches."""
        _require(
            (self.steps >= 1, "steps", "at least 1"),
            (
                self.micro_batch >= 1 and self.global_batch % self.micro_batch == 0,
                "micro_batch",
                f"a divisor of global_batch ({self.global_batch})",
            ),
            (
                bool(self.mix) and all(w >= 0 for w in self.mix.values()) and sum(self.mix.values()) > 0,
                "mix",
                "weights of 0 or more with a sum above 0",
            ),
        )

    @property
    def grad_accum_steps(self) -> int:
        """Micro-batches an optimizer step on one rank."""
        return self.global_batch // self.micro_batch


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; by discharge time."""

    start: date
    end: date

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A window holds at least a day."""
        _require(
            (self.start < self.end, "end", f"after start ({self.start})"),
        )


@dataclass(frozen=True)
class WindowsConfig:
    """When the rows of a task's splits were discharged. `train` is divided 8:1:1 by patient."""

    train: Window = Window(date(2013, 1, 1), date(2021, 6, 1))
    temporal_1: Window = Window(date(2021, 6, 1), date(2021, 12, 1))
    temporal_2: Window = Window(date(2024, 1, 1), date(2025, 1, 1))

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Windows follow each other in time, so that the future stays unseen."""
        _require(
            (self.train.end <= self.temporal_1.start, "temporal_1.start", "at or after train.end"),
            (self.temporal_1.end <= self.temporal_2.start, "temporal_2.start", "at or after temporal_1.end"),
        )


@dataclass(frozen=True)
class TasksConfig:
    """Cohorts, labels and splits (5.2.2; docs/tasks.md)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    split_by: Literal["time", "patient", "sequence"] = "time"
    """time: the windows below; patient: no dates exist, 8:1:1 by patient only; sequence: as patient, and the last
    stays by `sequence` become temporal_2, exploratory"""
    sequence_fraction: float = 0.1
    """share of encounters, last by `sequence`, that become temporal_2 under split_by: sequence"""
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    denial_windows: WindowsConfig = field(
        default_factory=lambda: WindowsConfig(
            train=Window(date(2021, 5, 1), date(2022, 3, 1)),
            temporal_1=Window(date(2022, 3, 1), date(2022, 5, 1)),
            temporal_2=Window(date(2024, 1, 1), date(2024, 2, 1)),
        )
    )
    """denial has its own windows (5.2.2)"""
    follow_up_end: date | None = None
    """last day on which a readmission would be seen; null: the last discharge in the records"""
    readmission_days: int = 30
    """a stay that starts within so many days of discharge is a readmission: 0 < gap <= days x 24 h"""
    transfer_hours: float = 24.0
    """stays with a smaller gap are one stay (transfers)"""
    exclude_planned: bool = False
    """true: an elective next stay is no readmission (the paper is all-cause)"""
    exclude_services: tuple[str, ...] = ("rehabilitation", "dialysis", "palliative care")
    """services left out of readmission (5.2.2)"""
    max_note_delay_hours: float | None = 120.0
    """an H&P signed later than this after admission is left out; null: no cap"""
    max_summary_delay_hours: float | None = 24.0
    """a discharge summary signed later than this after discharge is left out, whatever the outcome; at most
    transfer_hours, no readmission can precede it (docs/tasks.md); null: no cap"""
    los_unit: Literal["calendar", "elapsed"] = "calendar"
    """LOS in calendar days (midnights) or elapsed days rounded up"""
    claims_follow_up_days: int = 0
    """denial: claims younger than this at the end of the records are left out as not mature"""
    prompt_set: Literal["recommended", "paper-verbatim"] = "recommended"
    """recommended: two slips of Appendix H mended (docs/paper-to-code.md); paper-verbatim: as printed"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Horizons and shares that a cohort can have."""
        _require(
            (bool(self.tasks), "tasks", "at least one task"),
            (0 < self.sequence_fraction < 1, "sequence_fraction", "between 0 and 1"),
            (self.readmission_days >= 1, "readmission_days", "at least 1"),
            (self.transfer_hours >= 0, "transfer_hours", "0 or more"),
            (self.claims_follow_up_days >= 0, "claims_follow_up_days", "0 or more"),
        )


@dataclass(frozen=True)
class FinetuneConfig:
    """Multiple-choice finetuning (5.4)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    """one task, or several for joint finetuning with an even mix a batch"""
    init: Literal["pretrained", "random"] = "pretrained"
    """random: the same architecture from fresh weights, the twin that shows what pretraining gave"""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=1e-4,
            min_lr=0.0,
            warmup_steps=0,
            beta1=0.9,
            beta2=0.999,
            eps=1e-5,
            weight_decay=0.02,
            clip=None,
        )
    )
    batch_size: int = 64
    """rows an optimizer step, all tasks together; the paper gives none"""
    max_steps_per_task: int = 5120
    """optimizer steps, times the number of tasks when joint (5.4)"""
    val_every: int = 100
    """steps between validations"""
    val_rows: int = 2000
    """validation rows a task, drawn by hash; early stop reads them"""
    patience_steps: int = 300
    """stop when validation micro-AUROC has not risen for so many steps (5.4)"""
    balance: Literal["none", "sqrt", "even"] = "none"
    """how training rows are drawn within a task: none, as they come (the paper); sqrt or even, rare classes more
    often, with the option logits corrected for it in the loss so that probabilities stay those of the cohort"""
    share_notes: bool = True
    """tasks that ask about the same note read it together: the same answers for fewer tokens"""
    batch_tokens: int = 8192
    """prompt tokens a forward, padding included"""
    max_note_tokens: int = 512
    """the note's head is kept to so many tokens, the question never cut (5.4, docs/paper-to-code.md)"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast over fp32 weights; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Sizes that a training loop can walk."""
        _require(
            (bool(self.tasks), "tasks", "at least one task"),
            *(
                (getattr(self, name) >= 1, name, "at least 1")
                for name in (
                    "batch_size",
                    "max_steps_per_task",
                    "val_every",
                    "val_rows",
                    "patience_steps",
                    "max_note_tokens",
                )
            ),
            (self.threads >= 0, "threads", "0 or more"),
        )


Baseline = Literal["tfidf+xgboost", "tfidf+logistic", "columns+xgboost"]


@dataclass(frozen=True)
class EvaluateConfig:
    """ReMedE: option probabilities, metrics with intervals, comparisons (5.5)."""

    tasks: tuple[TaskId, ...] = TASK_IDS
    splits: tuple[Literal["val", "test", "temporal_1", "temporal_2"], ...] = (
        "val",
        "test",
        "temporal_1",
        "temporal_2",
    )
    headline_split: Literal["test", "temporal_1", "temporal_2"] = "temporal_2"
    """the split that comparisons and the report's first page speak of"""
    baselines: tuple[Baseline, ...] = ("tfidf+xgboost", "tfidf+logistic")
    """models of the same rows that are not language models, tuned on validation only"""
    baseline_train_rows: int = 50_000
    """training rows a baseline sees, at most, drawn by hash"""
    max_rows: int | None = None
    """rows scored a task and split, at most, drawn by hash of the encounter; null: all"""
    max_rows_elsewhere: int | None = None
    """the same for the splits that are not the headline; null: as max_rows"""
    max_note_tokens: int = 512
    batch_tokens: int = 4096
    """prompt tokens a forward"""
    bootstrap_resamples: int = 1000
    """resamples of patients behind every interval (5.5)"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """number format of the models' matrix products; auto: bf16 where the hardware multiplies it, else fp32"""
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Something to score, and enough resamples for an interval."""
        _require(
            (bool(self.tasks), "tasks", "at least one task"),
            (bool(self.splits), "splits", "at least one split"),
            *(
                (getattr(self, name) >= 1, name, "at least 1")
                for name in ("baseline_train_rows", "max_note_tokens", "batch_tokens")
            ),
            *(
                (getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1, or null for all")
                for name in ("max_rows", "max_rows_elsewhere")
            ),
            (self.bootstrap_resamples >= 20, "bootstrap_resamples", "at least 20: a 95 % interval needs tails"),
            (self.threads >= 0, "threads", "0 or more"),
        )


@dataclass(frozen=True)
class ReportConfig:
    """The self-contained HTML report."""

    title: str = "ReMedE report"
    """heading of the page"""
    example_prompts: bool = False
    """show a prompt a task; refused unless the manifests prove that the notes come from the simulated hospital"""

    __pydantic_config__ = STRICT


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
    tokenize: TokenizeConfig = field(default_factory=TokenizeConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    random_twin: bool = True
    """also finetune the same architecture from random initial weights"""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    file_mode: str = "0640"
    """octal mode of every file written; never world-readable unless you say so"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Names and modes that the file system can take."""
        _require(
            (self.seed >= 0, "seed", "0 or more"),
            (bool(self.name) and "/" not in self.name and not self.name.startswith("."), "name", "a plain folder name"),
            (
                self.simulate is not None or self.extract.path is not None,
                "extract.path",
                "given when there is no simulate section: where are the records to come from?",
            ),
        )


def load_config(recipe: Path | None, overrides: list[str], section: str | None = None) -> RunConfig:
    """Read a recipe, apply `a.b=value` overrides, validate.

    `section` names the stage of a single-stage command: an override whose first key is not one of RunConfig's is
    then read within that stage. Raises ConfigError with every fault at once, each with the nearest known key.
    """
    raw = _read_recipe(recipe) if recipe is not None else {}
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
    try:
        config = TypeAdapter(RunConfig).validate_python(_over_defaults(RunConfig(extract=ExtractConfig(path="")), raw))
    except ValidationError as error:
        problems += [line for e in error.errors() for line in _explain(e)]
        config = None
    if problems or config is None:
        where = f"{recipe}: " if recipe is not None else ""
        raise ConfigError(where + "; ".join(dict.fromkeys(problems)))
    return config


def dump(config: Any) -> dict[str, Any]:
    """A dataclass of this module as plain JSON values."""
    result: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return result


def dump_yaml(config: Any) -> str:
    """The whole resolved configuration, as `--print-config` shows it."""
    return yaml.safe_dump(dump(config), sort_keys=False, default_flow_style=False)


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; recipes/ holds the ones that come with lang1") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error.__class__.__name__})") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise ConfigError(
            f"{path}: line {line}: not a valid recipe ({getattr(error, 'problem', None) or 'syntax error'})"
        ) from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections, found {type(loaded).__name__}")
    return loaded


class _OnceLoader(yaml.SafeLoader):
    """YAML whose keys are words that stand once in their section: PyYAML itself lets the last of two win, unsaid."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; a repeated key and a key that is no word are refused with their line."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            problem = "not a word" if not isinstance(key, str) else "given twice" if key in seen else None
            if problem is not None:
                raise yaml.MarkedYAMLError(problem=f"key {key}: {problem}", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


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
    # a union (SimulateConfig | None) puts the class's name into the path; the user never wrote it
    path = [part for part in where if not part.endswith("Config") and "[" not in part]
    name = ".".join(path)
    if error["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _known_keys()
        parent = ".".join(path[:-1])
        siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
        near = [siblings[k] for k in difflib.get_close_matches(path[-1], siblings, 1)]
        near = near or difflib.get_close_matches(name, known, 1, 0.8)
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
