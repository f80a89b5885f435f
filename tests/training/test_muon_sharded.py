"""Muon on two processes gives the parameters of one, whatever FSDP2 keeps whole between forward and backward."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from warm import Process

STEPS = 6
RANK = """
import json, sys
import torch
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig
from lang1.config import OptimizerConfig
from lang1.models.build import build_from_config
from lang1.training.optimizer import make_optimizer, set_rate

rank, world, meeting, out, reshard, precision, steps = json.loads(sys.argv[1])
torch.set_num_threads(1)
config = LlamaConfig(vocab_size=61, hidden_size=24, intermediate_size=37, num_hidden_layers=3, num_attention_heads=6,
                     num_key_value_heads=3, max_position_embeddings=16)
model = build_from_config(config, 1)
if world > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    for layer in model.model.layers:
        fully_shard(layer, reshard_after_forward=reshard)
    fully_shard(model, reshard_after_forward=reshard)
optimizer = make_optimizer(
    model, OptimizerConfig(name="muon", lr=0.02, min_lr=0.0, warmup_steps=0, muon_precision=precision)
)
generator = torch.Generator().manual_seed(0)
for step in range(steps):
    tokens = torch.randint(0, 61, (4, 16), generator=generator)
    mine = tokens.chunk(world)[rank]
    model(input_ids=mine, labels=mine, use_cache=False).loss.backward()
    set_rate(optimizer, 0.02 * (1 - step / steps))
    optimizer.step()
    optimizer.zero_grad()
whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in model.named_parameters()}
kinds = {type(optimizer.state[p]["momentum_buffer"]).__name__ for p in optimizer.param_groups[0]["params"]}
assert kinds == ({"DTensor"} if world > 1 else {"Tensor"}), kinds
if rank == 0:
    save_file({n: p.detach().contiguous() for n, p in whole.items()}, out)
if world > 1:
    torch.distributed.barrier()  # gloo aborts now and then where one rank leaves while another still talks
    torch.distributed.destroy_process_group()
"""


def run(folder: Path, world: int, reshard: bool, precision: str) -> dict[str, torch.Tensor]:
    """The parameters after some steps on so many processes."""
    out = folder / f"{world}-{reshard}-{precision}.safetensors"
    meeting = folder / f"{out.stem}.meet"
    ranks = [
        Process(
            *("-c", RANK, json.dumps([r, world, str(meeting), str(out), reshard, precision, STEPS])),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for r in range(world)
    ]
    for process in ranks:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    return load_file(out)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return run(tmp_path_factory.mktemp("muon"), 1, True, "fp32")


@pytest.mark.parametrize("reshard", [True, pytest.param(False, marks=pytest.mark.long)])
def test_two_processes_end_with_the_parameters_of_one(
    alone: dict[str, torch.Tensor], tmp_path: Path, reshard: bool
) -> None:
    together = run(tmp_path, 2, reshard, "fp32")
    assert together.keys() == alone.keys()
    for name, tensor in together.items():
        assert torch.allclose(tensor, alone[name], rtol=0, atol=1e-5), name
