"""1000 bootstrap resamples of AUROC on 100,000 rows beside `scipy.stats.bootstrap` with scikit-learn's
`roc_auc_score`: a binary task, then one-versus-rest over 4 classes.

Same rows, same number of resamples, every row its own patient, since scipy resamples rows. Each run is a fresh
process, the peers alternate, all 1000 resamples of the peer are timed. scipy works in batches of 10, which is faster
than 1 or 100 here and spares it the memory of all resamples at once. `ratio` is the peer's processor seconds over ours
(both use one thread), `memory_ratio` our peak memory over the peer's; the interval ends must agree within the noise of
resampling.
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

ROWS, RATE, CLASSES, RESAMPLES, SAMPLES = 100_000, 0.11, 4, 1000, 3
CASES = {"binary": "AUROC", "ovr": f"one-versus-rest AUROC over {CLASSES} classes"}


def rows(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the scores of option 1 or of every class."""
    rng = np.random.default_rng(0)
    if case == "binary":
        labels = (rng.random(ROWS) < RATE).astype(np.int64)
        return labels, rng.normal(size=ROWS) + 0.8 * labels
    labels = rng.choice(CLASSES, ROWS, p=[0.42, 0.15, 0.22, 0.21])
    p_NK = rng.dirichlet(np.ones(CLASSES), ROWS) + 0.3 * np.eye(CLASSES)[labels]
    return labels, p_NK / p_NK.sum(axis=1, keepdims=True)


def ours(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    from lang1.metrics.bootstrap import bootstrap_auroc, interval, rank
    from lang1.metrics.ranking import auroc, auroc_ovr

    each_row = np.arange(len(labels))
    if scores.ndim == 1:
        rankings, value = [rank(labels == 1, scores, each_row)], auroc(labels == 1, scores)
    else:
        rankings = [rank(labels == k, scores[:, k], each_row) for k in range(CLASSES)]
        value = auroc_ovr(labels, scores).macro
    draws = bootstrap_auroc(rankings, len(labels), resamples=RESAMPLES, seed=1, name="benchmark")
    found = interval(value, draws.mean(axis=1))
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def peer(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    def binary(labels: np.ndarray, scores: np.ndarray) -> float:
        return roc_auc_score(labels, scores)

    def over_rows(rows: np.ndarray) -> float:  # scipy resamples one-dimensional data: the rows' numbers
        return roc_auc_score(labels[rows], scores[rows], multi_class="ovr")

    one = scores.ndim == 1
    found = stats.bootstrap(
        (labels, scores) if one else (np.arange(len(labels)),),
        binary if one else over_rows,
        paired=one,
        vectorized=False,
        n_resamples=RESAMPLES,
        batch=10,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    return float(found.low), float(found.high)


def child(name: str, case: str) -> None:
    labels, scores = rows(case)
    function = {"ours": ours, "peer": peer}[name]
    function(labels[:200], scores[:200])  # imports are not what is measured
    started, used = time.monotonic(), time.process_time()
    low, high = function(labels, scores)
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


def run(name: str, case: str) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, name, case]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(case, name, {key: round(value, 4) for key, value in measured.items()}, flush=True)
    return measured


def measure(case: str) -> dict[str, object]:
    pairs = [(run("ours", case), run("peer", case)) for _ in range(SAMPLES)]
    for end in ("low", "high"):
        assert abs(pairs[0][0][end] - pairs[0][1][end]) < 0.001, "the intervals do not agree"
    return {
        "name": f"bootstrap: {RESAMPLES} resamples of the {CASES[case]} of {ROWS:,} rows",
        "peer": "scipy.stats.bootstrap with sklearn.metrics.roc_auc_score",
        "ratio": round(statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs), 1),
        "memory_ratio": round(statistics.median(a["peak_mib"] / b["peak_mib"] for a, b in pairs), 2),
        "samples": SAMPLES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(statistics.median(a["seconds"] for a, _ in pairs), 2),
    }


def main() -> None:
    results = [measure(case) for case in CASES]
    for result in results:
        print(json.dumps(result))


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
