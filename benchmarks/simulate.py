"""Notes a minute on 2 cores, and that memory does not grow with the number of patients.

No peer: nobody else writes this warehouse. Memory is the largest resident size of the whole process tree (shared pages
counted once a process), sampled every 50 ms, at 10,000, 40,000 and 160,000 encounters; the first run is too short for
the workers' allocators to fill, `growth_of_memory` is against the run before.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RUN = """
import sys
from pathlib import Path
from lang1 import runs
from lang1.config import SimulateConfig
from lang1.simulate import simulate_hospital
if __name__ == "__main__":
    runs.set_quiet(True)
    simulate_hospital(SimulateConfig(encounters=int(sys.argv[1]), workers=2), seed=3407, out=Path(sys.argv[2]))
"""


def cpu_seconds() -> float:
    """CPU time of all ended children: a busy machine stretches `seconds`, not this."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(encounters: int) -> dict[str, float]:
    """Seconds, notes and peak memory of one run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder) / "run.py", Path(folder) / "out"
        script.write_text(RUN)
        started, used = time.monotonic(), cpu_seconds()
        process = subprocess.Popen([sys.executable, str(script), str(encounters), str(out)])
        root, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            try:
                tree = [root, *root.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in tree))
            except psutil.Error:  # a member ended while we looked: the next sample sees the rest
                pass
            time.sleep(0.05)
        seconds, used = time.monotonic() - started, cpu_seconds() - used
        if process.returncode != 0:
            sys.exit(f"simulate with {encounters} encounters ended with exit code {process.returncode}")
        counts = json.loads((out / "manifest.json").read_text())["counts"]
    return {
        "encounters": encounters,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used, 1),
        "notes": counts["note"],
        "notes_per_minute": round(counts["note"] / seconds * 60),
        "peak_mib": round(peak / 2**20),
    }


def main() -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    common = {"peer": None, "ratio": None, "memory_ratio": None, "samples": 1, "machine": machine}
    before: dict[str, float] = {}
    for encounters in (10_000, 40_000, 160_000):
        case = measure(encounters)
        growth = round(case["peak_mib"] / before["peak_mib"], 2) if before else None
        print(
            json.dumps({"name": f"simulate: {encounters:,} encounters", **common, **case, "growth_of_memory": growth})
        )
        before = case


if __name__ == "__main__":
    main()
