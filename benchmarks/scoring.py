"""Scoring of the five tasks' prompts beside the plain way: transformers' forward with the logits of every position,
batches of 8 in file order, padded.

Same prompts, same model (the tiny preset with a vocabulary of 4,096, random weights), fp32, one thread. Four questions
share each H&P, a fifth is asked of the discharge summary. Each run is a fresh process, the peers alternate. `ratio` is
the peer's processor seconds over ours, `memory_ratio` our peak memory over the peer's; the logits must agree to 1e-4.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NOTES, SAMPLES, VOCABULARY, OPTIONS = 150, 3, 4096, [5, 6, 7, 8, 9]
QUESTIONS = {"mortality": 32, "los": 52, "cci": 68, "denial": 33}
"""tokens of each question that is asked of an H&P"""


def prompts() -> dict[str, list[tuple[list[int], int]]]:
    """By task, tokens of each prompt and of the question at its end. Lengths of notes as in the simulated hospital."""
    rng = np.random.default_rng(0)

    def tokens(size: int) -> list[int]:
        return [int(token) for token in rng.integers(10, VOCABULARY, size)]

    def notes() -> list[list[int]]:
        return [tokens(int(np.clip(rng.lognormal(5.05, 0.4), 40, 512))) for _ in range(NOTES)]

    admission, discharge = notes(), notes()
    opening = tokens(12)
    asked = {task: opening + tokens(size - 12) for task, size in QUESTIONS.items()}
    found = {task: [(note + question, len(question)) for note in admission] for task, question in asked.items()}
    question = tokens(38)
    return found | {"readmission": [(note + question, len(question)) for note in discharge]}


def ours(model: object) -> dict[str, np.ndarray]:
    from lang1.scoring.options import EncodedPrompt, PromptSet, score_prompt_sets

    sets = {
        task: PromptSet([EncodedPrompt(ids, len(ids) - question, 0, question) for ids, question in rows], OPTIONS)
        for task, rows in prompts().items()
    }
    return score_prompt_sets(model, sets, batch_tokens=4096, pad_id=0)


def peer(model: object) -> dict[str, np.ndarray]:
    import torch

    found = {}
    for task, rows in prompts().items():
        scored = []
        for start in range(0, len(rows), 8):
            batch = [ids for ids, _ in rows[start : start + 8]]
            width = max(map(len, batch))
            tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in batch])
            mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
            with torch.no_grad():
                logits = model(input_ids=tokens, attention_mask=mask).logits  # type: ignore[operator]
            scored += [logits[i, len(ids) - 1, OPTIONS].double().numpy() for i, ids in enumerate(batch)]
        found[task] = np.stack(scored)
    return found


def child(name: str, path: Path) -> None:
    import torch

    from lang1.models.build import build_model

    torch.set_num_threads(1)
    model = build_model("tiny", VOCABULARY, seed=1).eval()
    started, used = time.monotonic(), time.process_time()
    found = {"ours": ours, "peer": peer}[name](model)
    measured = {
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - used,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    np.savez(path, **found)
    print(json.dumps(measured))


def run(name: str, folder: Path) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    path = folder / f"{name}.npz"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, name, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps({key: round(value, 2) for key, value in measured.items()}), flush=True)
    with np.load(path) as stored:
        return measured, dict(stored)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(run("ours", Path(folder)), run("peer", Path(folder))) for _ in range(SAMPLES)]
    (_, mine), (_, theirs) = pairs[0]
    worst = max(float(abs(mine[task] - theirs[task]).max()) for task in theirs)
    assert worst < 1e-4, f"logits differ by {worst}"
    result = {
        "name": f"scoring: {NOTES * (len(QUESTIONS) + 1):,} prompts of five tasks, tiny preset",
        "peer": "transformers forward, logits of all positions, batches of 8 in file order",
        "ratio": round(statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for (a, _), (b, _) in pairs), 2),
        "memory_ratio": round(statistics.median(a["peak_mib"] / b["peak_mib"] for (a, _), (b, _) in pairs), 2),
        "samples": SAMPLES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "largest_difference": worst,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 1 else main()
