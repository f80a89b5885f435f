"""Two real optimizer steps of each model in a process of its own, their peak memory measured twice.

    python measured_step.py '{"name": {"hidden": 64, ...}}'  ->  {"name": {"parameters", "allocated", "resident"}}

`allocated`: torch's profiler reports every allocation and release of the CPU allocator, temporaries inside kernels too;
the largest running sum is the peak. `resident`: the process's high-water mark of resident memory over what it had
before the model was made, from a run without the profiler. A small model of the same class trains first, so that
libraries, kernels and threads are there already. The caller sets MALLOC_MMAP_THRESHOLD_, so that freed tensors go back
to the system and the baseline holds nothing that the step could use again.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from lang1.config import OptimizerConfig
from lang1.models.build import build_from_config, llama_config
from lang1.models.fast import use_fast_layers
from lang1.training.next_token import next_token_loss
from lang1.training.optimizer import make_optimizer

SMALL = {"hidden": 32, "ffn": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab": 300, "context": 16, "tied": False}
TRAINED = {"micro_batch": 1, "accumulation": 1, "loss": "chunked", "layers_by": "kernels"}


def configuration(spec: dict[str, Any]) -> Any:
    """A Llama configuration of any size."""
    config = llama_config("tiny", spec["vocab"], spec["context"])
    config.hidden_size, config.intermediate_size = spec["hidden"], spec["ffn"]
    config.num_hidden_layers, config.num_attention_heads = spec["layers"], spec["heads"]
    config.num_key_value_heads, config.head_dim = spec["kv_heads"], spec["hidden"] // spec["heads"]
    config.tie_word_embeddings = spec["tied"]
    return config


def plain_loss(model: Any, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of all logits at once, as most trainers write it."""
    logits = model(input_ids=tokens_BT[:, :-1], use_cache=False).logits.flatten(0, 1)
    return functional.cross_entropy(logits, tokens_BT[:, 1:].flatten(), reduction="sum")


def two_steps(spec: dict[str, Any]) -> int:
    """Build and train; returns the number of parameters."""
    model = build_from_config(configuration(spec), seed=1).train()
    if spec["layers_by"] == "kernels":
        use_fast_layers(model)
    optimizer = make_optimizer(model, OptimizerConfig())
    size = (spec["accumulation"], spec["micro_batch"], spec["context"] + 1)
    batches = torch.randint(0, spec["vocab"], size, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        for batch in batches:
            loss = plain_loss(model, batch) if spec["loss"] == "plain" else next_token_loss(model, batch, torch.float32)
            (loss / batches.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return sum(parameter.numel() for parameter in model.parameters())


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def measure(spec: dict[str, Any]) -> dict[str, int]:
    """Parameters, and the peak in bytes by both measures."""
    torch.set_num_threads(1)
    two_steps({**SMALL, **TRAINED})
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    two_steps(spec)
    grown = resident("VmHWM") - before
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        parameters = two_steps(spec)
    assert profiler.profiler is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return {"parameters": parameters, "allocated": peak, "resident": grown}


def main(specs: dict[str, dict[str, Any]]) -> None:
    """Measure each model in a fork, which has the imports and nothing else."""
    importlib.import_module("transformers.models.llama.modeling_llama")
    results = {}
    for name, spec in specs.items():
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(sender, json.dumps(measure(spec)).encode())
            os._exit(0)
        os.close(sender)
        with os.fdopen(receiver) as answer:
            results[name] = json.loads(answer.read())
        os.waitpid(child, 0)
    print(json.dumps(results))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
