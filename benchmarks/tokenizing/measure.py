"""`lang1 tokenize` on 2 cores beside the tokenizer libraries' own threads: same documents, same vocabulary, same ids.

Ours is the whole stage with a given tokenizer: the selection, the encoding in two processes, shards with checksums, the
list of documents, SHA-256 of every file. A peer reads the texts of the same Parquet files, encodes them with two
threads (sentencepiece: `num_threads`, arrays; Hugging Face: `encode_batch_fast`) and writes uint16 ids into one file
without an index. Each run is a fresh process from its start to its end, in turn. `ratio` is the faster peer's seconds
over ours, `memory_ratio` our peak over that peer's (resident size of the process tree, shared pages once a process).

The text: notes of the simulated hospital, six times as long as by default, and the real text of ../shared/data where
it is, half as much. The vocabularies: up to 32,000 entries trained here, byte-level BPE (ours) and a Llama-style
SentencePiece model. LANG1_BENCH_ENCOUNTERS makes it smaller: then the two or
three seconds of processor time that a stage and its workers take to start weigh more.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ENCOUNTERS = int(os.environ.get("LANG1_BENCH_ENCOUNTERS", "20000"))
CORES, SAMPLES, VOCABULARY, BATCH = 2, 3, 32_000, 4096
REAL = ("mtsamples", "text_general")


Encode = Callable[[list[str]], list[np.ndarray]]


# --- what is measured, each in a process of its own -----------------------------------------------------------


def ours(corpus: Path, tokenizer: Path, out: Path) -> None:
    from datetime import date

    from lang1 import runs
    from lang1.config import TokenizeConfig
    from lang1.corpus import tokenize

    runs.set_quiet(True)
    cfg = TokenizeConfig(tokenizer=str(tokenizer), end=date(2100, 1, 1), workers=CORES)
    tokenize(cfg, corpus=corpus, out=out, seed=1)


def sentencepiece(corpus: Path, tokenizer: Path, out: Path) -> None:
    import sentencepiece as library

    own = library.SentencePieceProcessor(model_file=str(tokenizer))
    _write(corpus, out, own.eos_id(), lambda texts: own.encode(texts, return_type="numpy", num_threads=CORES))


def huggingface(corpus: Path, tokenizer: Path, out: Path) -> None:
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(tokenizer))
    own.encode_special_tokens = True

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.array(e.ids, np.uint16) for e in own.encode_batch_fast(texts, add_special_tokens=False)]

    _write(corpus, out, own.token_to_id("</s>"), encode)


def _write(corpus: Path, out: Path, separator: int, encode: Encode) -> None:
    end = np.array([separator])
    with out.open("wb") as sink:
        for path in sorted((corpus / "notes").glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH, columns=["text"]):
                ids = [part for text in encode(batch["text"].to_pylist()) for part in (text, end)]
                sink.write(np.concatenate(ids).astype("<u2").data)


RUNS = {function.__name__: function for function in (ours, sentencepiece, huggingface)}


# --- runs -----------------------------------------------------------------------------------------------------


def measure(name: str, *paths: Path) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    environment = os.environ | {"RAYON_NUM_THREADS": str(CORES), "TOKENIZERS_PARALLELISM": "true"}
    process = subprocess.Popen([sys.executable, __file__, name, *map(str, paths)], env=environment)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            tree = [root, *root.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in tree))
        except psutil.Error:  # a member ended while we looked: the next sample sees the rest
            pass
        time.sleep(0.05)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        sys.exit(f"{name}: ended with exit code {process.returncode}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "cpu_seconds": used, "peak_mib": peak / 2**20}
    print(name, json.dumps({key: round(value, 2) for key, value in found.items()}), flush=True)
    return found


def compare(name: str, corpus: Path, ours_tokenizer: Path, peers: dict[str, Path], folder: Path) -> dict[str, object]:
    folder.mkdir()
    found: dict[str, list[dict[str, float]]] = {"ours": [], **{peer: [] for peer in peers}}
    for sample in range(SAMPLES):
        made = folder / f"ours-{sample}"
        found["ours"].append(measure("ours", corpus, ours_tokenizer, made))
        for peer, tokenizer in peers.items():
            plain = folder / f"{peer}-{sample}.bin"
            found[peer].append(measure(peer, corpus, tokenizer, plain))
            check_same(made, plain)
            plain.unlink()
    middle = {peer: statistics.median(run["seconds"] for run in runs) for peer, runs in found.items()}
    fastest = min(peers, key=lambda peer: middle[peer])
    text = text_bytes(corpus)
    pairs = list(zip(found["ours"], found[fastest], strict=True))
    return {
        "name": f"tokenize: {name}, {text / 1e6:.0f} MB of text",
        "peer": f"{fastest}, {CORES} threads",
        "ratio": round(statistics.median(b["seconds"] / a["seconds"] for a, b in pairs), 2),
        "memory_ratio": round(statistics.median(a["peak_mib"] / b["peak_mib"] for a, b in pairs), 2),
        "samples": SAMPLES,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "cpu_ratio": round(statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs), 2),
        "mb_a_second": {peer: round(text / 1e6 / seconds, 1) for peer, seconds in middle.items()},
    }


def text_bytes(corpus: Path) -> int:
    """Bytes of all texts."""
    parts = (pq.read_table(path, columns=["text"])["text"] for path in (corpus / "notes").glob("*.parquet"))
    return sum(pc.sum(pc.binary_length(texts)).as_py() for texts in parts)


def check_same(ours_folder: Path, plain: Path) -> None:
    """The peer's file holds the ids of our two splits: as many of each."""
    from lang1.corpus.shards import open_shards

    shards, counts = open_shards(ours_folder), np.zeros(2**16, np.int64)
    for split in ("train", "val"):
        for file in shards.blocks("clinical", split, 1).files:
            counts += np.bincount(file.read(0, file.count), minlength=2**16)
    theirs = np.bincount(np.fromfile(plain, "<u2"), minlength=2**16)
    if not np.array_equal(counts, theirs):
        sys.exit(f"{plain.stem}: its ids are not ours")


# --- text and vocabularies ------------------------------------------------------------------------------------


def build_corpus(folder: Path) -> Path:
    from lang1 import runs
    from lang1.config import CleanConfig, ExtractConfig, SimulateConfig
    from lang1.corpus import clean
    from lang1.ehr import extract
    from lang1.simulate import simulate_hospital

    runs.set_quiet(True)
    simulate_hospital(SimulateConfig(encounters=ENCOUNTERS, note_length=6, workers=2), seed=1, out=folder / "hospital")
    extract(ExtractConfig(), source=folder / "hospital" / "warehouse.duckdb", out=folder / "records", seed=1)
    clean(CleanConfig(workers=1), records=folder / "records", out=folder / "cleaned", seed=1)
    corpus = folder / "corpus"
    (corpus / "notes").mkdir(parents=True)
    for part in sorted((folder / "cleaned" / "notes").glob("*.parquet")):
        notes = pq.read_table(part)
        signed = notes.filter(pc.is_valid(notes["signed_time"]))  # a version leaves the others out
        pq.write_table(signed, corpus / "notes" / part.name, compression="zstd", row_group_size=20_000)
    write_real(corpus / "notes")
    return corpus


def write_real(notes: Path) -> None:
    """Real text as notes of its own, repeated until it is half as much as the simulated."""
    from lang1.corpus import web
    from lang1.corpus.hashes import hash_id
    from lang1.corpus.schema import CLEAN_NOTES

    folders = [web.resolve(f"../shared/data/{name}") for name in REAL]
    files = sorted(
        p for folder in folders if folder.is_dir() for p in folder.rglob("*") if p.suffix in {".txt", ".csv"}
    )
    texts = [page for file in files for page in web.iter_pages(file.read_text(errors="replace").splitlines(True))]
    if not texts:
        return
    first = pq.read_table(notes / "part-00000.parquet", columns=["text", "signed_time"])
    times = max(1, round(text_bytes(notes.parent) / 2 / sum(map(len, texts))))
    same = {"category": "hospital", "note_type": "progress", "signed_time": first["signed_time"][0].as_py()}
    for number in range(times):
        rows = [
            same
            | {"note_id": f"r{number}-{i}", "patient_id": f"real{i % 500}", "text": text}
            | {"words": len(text.split()), "note_hash": hash_id(text)}
            for i, text in enumerate(texts)
        ]
        pq.write_table(
            pa.Table.from_pylist(rows, schema=CLEAN_NOTES),
            notes / f"part-{90000 + number:05d}.parquet",
            compression="zstd",
        )


def train(corpus: Path, folder: Path) -> tuple[Path, Path]:
    """A byte-level BPE folder and a SentencePiece model, trained on every 20th document."""
    import sentencepiece as library

    from lang1 import runs
    from lang1.corpus import tokenizer

    texts = [
        text
        for path in sorted((corpus / "notes").glob("*.parquet"))
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist()[::20]
    ]
    tokenizer.write_trained(iter([texts]), VOCABULARY, folder / "bytes")
    runs.write_text(folder / "sample.txt", "\n".join(" ".join(text.split()) for text in texts))
    library.SentencePieceTrainer.train(
        input=str(folder / "sample.txt"), model_prefix=str(folder / "llama"), vocab_size=VOCABULARY, model_type="bpe",
        hard_vocab_limit=False, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, max_sentence_length=1 << 20,
        num_threads=CORES, minloglevel=2,
    )  # fmt: skip
    return folder / "bytes" / "tokenizer.json", folder / "llama.model"


def main() -> None:
    from lang1.corpus import sentencepieces

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = build_corpus(folder)
        given, model = train(corpus, folder)
        sentencepieces.write_model(model, folder / "converted")
        both = {"sentencepiece": model, "huggingface": folder / "converted" / "tokenizer.json"}
        cases = [
            compare("byte-level BPE", corpus, given, {"huggingface": given}, folder / "a"),
            compare("Llama-style SentencePiece model", corpus, model, both, folder / "b"),
        ]
        for case in sorted(cases, key=lambda case: -float(str(case["ratio"]))):
            print(json.dumps(case), flush=True)


if __name__ == "__main__":
    RUNS[sys.argv[1]](*map(Path, sys.argv[2:])) if len(sys.argv) > 1 else main()
