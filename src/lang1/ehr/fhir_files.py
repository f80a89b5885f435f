"""The files of a FHIR bulk export: which hold what, and their lines one by one.

A file's type is the one resource type that its name holds (Patient.ndjson, Patient.000.ndjson.gz, 1.Patient.ndjson),
else the resourceType of its first line. A line that is no resource of that type is told with its number and goes on;
a file that ends in the middle, of a line or of its gzip stream, is damaged: what would follow is not known.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lang1.errors import InputError

TYPES = (
    "Patient",
    "Encounter",
    "Condition",
    "DocumentReference",
    "Composition",
    "Binary",
    "Claim",
    "ClaimResponse",
    "ExplanationOfBenefit",
    "Practitioner",
    "PractitionerRole",
    "Location",
    "Organization",
)
"""resource types that the SQL of source fhir can read"""
_NDJSON = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_GZIP = b"\x1f\x8b"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Line:
    """A line of a file: a resource, or the rule that it breaks."""

    number: int
    raw: bytes
    resource: dict[str, Any]
    rule: str | None = None


@dataclass
class Files:
    """Files of an export by resource type, in the order of their names; others by what they hold."""

    of_type: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    others: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """resource types that no query reads -> files"""


def find_files(root: Path) -> Files:
    """Every NDJSON file in and below `root`. Raises InputError where a file's type cannot be told."""
    found = Files()
    for path in sorted(root.rglob("*")):
        name = path.name.lower()
        is_ndjson = name.endswith(_NDJSON)
        # files without a suffix, as some servers name them, and .json only where their first line is a resource
        maybe = path.parent == root and ("." not in name or name.endswith((".json", ".json.gz")))
        if name.startswith(".") or not (is_ndjson or maybe) or not path.is_file() or path.stat().st_size == 0:
            continue
        named = {token for token in re.split(r"[^A-Za-z]+", path.name) if token in TYPES}
        kind = named.pop() if is_ndjson and len(named) == 1 else _first_type(path)
        if kind in TYPES:
            found.of_type[kind].append(path)
        elif kind is not None:
            found.others[kind] += 1
        elif is_ndjson:
            raise InputError(
                f"{path}: line 1 is no FHIR resource and the name holds no one resource type; "
                "name the file after its type (Patient.ndjson), or move it away"
            )
    return found


def _first_type(path: Path) -> str | None:
    try:
        with _opened(path) as source:
            first = next((line for line in source if line.strip()), b"")
        resource = json.loads(first.decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):
        return None
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    return kind if isinstance(kind, str) and kind.isalpha() else None


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as source:
        packed = source.read(2) == _GZIP  # a client may have kept the transfer's gzip under a plain name
    return gzip.open(path, "rb") if packed else path.open("rb")


def read_lines(path: Path, kind: str) -> Iterator[Line]:
    """The lines of a file that holds `kind`; blank ones are passed over.

    Raises InputError, with the line's number, where the file is cut off or damaged.
    """
    number = 0
    try:
        with _opened(path) as source:
            for raw in source:
                number += 1
                text = raw.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else raw.strip()
                if text:
                    line = _parse(number, text, kind)
                    if line.rule in ("not JSON", "not UTF-8") and not raw.endswith(b"\n"):
                        raise InputError(
                            f"{path}: line {number} ends in its middle: the file is cut off; export it again"
                        )
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read after line {number} ({error.__class__.__name__}): cut off or damaged; "
            "export it again"
        ) from None


def _parse(number: int, text: bytes, kind: str) -> Line:
    try:
        resource = json.loads(text.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        return Line(number, text, {}, "not UTF-8")
    except (ValueError, RecursionError):
        return Line(number, text, {}, "not JSON")
    if not isinstance(resource, dict):
        return Line(number, text, {}, "not an object")
    if resource.get("resourceType") != kind:
        return Line(number, text, resource, "another resourceType")
    if not isinstance(resource.get("id"), str) or not resource["id"]:
        return Line(number, text, resource, "no id")
    if _SURROGATE.search(text):
        # half a character, as cut texts hold: no database takes it
        resource = json.loads(mended(json.dumps(resource, ensure_ascii=False)))
        text = json.dumps(resource, ensure_ascii=False).encode()
    return Line(number, text, resource)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def mended(text: str) -> str:
    """Halves of characters joined; a lone half becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
