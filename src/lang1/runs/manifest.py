"""manifest.json: what a complete stage was made from and what it wrote; what an input is.

A folder is complete when its manifest is there, written last.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from lang1 import __version__
from lang1.errors import InputError
from lang1.runs.files import read_json, sha256_file

MANIFEST = "manifest.json"
STARTED = ".started.json"
FORMAT = 1
_PACKAGES = (
    "numpy",
    "scipy",
    "pyarrow",
    "duckdb",
    "dask",
    "tokenizers",
    "torch",
    "transformers",
    "scikit-learn",
    "xgboost-cpu",
    "lm-eval",
)


def is_complete(folder: Path) -> bool:
    """True when a stage ended here."""
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete stage. Raises InputError when the folder is missing or unfinished."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; run the stage that writes it")
    if not is_complete(folder):
        raise InputError(f"{folder}: not complete (no {MANIFEST}); run the stage that writes it to its end")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST}: format {manifest.get('format') if isinstance(manifest, dict) else '?'}"
            f" is not the {FORMAT} that this version reads"
        )
    return manifest


def identify(path: Path, read_checked: str | None = None, only: tuple[str, ...] = ("*",)) -> str:
    """What an input is: what a stage wrote by that stage's manifest, a foreign file or folder by its content.

    Files that match the pattern `read_checked` are compared with the manifest by size alone; those that match none of
    `only` are not looked at.
    Foreign input over 2 GiB (a warehouse) is known by sizes and change times instead: hashing it would cost minutes.
    """
    if not path.exists():
        raise InputError(f"{path}: not found")
    for folder in (path, *path.resolve().parents)[:4]:
        if folder.is_dir() and is_complete(folder) and not _is_foreign(folder / MANIFEST):
            inside = "" if folder == path else path.resolve().relative_to(folder).as_posix()
            manifest = read_manifest(folder)
            if not inside or any(name == inside or name.startswith(inside + "/") for name in manifest["files"]):
                check_files(folder, manifest, inside, read_checked, only)
                return f"{manifest['identity']}{'/' if inside else ''}{inside}"
    if path.is_dir() and (path / STARTED).exists():
        raise InputError(f"{path}: not complete; run the stage that writes it to its end")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    sizes = {p: p.stat().st_size for p in files}
    by_content = sum(sizes.values()) <= 2 * 2**30
    facts = [
        (p.relative_to(path).as_posix(), size, sha256_file(p) if by_content else p.stat().st_mtime_ns)
        for p, size in sizes.items()
    ]
    return "files:" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _is_foreign(manifest: Path) -> bool:
    """A manifest.json that no stage wrote: a FHIR bulk export has one of its own."""
    content = manifest.read_bytes()
    return not (b'"stage"' in content and b'"identity"' in content)


def check_files(
    folder: Path,
    manifest: dict[str, Any],
    inside: str = "",
    read_checked: str | None = None,
    only: tuple[str, ...] = ("*",),
) -> None:
    """Compare a stage's files with its manifest, as in `identify`. Raises InputError at the first that differs."""
    for name, facts in manifest["files"].items():
        if inside and name != inside and not name.startswith(inside + "/"):
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in only):
            continue
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: missing, though {MANIFEST} lists it; run that stage again with --force")
        by_size = read_checked is not None and fnmatch.fnmatchcase(name, read_checked)
        if path.stat().st_size != facts["bytes"] or not (by_size or sha256_file(path) == facts["sha256"]):
            raise InputError(f"{path}: changed since its stage ended (hash differs); run that stage again with --force")


def refuse_if_changed(out: Path, before: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InputError, with what differs, when a folder was made otherwise than it is asked for now."""
    if before.get("stage") != wanted["stage"]:
        raise InputError(
            f"{out}: belongs to the stage {before.get('stage')}, not {wanted['stage']}; choose another --out"
        )
    old, new = _flatten(before), _flatten(wanted)
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if changed:
        shown = ", ".join(_describe(key, old, new) for key in changed[:6]) + (" ..." if len(changed) > 6 else "")
        raise InputError(
            f"{out}: made with other settings or inputs ({shown}); choose another --out, or --force to make it again"
        )


def _describe(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    if key.startswith("inputs."):
        return f"{key} changed"
    return f"{key.removeprefix('config.')}: {old.get(key)} -> {new.get(key)}"


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in value.keys() & {"stage", "config", "seed", "inputs"} if not prefix else value.keys():
        item = value[key]
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def manifest_of(
    out: Path,
    wanted: dict[str, Any],
    counts: dict[str, int],
    facts: dict[str, Any],
    started: str,
    seconds: float,
) -> dict[str, Any]:
    """The manifest of a stage that has just ended: every file of `out` with its hash."""
    files = {
        str(p.relative_to(out)): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
        for p in sorted(out.rglob("*"))
        if p.is_file() and not p.name.startswith(".") and p.name != MANIFEST
    }
    # A DuckDB file's bytes depend on the order in which its threads flush; what it holds is fixed by config and seed.
    content = {name: file["sha256"] for name, file in files.items() if not name.endswith(".duckdb")}
    identity = hashlib.sha256(json.dumps({**wanted, "files": content}, sort_keys=True).encode()).hexdigest()
    return {
        **wanted,
        "format": FORMAT,
        "identity": identity,
        "counts": counts,
        "facts": facts,
        "files": files,
        "versions": versions(),
        "git": _git_revision(),
        "started": started,
        "seconds": round(seconds, 3),
        "peak_memory_mib": round(peak_memory_mib(), 1),
    }


def peak_memory_mib() -> float:
    """Largest resident size of this process or of one of its ended children, MiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def versions() -> dict[str, str]:
    """What lang1 and the libraries that decide its numbers are here."""
    import importlib.metadata  # only where a manifest is written, not for the help

    found = {"lang1": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
