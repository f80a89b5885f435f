"""From the command to the end of the first step of pretraining on 100 GB of tokens, which nothing may scan: under 10 s.

The tokens are sparse files of zeros with true headers, checksums and manifest. The command is `lang1 pretrain` with the
tiny preset and one step, in a fresh process; its whole time counts: imports, opening, the step, a validation, the
checkpoint and the export. `ratio` is the time that reading all bytes once would take (SHA-256 of one shard, times their
number; what a stage does with the files of its inputs elsewhere) over the time of the command.
`--gigabytes 1 --samples 1` is a short trial.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

VOCABULARY, SHARD_TOKENS, LIMIT_S = 4096, 100_000_000, 10.0
RECIPE = {
    "steps": 1, "preset": "tiny", "context_length": 256, "global_batch": 4, "micro_batch": 4, "val_batches": 1,
    "threads": 1,
}  # fmt: skip


def write_shard(path: Path, tokens: int) -> None:
    """A shard of `tokens` zeros, in the format of lang1.corpus.shards, its ids a hole in the file."""
    from lang1.corpus.shards import CHECKED_IDS, _header

    whole, rest = divmod(tokens, CHECKED_IDS)
    checksums = [zlib.crc32(bytes(2 * CHECKED_IDS))] * whole + ([zlib.crc32(bytes(2 * rest))] if rest else [])
    table = np.array(checksums, "<u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _header(2, tokens)
    with path.open("wb") as sink:
        sink.write(header)
        sink.seek(len(header) + 2 * tokens)
        sink.write(table + np.array([zlib.crc32(table)], "<u4").tobytes())


def write_tokens(folder: Path, gigabytes: float) -> float:
    """The tokens folder; returns the seconds that hashing all its shards would take."""
    from lang1 import runs
    from lang1.corpus.tokenizer import open_encoder, write_trained

    write_trained(iter([[f"token {i} of note {i * i}" for i in range(4000)]]), VOCABULARY, folder / "tokenizer")
    encoder = open_encoder(folder / "tokenizer")
    shards = max(2, round(gigabytes * 1e9 / (2 * SHARD_TOKENS)))
    files = {
        "clinical": [f"clinical/train-{i:05d}.bin" for i in range(shards // 2)],
        "web": [f"web/train-{i:05d}.bin" for i in range(shards - shards // 2)],
    }
    sources = {
        source: {
            "train": {"files": [{"path": name, "tokens": SHARD_TOKENS} for name in names], "documents": 1},
            "val": {"files": [{"path": f"{source}/val-00000.bin", "tokens": 100_000}], "documents": 1},
        }
        for source, names in files.items()
    }
    for splits in sources.values():
        for facts in splits.values():
            for file in facts["files"]:
                write_shard(folder / str(file["path"]), int(str(file["tokens"])))
    runs.write_json(
        folder / "index.json",
        {
            "dtype": "uint16",
            "vocab_size": encoder.vocab_size,
            "bos_id": encoder.bos_id,
            "eos_id": encoder.eos_id,
            "separator_id": encoder.eos_id,
            "sources": sources,
        },
    )
    return shards * write_manifest(folder)


def write_manifest(folder: Path) -> float:
    """As tokenize's, each size of shard hashed once; returns the seconds of the largest."""
    from lang1 import runs

    known: dict[int, tuple[str, float]] = {}
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        if path.suffix == ".bin" and size in known:
            digest, _ = known[size]
        else:
            started = time.monotonic()
            digest = runs.sha256_file(path)
            if path.suffix == ".bin":
                known[size] = digest, time.monotonic() - started
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    identity = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    manifest = {"stage": "tokenize", "config": {}, "seed": 1, "inputs": {}, "format": runs.FORMAT, "counts": {}}
    runs.write_json(folder / runs.MANIFEST, manifest | {"identity": identity, "facts": {}, "files": files})
    return known[max(known)][1]


def start(tokens: Path, out: Path) -> dict[str, float]:
    settings = [f"pretrain.{key}={value}" for key, value in RECIPE.items()]
    command = [sys.executable, "-m", "lang1.cli", "pretrain", *settings, "--tokens", tokens, "--out", out, "--quiet"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "cpu_seconds": used, "peak_mib": after.ru_maxrss / 1024}
    print("start to first step", json.dumps({key: round(value, 2) for key, value in found.items()}), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=100.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain = write_tokens(folder / "tokens", options.gigabytes)
        found = [start(folder / "tokens", folder / f"out{i}") for i in range(options.samples)]
    seconds = statistics.median(run["seconds"] for run in found)
    result = {
        "name": f"pretrain: command to the end of its first step, {options.gigabytes:g} GB of tokens",
        "peer": "reading all bytes once, SHA-256",
        "ratio": round(plain / seconds, 2),
        "memory_ratio": None,
        "samples": options.samples,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(seconds, 2),
        "cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in found), 2),
        "within_limit": seconds < LIMIT_S,
        "peak_mib": round(statistics.median(run["peak_mib"] for run in found)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
