"""Wall time to the AdamW recipe's final validation loss: `optimizer.name=muon` beside the paper's AdamW.

Same model, data, batch and seed; every run is `lang1 pretrain` in a fresh process, fp32, and its loss is read at the
end of its own schedule: the mean over notes and web text of the validation loss of the last step. The data: notes of a
simulated hospital and ../shared/data/text_general, through `lang1 run --to tokenize`.

1. A few steps of both give the seconds a step, and so the steps of a run of `--seconds`: equal wall time.
2. Five peak learning rates each on one seed, each a factor of two apart. Both use one rate for all parameters.
3. Muon's schedule is shortened at its best rate, on the seed of the tuning, by halving an interval four times: the
   shortest that ends at AdamW's best loss or below.
4. Three other seeds at the best rates: AdamW over its whole schedule, then Muon over the shortened one. Where that does
   not reach the loss of AdamW's run with the same seed, the schedule is made a tenth longer and the run repeated until
   it does, or is three times as long (`reached` tells); the time that counts is that of the run that did.

Muon's momentum is 0.9 in place of 0.95: a run of some hundred steps is better for it (tried on the seed of the tuning;
2.300 in place of 2.360 after 253 steps). AdamW's other numbers are the paper's.

Wall time is the sum of the steps' times in speed.jsonl: without start, validation and saving. `ratio` is AdamW's over
Muon's, the median of the seeds; `memory_ratio` Muon's peak memory over AdamW's.

    python benchmarks/pretrain_efficiency.py [--seconds 300] [--web DIR] [--tokens DIR] [--folder DIR]

With --folder the runs stay, and the same command goes on after a kill from what it finds there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LANG1 = [sys.executable, "-m", "lang1.cli"]
RATES = {"adamw": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3), "muon": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)}
"""around the best of shorter runs (AdamW 1e-3, Muon 8e-3); `at_an_edge` tells when a longer run wants another grid"""
TUNING_SEED, SEEDS = 1, (2, 3, 4)
HALVINGS = 4
LONGER = 1.1
"""factor on Muon's schedule where it did not reach the loss"""
WARMUP = 0.05
"""share of the steps"""
BATCH, LENGTH = 16, 256
"""sequences a step, positions a sequence"""
MODEL = (
    *("pretrain.preset=tiny", "pretrain.shape.layers=4", "pretrain.precision=fp32"),
    *("pretrain.micro_batch=4", "pretrain.mix={clinical: 0.5, web: 0.5}", "pretrain.val_batches=16"),
    *("pretrain.val_every=1000000", "pretrain.checkpoint_every=1000000"),
)
OPTIMIZERS = {
    "adamw": ("pretrain.optimizer.name=adamw", "pretrain.optimizer.schedule=cosine"),
    "muon": (
        *("pretrain.optimizer.name=muon", "pretrain.optimizer.muon_momentum=0.9"),
        *("pretrain.optimizer.schedule=wsd", "pretrain.optimizer.decay_share=0.6"),
    ),
}


@dataclass(frozen=True)
class Data:
    """What every run shares."""

    tokens: Path
    folder: Path
    """where runs are written"""
    threads: int


@dataclass(frozen=True)
class Run:
    """A run that ended."""

    loss: float
    """mean over the sources of the final validation loss"""
    seconds: float
    """of all steps together"""
    step_seconds: float
    """median"""
    peak_mib: float


def make_tokens(folder: Path, web: Path) -> Path:
    """Notes of a simulated hospital and public text as token shards, by the real stages."""
    recipe = [str(ROOT / "recipes" / "demo.yaml"), "simulate.encounters=6000", f"tokenize.web={web}"]
    recipe += ["tokenize.web_required=true", "tokenize.validation_fraction=0.02"]
    done = subprocess.run(
        [*LANG1, "run", *recipe, "--to", "tokenize", "--out", str(folder), "--quiet"], stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"the data could not be made: {done.stderr}")
    return folder / "tokens"


def pretrain(data: Data, name: str, rate: float, steps: int, seed: int) -> Run:
    """One run of the command in a process of its own; one that is complete is read."""
    out = data.folder / f"{name}-{rate}-{steps}-{seed}"
    rates = (f"lr={rate}", f"min_lr={min(4e-5, rate)}", f"warmup_steps={round(WARMUP * steps)}")
    sizes = (f"global_batch={BATCH}", f"context_length={LENGTH}", f"threads={data.threads}", f"steps={steps}")
    overrides = [*MODEL, *OPTIMIZERS[name], *(f"pretrain.optimizer.{key}" for key in rates)]
    overrides += [f"pretrain.{key}" for key in sizes]
    folders = ["--tokens", str(data.tokens), "--out", str(out)]
    command = [*LANG1, "pretrain", *overrides, "--seed", str(seed), *folders, "--quiet"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{name} at {rate} ended with exit code {done.returncode}")
    manifest = json.loads((out / "manifest.json").read_text())
    last = json.loads((out / "curve.jsonl").read_text().splitlines()[-1])
    speeds = [json.loads(line)["tokens_per_second"] for line in (out / "speed.jsonl").read_text().splitlines()]
    times = [BATCH * LENGTH / speed for speed in speeds]
    found = Run(
        statistics.mean(source["loss"] for source in last["val"].values()),
        sum(times),
        statistics.median(times),
        manifest["peak_memory_mib"],
    )
    print(
        f"{name} seed {seed} rate {rate:g}: {steps} steps in {found.seconds:.1f} s ({1000 * found.step_seconds:.0f} ms "
        f"a step), final loss {found.loss:.4f}, {found.peak_mib:.0f} MiB",
        flush=True,
    )
    return found


def shorten(data: Data, rate: float, steps: int, goal: float, reached: bool) -> int:
    """The fewest of Muon's steps, to an eighth of the whole, that end at the loss `goal` or below."""
    low, high = 0.0, 1.0
    if not reached:  # the whole schedule did not: the seeds begin with it and lengthen it
        return steps
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        run = pretrain(data, "muon", rate, max(1, round(middle * steps)), TUNING_SEED)
        low, high = (low, middle) if run.loss <= goal else (middle, high)
    return max(1, round(high * steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="of a run, about")
    parser.add_argument("--web", type=Path, default=ROOT.parent / "shared" / "data" / "text_general")
    parser.add_argument("--tokens", type=Path, default=None, help="a tokens folder with clinical and web, made before")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: one a core. 1 on a machine that is shared")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs stay; a temporary one when absent")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        tokens = asked.tokens or make_tokens(folder / "data", asked.web)
        print(json.dumps(measure(Data(tokens, folder, asked.threads), asked.seconds)))


def measure(data: Data, seconds: float) -> dict[str, object]:
    tried = {name: pretrain(data, name, 1e-3, 12, 0) for name in OPTIMIZERS}
    steps = {name: max(4, round(seconds / run.step_seconds)) for name, run in tried.items()}
    print(f"{seconds:.0f} s are {steps['adamw']} steps of AdamW, {steps['muon']} of Muon", flush=True)
    tuned = {
        name: {rate: pretrain(data, name, rate, steps[name], TUNING_SEED) for rate in RATES[name]}
        for name in OPTIMIZERS
    }
    best = {name: min(runs, key=lambda rate: runs[rate].loss) for name, runs in tuned.items()}
    losses = {name: tuned[name][best[name]].loss for name in OPTIMIZERS}
    print(f"best rates {best}, final losses at equal wall time {losses}", flush=True)
    short = shorten(data, best["muon"], steps["muon"], losses["adamw"], losses["muon"] <= losses["adamw"])
    pairs = []
    for seed in SEEDS:
        adamw = pretrain(data, "adamw", best["adamw"], steps["adamw"], seed)
        length = short
        muon = pretrain(data, "muon", best["muon"], length, seed)
        while muon.loss > adamw.loss and length < 3 * steps["muon"]:
            length = max(length + 1, round(LONGER * length))
            muon = pretrain(data, "muon", best["muon"], length, seed)
        pairs.append((adamw, muon, length))
    return {
        "name": f"pretraining: wall time to the final validation loss of AdamW's {seconds:.0f} s",
        "peer": "the paper's recipe: AdamW, warm-up, cosine",
        "ratio": round(statistics.median(a.seconds / m.seconds for a, m, _ in pairs), 2),
        "memory_ratio": round(statistics.median(m.peak_mib / a.peak_mib for a, m, _ in pairs), 2),
        "samples": len(pairs),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "reached": all(m.loss <= a.loss for a, m, _ in pairs),
        "ratios": [round(a.seconds / m.seconds, 2) for a, m, _ in pairs],
        "steps_ratio": round(statistics.median(steps["adamw"] / length for _, _, length in pairs), 2),
        "step_seconds_ratio": round(statistics.median(m.step_seconds / a.step_seconds for a, m, _ in pairs), 2),
        "rates": best,
        "at_an_edge": [name for name, rate in best.items() if rate in (RATES[name][0], RATES[name][-1])],
        "losses": [[round(a.loss, 4), round(m.loss, 4)] for a, m, _ in pairs],
        "equal_time_losses": {name: round(loss, 4) for name, loss in losses.items()},
    }


if __name__ == "__main__":
    main()
