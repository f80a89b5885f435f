"""From a hospital to tokens: simulate, extract, clean, tokenize."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from lang1.config.addresses import without_password
from lang1.config.checks import STRICT, require


@dataclass(frozen=True)
class SimulateConfig:
    """The embedded hospital (docs/simulated-hospital.md)."""

    hospital: Literal["main", "external"] = "main"
    """which hospital: case mix, codes and style differ in `external`"""
    encounters: int = 30_000
    """inpatient encounters to write, about"""
    note_length: float = 1.0
    """factor on the length of note bodies; 1 keeps the median note at 150 tokens or fewer"""
    workers: int = 0
    """processes; 0 is one a core. The bytes of the notes do not depend on it"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Refuse sizes that make no hospital."""
        require(
            (self.encounters >= 1, "encounters", "at least 1"),
            (0.2 <= self.note_length <= 50, "note_length", "between 0.2 and 50"),
        )


@dataclass(frozen=True)
class ExtractConfig:
    """From a warehouse to canonical records."""

    source: Literal["omop", "fhir", "mimic3", "mimic4", "sql"] = "omop"
    """`omop`: OMOP CDM 5.3 or 5.4, a DuckDB file or PostgreSQL; `fhir`: the folder of a FHIR R4 bulk export; `mimic3`,
    `mimic4`: a folder as PhysioNet ships it; `sql`: CSV, Parquet or any database through the SQL files in `sql_dir`"""
    path: str | None = None
    """file, folder or database URL that the SQL reads; a password in a URL is used and never kept (`~/.pgpass` and
    PGPASSWORD need none); null: the simulated hospital of this run"""
    notes_path: str | None = None
    """mimic4: folder of MIMIC-IV-Note; null: note/ in the folder itself, else the one *note* folder beside it"""
    without_notes: bool = False
    """true: notes are not read; encounters, codes and labels alone (the MIMIC demos have no notes)"""
    sql_dir: str | None = None
    """folder with one <table>.sql a canonical table; null: the source's own files"""
    exclude_patients: str | None = None
    """text file, one patient_id a line (opt-outs, staff, legal holds): left out here and counted"""
    workers: int = 4
    """connections to a PostgreSQL server that read at once; the output's bytes do not depend on it"""
    partition_rows: int = 50_000
    """rows a partition read from a database, about: what a dropped connection costs; the bytes do not depend on it"""
    since: datetime | None = None
    """local time; null extracts everything. A time: what is new, corrected or late is merged into the records that
    are there (docs/extract.md)"""
    tries: int = 6
    """times a partition is asked for when the connection drops, 1, 2, 4, ... seconds apart (30 at most)"""
    time_zone: str | None = None
    """source fhir, such as America/New_York: local time of the hospital, into which times with an offset are brought;
    null keeps the clock as it is written beside the offset, which is UTC where a time ends in Z"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Counts of at least one; what only some sources have; a password leaves the path before anything writes it."""
        if self.path is not None:
            try:
                object.__setattr__(self, "path", without_password(self.path))
            except ValueError as error:
                raise ValueError(f"path: {error}") from None
        require(
            *((getattr(self, key) >= 1, key, "at least 1") for key in ("workers", "partition_rows", "tries")),
            (
                self.notes_path is None or (self.source == "mimic4" and not self.without_notes),
                "notes_path",
                "null unless source is mimic4 and its notes are read",
            ),
            (
                self.since is None or self.source not in {"mimic3", "mimic4"},
                "since",
                "null for MIMIC, which comes as whole releases: extract the new one into another folder",
            ),
            (self.since is None or self.since.tzinfo is None, "since", "local time without a zone, such as 2024-06-01"),
        )


@dataclass(frozen=True)
class CleanRulesConfig:
    """The steps of section 5.1 in their order, which is fixed; false leaves a step out (docs/clean.md)."""

    too_long: bool = True
    """a note of more than `clean.max_note_mb` is rejected before anything reads it"""
    decode: bool = True
    """bytes that are not UTF-8 are read as Windows-1252; false: such a note is rejected (`unreadable_decode`)"""
    fields: bool = True
    """narrative fields of one note (JSON, parts between control characters) become one text"""
    rtf: bool = True
    """RTF to plain text"""
    html: bool = True
    """HTML tags out, entities decoded"""
    encoding: bool = True
    """mojibake, NUL, halves of characters and written-out line breaks mended"""
    punctuation: bool = True
    """quotes, dashes, bullets and signs in their ASCII form"""
    formatting: bool = True
    """ruled lines out, leaders to three dots"""
    non_ascii: bool = True
    """accented letters to their base, every other character outside ASCII out"""
    control: bool = True
    """control characters out"""
    whitespace: bool = True
    """one line, single spaces"""
    spacing: bool = True
    """no space before a punctuation mark that ends a word"""
    no_text: bool = True
    """a note without text is rejected; false keeps it, empty"""
    placeholder: bool = True
    """a note that holds only `<NA>` and its kin is rejected"""
    too_short: bool = True
    """a note of fewer than `clean.min_words` words is rejected"""

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CleanColumnsConfig:
    """The columns of `--notes` files: what each is called there. All but the first three may be absent."""

    note_id: str = "note_id"
    """the note's id, text; needed"""
    patient_id: str = "patient_id"
    """whom the note is about; needed"""
    text: str = "text"
    """the note as it came; needed"""
    encounter_id: str = "encounter_id"
    """the stay it belongs to; null when absent"""
    category: str = "category"
    """hospital, pathology or radiology; hospital when absent"""
    note_type: str = "note_type"
    """H&P, discharge summary, ...; unknown when absent"""
    author_role: str = "author_role"
    """attending, resident, nurse, ...; null when absent"""
    written_time: str = "written_time"
    """when it was begun, local time without zone (2020-01-31 08:30:00); null when absent"""
    signed_time: str = "signed_time"
    """when it was first signed; null when absent"""
    department: str = "department"
    """ward or department of the author; null when absent"""

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class CleanConfig:
    """Section 5.1 of the paper, on Dask."""

    rules: CleanRulesConfig = field(default_factory=CleanRulesConfig)
    columns: CleanColumnsConfig = field(default_factory=CleanColumnsConfig)
    min_words: int = 10
    """notes with fewer words are rejected (5.1)"""
    max_note_mb: float = 16.0
    """longer notes (10^6 bytes as they came) are rejected as too_long: nobody wrote them, and parsing takes memory"""
    partition_rows: int = 20_000
    """notes a Dask partition, at most; the output's bytes do not depend on it"""
    partition_mb: int = 32
    """10^6 bytes of notes a Dask partition, about, at most; what a killed run does again"""
    workers: int = 0
    """local Dask worker processes; 0 is one a core, 1 cleans in the command's own process"""
    worker_memory: str = "1GB"
    """memory a local worker may use, such as 800MB or 2GiB; one that takes more is ended, its partition tried again"""
    scheduler: str | None = None
    """address of a running Dask scheduler (tcp://...); null starts a local cluster"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A partition holds at least a note, a worker at least itself."""
        require(
            (self.min_words >= 0, "min_words", "0 or more"),
            (self.max_note_mb > 0, "max_note_mb", "more than 0"),
            (self.partition_rows >= 1, "partition_rows", "at least 1"),
            (self.partition_mb >= 1, "partition_mb", "at least 1"),
            (self.workers >= 0, "workers", "0 or more"),
            (_megabytes(self.worker_memory) >= 300, "worker_memory", "a size of at least 300MB, such as 1GB"),
        )


def _megabytes(size: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(MB|MiB|GB|GiB)", size)
    return float(found[1]) * {"MB": 1, "MiB": 1.048576, "GB": 1000, "GiB": 1073.741824}[found[2]] if found else 0.0


@dataclass(frozen=True)
class DuplicatesConfig:
    """Exact and near duplicates among the cleaned notes, and what is copied forward within a patient."""

    near_similarity: float = 0.8
    """estimated Jaccard similarity of two texts' shingles from which on they are near duplicates"""
    shingle_words: int = 5
    """words in a row that make a shingle of the near duplicates"""
    permutations: int = 128
    """numbers of a MinHash signature; the estimate's error is about 1 / (2 sqrt(permutations))"""
    copied_words: int = 8
    """words in a row that must stand in an earlier note of the patient to count as copied forward"""
    memory_gb: float = 2.0
    """GB that DuckDB may take; what does not fit goes to disk"""
    threads: int = 0
    """threads of DuckDB; 0 is one a core. The bytes written do not depend on it"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Bounds that the method needs."""
        require(
            (0 < self.near_similarity <= 1, "near_similarity", "above 0 and at most 1"),
            (self.shingle_words >= 1, "shingle_words", "at least 1"),
            (16 <= self.permutations <= 1024, "permutations", "between 16 and 1024"),
            (self.copied_words >= 2, "copied_words", "at least 2"),
            (self.memory_gb >= 0.2, "memory_gb", "at least 0.2"),
            (self.threads >= 0, "threads", "0 or more"),
        )


@dataclass(frozen=True)
class ProfileConfig:
    """What the cleaned notes are: tables and figures that may leave the hospital."""

    suppress_below: int = 11
    """a count of fewer patients is not shown by itself but together with others; 0 shows all"""
    top: int = 5
    """departments, diagnoses and boroughs listed a note category (Figure G7: five)"""
    titles: str | None = None
    """text file of diagnosis titles (code,title or CMS's code title, a line each); null: codes only"""
    memory_gb: float = 2.0
    """GB that DuckDB may take; what does not fit goes to disk"""
    threads: int = 0
    """threads of DuckDB; 0 is one a core. The bytes written do not depend on it"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """A list has an entry."""
        require(
            (self.suppress_below >= 0, "suppress_below", "0 or more"),
            (1 <= self.top <= 20, "top", "between 1 and 20"),
            (self.memory_gb >= 0.2, "memory_gb", "at least 0.2"),
            (self.threads >= 0, "threads", "0 or more"),
        )


@dataclass(frozen=True)
class TokenizeConfig:
    """A corpus version as token shards."""

    version: str = "notes"
    """name of the corpus version, in the index and in its table of counts; the paper's: NYUNotes, NYUNotes+ (5.2.1)"""
    vocab_size: int = 32_000
    """entries of the tokenizer trained on the corpus; ignored when `tokenizer` names one"""
    algorithm: Literal["bpe", "wordpiece"] = "bpe"
    """how the vocabulary is trained: bpe, byte-level, ours; wordpiece, BERT's, for an encoder (docs/encoder.md)"""
    tokenizer: str | None = None
    """a tokenizer.json, a Llama-2 tokenizer.model, or a Hugging Face folder; null trains one"""
    train_documents: int = 200_000
    """documents that the tokenizer is trained on, at most, drawn by hash"""
    question_words: bool = True
    """the words of ReMedE's questions take part in training the tokenizer, so that prompts stay short"""
    start: date | None = None
    """first signed date of the corpus version; null: no bound"""
    end: date = date(2024, 1, 1)
    """the corpus ends before this date by signed time: the temporal_2 window must stay unseen"""
    categories: tuple[Literal["hospital", "pathology", "radiology"], ...] = (
        "hospital",
        "pathology",
        "radiology",
    )
    """note categories of the corpus version (NYU Notes+ has all three, 5.2.1)"""
    author_roles: tuple[str, ...] | None = None
    """author roles kept; null keeps all"""
    encounter_classes: tuple[str, ...] | None = None
    """classes of encounter kept (inpatient, emergency, outpatient), looked up in the records; null keeps every note"""
    leave_out_open_stays: bool = False
    """true: notes of a stay that ended at `end` or later stay out, though signed before: the windows of the tasks go by
    discharge, and would read such an H&P again; the records know when a stay ended"""
    transfer_hours: float = 24.0
    """encounters of a patient with a smaller gap are one stay of leave_out_open_stays; tasks.transfer_hours or more"""
    drop_duplicates: Literal["none", "exact", "near"] = "none"
    """which duplicates stay out: `exact` copies, or these and `near` ones; the paper's corpus keeps all"""
    duplicates: str | None = None
    """folder of lang1 duplicates over the same corpus; null: lang1 run makes it when drop_duplicates asks for it"""
    leave_out_folds: tuple[Literal["val", "test"], ...] = ()
    """patients of these folds stay out of the corpus: for records without dates, where no window keeps them unseen"""
    fold_ratio: tuple[float, float, float] = (8.0, 1.0, 1.0)
    """the folds of leave_out_folds: the same as tasks.split_ratio"""
    validation_fraction: float = 0.001
    """share of patients, and of web documents, held out for validation (5.3: 0.1 %)"""
    web: str | dict[str, str] | None = None
    """file or folder of web text (JSONL, JSONL.zst, Parquet, plain text; SlimPajama's layout); several sources as
    {name: path}, names that pretrain.mix weighs; null: clinical only"""
    web_by_set: bool = False
    """true: each of SlimPajama's sets (meta.redpajama_set_name) is a source of its own, such as web-RedPajamaC4"""
    web_required: bool = True
    """false: a web path that is not there gives a clinical-only mix, and the report says so"""
    shard_tokens: int = 100_000_000
    """tokens a shard file, at most"""
    workers: int = 0
    """processes that encode; 0 is one a core. The bytes do not depend on it"""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        """Bounds that would make an unusable tokenizer or split."""
        require(
            (self.vocab_size >= 300, "vocab_size", "at least 300 (256 bytes and the special tokens)"),
            (0 < self.validation_fraction < 0.5, "validation_fraction", "between 0 and 0.5"),
            (self.train_documents >= 1, "train_documents", "at least 1"),
            (self.shard_tokens >= 1, "shard_tokens", "at least 1"),
            (self.transfer_hours >= 0, "transfer_hours", "0 or more"),
            (self.start is None or self.start < self.end, "start", "before end"),
            (self.workers >= 0, "workers", "0 or more"),
            (bool(self.version.strip()) and self.version.isprintable(), "version", "a name"),
            (
                not isinstance(self.web, dict) or all(map(_is_source_name, self.web)),
                "web",
                "named in letters, digits and _, and not clinical or tokenizer",
            ),
            (
                self.duplicates is None or self.drop_duplicates != "none",
                "duplicates",
                "used only with drop_duplicates=exact or near: name one of them too",
            ),
        )


def _is_source_name(name: str) -> bool:
    """A folder of the tokens folder, and what stands before the hyphen in the name of a set."""
    return re.fullmatch(r"[A-Za-z0-9_]+", name) is not None and name not in {"clinical", "tokenizer"}
