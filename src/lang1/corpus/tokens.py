"""`lang1 tokenize`: a corpus version as shards of token ids, with web text beside it (5.2.1, 5.3).

A version is a selection over all cleaned notes by signed time, category, author role and fold; each note left out is
counted under the first of those that says no. It ends before `end`, so that the temporal_2 window stays unseen. An
unsigned note has no place in time and stays out, unless the records have no times at all. A share of the patients,
by hash, is held out for validation; of web text the same share of documents. Each hold-out has at least one member
where there are two to choose from.

The notes are read three times, a row group at a time: to count and to find the patients held out, to train the
tokenizer, to encode. Documents keep the order of the corpus; every document ends with the end-of-text token and none
begins with <s>, as in LitGPT's SlimPajama preparation.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lang1 import runs
from lang1.config import TokenizeConfig, dump
from lang1.corpus import duplicates, tokenizer, web
from lang1.corpus.hashes import hash_fraction, hash_id, patient_fold
from lang1.corpus.schema import DOCUMENTS
from lang1.corpus.shards import INDEX, SPLITS, ShardWriter, dtype_for
from lang1.errors import ConfigError, InputError

BATCH_ROWS = 8192
"""notes in memory at a time"""
WEB_BATCH = 1024
"""web documents in memory at a time"""
QUESTION_WORDS_WEIGHT = 200
"""how often question_words.txt is read: enough for its words to become tokens beside those of a small corpus"""
FACTS = ["note_id", "patient_id", "category", "author_role", "signed_time", "note_hash"]

Mask = npt.NDArray[np.bool_]


def tokenize(cfg: TokenizeConfig, *, corpus: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Write tokenizer, shards, index and list of documents into `out`; returns the manifest. Raises InputError."""
    web_path = web.resolve(cfg.web) if cfg.web else None
    if web_path is not None and not web_path.exists():
        if cfg.web_required:
            raise InputError(f"tokenize.web: {web_path}: not found; give its path, or tokenize.web_required=false")
        web_path = None
    inputs = {"corpus": corpus}
    inputs |= {"web": web_path} if web_path else {}
    inputs |= {"tokenizer": Path(cfg.tokenizer)} if cfg.tokenizer else {}
    if cfg.drop_duplicates != "none":
        if cfg.duplicates is None:
            raise ConfigError("tokenize.drop_duplicates: give tokenize.duplicates, a folder of lang1 duplicates")
        duplicates.check_made_from(Path(cfg.duplicates), corpus)
        inputs["duplicates"] = Path(cfg.duplicates)

    def work(stage: runs.Stage) -> None:
        version = find_version(cfg, corpus, seed)
        stage.count(notes_in=version.notes_in, **{f"left_out_{why}": n for why, n in version.left_out.items()})
        encoder = _make_tokenizer(cfg, version, stage)
        _write_shards(cfg, version, encoder, web_path, stage)

    settings = dump(cfg) | {"duplicates": None}  # an input, known by what it holds: a run may be moved
    return runs.run_stage(out, "tokenize", settings, seed, inputs, work, force)


# --- the corpus version ----------------------------------------------------------------------------------------


@dataclass
class Version:
    """A selection over the cleaned notes, and who of it is held out."""

    cfg: TokenizeConfig
    seed: int
    paths: list[Path]
    is_timed: bool
    notes_in: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    train_notes: int = 0
    held_out: set[str] = field(default_factory=set)
    duplicates: tuple[Path, dict[str, pa.Array]] | None = None
    """of the part that was read last"""

    def iter_batches(self, columns: list[str], left_out: Counter[str] | None = None) -> Iterator[pa.Table]:
        """The selected notes, in order; `columns` beside FACTS. Counts in `left_out` those that are not selected."""
        for path in self.paths:
            with pq.ParquetFile(path) as source:
                for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=[*FACTS, *columns]):
                    table = pa.Table.from_batches([batch])
                    kept = np.ones(len(table), dtype=bool)
                    for why, keeps in self._rules(table, path):
                        if left_out is not None:
                            left_out[why] += int((kept & ~keeps).sum())
                        kept &= keeps
                    yield table.filter(pa.array(kept))

    def _rules(self, table: pa.Table, part: Path) -> Iterator[tuple[str, Mask]]:
        signed = table["signed_time"]
        if self.is_timed:
            yield "unsigned", _mask(pc.is_valid(signed))
            if self.cfg.start is not None:
                yield "before_start", _mask(pc.greater_equal(signed, _midnight(self.cfg.start)))
            yield "from_end_on", _mask(pc.less(signed, _midnight(self.cfg.end)))
        yield "category", _mask(_is_in(table["category"], self.cfg.categories))
        if self.cfg.author_roles is not None:
            yield "author_role", _mask(_is_in(table["author_role"], self.cfg.author_roles))
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


def _midnight(day: date) -> pa.Scalar:
    return pa.scalar(datetime.combine(day, time()), pa.timestamp("us"))


def _mask(values: Any) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def _is_in(column: Any, values: tuple[str, ...]) -> Any:
    return pc.is_in(column.cast(pa.string()), value_set=pa.array(values, pa.string()))


def _by_patient(table: pa.Table, holds: Callable[[str], bool]) -> Mask:
    """One answer a patient, spread over the rows."""
    encoded = table["patient_id"].combine_chunks().dictionary_encode()
    answers = np.array([holds(patient) for patient in encoded.dictionary.to_pylist()], dtype=bool)
    return answers[encoded.indices.to_numpy()] if len(table) else np.zeros(0, dtype=bool)


def find_version(cfg: TokenizeConfig, corpus: Path, seed: int) -> Version:
    """Count the selection and find the patients held out. Raises InputError when no note is left."""
    paths = sorted((corpus / "notes").glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{corpus}: no notes/part-*.parquet; run lang1 clean first")
    version = Version(cfg, seed, paths, is_timed=any(map(_has_times, paths)))
    version.notes_in = sum(pq.read_metadata(path).num_rows for path in paths)
    notes_of: Counter[str] = Counter()
    for table in version.iter_batches([], version.left_out):
        notes_of.update(table["patient_id"].to_pylist())
    if not notes_of:
        shown = ", ".join(f"{why} {n}" for why, n in version.left_out.items() if n)
        raise InputError(
            f"{corpus / 'notes'}: the corpus version holds none of {version.notes_in} notes ({shown}); "
            "widen tokenize.start, end, categories, author_roles, leave_out_folds or drop_duplicates"
        )
    version.held_out = _held_out(notes_of, cfg.validation_fraction, seed)
    version.train_notes = sum(n for patient, n in notes_of.items() if patient not in version.held_out)
    if sum(notes_of.values()) + sum(version.left_out.values()) != version.notes_in:
        raise RuntimeError(f"tokenize: {version.notes_in} notes in, but {sum(notes_of.values())} selected")
    return version


def _has_times(path: Path) -> bool:
    with pq.ParquetFile(path) as source:
        batches = source.iter_batches(batch_size=BATCH_ROWS, columns=["signed_time"])
        return any(batch["signed_time"].null_count < len(batch) for batch in batches)


def _held_out(patients: Counter[str], share: float, seed: int) -> set[str]:
    """Patients whose hash is below the share; the one with the smallest where that takes none or all."""
    fractions = {patient: hash_fraction(seed, f"validation:{patient}") for patient in patients}
    chosen = {patient for patient, fraction in fractions.items() if fraction < share}
    if 0 < len(chosen) < len(fractions):
        return chosen
    return {min(fractions, key=lambda p: (fractions[p], p))} if len(fractions) > 1 else set()


# --- the tokenizer ---------------------------------------------------------------------------------------------


def _make_tokenizer(cfg: TokenizeConfig, version: Version, stage: runs.Stage) -> tokenizer.Encoder:
    folder = stage.out / "tokenizer"
    if cfg.tokenizer is not None:
        tokenizer.write_given(Path(cfg.tokenizer), folder, stage.scratch())
    else:
        tokenizer.write_trained(_iter_training_texts(cfg, version), cfg.vocab_size, folder)
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
        draws = zip(*(table[name].to_pylist() for name in ("patient_id", "note_hash", "text")), strict=True)
        texts = [
            text
            for patient, note_hash, text in draws
            if patient not in version.held_out and hash_fraction(version.seed, f"tokenizer:{note_hash}") < share
        ][:left]
        left -= len(texts)
        if texts:
            yield texts
        if not left:
            return


# --- shards ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """A text to encode, and what the list of documents says of it."""

    split: str
    text: str
    words: int
    note_hash: str
    patient_hash: str | None = None
    signed_time: datetime | None = None


class SourceWriter:
    """The shards and counts of one source; rows for the list of documents."""

    def __init__(
        self, name: str, encoder: tokenizer.Encoder, documents: pq.ParquetWriter, out: Path, limit: int
    ) -> None:
        self.name, self.encoder, self.documents = name, encoder, documents
        dtype = dtype_for(encoder.vocab_size)
        self.shards = {split: ShardWriter(out, name, split, dtype, limit) for split in SPLITS}
        self.counts: dict[str, Counter[str]] = {split: Counter(documents=0, tokens=0, words=0) for split in SPLITS}
        self.patients: dict[str, set[str]] = {split: set() for split in SPLITS}

    def add(self, batch: list[Document]) -> None:
        """Encode documents and append them, each with the separator at its end."""
        ids = self.encoder.encode([document.text for document in batch])
        for split in SPLITS:
            mine = [(d, i) for d, i in zip(batch, ids, strict=True) if d.split == split]
            stream = itertools.chain.from_iterable(itertools.chain(i, (self.encoder.eos_id,)) for _, i in mine)
            tokens = np.fromiter(stream, dtype=np.int64)
            self.shards[split].write(tokens)
            self.counts[split].update(documents=len(mine), tokens=len(tokens), words=sum(d.words for d, _ in mine))
            self.patients[split].update(d.patient_hash for d, _ in mine if d.patient_hash is not None)
        rows = {
            "source": [self.name] * len(batch),
            "split": [d.split for d in batch],
            "note_hash": [d.note_hash for d in batch],
            "patient_hash": [d.patient_hash for d in batch],
            "signed_time": [d.signed_time for d in batch],
            "tokens": [len(i) + 1 for i in ids],
        }
        self.documents.write_table(pa.table(rows, schema=DOCUMENTS))

    def summary(self) -> dict[str, dict[str, Any]]:
        """What index.json says of this source; the files appear here."""
        for writer in self.shards.values():
            writer.close()
        return {
            split: {
                "files": self.shards[split].files,
                **{key: int(n) for key, n in self.counts[split].items()},
                "patients": len(self.patients[split]) if self.name == "clinical" else None,
            }
            for split in SPLITS
        }


def _write_shards(
    cfg: TokenizeConfig, version: Version, encoder: tokenizer.Encoder, web_path: Path | None, stage: runs.Stage
) -> None:
    summaries: dict[str, dict[str, dict[str, Any]]] = {}
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        documents = stack.enter_context(runs.parquet_writer(stage.out / "documents.parquet", DOCUMENTS))
        sources = [("clinical", _iter_notes(version))]
        if web_path is not None:
            files = web.list_files(web_path)
            sources.append(("web", _iter_web(web.iter_documents(files, counts), cfg.validation_fraction, version.seed)))
        for name, batches in sources:
            writer = SourceWriter(name, encoder, documents, stage.out, cfg.shard_tokens)
            for shards in writer.shards.values():
                stack.push(shards.abandon)
            for batch in batches:
                writer.add(batch)
            summaries[name] = writer.summary()
    if web_path is not None and not any(facts["documents"] for facts in summaries["web"].values()):
        raise InputError(f"tokenize.web: {web_path}: holds no document; give other text, or tokenize.web=null")
    _write_index(cfg, encoder, summaries, counts, web_path, stage)


def _write_index(
    cfg: TokenizeConfig,
    encoder: tokenizer.Encoder,
    sources: dict[str, dict[str, dict[str, Any]]],
    counts: Counter[str],
    web_path: Path | None,
    stage: runs.Stage,
) -> None:
    if web_path is not None:
        why = "found"
    else:
        why = "no web text in the configuration" if cfg.web is None else f"{web.resolve(cfg.web)} not found"
    index = {
        "dtype": dtype_for(encoder.vocab_size),
        "vocab_size": encoder.vocab_size,
        "bos_id": encoder.bos_id,
        "eos_id": encoder.eos_id,
        "separator_id": encoder.eos_id,
        "sources": sources,
        "web": {"path": cfg.web, "used": web_path is not None, "why": why, "rows": dict(sorted(counts.items()))},
    }
    runs.write_json(stage.out / INDEX, index)
    for source, splits in sources.items():
        for split, facts in splits.items():
            stage.count(**{f"{source}_{split}_{key}": n for key, n in facts.items() if isinstance(n, int)})
            tokens, documents = facts["tokens"], facts["documents"]
            runs.say(f"tokenize: {source} {split}: {documents:,} documents, {tokens:,} tokens")
    stage.record(web=index["web"], vocab_size=encoder.vocab_size)


def _iter_notes(version: Version) -> Iterator[list[Document]]:
    for table in version.iter_batches(["text", "words"]):
        names = ("patient_id", "text", "words", "note_hash", "signed_time")
        yield [
            Document(
                "val" if patient in version.held_out else "train", text, words, note_hash, hash_id(patient), signed
            )
            for patient, text, words, note_hash, signed in zip(*(table[n].to_pylist() for n in names), strict=True)
        ]


def _iter_web(texts: Iterator[str], share: float, seed: int) -> Iterator[list[Document]]:
    documents = _split_web(texts, share, seed)
    while batch := list(itertools.islice(documents, WEB_BATCH)):
        yield batch


def _split_web(texts: Iterator[str], share: float, seed: int) -> Iterator[Document]:
    """Documents, a share of them held out by hash. Until one is, the one nearest to it is kept back, for the end."""
    nearest: tuple[float, Document] | None = None
    has_val, others = False, 0
    for text in texts:
        note_hash = hash_id(text)
        fraction = hash_fraction(seed, f"validation:{note_hash}")
        document = Document("val" if fraction < share else "train", text, len(text.split()), note_hash)
        has_val = has_val or fraction < share
        if not has_val and (nearest is None or fraction < nearest[0]):
            nearest, (_, document) = (fraction, document), nearest or (1.0, document)
            if document is nearest[1]:
                continue
        others += 1
        yield document
    if nearest is not None:
        yield nearest[1] if has_val or not others else replace(nearest[1], split="val")
