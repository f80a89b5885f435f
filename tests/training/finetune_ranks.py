"""`finetune` in several processes, as torchrun starts them; and in one."""

from __future__ import annotations

import json
from pathlib import Path

from ranks import ended, environments

from lang1 import config as configuration
from lang1.config import FinetuneConfig, SweepConfig
from warm import Process

CHILD = """
import sys
from pathlib import Path
from lang1.config import FinetuneConfig, SweepConfig
from lang1.errors import LangError
from lang1.training import finetune, sweep
from pydantic import TypeAdapter
cfg, search, tasks, model, out = sys.argv[1:6]
cfg = TypeAdapter(FinetuneConfig).validate_json(cfg)
folders = {"tasks": Path(tasks), "model": Path(model), "out": Path(out)}
try:
    if search == "null":
        finetune(cfg, **folders, seed=1)
    else:
        sweep(TypeAdapter(SweepConfig).validate_json(search), cfg, **folders, seed=1)
except LangError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
"""


def start(
    cfg: FinetuneConfig, tasks: Path, model: Path, out: Path, ranks: int, search: SweepConfig | None = None
) -> list[Process]:
    """A finetuning, or the search before it, in so many gloo processes."""
    settings = [json.dumps(None if value is None else configuration.dump(value)) for value in (cfg, search)]
    return [Process("-c", CHILD, *settings, tasks, model, out, env=env) for env in environments(ranks)]


def finetuned(
    cfg: FinetuneConfig, tasks: Path, model: Path, out: Path, ranks: int, search: SweepConfig | None = None
) -> Path:
    """The same to its end."""
    for code, told in ended(start(cfg, tasks, model, out, ranks, search), 400):
        assert code == 0, told
    return out
