"""Stages: done once, skipped when unchanged, resumed when killed, refused when changed or damaged."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lang1.errors import InputError, Unfinished
from lang1.runs import manifest as manifests
from lang1.runs.files import read_json, write_json
from lang1.runs.locking import LOCK, lock
from lang1.runs.manifest import MANIFEST, STARTED
from lang1.runs.progress import say

SCRATCH = ".scratch"


@dataclass
class Stage:
    """What a stage's work sees: where to write, and what to tell the manifest."""

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, **counts: int) -> None:
        """Rows in, out, left out by reason: whole numbers for the manifest."""
        self.counts.update({key: int(value) for key, value in counts.items()})

    def record(self, **facts: Any) -> None:
        """Other facts for the manifest (JSON values, never note text)."""
        self.facts.update(facts)

    def scratch(self) -> Path:
        """A folder for what a killed run may leave behind; removed when the stage ends."""
        path = self.out / SCRATCH
        path.mkdir(parents=True, exist_ok=True)
        return path


def run_stage(
    out: Path,
    name: str,
    config: dict[str, Any],
    seed: int,
    inputs: Mapping[str, Path | str],
    work: Callable[[Stage], None],
    force: bool = False,
    read_checked: Mapping[str, str] | None = None,
    only: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Any]:
    """Do `work` once: complete and unchanged, it is skipped; killed, it resumes; changed or damaged, it is refused.

    `force` replaces what was changed or damaged instead. Returns the manifest. `inputs` are folders of earlier
    stages or files; the former are checked against the hashes in their manifests. An input that is text names
    something whose change cannot be seen, a database: `force` then makes the stage again in any case.
    `read_checked` gives, by input, a pattern of files whose bytes `work` checks as it reads them: of those only the
    sizes are compared here, so that 100 GB of tokens are not read before the first step. `only` gives, by input, the
    patterns of the files that `work` may read: no other file of it is opened, nor need it be there.
    Raises InputError for a changed input, a foreign folder or a lock held by another run.
    """
    wanted = {
        "stage": name,
        "config": config,
        "seed": seed,
        "inputs": {
            key: path
            if isinstance(path, str)
            else manifests.identify(path, (read_checked or {}).get(key), (only or {}).get(key, ("*",)))
            for key, path in inputs.items()
        },
    }
    with lock(out):
        if force and any(isinstance(path, str) for path in inputs.values()):
            _clear(out)
        try:
            done = _unchanged(out, wanted)
        except InputError:
            if not force:
                raise
            _clear(out)
            done = None
        if done is not None:
            say(f"{name}: up to date ({out})")
            return done
        resumed = (out / STARTED).exists()
        for leftover in out.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        write_json(out / STARTED, wanted)
        say(f"{name}: {'resuming' if resumed else 'started'} ({out})")
        started, clock = time.strftime("%FT%T"), time.monotonic()
        stage = Stage(out)
        try:
            work(stage)
        except InputError as error:
            _forget_if_empty(out, goes_on=isinstance(error, Unfinished))
            raise
        shutil.rmtree(out / SCRATCH, ignore_errors=True)
        manifest = manifests.manifest_of(out, wanted, stage.counts, stage.facts, started, time.monotonic() - clock)
        write_json(out / MANIFEST, manifest)
        (out / STARTED).unlink(missing_ok=True)
    say(f"{name}: done in {manifest['seconds']:.1f} s")
    return manifest


def _forget_if_empty(out: Path, goes_on: bool) -> None:
    """After bad input that was refused before anything was written: the mended command starts afresh.

    A log in the scratch folder counts as written: it holds answers that were paid for. So does every file there where
    the same command `goes_on`.
    """
    kept = [
        p
        for p in out.rglob("*")
        if p.is_file()
        and p.name not in {LOCK, STARTED}
        and (goes_on or SCRATCH not in p.parts or (p.suffix == ".jsonl" and p.stat().st_size))
    ]
    if kept:
        return
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    # What another process wrote meanwhile would otherwise be taken for a stranger's by the next run.
    if not (out / SCRATCH).exists():
        (out / STARTED).unlink(missing_ok=True)


def _unchanged(out: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest when the stage is complete and made from the same, None when it is still to be done."""
    if (out / MANIFEST).exists():
        manifest = manifests.read_manifest(out)
        manifests.refuse_if_changed(out, manifest, wanted)
        manifests.check_files(out, manifest)
        return manifest
    if (out / STARTED).exists():
        manifests.refuse_if_changed(out, read_json(out / STARTED), wanted)
    elif _holds_others_files(out):
        raise InputError(f"{out}: holds files that no lang1 stage wrote; choose an empty folder")
    return None


def _holds_others_files(out: Path) -> bool:
    """True with a file that no stage wrote; what a kill leaves before STARTED has its name is ours."""
    return any(
        not (p.name == LOCK or (p.name.startswith(f".{STARTED}.") and p.suffix == ".tmp")) for p in out.iterdir()
    )


def _clear(out: Path) -> None:
    if not ((out / MANIFEST).exists() or (out / STARTED).exists()) and _holds_others_files(out):
        raise InputError(f"{out}: holds files that no lang1 stage wrote; --force does not delete those")
    for path in out.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
