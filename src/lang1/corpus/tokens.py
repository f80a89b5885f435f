"""`lang1 tokenize`: a corpus version as shards of token ids, with web text beside it (5.2.1, 5.3).

A version is a selection over all cleaned notes by signed time, category, author role, class of the encounter, end of
the stay and fold; each note left out is counted under the first of those that says no. It ends before `end`, so that
the temporal_2 window stays unseen. An unsigned note has no place in time and stays out, unless the records have no
times at all. A share of the patients, by hash, is held out for validation; of web text the same share of documents.
Each hold-out has at least one member where there are two to choose from.

The notes are read three times, a row group at a time: to count and to see who is held out, to train the tokenizer, to
encode (encoding.py, in worker processes). Documents keep the order of the corpus; every document ends with the
end-of-text token and none begins with <s>, as in LitGPT's SlimPajama preparation.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import TokenizeConfig, dump
from lang1.corpus import duplicates, encoding, sizes, stays, tokenizer, web
from lang1.corpus.encoding import Documents, Partition
from lang1.corpus.hashes import hash_fraction, hash_id, hash_number, patient_fold
from lang1.corpus.parts import iter_rows
from lang1.corpus.shards import INDEX, dtype_for
from lang1.corpus.stays import Stays, is_among, is_in, midnight
from lang1.errors import ConfigError, InputError

BATCH_ROWS = 8192
"""notes whose facts are in memory at a time"""
TEXT_ROWS = 1024
"""notes or web documents whose text is in memory at a time"""
PART_BYTES = 8 << 20
"""notes of a partition, uncompressed: small enough that the last ones keep every worker busy"""
WEB_BYTES = 4 << 20
"""files of web text are taken together up to this size"""
QUESTION_WORDS_WEIGHT = 200
"""how often question_words.txt is read: enough for its words to become tokens beside those of a small corpus"""
FACTS = ["note_id", "patient_id", "category", "author_role", "signed_time", "note_hash"]
CLINICAL = "clinical"

Mask = npt.NDArray[np.bool_]


def tokenize(
    cfg: TokenizeConfig, *, corpus: Path, out: Path, seed: int, records: Path | None = None, force: bool = False
) -> dict[str, Any]:
    """Write tokenizer, shards, index, counts and list of documents into `out`; returns the manifest.

    `records` are asked for the class of an encounter and the end of a stay, where tokenize.encounter_classes or
    tokenize.leave_out_open_stays wants them. Raises InputError.
    """
    texts = web.find_sources(cfg)
    inputs = {"corpus": corpus}
    asked = stays.needed_by(cfg)
    if asked is not None:
        if records is None:
            raise InputError(f"{asked}; give --records")
        inputs["records"] = records
    inputs |= {web.key_of(cfg, name): found for name, found in texts.items() if found is not None}
    inputs |= {"tokenizer": Path(cfg.tokenizer)} if cfg.tokenizer else {}
    if cfg.drop_duplicates != "none":
        if cfg.duplicates is None:
            raise ConfigError("tokenize.drop_duplicates: give tokenize.duplicates, a folder of lang1 duplicates")
        duplicates.check_made_from(Path(cfg.duplicates), corpus)
        inputs["duplicates"] = Path(cfg.duplicates)
    resolved = dump(cfg) | {"duplicates": None}  # an input, known by what it holds: a run may be moved
    resolved.pop("workers")  # the bytes do not depend on it

    def work(stage: runs.Stage) -> None:
        known = stays.find_stays(cfg, records, stage.scratch()) if records is not None else stays.Stays()
        version = find_version(cfg, corpus, seed, known)
        stage.count(notes_in=version.notes_in, **{f"left_out_{why}": n for why, n in version.left_out.items()})
        encoder = _make_tokenizer(cfg, version, stage)
        _write_shards(cfg, version, encoder, texts, stage)

    return runs.run_stage(out, "tokenize", resolved, seed, inputs, work, force)


# --- the corpus version ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotePart:
    """Rows [start, stop) of a row group of a file of notes."""

    path: Path
    group: int
    start: int
    stop: int


@dataclass
class Version:
    """A selection over the cleaned notes, and who of it is held out. Travels to workers."""

    cfg: TokenizeConfig
    seed: int
    paths: list[Path]
    is_timed: bool
    stays: Stays = field(default_factory=Stays)
    notes_in: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    train_notes: int = 0
    one_of_all: tuple[str, ...] | None = None
    """the patient held out where the share takes none or all of the patients, or nobody; null: the share decides"""
    duplicates: tuple[Path, dict[str, pa.Array]] | None = None
    """of the part that was read last"""

    def iter_batches(
        self, columns: list[str], left_out: Counter[str] | None = None, rows: int = BATCH_ROWS
    ) -> Iterator[pa.Table]:
        """The selected notes, in order; `columns` beside FACTS. Counts in `left_out` those that are not selected."""
        for path in self.paths:
            for table in iter_rows(path, self._columns(columns), rows):
                yield self.select(table, path, left_out)

    def iter_part(self, part: NotePart, columns: list[str], rows: int) -> Iterator[pa.Table]:
        """The same of some rows of one row group."""
        start = 0
        for table in iter_rows(part.path, self._columns(columns), rows, part.group):
            begin, end = max(part.start - start, 0), min(part.stop - start, len(table))
            if begin < end:
                yield self.select(table.slice(begin, end - begin), part.path)
            start += len(table)
            if start >= part.stop:
                return

    def select(self, table: pa.Table, path: Path, left_out: Counter[str] | None = None) -> pa.Table:
        """The rows to which every rule says yes."""
        kept = np.ones(len(table), dtype=bool)
        for why, keeps in self._rules(table, path):
            if left_out is not None:
                left_out[why] += int((kept & ~keeps).sum())
            kept &= keeps
        return table if kept.all() else table.filter(pa.array(kept))

    def _columns(self, columns: list[str]) -> list[str]:
        return list(dict.fromkeys([*FACTS, *(["encounter_id"] if self.stays.asked else []), *columns]))

    def _rules(self, table: pa.Table, part: Path) -> Iterator[tuple[str, Mask]]:
        signed = table["signed_time"]
        if self.is_timed:
            yield "unsigned", _mask(pc.is_valid(signed))
            if self.cfg.start is not None:
                yield "before_start", _mask(pc.greater_equal(signed, midnight(self.cfg.start)))
            yield "from_end_on", _mask(pc.less(signed, midnight(self.cfg.end)))
        yield "category", _mask(is_in(table["category"], self.cfg.categories))
        if self.cfg.author_roles is not None:
            yield "author_role", _mask(is_in(table["author_role"], self.cfg.author_roles))
        if self.stays.of_class is not None:
            yield "encounter_class", is_among(table["encounter_id"], self.stays.of_class)
        if self.stays.still_open is not None:
            yield "open_stay", ~is_among(table["encounter_id"], self.stays.still_open)
        if self.cfg.leave_out_folds:
            out, ratio = self.cfg.leave_out_folds, self.cfg.fold_ratio
            yield "fold", _by_patient(table, lambda p: patient_fold(self.seed, p, ratio) not in out)
        for kind, note_ids in self._duplicates_of(part).items():
            yield f"{kind}_duplicate", ~_mask(pc.is_in(table["note_id"], value_set=note_ids))

    def _duplicates_of(self, part: Path) -> dict[str, pa.Array]:
        """The notes of a part that the removal of duplicates leaves out, by kind."""
        if self.cfg.duplicates is None:
            return {}
        if self.duplicates is None or self.duplicates[0] != part:
            kinds = ("exact",) if self.cfg.drop_duplicates == "exact" else ("exact", "near")
            self.duplicates = part, duplicates.read_left_out(Path(self.cfg.duplicates), part, kinds)
        return self.duplicates[1]

    def is_held_out(self, patient: str) -> bool:
        """True for a patient whose notes validate and do not train."""
        if self.one_of_all is not None:
            return patient in self.one_of_all
        return _draw(self.seed, patient) < self.cfg.validation_fraction


def _draw(seed: int, name: str) -> float:
    return hash_fraction(seed, f"validation:{name}")


def _mask(values: Any) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def _by_patient(table: pa.Table, holds: Callable[[str], bool]) -> Mask:
    """One answer a patient, spread over the rows."""
    encoded = table["patient_id"].combine_chunks().dictionary_encode()
    answers = np.array([holds(patient) for patient in encoded.dictionary.to_pylist()], dtype=bool)
    return answers[encoded.indices.to_numpy()] if len(table) else np.zeros(0, dtype=bool)


def find_version(cfg: TokenizeConfig, corpus: Path, seed: int, known: Stays) -> Version:
    """Count the selection and see who is held out. Raises InputError when no note is left."""
    paths = sorted((corpus / "notes").glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{corpus}: no notes/part-*.parquet; run lang1 clean first")
    version = Version(cfg, seed, paths, is_timed=any(map(_has_times, paths)), stays=known)
    version.notes_in = sum(pq.read_metadata(path).num_rows for path in paths)
    notes = _find_held_out(version)
    if not notes:
        shown = ", ".join(f"{why} {n}" for why, n in version.left_out.items() if n)
        raise InputError(
            f"{corpus / 'notes'}: the corpus version holds none of {version.notes_in} notes ({shown}); "
            "widen tokenize.start, end, categories, author_roles, encounter_classes, leave_out_folds or drop_duplicates"
        )
    if notes + sum(version.left_out.values()) != version.notes_in:
        raise RuntimeError(f"tokenize: {version.notes_in} notes in, but {notes} selected")
    return version


def _has_times(path: Path) -> bool:
    return any(t["signed_time"].null_count < len(t) for t in iter_rows(path, ["signed_time"], BATCH_ROWS))


def _find_held_out(version: Version) -> int:
    """Fill in who is held out and how many notes train; returns the number of notes. No list of patients is kept.

    Where the share takes none or all of the patients, the one that is drawn lowest is held out, unless it is alone.
    """
    notes, held_out_notes = 0, 0
    lowest: tuple[float, str] | None = None
    lowest_notes, others = 0, False
    for table in version.iter_batches([], version.left_out):
        for facts in pc.value_counts(table["patient_id"].combine_chunks()).to_pylist():
            patient, n = facts["values"], facts["counts"]
            drawn = (_draw(version.seed, patient), patient)
            notes += n
            held_out_notes += n if drawn[0] < version.cfg.validation_fraction else 0
            others = others or (lowest is not None and drawn != lowest)
            if lowest is None or drawn < lowest:
                lowest, lowest_notes = drawn, 0
            lowest_notes += n if drawn == lowest else 0
    if held_out_notes in {0, notes} and lowest is not None:
        version.one_of_all = (lowest[1],) if others else ()
        held_out_notes = lowest_notes if others else 0
    version.train_notes = notes - held_out_notes
    return notes


# --- the tokenizer ---------------------------------------------------------------------------------------------


def _make_tokenizer(cfg: TokenizeConfig, version: Version, stage: runs.Stage) -> tokenizer.Encoder:
    folder = stage.out / "tokenizer"
    if cfg.tokenizer is not None:
        tokenizer.write_given(Path(cfg.tokenizer), folder, stage.scratch())
    elif not (folder / tokenizer.CONFIG).exists():  # written last: a killed run need not train again
        write = tokenizer.write_wordpiece if cfg.algorithm == "wordpiece" else tokenizer.write_trained
        write(_iter_training_texts(cfg, version), cfg.vocab_size, folder)
    encoder = tokenizer.open_encoder(folder)
    runs.say(f"tokenize: a vocabulary of {encoder.vocab_size:,}")
    return encoder


def _iter_training_texts(cfg: TokenizeConfig, version: Version) -> Iterator[list[str]]:
    """Words that every prompt will hold, then train documents by the hash of their text, `train_documents` at most."""
    if cfg.question_words:
        yield [(Path(__file__).parent / "question_words.txt").read_text(encoding="utf-8")] * QUESTION_WORDS_WEIGHT
    left = cfg.train_documents
    share = cfg.train_documents / version.train_notes
    for table in version.iter_batches(["text"]):
        trains = ~_by_patient(table, version.is_held_out)
        hashes = table["note_hash"].to_pylist()
        drawn = [
            i
            for i in np.flatnonzero(trains).tolist()
            if share >= 1 or hash_fraction(version.seed, f"tokenizer:{hashes[i]}") < share
        ][:left]
        left -= len(drawn)
        if drawn:
            yield table["text"].take(pa.array(drawn)).to_pylist()
        if not left:
            return


# --- documents, in a worker ------------------------------------------------------------------------------------


def read_notes(version: Version, part: NotePart, counts: Counter[str]) -> Iterator[Documents]:
    """The selected notes of some rows. Nothing is counted here: the selection was counted before."""
    for table in version.iter_part(part, ["text", "words"], TEXT_ROWS):
        patients = table["patient_id"].combine_chunks().dictionary_encode()
        names, of_row = patients.dictionary.to_pylist(), patients.indices
        spread = {
            "split": pa.array(["val" if version.is_held_out(name) else "train" for name in names], pa.string()),
            "patient_hash": pa.array([hash_id(name) for name in names], pa.string()),
            "patient": pa.array([hash_number(name) for name in names], pa.uint64()),
        }
        rows = {name: values.take(of_row) for name, values in spread.items()}
        rows |= {name: table[name].combine_chunks() for name in ("note_hash", "signed_time", "words")}
        rows["source"] = pa.repeat(pa.scalar(CLINICAL), len(table))
        rows["draw"] = pa.nulls(len(table), pa.float64())
        yield Documents(table["text"].to_pylist(), _as_rows(rows))


def read_web(
    cfg: TokenizeConfig, seed: int, source: str, files: list[Path], counts: Counter[str]
) -> Iterator[Documents]:
    """The documents of some files of one source; a share of them, by hash, is held out."""
    found = Counter[str]()
    documents = web.iter_documents(files, found)
    while batch := list(itertools.islice(documents, TEXT_ROWS)):
        texts = [text for text, _ in batch]
        hashes = [hash_id(text) for text in texts]
        draws = [_draw(seed, name) for name in hashes]
        names = [web.name_of(source, named) if cfg.web_by_set else source for _, named in batch]
        rows = {
            "source": names,
            "split": ["val" if draw < cfg.validation_fraction else "train" for draw in draws],
            "note_hash": hashes,
            "patient_hash": [None] * len(batch),
            "signed_time": [None] * len(batch),
            "words": [len(text.split()) for text in texts],
            "patient": [None] * len(batch),
            "draw": draws,
        }
        yield Documents(texts, _as_rows(rows))
    counts.update({f"{source}:{why}": n for why, n in found.items()})


def _as_rows(columns: dict[str, Any]) -> pa.Table:
    ready = {c.name: columns[c.name] for c in encoding.ROWS}
    return pa.table({name: pa.array(v) if isinstance(v, list) else v for name, v in ready.items()}).cast(encoding.ROWS)


# --- shards ----------------------------------------------------------------------------------------------------


def plan_partitions(cfg: TokenizeConfig, version: Version, texts: web.Found) -> list[Partition]:
    """Parts of row groups of notes, then files of web text, in their order: the same whatever the workers."""
    partitions: list[Partition] = []
    for part, size in _iter_parts(version.paths):
        read: Any = functools.partial(read_notes, version, part)
        described = f"rows {part.start} to {part.stop - 1} of row group {part.group} of {part.path}"
        partitions.append(Partition(len(partitions), described, size, read))
    for name, folder in texts.items():
        for files in web.group_files(web.list_files(folder), WEB_BYTES) if folder is not None else ():
            read = functools.partial(read_web, cfg, version.seed, name, files)
            size = sum(file.stat().st_size for file in files)
            partitions.append(Partition(len(partitions), str(files[0]), size, read))
    return partitions


def _iter_parts(paths: list[Path]) -> Iterator[tuple[NotePart, int]]:
    """Parts and their size; a part holds whole TEXT_ROWS, what is read at a time."""
    for path in paths:
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            rows, size = metadata.row_group(group).num_rows, metadata.row_group(group).total_byte_size
            step = max(1, round(rows / TEXT_ROWS * PART_BYTES / max(size, 1))) * TEXT_ROWS
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                yield NotePart(path, group, start, stop), size * (stop - start) // rows


def _write_shards(
    cfg: TokenizeConfig, version: Version, encoder: tokenizer.Encoder, texts: web.Found, stage: runs.Stage
) -> None:
    partitions = plan_partitions(cfg, version, texts)
    task = encoding.Task(stage.out / "tokenizer", stage.scratch())
    encoding.encode_all(partitions, task, cfg.workers)
    dtype = dtype_for(encoder.vocab_size)
    sources, counts = encoding.join(partitions, task, stage.out, dtype, cfg.shard_tokens)
    for name, folder in texts.items():
        if folder is not None and not any(web.is_of(source, name) for source in sources):
            raise InputError(f"tokenize.{web.key_of(cfg, name)}: {folder}: holds no document; give other text, or null")
    index: dict[str, Any] = {
        "version": cfg.version,
        "dtype": dtype,
        "vocab_size": encoder.vocab_size,
        "bos_id": encoder.bos_id,
        "eos_id": encoder.eos_id,
        "separator_id": encoder.eos_id,
        "sources": {name: _summary(name, splits) for name, splits in sources.items()},
        "web": web.describe(cfg, texts, counts),
    }
    runs.write_json(stage.out / INDEX, index)
    for source, splits in index["sources"].items():
        for split, facts in splits.items():
            stage.count(**{f"{source}_{split}_{key}": n for key, n in facts.items() if isinstance(n, int)})
    stage.record(version=cfg.version, web=index["web"], vocab_size=encoder.vocab_size)
    sizes.write(stage.out, sizes.find(cfg.version, index["sources"]))


def _summary(name: str, splits: dict[str, tuple[Any, encoding.Tally]]) -> dict[str, dict[str, Any]]:
    """What index.json says of a source."""
    return {
        split: {
            "files": writer.files,
            "documents": tally.documents,
            "tokens": tally.tokens,
            "words": tally.words,
            "patients": tally.count_patients() if name == CLINICAL else None,
        }
        for split, (writer, tally) in splits.items()
    }
