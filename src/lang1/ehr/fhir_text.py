"""The text of FHIR documents: attachments (base64 data, or a url to a file of the export) and Composition sections.

What is text is decoded here and taken out of the resource; what is not (a PDF, an image, an unreachable url) keeps its
reason. Nothing is fetched: a url leads to a file inside the export's folder, to a Binary resource of the export by its
id, or nowhere. Charset: the one that the content type names, else UTF-8; bytes that do not fit are read as UTF-8, then
as Windows-1252, as `lang1 clean` does. A Composition is its sections in order, each title as a heading over its
narrative, sections within sections after it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Content = dict[str, str | None]
"""One representation of a document: format (plain, html, rtf) where it can be read, text, binary_id where a Binary
holds the text, problem where there is none, digest"""

_FORMATS = {
    "text/plain": "plain",
    "text/markdown": "plain",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/rtf": "rtf",
    "application/rtf": "rtf",
    "application/x-rtf": "rtf",
}
_MIME = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,60}")
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.I)
_BINARY = re.compile(r"(?:^|/)Binary/([^/?]+)(?:/_history/[^/]+)?$")
_TAG = re.compile(r"<[^<>]*>")
_NO_WORD = re.compile(r"[^a-z0-9]+")


def attachments(document: dict[str, Any], root: Path) -> list[Content]:
    """The representations of a DocumentReference, in order; their `data` is taken out of it."""
    contents = []
    for item in _dicts(document.get("content")):
        attachment = item.get("attachment")
        if isinstance(attachment, dict):
            contents.append(_attachment(attachment, root))
    return contents


def binary(resource: dict[str, Any]) -> Content:
    """What a Binary holds; its `data` is taken out of it."""
    return _from_base64(resource.pop("data", None), _text(resource.get("contentType")))


def sections(composition: dict[str, Any]) -> Content:
    """The narrative of a Composition as HTML; sections and narrative are taken out of it."""
    narrative = composition.pop("text", None)
    parts = [part for section in _dicts(composition.pop("section", None)) for part in _section(section, 0)]
    if not any(is_div for is_div, _ in parts):
        parts = [(True, div) for div in [_div(narrative)] if div]
    if not parts:
        return _content(problem="no text in its sections")
    return _content("html", text="\n".join(text for _, text in parts))


def _section(section: dict[str, Any], depth: int) -> Iterator[tuple[bool, str]]:
    title, div = _text(section.get("title")), _div(section.get("text"))
    if title:
        yield False, f"<h2>{html.escape(title, quote=False)}</h2>"
    if div:
        yield True, div
    if depth < 50:
        for inner in _dicts(section.get("section")):
            yield from _section(inner, depth + 1)


def _div(narrative: Any) -> str | None:
    return _text(narrative.get("div")) if isinstance(narrative, dict) else None


def digest(kind: str | None, text: str | None) -> str | None:
    """Of the letters and digits alone: the same note as HTML and as plain text has the same."""
    if text is None:
        return None
    plain = html.unescape(_TAG.sub(" ", text)) if kind == "html" else text
    return hashlib.md5(_NO_WORD.sub("", plain.lower()).encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def _attachment(attachment: dict[str, Any], root: Path) -> Content:
    content_type, url = _text(attachment.get("contentType")), _text(attachment.get("url"))
    data = attachment.pop("data", None)
    if data is not None:
        return _from_base64(data, content_type)
    if url is None:
        return _content(problem="neither data nor url")
    file = _inside(url, root)
    if isinstance(file, Path):
        guessed = content_type or mimetypes.guess_type(file.name)[0]
        _, problem = _format(guessed)
        if problem is not None:
            return _content(problem=problem)
        try:
            return _decoded(file.read_bytes(), guessed)
        except OSError:
            return _content(problem="file of the url cannot be read")
    found = _BINARY.search(url)
    kind, problem = _format(content_type)
    if found and problem is None:
        return _content(kind or "plain", binary_id=unquote(found[1]), problem=file)
    return _content(problem=problem or file)


def _inside(url: str, root: Path) -> Path | str:
    """The file of the export that a url names, or why there is none."""
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"}:
            return "url leads to a server"
        if parts.scheme not in {"", "file"} or parts.netloc not in {"", "localhost"}:
            return "url of another kind"
        path = (root / unquote(parts.path)).resolve()
        if not path.is_relative_to(root.resolve()):
            return "url leads outside the export"
        return path if path.is_file() else "no such file or Binary in the export"
    except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, a circle of links
        return "url of another kind"


def _from_base64(data: Any, content_type: str | None) -> Content:
    _, problem = _format(content_type)
    if problem is not None:
        return _content(problem=problem)
    if not isinstance(data, str):
        return _content(problem="no data")
    try:
        # line breaks are common, other bytes are damage
        return _decoded(base64.b64decode("".join(data.split()), validate=True), content_type)
    except (binascii.Error, ValueError):
        return _content(problem="broken base64")


def _format(content_type: str | None) -> tuple[str | None, str | None]:
    """plain, html or rtf; else why it is not text. Both null where no type is given."""
    if content_type is None:
        return None, None
    mime = content_type.partition(";")[0].strip().lower()
    if mime in _FORMATS:
        return _FORMATS[mime], None
    return None, f"not text ({mime if _MIME.fullmatch(mime) else 'unknown type'})"


def _decoded(data: bytes, content_type: str | None) -> Content:
    kind, _ = _format(content_type)
    if kind is None and (data.startswith(b"%PDF") or b"\x00" in data):  # no type given
        return _content(problem="not text (unknown type)")
    named = _CHARSET.search(content_type or "")
    marked = ["utf-16"] if data.startswith((b"\xff\xfe", b"\xfe\xff")) else []
    for charset in [*([named[1]] if named else []), *marked, "utf-8-sig"]:
        try:
            return _content(kind or "plain", text=str(data, charset))
        except (UnicodeError, LookupError):
            continue
    return _content(kind or "plain", text=str(data, "cp1252", "replace"))


def _content(
    kind: str | None = None, *, text: str | None = None, binary_id: str | None = None, problem: str | None = None
) -> Content:
    return {"format": kind, "binary_id": binary_id, "problem": problem, "text": text, "digest": None}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
