"""Documents to token ids in worker processes, a partition a task; joined in order into shards and their list.

A partition is a row group of notes or some files of web text. Its worker writes three scratch files: ids, a row a
document and, last, its counts; a killed run encodes again only partitions whose counts are not there. The parent
joins the scratch files in the order of the partitions, which do not depend on the number of workers: so neither do
the bytes. Cost: the ids lie on disk twice until the stage ends.

One partition left, little text or one worker: it is done in this process by the tokenizer library's own threads.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lang1 import runs
from lang1.corpus import tokenizer
from lang1.corpus.processes import map_in_processes
from lang1.corpus.schema import DOCUMENTS
from lang1.corpus.shards import DTYPES, SPLITS, ShardWriter, dtype_for
from lang1.errors import InputError

CHUNK_CHARACTERS = 1 << 20
"""text that is encoded at a time: a token takes Hugging Face's library about 100 bytes"""
LIST_ROWS = 65_536
"""documents a row group of documents.parquet"""
WORTH_BYTES = 8 << 20
"""text that is worth starting processes for: each takes a second to import what it needs"""
SAY_EVERY_S = 10.0
SECRET = 0o600
MOST_SOURCES = 100
"""each holds two files open; SlimPajama has seven sets"""

ROWS = pa.schema(
    [
        *(column for column in DOCUMENTS if column.name != "tokens"),
        pa.field("words", pa.int32()),
        pa.field("patient", pa.uint64()),
        pa.field("draw", pa.float64()),
    ]
)
"""what a reader says of its documents; `patient` is hash_number of the patient_id, `draw` decides who is held out"""
_SCRATCH = pa.schema([*ROWS, pa.field("tokens", pa.int64())])


@dataclass(frozen=True)
class Documents:
    """Texts, and a row of ROWS for each."""

    texts: list[str]
    rows: pa.Table


@dataclass(frozen=True)
class Partition:
    """A task: `read` gives its documents and counts what it leaves out; it travels to a worker, texts do not."""

    index: int
    described: str
    size: int
    """bytes of text, about"""
    read: Callable[[Counter[str]], Iterator[Documents]]


# --- a partition, in a worker ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Where a worker finds the tokenizer and writes what it did."""

    tokenizer: Path
    scratch: Path
    threads: int = 1

    def stem(self, partition: Partition) -> Path:
        """The scratch files of a partition, without their suffix."""
        return self.scratch / f"{partition.index:08d}"


@lru_cache(maxsize=1)
def _open_encoder(folder: Path) -> tokenizer.Encoder:
    return tokenizer.open_encoder(folder)


def encode_partition(partition: Partition, task: Task) -> None:
    """Encode the documents of a partition into scratch files. No exception that leaves holds text."""
    encoder = _open_encoder(task.tokenizer)
    dtype = DTYPES[dtype_for(encoder.vocab_size)]
    stem, counts, tokens, seen = task.stem(partition), Counter[str](), 0, dict[str, Drawn]()
    with ExitStack() as stack:
        sink = stack.enter_context(runs.atomic_write(stem.with_suffix(".ids"), SECRET))
        path = stack.enter_context(runs.atomic_path(stem.with_suffix(".rows"), SECRET))
        file = stack.enter_context(pa.OSFile(str(path), "wb"))
        rows = stack.enter_context(pa.ipc.new_file(file, _SCRATCH))
        for documents in partition.read(counts):
            lengths = []
            for texts in _chunks(documents.texts):
                try:
                    ids, length = encoder.encode_stream(texts, task.threads)
                except Exception as error:
                    raise RuntimeError(f"{partition.described}: not encoded ({type(error).__name__})") from None
                sink.write(ids.astype(dtype).data)
                lengths.append(length)
                tokens += len(ids)
            _see(seen, documents.rows)
            whole = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
            rows.write_table(documents.rows.append_column(_SCRATCH.field("tokens"), pa.array(whole, pa.int64())))
    facts = {"tokens": tokens, "counts": counts, "seen": {name: vars(drawn) for name, drawn in seen.items()}}
    with runs.atomic_write(stem.with_suffix(".json"), SECRET) as sink:
        sink.write(json.dumps(facts).encode())


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


@dataclass
class Drawn:
    """Of one source in one partition: documents, those held out, and the row drawn lowest."""

    documents: int = 0
    held_out: int = 0
    lowest: float = math.inf
    row: int = -1


def _see(seen: dict[str, Drawn], rows: pa.Table) -> None:
    start = sum(drawn.documents for drawn in seen.values())
    for name in pc.unique(rows["source"]).to_pylist():
        drawn = seen.setdefault(name, Drawn())
        mine = np.flatnonzero(pc.equal(rows["source"], name).to_numpy())
        drawn.documents += len(mine)
        drawn.held_out += int(pc.sum(pc.equal(rows["split"].take(pa.array(mine)), "val")).as_py())
        draws = rows["draw"].to_numpy()[mine]
        best = int(np.argmin(draws))
        if draws[best] < drawn.lowest:  # never for notes, whose draws are NaN
            drawn.lowest, drawn.row = float(draws[best]), start + int(mine[best])


# --- all partitions --------------------------------------------------------------------------------------------


def encode_all(partitions: list[Partition], task: Task, workers: int) -> None:
    """Encode every partition that has no counts yet. Raises InputError when a reader does, or a worker is killed."""
    _open_encoder.cache_clear()  # another run of this process may have had a tokenizer in that folder
    left = [p for p in partitions if not task.stem(p).with_suffix(".json").exists()]
    if len(left) < len(partitions):
        runs.say(f"tokenize: {len(partitions) - len(left)} of {len(partitions)} partitions were encoded before")
    workers = workers or os.cpu_count() or 1
    if min(workers, len(left)) <= 1 or sum(p.size for p in left) < WORTH_BYTES:
        for partition in left:
            encode_partition(partition, Task(task.tokenizer, task.scratch, threads=workers))
        return
    killed = (
        "tokenize: a worker process was killed (out of memory?); the same command goes on where it stopped; "
        "fewer tokenize.workers take less memory"
    )
    tasks = [(partition, task) for partition in left]
    said = time.monotonic()
    for number, _ in enumerate(map_in_processes(encode_partition, tasks, min(workers, len(left)), killed), start=1):
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            runs.say(f"tokenize: {number} of {len(left)} partitions encoded")


# --- joined ----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts of one split of one source."""

    documents: int = 0
    tokens: int = 0
    words: int = 0
    patients: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    waiting: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        """Count documents and their patients."""
        self.documents += len(rows)
        self.tokens += pc.sum(rows["tokens"]).as_py() or 0
        self.words += pc.sum(rows["words"]).as_py() or 0
        self.waiting.append(np.unique(rows["patient"].drop_null().to_numpy()))
        if sum(map(len, self.waiting)) > max(1_000_000, len(self.patients)):
            self.count_patients()

    def count_patients(self) -> int:
        """Patients so far, each once."""
        self.patients = np.unique(np.concatenate([self.patients, *self.waiting]))
        self.waiting = []
        return len(self.patients)


Sources = dict[str, dict[str, tuple[ShardWriter, Tally]]]


def join(partitions: list[Partition], task: Task, out: Path, dtype: str, limit: int) -> tuple[Sources, Counter[str]]:
    """Shards of every source and documents.parquet from the scratch files; what the readers left out.

    A source without a document to validate on, or without one to train on, gives the one that was drawn lowest.
    """
    facts = {p.index: _read_facts(task, p) for p in partitions}
    counts = sum((Counter(f["counts"]) for f in facts.values()), Counter[str]())
    lowest = _lowest({index: f["seen"] for index, f in facts.items()})
    sources: Sources = {}
    with ExitStack() as stack:
        sink = stack.enter_context(runs.parquet_writer(out / "documents.parquet", DOCUMENTS))
        listed: list[pa.Table] = []
        for partition in partitions:
            row = 0
            for rows, ids in _read_partition(task, partition, DTYPES[dtype], facts[partition.index]["tokens"]):
                rows, row = _hold_out(rows, lowest, partition.index, row), row + len(rows)
                lengths = rows["tokens"].to_numpy()
                for name in pc.unique(rows["source"]).to_pylist():
                    if name not in sources:
                        if len(sources) == MOST_SOURCES:
                            raise InputError(f"tokenize.web_by_set: more than {MOST_SOURCES} sources; set it to false")
                        sources[name] = {s: (ShardWriter(out, name, s, dtype, limit), Tally()) for s in SPLITS}
                        for writer, _ in sources[name].values():
                            stack.push(writer.abandon)
                    for split, (writer, tally) in sources[name].items():
                        mine = pc.and_(pc.equal(rows["source"], name), pc.equal(rows["split"], split))
                        mask = mine.to_numpy()
                        writer.write(ids if mask.all() else ids[np.repeat(mask, lengths)])
                        tally.add(rows.filter(mine))
                listed.append(rows.select(DOCUMENTS.names).cast(DOCUMENTS))
                if sum(map(len, listed)) >= LIST_ROWS:
                    sink.write_table(pa.concat_tables(listed).combine_chunks())
                    listed = []
        if listed:
            sink.write_table(pa.concat_tables(listed).combine_chunks())
        for splits in sources.values():
            for writer, _ in splits.values():
                writer.close()
    return sources, counts


def _read_facts(task: Task, partition: Partition) -> dict[str, Any]:
    return dict(json.loads(task.stem(partition).with_suffix(".json").read_text()))


def _read_partition(
    task: Task, partition: Partition, dtype: np.dtype[Any], tokens: int
) -> Iterator[tuple[pa.Table, npt.NDArray[Any]]]:
    stem = task.stem(partition)
    if not tokens:
        return
    ids = np.memmap(stem.with_suffix(".ids"), dtype=dtype, mode="r", shape=(tokens,))
    begin = 0
    with pa.memory_map(str(stem.with_suffix(".rows"))) as source, pa.ipc.open_file(source) as reader:
        for number in range(reader.num_record_batches):
            rows = pa.Table.from_batches([reader.get_batch(number)])
            end = begin + (pc.sum(rows["tokens"]).as_py() or 0)
            yield rows, ids[begin:end]
            begin = end
    if begin != tokens:
        raise RuntimeError(f"tokenize: {partition.described}: {tokens} ids, but {begin} in its documents")


def _hold_out(rows: pa.Table, lowest: dict[str, tuple[int, int]], partition: int, first: int) -> pa.Table:
    """The rows, of which the first is row `first` of its partition, with the sources of `lowest` split anew."""
    if not lowest:
        return rows
    splits = [
        split if name not in lowest else "val" if lowest[name] == (partition, first + i) else "train"
        for i, (name, split) in enumerate(zip(rows["source"].to_pylist(), rows["split"].to_pylist(), strict=True))
    ]
    return rows.set_column(rows.schema.get_field_index("split"), ROWS.field("split"), pa.array(splits, pa.string()))


def _lowest(seen: dict[int, dict[str, dict[str, Any]]]) -> dict[str, tuple[int, int]]:
    """Of each source whose draw held out none or all of two documents or more: partition and row of the lowest."""
    totals: dict[str, tuple[int, int, float, tuple[int, int]]] = {}
    for index, sources in seen.items():
        for name, facts in sources.items():
            drawn = Drawn(**facts)
            documents, held_out, lowest, place = totals.get(name, (0, 0, math.inf, (-1, -1)))
            if drawn.lowest < lowest:
                lowest, place = drawn.lowest, (index, drawn.row)
            totals[name] = (documents + drawn.documents, held_out + drawn.held_out, lowest, place)
    return {
        name: place
        for name, (documents, held_out, lowest, place) in totals.items()
        if documents > 1 and held_out in {0, documents} and lowest < math.inf
    }
