"""Near duplicates beside datasketch, the plain way: MinHash and LSH in one process, everything in memory.

The notes are made of 3,000 words with planted near copies (one word of 120 exchanged: Jaccard 0.92) and exact copies.
The peer makes a signature of every distinct text with `MinHash.update_batch`, asks `MinHashLSH` and checks the
estimate; ours is `lang1 duplicates` as a user calls it, with its files, its hashes and the copied passages besides.
Both read the same Parquet. `ratio` is the peer's seconds over ours, `memory_ratio` our peak over the peer's. Each run
is a fresh process and the peers alternate. Ours must find 99 % of the planted copies, the peer 90 %: its default bands
let more of those near the threshold go.

`python benchmarks/duplicates.py [NOTES]`: 20,000 notes without an argument.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS, LENGTH, SAMPLES = 3000, 120, 3


def write_corpus(folder: Path, notes: int) -> int:
    """Cleaned notes; of five, one is a near copy and one an exact copy. Returns the near copies planted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lang1.corpus.hashes import hash_id
    from lang1.corpus.schema import CLEAN_NOTES

    draw, planted = random.Random(1), 0
    (folder / "notes").mkdir(parents=True)
    vocabulary = [f"w{draw.randrange(10**7)}" for _ in range(WORDS)]
    text = ""
    with pq.ParquetWriter(folder / "notes" / "part-00000.parquet", CLEAN_NOTES) as writer:
        for start in range(0, notes, 5000):
            rows = []
            for i in range(start, min(start + 5000, notes)):
                if i % 5 == 1:  # near the one before
                    words = text.split()
                    for place in draw.sample(range(LENGTH), 1):
                        words[place] = "exchanged"
                    text, planted = " ".join(words), planted + 1
                elif i % 5 != 2:  # 2: the same as the one before
                    text = " ".join(draw.choices(vocabulary, k=LENGTH))
                rows.append(
                    {"note_id": f"{i:08d}", "patient_id": f"p{i // 10}", "category": "hospital", "note_type": "H&P",
                     "text": text, "words": LENGTH, "note_hash": hash_id(text)}
                )  # fmt: skip
            writer.write_table(pa.Table.from_pylist(rows, schema=CLEAN_NOTES))
    return planted


def ours(corpus: Path, out: Path) -> int:
    from lang1 import runs
    from lang1.config import DuplicatesConfig
    from lang1.corpus import find_duplicates

    runs.set_quiet(True)
    counts = find_duplicates(DuplicatesConfig(), corpus=corpus, out=out, seed=1)["counts"]
    return int(counts["near_duplicates"])


def peer(corpus: Path, out: Path) -> int:
    import pyarrow.parquet as pq
    from datasketch import MinHash, MinHashLSH

    index, signatures, found = MinHashLSH(threshold=0.8, num_perm=128), {}, 0
    seen: set[str] = set()
    for batch in pq.ParquetFile(corpus / "notes" / "part-00000.parquet").iter_batches(
        4096, columns=["note_hash", "text"]
    ):
        for note_hash, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if note_hash in seen:
                continue
            seen.add(note_hash)
            words = text.lower().split()
            signature = MinHash(num_perm=128)
            signature.update_batch([" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)])
            if any(signature.jaccard(signatures[key]) >= 0.8 for key in index.query(signature)):
                found += 1
            else:
                index.insert(note_hash, signature)
                signatures[note_hash] = signature
    return found


def child(name: str, corpus: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        found = {"ours": ours, "peer": peer}[name](corpus, Path(folder) / "out")
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "found": found}))


def run(name: str, corpus: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, name, corpus], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {measured['seconds']:.1f} s, {measured['peak_mib']:.0f} MiB, {measured['found']} near", flush=True)
    return measured


def main(notes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        planted = write_corpus(corpus, notes)
        samples: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
        for _ in range(SAMPLES):
            for name, measured in samples.items():
                measured.append(run(name, corpus))
    for name, measured in samples.items():
        least = 0.99 if name == "ours" else 0.9
        if min(m["found"] for m in measured) < least * planted:
            sys.exit(f"{name} found {measured[0]['found']} of {planted} planted near copies")
    middle = {
        name: {key: statistics.median(m[key] for m in measured) for key in ("seconds", "peak_mib")}
        for name, measured in samples.items()
    }
    result = {
        "name": f"duplicates, {notes} notes",
        "peer": "datasketch MinHash and MinHashLSH in memory",
        "ratio": round(middle["peer"]["seconds"] / middle["ours"]["seconds"], 2),
        "memory_ratio": round(middle["ours"]["peak_mib"] / middle["peer"]["peak_mib"], 2),
        "samples": SAMPLES,
        "seconds": {name: round(value["seconds"], 2) for name, value in middle.items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 20_000)
