"""TF-IDF + boosting on readmission: seconds, peak memory and AUROC at 50,000 training notes, which may take 10 minutes.

The notes are discharge summaries of the simulated hospital. As they come they have some 100 words; the paper's have
1,006 (Appendix B), so the hardest case puts the notes of other patients behind each until it has 1,000. Measured is
what `lang1 evaluate` does for the baseline: vocabulary, weights, three candidates with early stop on 5,000 validation
notes, prediction of 5,000 test notes.

The first case compares with the plain way at 5,000 notes: scikit-learn's TfidfVectorizer on all training notes and the
same three candidates of xgboost on all of its columns; `ratio` is processor seconds of the peer over ours. In the
other cases `ratio` is the limit of 600 s over our seconds. Each run is a fresh process on the cores that it may use.
`python benchmarks/baselines.py TASKS` reads a tasks folder that is there already; else one is made, in five minutes.
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
from typing import Any

import numpy as np

RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"
ENCOUNTERS, NOTES, FEW, HELD, WORDS, LIMIT_S = 140_000, 50_000, 5_000, 5_000, 1_000, 600
CORES = len(os.sched_getaffinity(0))


def prepare(root: Path) -> Path:
    """Tasks of a simulated hospital."""
    lang1 = [sys.executable, "-m", "lang1.cli"]
    given = [str(RECIPE), f"simulate.encounters={ENCOUNTERS}", "--quiet"]
    subprocess.run([*lang1, "run", *given, "--to", "clean", "--out", str(root)], check=True, stdout=subprocess.DEVNULL)
    folders = ["--records", root / "records", "--corpus", root / "corpus", "--out", root / "tasks"]
    command = [*lang1, "tasks", str(RECIPE), *map(str, folders), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root / "tasks"


def read(tasks: Path, notes: int, words: int) -> dict[str, Any]:
    """Rows of the three splits; a note is followed by others until it has so many words."""
    import pyarrow as pa

    from lang1.corpus.hashes import hash_id
    from lang1.remede.rows import TaskRows, open_tasks

    found = {}
    for split, size in (("train", notes), ("val", HELD), ("test", HELD)):
        rows = open_tasks(tasks).read("readmission", split, size, 1)
        assert isinstance(rows, TaskRows), rows
        table = rows.table
        if words:
            texts, random = rows.strings("text"), np.random.default_rng(len(split))
            for i, text in enumerate(texts):
                parts, count = [text], len(text.split())
                while count < words:
                    parts.append(texts[int(random.integers(len(texts)))])
                    count += len(parts[-1].split())
                texts[i] = "\n".join(parts) if len(parts) > 1 else text
            texts = [" ".join(text.split()[:words]) for text in texts]
            columns = {"text": pa.array(texts, pa.large_string()), "note_hash": pa.array([hash_id(t) for t in texts])}
            for name, values in columns.items():
                table = table.set_column(table.column_names.index(name), name, values)
        found[split] = TaskRows(rows.task, split, table, rows.question)
    return found


def ours(parts: dict[str, Any]) -> np.ndarray:
    from lang1.remede import baselines

    features = baselines.tfidf([parts["train"]], [parts["val"], parts["test"]])
    learn, tune = (baselines.Labelled(features(parts[s]), parts[s].labels) for s in ("train", "val"))
    found = baselines.fit("tfidf+xgboost", learn, tune, 2, 1, CORES)
    assert isinstance(found, baselines.Fitted), found
    return found.predict(features(parts["test"]))[:, 1]


def peer(parts: dict[str, Any]) -> np.ndarray:
    import xgboost as xgb
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import roc_auc_score

    from lang1.remede.baselines import BOOSTING, FEATURES, PATIENCE, SHAPES, TREES

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), max_features=FEATURES, sublinear_tf=True, min_df=5, token_pattern=r"(?u)\b\w+\b"
    )
    matrices = {"train": vectorizer.fit_transform(parts["train"].strings("text"))}
    matrices |= {split: vectorizer.transform(parts[split].strings("text")) for split in ("val", "test")}
    best, kept = 0.0, np.zeros(0)
    for depth, weight in SHAPES:
        model = xgb.XGBClassifier(
            n_estimators=TREES, max_depth=depth, min_child_weight=weight, learning_rate=BOOSTING["eta"], max_bin=32,
            subsample=BOOSTING["subsample"], colsample_bytree=BOOSTING["columns"], early_stopping_rounds=PATIENCE,
            n_jobs=CORES, random_state=1, eval_metric="logloss", tree_method="hist",
        )  # fmt: skip
        labels = {split: parts[split].labels for split in ("train", "val")}
        model.fit(matrices["train"], labels["train"], eval_set=[(matrices["val"], labels["val"])], verbose=False)
        value = float(roc_auc_score(labels["val"], model.predict_proba(matrices["val"])[:, 1]))
        if value > best:
            best, kept = value, model.predict_proba(matrices["test"])[:, 1]
    return kept


def child(name: str, tasks: Path, notes: int, words: int) -> None:
    from sklearn.metrics import roc_auc_score

    parts = read(tasks, notes, words)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, used = time.monotonic(), time.process_time()
    p = {"ours": ours, "peer": peer}[name](parts)
    measured = {
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "mib_before": round(before),
        "auroc": round(float(roc_auc_score(parts["test"].labels, p)), 4),
    }
    print(json.dumps(measured))


def run(name: str, tasks: Path, notes: int, words: int) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES)}
    command = [sys.executable, __file__, name, str(tasks), str(notes), str(words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, {notes:,} notes, {words or 'their own'} words:", json.dumps(measured), flush=True)
    return measured


def report(what: str, against: str, ratio: float, memory_ratio: float | None, measured: dict[str, float]) -> None:
    line = {
        "name": f"baselines: TF-IDF + boosting, {what}",
        "peer": against,
        "ratio": round(ratio, 2),
        "memory_ratio": memory_ratio,
        "samples": 1,
        "machine": f"{platform.machine()}, {CORES} cores used of {os.cpu_count()}, Python {platform.python_version()}",
        **measured,
    }
    print(json.dumps(line), flush=True)


def main(tasks: Path) -> None:
    mine, theirs = (run(name, tasks, FEW, 0) for name in ("ours", "peer"))
    cases = [run("ours", tasks, NOTES, words) for words in (0, WORDS)]
    report(
        f"{FEW:,} notes",
        "scikit-learn's TfidfVectorizer and xgboost on all of its columns, the same candidates",
        theirs["cpu_seconds"] / mine["cpu_seconds"],
        round(mine["peak_mib"] / theirs["peak_mib"], 2),
        mine | {"peer_cpu_seconds": theirs["cpu_seconds"], "peer_auroc": theirs["auroc"]},
    )
    for words, case in zip((0, WORDS), cases, strict=True):
        what = f"{NOTES:,} notes of {words:,} words" if words else f"{NOTES:,} notes"
        report(what, f"the limit of {LIMIT_S} s", LIMIT_S / case["seconds"], None, case)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(prepare(Path(folder)))
