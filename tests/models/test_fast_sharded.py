"""The switched layers under FSDP2 on two gloo ranks: gradients of the plain model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RANK = Path(__file__).with_name("fsdp_rank.py")


@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=pytest.mark.long)])
def test_sharded_over_two_ranks_the_gradients_are_those_of_the_plain_model(way: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(RANK), way]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
