"""Memory of `clean` is bounded by the size of a note, not by the notes, the partitions or one very long note.

`python tests/corpus/test_clean_memory.py 5000` does it on 5 GB and prints what it took.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpus_records import WORDS

LANG1 = Path(sys.executable).with_name("lang1")
LIMIT_MB = 1000
TRIM = bool(os.environ.get("LANG1_TRIM"))


def paragraph(draw: random.Random, words: int) -> str:
    """Words in lines, with what the rules look for among them."""
    signs = ["µg", "≥", '"ok"', "H&P", "--", "<120", "\n", "\n\n", "  ", "\t", "É"]
    return " ".join(draw.choice(signs) if draw.random() < 0.1 else draw.choice(WORDS) for _ in range(words))


def write_notes(folder: Path, megabytes: int, files: int = 4) -> int:
    """CSV files: varied notes of up to 10 kB, some of 1 MB; 40 of 8 MB in a row (CI: 20), some RTF; one of 100 MB.

    Returns how many notes there are.
    """
    folder.mkdir()
    draw = random.Random(1)
    bodies = [paragraph(draw, draw.choice((60, 200, 400, 900))) for _ in range(2000)]
    long = " ".join(bodies)[:1_000_000]
    number = 0
    for file in range(files):
        written = 0
        with (folder / f"notes-{file}.csv").open("w", newline="", encoding="utf-8") as sink:
            writer = csv.writer(sink, lineterminator="\n")
            writer.writerow(["note_id", "patient_id", "text"])

            def write(text: str, writer: Any = writer) -> None:
                nonlocal number, written
                writer.writerow([f"{number:09d}", f"p{number % 9973}", text])
                number, written = number + 1, written + len(text.encode())

            if file == 1:
                for copy in range(20 if TRIM else 40):
                    body = f"copy {copy} {long * 8}"
                    write(f"{{\\rtf1 {body}}}" if copy % 10 == 0 else body)
                write("very long " * 10_000_000)
            while written < megabytes * 1e6 / files:
                write(
                    f"{number} {draw.choice(bodies)} {draw.choice(bodies)} {number}"
                    if number % 3000
                    else f"{number} {long}"
                )
    return number


def peak_by_process(command: list[str]) -> tuple[int, dict[str, int], str]:
    """Exit code, largest resident MB of the command itself and of each worker it started, and what it said."""
    process = psutil.Popen(command, stderr=subprocess.PIPE, text=True)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for member in (process, *process.children(recursive=True)):
            try:
                peaks[member.pid] = max(peaks.get(member.pid, 0), member.memory_info().rss // 10**6)
            except psutil.Error:  # it ended while we looked
                continue
        time.sleep(0.05)
    own = peaks.pop(process.pid)
    return process.returncode, {"command": own, "worker": max(peaks.values(), default=0)}, process.stderr.read()


def clean_command(notes: Path, out: Path) -> list[str]:
    options = ["clean.workers=2", f"clean.worker_memory={LIMIT_MB}MB"]
    return [str(LANG1), "clean", *options, "--notes", str(notes), "--out", str(out)]


@pytest.mark.slow
def test_workers_stay_within_their_memory_with_a_note_of_100_mb_among_long_ones(tmp_path: Path) -> None:
    count = write_notes(tmp_path / "notes", 500 if not TRIM else 300)
    code, peaks, said = peak_by_process(clean_command(tmp_path / "notes", tmp_path / "corpus"))
    assert code == 0, said
    counts = json.loads((tmp_path / "corpus" / "manifest.json").read_text())["counts"]
    assert counts == {"notes_in": count, "notes_out": count - 1, "rejected_too_long": 1}
    assert peaks["worker"] < LIMIT_MB
    assert peaks["command"] < LIMIT_MB


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    started = time.monotonic()
    print("notes", write_notes(folder / "notes", int(sys.argv[1])), f"{time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    code, peaks, said = peak_by_process(clean_command(folder / "notes", folder / "corpus"))
    print(code, peaks, f"{time.monotonic() - started:.0f} s", said[-300:])
