"""GPUs, prices and public runs: YAML tables beside this file, which a user may copy, edit and give instead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lang1.config.checks import STRICT, require
from lang1.config.files import read_mapping
from lang1.errors import ConfigError, InputError

TABLES = Path(__file__).parent / "tables"
TERA = 1e12
T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU by its data sheet."""

    reports: tuple[str, ...]
    """words that all stand in the name that the driver gives"""
    memory_gib: float
    """as torch reports it"""
    bf16: float
    """dense peak of bf16 products, TFLOP/s"""
    tf32: float
    """dense peak of fp32 products rounded to TF32, TFLOP/s"""
    fp32: float
    """peak of plain fp32, TFLOP/s"""
    bandwidth: float | None
    """of its memory, TB/s"""
    watts: float | None
    """limit of the board; null: not known"""
    source: str
    """where the figures stand"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Figures above 0."""
        names = ("memory_gib", "bf16", "tf32", "fp32", "bandwidth", "watts")
        given = ((name, getattr(self, name)) for name in names)
        require(*((value is None or value > 0, name, "above 0") for name, value in given))

    def peak(self, precision: str) -> float:
        """Dense peak in FLOP/s for `bf16` or `fp32` (torch's default: no TF32)."""
        return (self.bf16 if precision == "bf16" else self.fp32) * TERA


@dataclass(frozen=True)
class Price:
    """One offer on one day."""

    gpu: str
    """key of the table of GPUs"""
    offer: str
    """whose, and what"""
    usd: float
    """dollars a GPU and hour"""
    read: date
    """the day on which it was read"""
    source: str
    """where"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A price is not negative."""
        require((self.usd >= 0, "usd", "0 or more"))


@dataclass(frozen=True)
class PublicRun:
    """What a public pretraining run reached."""

    name: str
    gpu: str
    gpus: str
    """how many"""
    low: float
    """lowest MFU stated, share of the peak"""
    high: float
    """highest MFU stated"""
    count: str
    """which FLOPs a token it counts"""
    source: str

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A share of the peak."""
        require((0 < self.low <= self.high <= 1, "low, high", "shares with 0 < low <= high <= 1"))


@dataclass(frozen=True)
class Assumed:
    """The MFU that the plan takes where the user gives none."""

    mfu: float
    why: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class PaperRun:
    """The run whose cost the paper gives."""

    preset: str
    gpu: str
    gpus: int
    days: float
    tokens: float
    context: int
    vocab: int
    usd: float
    source: str

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Runs:
    """tables/runs.yaml."""

    assumed: Assumed
    runs: tuple[PublicRun, ...]
    paper: PaperRun

    __pydantic_config__ = STRICT

    def on(self, gpu: str) -> tuple[PublicRun, ...]:
        """The runs on that kind of GPU, or all of them where there is none."""
        return tuple(run for run in self.runs if run.gpu == gpu) or self.runs


def read_gpus(path: Path | None = None) -> dict[str, Gpu]:
    """GPUs by name. Raises ConfigError for a table that cannot be used."""
    return _read(path or TABLES / "gpus.yaml", "table of GPUs", "gpus", dict[str, Gpu])


def read_prices(path: Path | None = None) -> tuple[Price, ...]:
    """Offers, in the order of the file. Raises ConfigError for a table that cannot be used."""
    return _read(path or TABLES / "prices.yaml", "table of prices", "prices", tuple[Price, ...])


@lru_cache(maxsize=1)
def read_runs() -> Runs:
    """Public runs, the MFU assumed, and the paper's run."""
    return _validated(TABLES / "runs.yaml", read_mapping(TABLES / "runs.yaml", "table of runs", ""), Runs)


def find_gpu(name: str, gpus: dict[str, Gpu]) -> Gpu:
    """The GPU of that name in the table. Raises InputError that lists the known ones."""
    if name not in gpus:
        known = ", ".join(gpus)
        raise InputError(
            f"--gpu {name}: not in the table of GPUs; it has {known}; cpu is this machine, --gpus-file gives others"
        )
    return gpus[name]


def recognise(reported: str, gpus: dict[str, Gpu]) -> str | None:
    """Name in the table of a device that its driver calls `reported` (NVIDIA H100 80GB HBM3); None: not in it."""
    words = reported.lower()
    return next((name for name, gpu in gpus.items() if all(word.lower() in words for word in gpu.reports)), None)


def _read(path: Path, kind: str, key: str, wanted: type[T]) -> T:
    table = read_mapping(path, kind, f"copy {TABLES / (key + '.yaml')} and edit it")
    if set(table) != {key}:
        raise ConfigError(f"{path}: a {kind} has the key {key} and no other; found {', '.join(table) or 'none'}")
    return _validated(path, table[key], wanted)


def _validated(path: Path, value: Any, wanted: type[T]) -> T:
    try:
        found: T = TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    return found
