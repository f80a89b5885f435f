"""A run of `lang1 pretrain` in several processes, as torchrun starts them; and in one."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from lang1 import config as configuration
from lang1 import runs
from lang1.config import OptimizerConfig, PretrainConfig
from warm import Process

SMALL = PretrainConfig(
    context_length=32,
    global_batch=8,
    micro_batch=2,
    steps=20,
    val_every=10,
    val_batches=3,
    checkpoint_every=5,
    keep_checkpoints=4,
    threads=1,
    optimizer=OptimizerConfig(lr=2e-3, min_lr=1e-4, warmup_steps=4),
)
CHILD = """
import sys
from pathlib import Path
from lang1.config import PretrainConfig
from lang1.errors import LangError
from lang1.training import pretrain
from pydantic import TypeAdapter
{plan}
try:
    pretrain(TypeAdapter(PretrainConfig).validate_json(sys.argv[1]), tokens=Path(sys.argv[2]), out=Path(sys.argv[3]),
             seed=1)
except LangError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
"""


def environments(ranks: int) -> list[dict[str, str]]:
    """What torchrun gives to each of the processes of a run."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    return [os.environ | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def start(cfg: PretrainConfig, tokens: Path, out: Path, ranks: int, plan: str = "") -> list[Process]:
    """A process a rank; `plan` is code that runs in each of them first."""
    code, given = CHILD.replace("{plan}", plan), json.dumps(configuration.dump(cfg))
    return [Process("-c", code, given, tokens, out, env=env) for env in environments(ranks)]


def ended(processes: list[Process], timeout: float = 120) -> list[tuple[int, str]]:
    """Exit code and what it said on stderr, a rank each."""
    try:
        told = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def pretrained(cfg: PretrainConfig, tokens: Path, out: Path, ranks: int, plan: str = "") -> Path:
    """A run to its end."""
    for code, told in ended(start(cfg, tokens, out, ranks, plan)):
        assert code == 0, told
    return out


def curve(out: Path) -> list[dict[str, Any]]:
    return runs.read_lines(out / "curve.jsonl")


def with_sharding(sharding: Any, **more: Any) -> PretrainConfig:
    return replace(SMALL, sharding=sharding, **more)
