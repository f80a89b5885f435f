"""Scoring of prompts of 100 to 560 tokens beside lm-eval 0.4.13's HFLM, on models of 15M and of 100M parameters.

Same token ids, same model folder (random weights, 32,000 entries), fp32, one thread; two options of one token, which
HFLM too reads from one forward. HFLM runs with batches of 1 and of 8 in every round, and the better median is the peer:
on a CPU that is 1. Each run is a fresh process, the peers take turns. Of a run only the scoring is timed, in processor
seconds; `ratio` is the peer's over ours, `memory_ratio` our peak memory over the peer's. The options' probabilities
must agree to 1e-4.
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
from typing import Any

import numpy as np

SAMPLES, VOCABULARY, OPTIONS = 3, 32_000, [5, 6]
PROMPTS = {"15M": 96, "100M": 24}
PEERS = ("lm-eval, batch 1", "lm-eval, batch 8")


def prompts(case: str) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = np.linspace(100, 560, PROMPTS[case]).astype(int)
    rng.shuffle(lengths)
    return [[int(token) for token in rng.integers(10, VOCABULARY, length)] for length in lengths]


def model_of(case: str) -> Any:
    from lang1.config import ShapeOverrides
    from lang1.models.build import build_model

    if case == "100M":
        return build_model("100m", VOCABULARY, seed=1).eval()
    shape = ShapeOverrides(hidden=288, layers=6, heads=6, kv_heads=6, ffn=768)  # the tiny preset ties its matrices
    return build_model("tiny", VOCABULARY, seed=1, context_length=1024, overrides=shape).eval()


def ours(folder: Path, case: str) -> np.ndarray:
    from lang1.models.fast import use_fast_layers
    from lang1.models.load import load_model
    from lang1.scoring.options import EncodedPrompt, score_prompts

    model = load_model(folder)
    use_fast_layers(model)  # as `lang1 evaluate` does in fp32
    encoded = [EncodedPrompt(ids, len(ids) - 40, 0, 40) for ids in prompts(case)]
    return np.asarray(timed(lambda: score_prompts(model, encoded, OPTIONS, batch_tokens=1024, pad_id=0)))


def peer(folder: Path, case: str, batch: int) -> np.ndarray:
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    # HFLM wants a tokenizer; the ids are given
    backend = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="1", pad_token="0")
    harness = HFLM(pretrained=str(folder), tokenizer=tokenizer, batch_size=batch, device="cpu", dtype="float32")
    asked = [((str(i), str(o)), ids, [o]) for i, ids in enumerate(prompts(case)) for o in OPTIONS]
    found = timed(lambda: harness._loglikelihood_tokens(asked, disable_tqdm=True))
    return np.array([likelihood for likelihood, _ in found]).reshape(-1, len(OPTIONS))


MEASURED: dict[str, float] = {}


def timed(work: Any) -> Any:
    """Do it and keep what it took; a process does one thing."""
    started, used = time.monotonic(), time.process_time()
    found = work()
    MEASURED["seconds"] = time.monotonic() - started
    MEASURED["cpu_seconds"] = time.process_time() - used
    return found


def child(name: str, case: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    if name == "make":
        model_of(case).save_pretrained(folder / "model")
        return
    if name == "ours":
        found = ours(folder / "model", case)
    else:
        found = peer(folder / "model", case, int(name.rpartition(" ")[2]))
    MEASURED["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.save(folder / "found.npy", found)
    print(json.dumps(MEASURED))


def start(name: str, case: str, folder: Path) -> str:
    """What a fresh process prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, name, case, str(folder)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout


def run(name: str, case: str, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    measured: dict[str, float] = json.loads(start(name, case, folder).splitlines()[-1])
    print(case, name, json.dumps({key: round(value, 2) for key, value in measured.items()}), flush=True)
    return measured, np.load(folder / "found.npy")


def probabilities(found: np.ndarray) -> np.ndarray:
    shifted = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def compare(case: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        start("make", case, Path(folder))
        rounds = [{name: run(name, case, Path(folder)) for name in ("ours", *PEERS)} for _ in range(SAMPLES)]
    worst = max(
        float(abs(probabilities(one["ours"][1]) - probabilities(one[name][1])).max())
        for one in rounds
        for name in PEERS
    )
    assert worst < 1e-4, f"probabilities differ by {worst}"
    best = min(PEERS, key=lambda name: statistics.median(one[name][0]["cpu_seconds"] for one in rounds))

    def median(key: str, over: str, under: str) -> float:
        return round(statistics.median(one[over][0][key] / one[under][0][key] for one in rounds), 2)

    return {
        "name": f"scoring: {PROMPTS[case]} prompts of 100 to 560 tokens, {case} parameters, 32,000 entries",
        "peer": f"HFLM of {best} (the better of 1 and 8)",
        "ratio": median("cpu_seconds", best, "ours"),
        "memory_ratio": median("peak_mib", "ours", best),
        "samples": SAMPLES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "prompts_per_cpu_second": round(
            PROMPTS[case] / statistics.median(one["ours"][0]["cpu_seconds"] for one in rounds), 2
        ),
        "largest_difference": worst,
    }


def main() -> None:
    results = [compare(case) for case in PROMPTS]
    for result in results:
        print(json.dumps(result))


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2], Path(sys.argv[3])) if len(sys.argv) > 1 else main()
