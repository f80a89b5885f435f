"""A step of pretraining beside LitGPT 0.5.13's own, eager and compiled: forward, loss, backward, clipping, AdamW.

Same shape, same weights (the losses of the first step must agree to 1e-4), same batch, fp32, 2 cores. LitGPT's step is
that of `litgpt pretrain` with its default arguments (peers/litgpt_step.py), in an environment of its own. Each run is a
fresh process, the four in turn. `ratio` is LitGPT's median seconds a step over ours, `memory_ratio` our peak resident
memory over its. On the 15M shape each side takes its better way; on the 100M shape ours is eager, which needs no
compiler and less memory, and our compiled step is told beside it. The share of the GEMM peak: the step's FLOPs over the
best fp32 rate of a 2048-cube product, MKL's or oneDNN's, in the same process.

Compiling needs a C++ compiler. `--samples 1 --steps 1 --cases 15M` is a short trial.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from environment import python_of
from step_shapes import SHAPES, VOCABULARY, batch, fill, measure

WAYS = ("eager", "compiled")
Runs = dict[tuple[str, str], list[dict[str, float]]]


def ours(shape_name: str, way: str, steps: int, threads: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from lang1.config import OptimizerConfig
    from lang1.models.fast import compile_model, use_fast_attention
    from lang1.training.next_token import next_token_loss
    from lang1.training.optimizer import make_optimizer

    torch.set_num_threads(threads)
    shape = SHAPES[shape_name]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.length,
            tie_word_embeddings=shape.tied,
            rms_norm_eps=1e-5,
        )
    )
    for name, parameter in model.named_parameters():
        fill(name, parameter)
    use_fast_attention(model, torch.float32)
    if way == "compiled":
        compile_model(model)
    optimizer, tokens = make_optimizer(model, OptimizerConfig()), batch(shape)

    def step() -> float:
        loss = next_token_loss(model, tokens, torch.float32) / shape.tokens
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    measure(step, steps)
    print(json.dumps({"gemm_gflops": gemm_peak()}))  # after the step's peak memory was read


def gemm_peak(size: int = 2048, tries: int = 6) -> float:
    """GFLOP/s of the faster of the two libraries that torch brings."""
    import torch

    from lang1.models.kernels import product

    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for multiply in (torch.mm, product):
        for _ in range(tries):
            started = time.monotonic()
            multiply(a, b)
            best = max(best, 2e-9 * size**3 / (time.monotonic() - started))
    return best


def run(side: str, shape: str, way: str, options: argparse.Namespace) -> dict[str, float]:
    script = [sys.executable, __file__, "--child"]
    if side == "litgpt":
        script = [str(python_of("litgpt")), str(Path(__file__).parent / "peers" / "litgpt_step.py")]
    command = [*script, shape, way, str(options.steps), str(options.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{side}, {shape}, {way}: ended with exit code {done.returncode}")
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    rate = SHAPES[shape].tokens / found["seconds"]
    print(f"{shape} {side} {way}: {rate:,.0f} tokens/s", json.dumps({k: round(v, 4) for k, v in found.items()}))
    sys.stdout.flush()
    return found


def compare(shape: str, options: argparse.Namespace) -> Runs:
    found: Runs = {(side, way): [] for way in WAYS for side in ("ours", "litgpt")}
    for _ in range(options.samples):
        for side, way in found:
            found[side, way].append(run(side, shape, way, options))
    losses = [samples[0]["loss"] for samples in found.values()]
    assert max(losses) - min(losses) < 1e-4, f"{shape}: the first losses differ: {losses}"
    return found


def middle(samples: list[dict[str, float]], key: str) -> float:
    return statistics.median(sample[key] for sample in samples)


def case(shape: str, found: Runs, our_way: str, their_way: str, samples: int) -> dict[str, Any]:
    a, b = found["ours", our_way], found["litgpt", their_way]
    peak = max(sample["gemm_gflops"] for way in WAYS for sample in found["ours", way])
    share = {
        side: SHAPES[shape].flops / middle(runs, "seconds") / 1e9 / peak for side, runs in (("ours", a), ("peer", b))
    }
    facts = SHAPES[shape]
    return {
        "name": f"a training step, {shape}, {facts.rows} x {facts.length} tokens, {our_way}",
        "peer": f"litgpt 0.5.13, {their_way}",
        "ratio": round(middle(b, "seconds") / middle(a, "seconds"), 2),
        "memory_ratio": round(middle(a, "peak_mib") / middle(b, "peak_mib"), 2),
        "samples": samples,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "cpu_ratio": round(middle(b, "cpu_seconds") / middle(a, "cpu_seconds"), 2),
        "tokens_a_second": round(facts.tokens / middle(a, "seconds")),
        "compiled_tokens_a_second": round(facts.tokens / middle(found["ours", "compiled"], "seconds")),
        "gemm_peak_gflops": round(peak),
        "gemm_share": {side: round(value, 3) for side, value in share.items()},
    }


def main() -> None:
    options = arguments()
    made: list[dict[str, Any]] = []
    for shape in options.cases:
        found = compare(shape, options)
        if shape == "15M":
            best = {side: min(WAYS, key=lambda way: middle(found[side, way], "seconds")) for side in ("ours", "litgpt")}
            made.append(case(shape, found, best["ours"], best["litgpt"], options.samples))
        else:
            made += [case(shape, found, "eager", way, options.samples) for way in WAYS]
    for result in made:
        print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3, help="fresh processes a side and way")
    parser.add_argument("--steps", type=int, default=5, help="steps measured in each, after two others")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        ours(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
