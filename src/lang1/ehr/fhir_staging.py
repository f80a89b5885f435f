"""Lines of a FHIR export to Parquet in the scratch folder, one file a resource type: what source `fhir` has views over.

Each line is parsed once. The text of documents is decoded beside its resource (fhir_text.py); what a resource contains
becomes a resource of its own; what is no resource goes to aside.parquet with its file and line. Memory holds one batch
of lines a type.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lang1 import runs
from lang1.ehr import fhir_text
from lang1.ehr.fhir_files import TYPES, Files, Line, mended, read_lines

if TYPE_CHECKING:
    import duckdb
    import pyarrow.parquet as pq

DOCUMENTS = ("DocumentReference", "Composition", "Binary")
HOISTED = ("Practitioner", "PractitionerRole", "Location", "Organization", "Condition", "Binary")
"""types that are taken out of `contained`, under the id <id of the resource>#<id within>"""
ASIDE = "aside"
BATCH_ROWS, BATCH_BYTES = 5_000, 16 * 2**20

_CONTENT = pa.list_(pa.struct([(name, pa.string()) for name in ("format", "binary_id", "problem", "digest")]))
_STAGED = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("updated", pa.string()),
        ("md5", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("patient_id", pa.string()),
        ("resource", pa.large_string()),
        ("content", _CONTENT),
        ("texts", pa.list_(pa.large_string())),
    ]
)
_ASIDE = pa.schema(
    [
        ("rule", pa.string()),
        ("resource_type", pa.string()),
        ("id", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("patient_id", pa.string()),
        ("resource", pa.large_string()),
        ("text", pa.large_string()),
    ]
)


class _Batches:
    """Rows waiting for each file; a full batch becomes a row group. A file is made when its first batch is written."""

    def __init__(self, con: duckdb.DuckDBPyConnection, folder: Path, stack: contextlib.ExitStack) -> None:
        self._con, self._folder, self._stack = con, folder, stack
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._bytes: Counter[str] = Counter()
        self._open: dict[str, pq.ParquetWriter] = {}
        self.problems: Counter[str] = Counter()

    def add(self, name: str, row: dict[str, Any], size: int) -> None:
        """Let a row wait for the file of its type, or for aside.parquet."""
        if name == ASIDE:
            self.problems[row["rule"]] += 1
        self._rows[name].append(row)
        self._bytes[name] += size
        if len(self._rows[name]) >= BATCH_ROWS or self._bytes[name] >= BATCH_BYTES:
            self.write(name)

    def write(self, name: str) -> None:
        """Write what waits for a file."""
        rows, schema = self._rows.pop(name, []), _ASIDE if name == ASIDE else _STAGED
        self._bytes[name] = 0
        try:
            table = pa.Table.from_pylist(rows, schema)
        except UnicodeEncodeError:  # halves of characters, by a charset that allows them
            table = pa.Table.from_pylist([_mended(row) for row in rows], schema)
        if name != ASIDE and rows:
            table = self._readable(name, table)
        if table.num_rows:
            if name not in self._open:
                writer = runs.parquet_writer(self._folder / f"{name}.parquet", schema, 0o600)
                self._open[name] = self._stack.enter_context(writer)
            self._open[name].write_table(table)

    def _readable(self, kind: str, table: pa.Table) -> pa.Table:
        """Without the resources that DuckDB does not read as JSON: it refuses a little of what Python takes."""
        self._con.register("staging", table)
        valid = [ok for (ok,) in self._con.execute("SELECT json_valid(resource) FROM staging").fetchall()]
        self._con.unregister("staging")
        if all(valid):
            return table
        for row in table.filter(pa.array([not ok for ok in valid])).to_pylist():
            self.add(ASIDE, _aside("not JSON", kind, row), len(row["resource"]))
        return table.filter(pa.array(valid))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {key: _mended(item) for key, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value


def stage(
    con: duckdb.DuckDBPyConnection, root: Path, files: Files, staged: Path, most: int | None = None
) -> tuple[dict[str, dict[str, int]], Counter[str]]:
    """Write staged/<type>.parquet, and staged/aside.parquet, where there are any rows; `most` lines of each file.

    Returns files and lines by type, and what was set aside by rule. Raises InputError for a damaged file.
    """
    counts: dict[str, dict[str, int]] = {}
    # digests of the text are needed only where one note can stand in both
    compare = bool(files.of_type.get("DocumentReference")) and bool(files.of_type.get("Composition"))
    with contextlib.ExitStack() as stack:
        batches = _Batches(con, staged, stack)
        row = 0
        for kind in TYPES:
            counts[kind] = {"files": len(files.of_type.get(kind, [])), "lines": 0}
            for path in files.of_type.get(kind, []):
                name = path.relative_to(root).as_posix()
                for line in itertools.islice(read_lines(path, kind), most):
                    counts[kind]["lines"] += 1
                    if line.rule is not None:
                        batches.add(ASIDE, _bad_line(line, kind, name), len(line.raw))
                        continue
                    for of_kind, resource, raw in _hoisted(line, kind):
                        row += 1
                        record = _record(of_kind, resource, raw, root, compare)
                        batches.add(of_kind, record | {"row": row, "file": name, "line": line.number}, len(raw))
        for name in (*TYPES, ASIDE):
            batches.write(name)
    return counts, batches.problems


def _record(kind: str, resource: dict[str, Any], raw: bytes, root: Path, compare: bool) -> dict[str, Any]:
    """A row of a staged table; the text of a document stands beside its resource, not in it."""
    content: list[fhir_text.Content] = []
    if kind == "DocumentReference":
        content = fhir_text.attachments(resource, root)
    elif kind == "Composition":
        content = [fhir_text.sections(resource)]
    elif kind == "Binary":
        content = [fhir_text.binary(resource)]
    texts = [item.pop("text") for item in content]
    if compare:
        for item, text in zip(content, texts, strict=True):
            item["digest"] = fhir_text.digest(item["format"], text)
    meta = resource.get("meta")
    return {
        "id": resource["id"],
        "updated": meta.get("lastUpdated") if isinstance(meta, dict) and _is_text(meta.get("lastUpdated")) else None,
        "md5": hashlib.md5(raw, usedforsecurity=False).hexdigest(),
        "patient_id": _patient_of(kind, resource),
        # without what was taken out of it
        "resource": json.dumps(resource, ensure_ascii=False) if kind in DOCUMENTS else raw.decode("utf-8"),
        "content": content,
        "texts": texts,
    }


def _patient_of(kind: str, resource: dict[str, Any]) -> str | None:
    """Whose resource it is, to keep what is excluded out of the rejects."""
    if kind == "Patient":
        return str(resource.get("id"))
    for key in ("subject", "patient"):
        reference = resource.get(key)
        text = reference.get("reference") if isinstance(reference, dict) else None
        if isinstance(text, str):
            return text.partition("/_history/")[0].rpartition("/")[2].removeprefix("urn:uuid:")
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _bad_line(line: Line, kind: str, name: str) -> dict[str, Any]:
    found = {
        "id": line.resource.get("id") if _is_text(line.resource.get("id")) else None,
        "patient_id": _patient_of(kind, line.resource) if line.resource.get("resourceType") != "Patient" else None,
        "file": name,
        "line": line.number,
        "resource": line.raw.decode("utf-8", "backslashreplace"),
    }
    return _aside(str(line.rule), kind, found)


def _aside(rule: str, kind: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"rule": rule, "resource_type": kind, "text": None} | {
        key: row.get(key) for key in ("id", "file", "line", "patient_id", "resource")
    }


def _hoisted(line: Line, kind: str) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """The resource, and those that it contains as resources of their own; references to them name the new ids."""
    resource = line.resource
    contained = resource.get("contained")
    inner = [
        item
        for item in (contained if isinstance(contained, list) else [])
        if isinstance(item, dict) and item.get("resourceType") in HOISTED and _is_text(item.get("id"))
    ]
    if not inner:
        yield kind, resource, line.raw
        return
    ids = {f"#{item['id']}": f"{item['resourceType']}/{resource['id']}#{item['id']}" for item in inner}
    resource = _renamed({key: value for key, value in resource.items() if key != "contained"}, ids)
    yield kind, resource, json.dumps(resource, ensure_ascii=False).encode()
    for item in inner:
        moved = _renamed(item, ids) | {"id": f"{resource['id']}#{item['id']}", "meta": resource.get("meta")}
        yield str(item["resourceType"]), moved, json.dumps(moved, ensure_ascii=False).encode()


def _renamed(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: ids.get(item, item) if key in ("reference", "url") and _is_text(item) else _renamed(item, ids)
            for key, item in value.items()
        }
    return [_renamed(item, ids) for item in value] if isinstance(value, list) else value
