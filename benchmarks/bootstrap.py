"""Bootstrap of AUROC beside `scipy.stats.bootstrap` with scikit-learn's `roc_auc_score`: same rows, same number of
resamples, every row its own patient, since scipy resamples rows.

Each run is a fresh process, the peers alternate. `ratio` is the peer's processor seconds over ours (both use one
thread), `memory_ratio` our peak memory over the peer's; the interval ends must agree within the noise of resampling.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

ROWS, RATE, RESAMPLES, SAMPLES = 20_000, 0.11, 1000, 3


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.random(ROWS) < RATE
    return positive, rng.normal(size=ROWS) + 0.8 * positive


def ours(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    from lang1.metrics.bootstrap import bootstrap_auroc, interval, rank
    from lang1.metrics.ranking import auroc

    ranking = rank(positive, scores, np.arange(len(positive)))
    draws = bootstrap_auroc([ranking], len(positive), resamples=RESAMPLES, seed=1, name="benchmark")[:, 0]
    found = interval(auroc(positive, scores), draws)
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def peer(positive: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    found = stats.bootstrap(
        (positive, scores),
        roc_auc_score,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    return float(found.low), float(found.high)


def child(name: str) -> None:
    positive, scores = rows()
    function = {"ours": ours, "peer": peer}[name]
    function(positive[:200], scores[:200])  # imports are not what is measured
    started, used = time.monotonic(), time.process_time()
    low, high = function(positive, scores)
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - started,
                "cpu_seconds": time.process_time() - used,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "low": low,
                "high": high,
            }
        )
    )


def run(name: str) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, env=environment, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(name, json.dumps({key: round(value, 4) for key, value in measured.items()}), flush=True)
    return measured


def main() -> None:
    pairs = [(run("ours"), run("peer")) for _ in range(SAMPLES)]
    for end in ("low", "high"):
        assert abs(pairs[0][0][end] - pairs[0][1][end]) < 0.003, "the intervals do not agree"
    result = {
        "name": f"bootstrap: {RESAMPLES} resamples of the AUROC of {ROWS:,} rows",
        "peer": "scipy.stats.bootstrap with sklearn.metrics.roc_auc_score",
        "ratio": round(statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs), 1),
        "memory_ratio": round(statistics.median(a["peak_mib"] / b["peak_mib"] for a, b in pairs), 2),
        "samples": SAMPLES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(statistics.median(a["seconds"] for a, _ in pairs), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
