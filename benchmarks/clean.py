"""Cleaning notes from CSV beside the plain way that the paper names: Dask DataFrame and a chain of `.str.replace`.

Same CSV files, same number of workers, same cleaned text, words, hashes and reasons for every note (checked).
Notes are those of the simulated hospital at the paper's length (332 words a note in NYU Notes+, 5.2.1), one in three
made messier: ruled lines, tabs, CRLF, bullets, signs, stray spaces and control characters. Two cases: the notes in
eight files, and in one, as an export often comes; Dask cannot cut a CSV whose fields hold line breaks. Each run is a
fresh process, the peers alternate. `ratio` is the peer's wall time over ours, start of the workers included,
`cpu_ratio` the same of processor seconds, `memory_ratio` our peak over the peer's: resident size of the whole process
tree, shared pages counted once a process, sampled every 50 ms.

Arguments, all optional: megabytes of notes (400), samples a case (3), workers (2).
"""

from __future__ import annotations

import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

PEER = Path(__file__).parent / "peers" / "pandas_clean.py"
OURS = """
import sys
from pathlib import Path
from lang1 import runs
from lang1.config import CleanConfig
from lang1.corpus import clean
if __name__ == "__main__":
    runs.set_quiet(True)
    clean(CleanConfig(workers=int(sys.argv[2])), notes=Path(sys.argv[3]), out=Path(sys.argv[1]), seed=1)
"""
MESS = (
    ("\n", "\r\n"), ("\n", "\n" + "=" * 40 + "\n"), ("\n", "\n\n  "), (". ", " . "), (", ", "\t"), (". ", ".  "),
    ("\n", "\n• "), (" and ", " & "), ("History", "“History”"), (" mg", " µg"), ("of ", "of\x1f"), (": ", " :  "),
    ("no ", "no \u00a0"), ("normal", "normal ........ "), ("not", "n\x01ot"), ("pain", "pain ≥ 5/10"),
)  # fmt: skip


def simulated(folder: Path, encounters: int) -> Iterator[dict[str, Any]]:
    """Notes of the simulated hospital, about as long as the paper's."""
    from lang1 import runs
    from lang1.config import ExtractConfig, SimulateConfig
    from lang1.ehr import extract
    from lang1.simulate import simulate_hospital

    runs.set_quiet(True)
    simulate_hospital(SimulateConfig(encounters=encounters, note_length=5, workers=2), seed=1, out=folder / "warehouse")
    warehouse = folder / "warehouse" / "warehouse.duckdb"
    extract(ExtractConfig(), source=warehouse, out=folder / "records", seed=1)
    for path in sorted((folder / "records" / "notes").glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(1000):
            yield from batch.to_pylist()


def write_notes(folder: Path, megabytes: int, encounters: int) -> None:
    """eight/*.csv and one/*.csv with the same notes; the simulated ones come again, made messy otherwise."""
    for name in ("eight", "one", "work"):
        (folder / name).mkdir()
    draw, written, number = random.Random(1), 0, 0
    rows = list(simulated(folder / "work", encounters))
    files = [(folder / "eight" / f"notes-{i}.csv").open("w", newline="", encoding="utf-8") for i in range(8)]
    with (folder / "one" / "notes.csv").open("w", newline="", encoding="utf-8") as whole:
        writers = [csv.DictWriter(file, list(rows[0]), lineterminator="\n") for file in (whole, *files)]
        for writer in writers:
            writer.writeheader()
        while written < megabytes * 1e6:
            row = dict(rows[number % len(rows)])
            row["note_id"], number = f"{number:09d}", number + 1
            if row["text"] and draw.random() < 1 / 3:
                for before, after in draw.sample(MESS, 3):
                    row["text"] = row["text"].replace(before, after)
            written += len(row["text"] or "")
            writers[0].writerow(row)
            writers[1 + min(int(written / megabytes * 8e-6), 7)].writerow(row)
    for file in files:
        file.close()


def measure(command: list[str]) -> dict[str, float]:
    """Wall and processor seconds and peak memory of a process and all that it starts."""
    started = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak, used = 0, dict[int, float]()
    while process.poll() is None:
        try:
            tree = [process, *process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in tree))
            used |= {member.pid: sum(member.cpu_times()[:2]) for member in tree}
        except psutil.Error:  # a member ended while we looked: the next sample sees the rest
            pass
        time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(f"{command[1]} ended with exit code {process.returncode}")
    return {"seconds": time.monotonic() - started, "cpu_seconds": sum(used.values()), "peak_mib": peak / 2**20}


def content(out: Path) -> dict[str, tuple[Any, ...]]:
    """What became of every note: (hash, words) or (reason without the parser's name, ). Both write by file and row."""
    kept = pq.read_table(out / "notes", columns=["note_id", "note_hash", "words"]).to_pydict()
    found: dict[str, tuple[Any, ...]] = dict(
        zip(kept["note_id"], zip(kept["note_hash"], kept["words"], strict=True), strict=True)
    )
    left = pq.read_table(out / "rejects", columns=["note_id", "reason"]).to_pydict()
    return found | {i: (r.partition("_")[0] if r.startswith("un") else r,) for i, r in zip(*left.values(), strict=True)}


def run_case(folder: Path, case: str, samples: int, workers: int) -> dict[str, Any]:
    script = folder / "ours.py"
    script.write_text(OURS)
    files = sorted((folder / case).glob("*.csv"))
    size = sum(path.stat().st_size for path in files) / 1e6
    pairs = []
    for sample in range(samples):
        ours, theirs = folder / f"ours-{case}-{sample}", folder / f"theirs-{case}-{sample}"
        a = measure([sys.executable, str(script), str(ours), str(workers), str(folder / case)])
        b = measure([sys.executable, str(PEER), str(theirs), str(workers), *map(str, files)])
        for name, found in (("ours", a), ("peer", b)):
            print(case, name, json.dumps({k: round(v, 1) for k, v in found.items()}), flush=True)
        if not sample:
            mine, plain = content(ours), content(theirs)
            assert mine == plain, f"{sum(mine[i] != plain.get(i) for i in mine)} notes differ"
        pairs.append((a, b))

    def ratio(key: str, upside_down: bool = False) -> float:
        found = statistics.median(b[key] / a[key] for a, b in pairs)
        return round(1 / found if upside_down else found, 2)

    return {
        "name": f"clean: {size:.0f} MB of notes in {len(files)} CSV file{'s' * (len(files) > 1)}, {workers} workers",
        "peer": "Dask DataFrame, pandas .str.replace chain",
        "ratio": ratio("seconds"),
        "memory_ratio": ratio("peak_mib", upside_down=True),
        "samples": samples,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "cpu_ratio": ratio("cpu_seconds"),
        "mb_per_s": round(statistics.median(size / a["seconds"] for a, _ in pairs), 1),
        "peak_mib": round(statistics.median(a["peak_mib"] for a, _ in pairs)),
        "notes": len(mine),
    }


def main(megabytes: int = 400, samples: int = 3, workers: int = 2) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_notes(folder, megabytes, encounters=min(20_000, megabytes * 100))
        for case in ("one", "eight"):
            print(json.dumps(run_case(folder, case, samples, workers)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
