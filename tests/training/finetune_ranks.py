"""`finetune` in several processes, as torchrun starts them; and in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from ranks import ended

from lang1 import config as configuration
from lang1.config import FinetuneConfig

CHILD = """
import sys
from pathlib import Path
from lang1.config import FinetuneConfig
from lang1.errors import LangError
from lang1.training import finetune
from pydantic import TypeAdapter
cfg, tasks, model, out = sys.argv[1:5]
try:
    cfg = TypeAdapter(FinetuneConfig).validate_json(cfg)
    finetune(cfg, tasks=Path(tasks), model=Path(model), out=Path(out), seed=1)
except LangError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
"""


def finetuned(cfg: FinetuneConfig, tasks: Path, model: Path, out: Path, ranks: int) -> Path:
    """A finetuning to its end in so many gloo processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [json.dumps(configuration.dump(cfg)), str(tasks), str(model), str(out)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]
    for code, told in ended(processes, 400):
        assert code == 0, told
    return out
