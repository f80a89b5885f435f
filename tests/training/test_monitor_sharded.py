"""Two processes, sharded: generations and scores are those of one, and training goes on after them."""

from __future__ import annotations

from pathlib import Path

import pytest
from monitored import write_comprehension
from ranks import ended, environments

from lang1 import runs
from warm import Process

CHILD = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from lang1 import runs
from lang1.config import EvaluationConfig, GenerationConfig, MonitorConfig
from lang1.models.load import load_model, load_tokenizer
from lang1.training.monitor import open_monitor

torch.set_num_threads(1)
runs.set_quiet(True)
folder, comprehension, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
tokenizer = load_tokenizer(folder)
config = MonitorConfig(
    generations=GenerationConfig(every=1, max_new_tokens=8, temperature=0.7),
    evaluations=EvaluationConfig(every=1, comprehension=comprehension, rows=6, resamples=20, shots=1),
)
tokens = torch.arange(64).reshape(2, 32) + 3

def go(model, name, rank):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with open_monitor(config, out / name, tokenizer=tokenizer, context_length=128, seed=1, rank=rank) as monitor:
        for step in (1, 2, 3):
            monitor.observe(model, step)  # before the first training step, too
            model.train()
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
for name, reshard in (("grad_op", False), ("full", True)):
    model = load_model(folder)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
    go(model, name, dist.get_rank())
if dist.get_rank() == 0:
    go(load_model(folder), "alone", 0)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.long
def test_two_sharded_processes_observe_what_one_does_and_train_on(model_folder: Path, tmp_path: Path) -> None:
    comprehension = write_comprehension(tmp_path)
    ranks = [Process("-c", CHILD, model_folder, comprehension, tmp_path / "out", env=env) for env in environments(2)]
    for code, told in ended(ranks):
        assert code == 0, told[-3000:]
    alone = runs.read_lines(tmp_path / "out/alone/generations.jsonl")
    assert len({line["text"] for line in alone if line["prompt_id"] == "admission"}) == 3, "training moved the weights"
    for name in ("grad_op", "full"):
        lines = runs.read_lines(tmp_path / "out" / name / "generations.jsonl")
        assert [line["text"] for line in lines] == [line["text"] for line in alone]
        scores = runs.read_lines(tmp_path / "out" / name / "evaluations.jsonl")
        assert scores == runs.read_lines(tmp_path / "out/alone/evaluations.jsonl")
