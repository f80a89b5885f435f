"""Task building: seconds and peak memory at 10,000, 100,000 and 1,000,000 encounters on 2 cores.

The limits: a million encounters within 2 GB and 5 minutes, at a cost that grows no faster than the number of
encounters. The peer of each size is the smallest one (`ratio`: encounters a second against it; 1 is linear growth),
since no other program builds these five tasks from these records. Records and corpus come from the simulated hospital
and are made first, outside of the measurement: ten minutes for the million. Peak memory is that of the process tree,
sampled every 50 ms. `python benchmarks/tasks.py 10000 20000` measures other sizes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SIZES = (10_000, 100_000, 1_000_000)
RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def lang1(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "lang1.cli", *map(str, arguments), "--quiet"]


def prepare(encounters: int, root: Path) -> None:
    """Records and corpus of a simulated hospital."""
    command = lang1("run", RECIPE, f"simulate.encounters={encounters}", "--to", "clean", "--out", root)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(root: Path, out: Path) -> dict[str, float]:
    """Seconds and peak memory of one `lang1 tasks` in a fresh process."""
    started, peak = time.monotonic(), 0
    command = lang1("tasks", "--records", root / "records", "--corpus", root / "corpus", "--out", out)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root_process = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            tree = [root_process, *root_process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in tree))
        except psutil.Error:  # a member ended while we looked: the next sample sees the rest
            pass
        time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(f"lang1 tasks ended with exit code {process.returncode}")
    seconds = time.monotonic() - started
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    return {
        "encounters": counts["encounters"],
        "rows": sum(n for name, n in counts.items() if name.endswith("_rows")),
        "seconds": round(seconds, 1),
        "encounters_per_second": round(counts["encounters"] / seconds),
        "peak_mib": round(peak / 2**20),
    }


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    first: dict[str, float] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            prepare(size, root / "run")
            case = measure(root / "run", root / "tasks")
        first = first or case
        line = {
            "name": f"tasks: {size:,} inpatient encounters",
            "peer": f"itself at {sizes[0]:,}",
            "ratio": round(case["encounters_per_second"] / first["encounters_per_second"], 2),
            "memory_ratio": round(case["peak_mib"] / first["peak_mib"], 2),
            "samples": 1,
            "machine": machine,
            **case,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
