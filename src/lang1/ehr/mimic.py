"""Sources `mimic3` and `mimic4`: folders of CSV or CSV.gz as PhysioNet ships them, a view a table.

MIMIC-III is one flat folder, MIMIC-IV has hosp/ and icu/, and MIMIC-IV-Note is a data set of its own. Column names may
be upper or lower case (the demo's are lower). What the columns mean is in sql/mimic3 and sql/mimic4; here is only
where the files lie. Both shift every patient's dates by an offset of their own, so a calendar year means nothing:
the manifest says `dates_shifted`, and what would split by calendar refuses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.ehr.files import CSV, make_view, table_name
from lang1.errors import InputError

if TYPE_CHECKING:
    from lang1.config import ExtractConfig
    from lang1.ehr.sources import Source

_VERSION = re.compile(r"\d+(\.\d+)*")
"""a release folder: physionet.org/files/mimiciv/2.2"""


def open_mimic3(source: Source, path: Path, _scratch: Path) -> dict[str, set[str]]:
    """A view a CSV file of the flat MIMIC-III folder; returns their columns. Raises InputError."""
    source.facts["dates_shifted"] = True
    return _open_folders(source, [_folder(path, "mimic3")])


def open_mimic4(source: Source, path: Path, _scratch: Path) -> dict[str, set[str]]:
    """A view a CSV file of hosp/, icu/ and the notes' folder; returns their columns. Raises InputError."""
    source.facts["dates_shifted"] = True
    folders = [folder for folder in (_hosp(path), path / "icu") if folder.is_dir()]
    if source.notes is not None:
        source.facts["notes_from"] = str(source.notes)
        runs.say(f"extract: notes from {source.notes}")
        folders.append(source.notes)
    return _open_folders(source, folders)


def notes_of(cfg: ExtractConfig, place: Path) -> Path | None:
    """The folder of the notes, where the source has one to look for."""
    if cfg.source != "mimic4" or cfg.without_notes:
        return None
    _hosp(place)  # a folder that is no MIMIC-IV at all is not asked for its notes
    return find_notes(place, cfg.notes_path)


def notes_apart(cfg: ExtractConfig, place: Path | str) -> Path | None:
    """The same, where it lies outside the source's folder and so is an input of its own."""
    notes = notes_of(cfg, place) if isinstance(place, Path) else None
    return None if notes is None or notes.is_relative_to(place) else notes


def find_notes(path: Path, given: str | None) -> Path:
    """The folder with discharge.csv and radiology.csv of MIMIC-IV-Note.

    `given` or else `path` itself, or else a folder beside `path` (beside its release folder, where that is a number)
    with "note" in its name; in each of these the files may lie in note/, and one release folder down. Raises
    InputError when none has them, or more than one beside `path`.
    """
    if given is not None:
        found = _notes_in(Path(given))
        if not found:
            raise InputError(
                f"{given}: no discharge.csv or discharge.csv.gz in it or in its note/ (extract.notes_path)"
            )
    else:
        found = _notes_in(path)[:1]
        if not found:
            here = path.resolve()
            beside = here.parent if _VERSION.fullmatch(here.name) else here
            if beside.parent.is_dir():
                others = [f for f in sorted(beside.parent.iterdir()) if "note" in f.name.lower() and f != beside]
                found = [notes for folder in others for notes in _notes_in(folder)]
    if not found:
        raise InputError(
            f"{path}: no discharge.csv in note/, and no *note* folder with one beside it; name the MIMIC-IV-Note "
            "folder with --notes, or extract stays and codes alone with --without-notes"
        )
    if len(found) > 1:
        listed = ", ".join(str(folder) for folder in found)
        raise InputError(
            f"{path}: notes in {len(found)} folders ({listed}); name one with --notes (extract.notes_path)"
        )
    return found[0]


def _notes_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    for inside in (folder / "note", folder):
        if _tables(inside).get("discharge"):
            return [inside]
    releases = [f for f in sorted(folder.iterdir()) if f.is_dir() and _VERSION.fullmatch(f.name)]
    return [notes for release in releases for notes in _notes_in(release)]


def _folder(path: Path, kind: str) -> Path:
    if not path.is_dir():
        raise InputError(f"{path}: not a folder; {kind} reads the folder of CSV or CSV.gz files that PhysioNet ships")
    return path


def _hosp(path: Path) -> Path:
    if not (_folder(path, "mimic4") / "hosp").is_dir():
        raise InputError(f"{path}: no folder hosp in it; mimic4 reads the folder that holds hosp/ and icu/")
    return path / "hosp"


def _tables(folder: Path) -> dict[str, list[Path]]:
    """CSV files by table, in lower case: NOTEEVENTS.csv.gz is noteevents."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        table = table_name(file)
        if table is not None and file.is_file() and {s.lower() for s in file.suffixes} & CSV.keys():
            found.setdefault(table.lower(), []).append(file)
    return found


def _open_folders(source: Source, folders: list[Path]) -> dict[str, set[str]]:
    there: dict[str, set[str]] = {}
    for folder in folders:
        for table, files in _tables(folder).items():
            before = source.files.get(table)
            files = ([before] if before else []) + files
            if len(files) > 1:
                raise InputError(f"{files[1]}: a second file of the table {table}, beside {files[0]}; keep one of them")
            source.files[table] = files[0]
            there[table] = make_view(source.con, table, files[0])
    if not there:
        raise InputError(f"{folders[0]}: no CSV or CSV.gz file in it")
    return there
