"""Web text (5.2.1): JSONL, JSONL.zst, JSONL.gz, Parquet or plain text, one file or a folder of them, read as a stream.

SlimPajama's layout, folders of .jsonl.zst with {"text": ..., "meta": {"redpajama_set_name": ...}}, is read as it is.
Several sources may stand side by side, each with a name that pretrain.mix can weigh; a source may be split by its sets.
Files are taken in the order of their paths, so the stream is the same on every machine. Text is used as it stands: it
is not cleaned to ASCII as notes are. A row that holds no text is counted by reason; a file that ends in the middle of
its compression is refused, since what it lost cannot be counted.

Plain text has no documents. Lines are joined until about a page (2,000 characters), then the document ends at the
next blank line, or at the next line end when it has doubled: a play's speeches come in pages, one article a line
stays one document. Files named SOURCE, README or LICENSE say where text comes from and are passed over.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lang1.config import TokenizeConfig
from lang1.corpus.rules import decode
from lang1.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet", ".txt")
PAGE_CHARACTERS = 2000
CHUNK_BYTES = 1 << 20
_ABOUT = re.compile(r"(?:source|readme|license)\b", re.I)
_SHARED = "../shared/data/"


def resolve(path: str) -> Path:
    """A path of a recipe: one that begins with ../shared/data follows the environment variable LANG1_DATA."""
    data = os.environ.get("LANG1_DATA")
    if data and (path + "/").startswith(_SHARED):
        return Path(data) / path.removeprefix(_SHARED.rstrip("/")).lstrip("/")
    return Path(path).expanduser()


Found = dict[str, Path | None]
"""a source's name -> its file or folder; None where that is not there and need not be"""


def find_sources(cfg: TokenizeConfig) -> Found:
    """The sources of web text that the configuration names. Raises InputError when one is not there but has to be."""
    named = cfg.web if isinstance(cfg.web, dict) else {"web": cfg.web} if cfg.web else {}
    found: Found = {}
    for name, text in named.items():
        path = resolve(text)
        if not path.exists() and cfg.web_required:
            key = f"tokenize.{key_of(cfg, name)}"
            raise InputError(f"{key}: {path}: not found; give its path, or tokenize.web_required=false")
        found[name] = path if path.exists() else None
    return found


def key_of(cfg: TokenizeConfig, name: str) -> str:
    """Where the configuration names a source."""
    return f"web.{name}" if isinstance(cfg.web, dict) else "web"


def name_of(source: str, named: str | None) -> str:
    """The source of a document of a set: web-RedPajamaC4. The set's name comes with the data: it may hold anything."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", named or "")[:60]
    return f"{source}-{plain}" if plain else source


def is_of(name: str, source: str) -> bool:
    """True for a source itself and for its sets; the names of sources hold no hyphen."""
    return name.split("-")[0] == source


def describe(cfg: TokenizeConfig, found: Found, counts: Counter[str]) -> dict[str, Any]:
    """What index.json says of web text: whether it was used, and what was left out of it."""
    sources: dict[str, dict[str, Any]] = {}
    for name, path in found.items():
        text = cfg.web[name] if isinstance(cfg.web, dict) else cfg.web
        rows = {key.partition(":")[2]: n for key, n in sorted(counts.items()) if key.partition(":")[0] == name}
        why = "found" if path is not None else f"{resolve(str(text))} not found"
        sources[name] = {"path": text, "used": path is not None, "why": why, "rows": rows}
    if not isinstance(cfg.web, dict):
        nothing: dict[str, Any] = {"path": None, "used": False, "why": "no web text in the configuration", "rows": {}}
        return sources.get("web", nothing)
    used = [name for name, path in found.items() if path is not None]
    why = "found" if used else "; ".join(str(facts["why"]) for facts in sources.values())
    return {"path": ", ".join(used), "used": bool(used), "why": why, "sources": sources}


def list_files(path: Path) -> list[Path]:
    """The files of text at `path`, in order. Raises InputError when there is none."""
    found = [path] if path.is_file() else sorted(path.rglob("*"), key=lambda p: p.relative_to(path).as_posix())
    files = [p for p in found if p.is_file() and p.name.endswith(SUFFIXES) and not _ABOUT.match(p.name)]
    if not files:
        raise InputError(f"tokenize.web: {path}: no file of text; web text is {', '.join(SUFFIXES)}")
    return files


def group_files(files: list[Path], size: int) -> Iterator[list[Path]]:
    """Files in their order, so many together as reach `size` bytes: SlimPajama's are small and 60,000."""
    group: list[Path] = []
    held = 0
    for path in files:
        group.append(path)
        held += path.stat().st_size
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


def iter_documents(files: Iterable[Path], counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    """The texts of the files, each with the name of its set where SlimPajama's meta gives one.

    `counts` grows by bad_<reason> for each row left out and set_<name> for each set.
    """
    for path in files:
        if path.name.endswith(".parquet"):
            texts: Iterator[tuple[str, str | None]] = ((text, None) for text in _iter_parquet(path, counts))
        elif path.name.endswith(".txt"):
            texts = ((text, None) for text in iter_pages(decode(line)[0] for line in _iter_lines(path)))
        else:
            texts = _iter_jsonl(path, counts)
        for text, named in texts:
            if not text or text.isspace():
                counts["bad_empty"] += 1
                continue
            if named is not None:
                counts[f"set_{named}"] += 1
            yield _whole(text), named


def _whole(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _is_broken(text) else text


def _is_broken(text: str) -> bool:
    """True for lone halves of a character, which JSON can write and no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


# --- rows ------------------------------------------------------------------------------------------------------


def _iter_jsonl(path: Path, counts: Counter[str]) -> Iterator[tuple[str, str | None]]:
    for line in _iter_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            counts["bad_not_json"] += 1
            continue
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            counts["bad_no_text"] += 1
            continue
        meta = row.get("meta")
        named = meta.get("redpajama_set_name") if isinstance(meta, dict) else None
        yield text, named if isinstance(named, str) else None


def _iter_parquet(path: Path, counts: Counter[str]) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as source:
            if "text" not in source.schema_arrow.names:
                raise InputError(f"tokenize.web: {path}: no column text")
            for batch in source.iter_batches(batch_size=1024, columns=["text"]):
                for text in batch["text"].to_pylist():
                    if isinstance(text, str):
                        yield text
                    else:
                        counts["bad_no_text"] += 1
    except (OSError, pa.ArrowException):
        raise InputError(f"tokenize.web: {path}: not readable as Parquet") from None


def iter_pages(lines: Iterable[str]) -> Iterator[str]:
    """Documents of about a page from plain lines."""
    page: list[str] = []
    length = 0
    for line in lines:
        is_blank = not line.strip()
        if page or not is_blank:
            page.append(line.rstrip("\r\n"))
            length += len(line)
        if length >= (PAGE_CHARACTERS if is_blank else 2 * PAGE_CHARACTERS):
            yield "\n".join(page).strip()
            page, length = [], 0
    if page:
        yield "\n".join(page).strip()


# --- lines -----------------------------------------------------------------------------------------------------


def _iter_lines(path: Path) -> Iterator[bytes]:
    try:
        if path.name.endswith((".zst", ".gz")) and path.stat().st_size == 0:  # nothing packed has a header
            raise EOFError
        if path.name.endswith(".zst"):
            yield from _split_lines(_iter_zstd(path))
        else:
            with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as source:
                yield from source
    except EOFError:
        raise InputError(f"tokenize.web: {path}: ends in the middle of its compression; fetch it again") from None
    except zlib.error:
        raise InputError(f"tokenize.web: {path}: not readable (broken compression); fetch it again") from None
    except OSError as error:
        raise InputError(f"tokenize.web: {path}: not readable ({error.strerror or 'broken compression'})") from None


def _iter_zstd(path: Path) -> Iterator[bytes]:
    """Decompressed chunks, frame after frame. zstandard's own stream reader ends a cut file without an error."""
    import zstandard

    frame = None
    try:
        with path.open("rb") as source:
            while data := source.read(CHUNK_BYTES):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(data)
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
    except zstandard.ZstdError:
        raise InputError(f"tokenize.web: {path}: not readable as zstd; fetch it again") from None
    if frame is not None:
        raise EOFError


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
