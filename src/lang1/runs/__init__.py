"""Run folders: files that appear whole, manifests, locks, idempotent stages, progress lines.

    progress.py   lines on stderr
    files.py      atomic writes: the only module that opens an output for writing
    locking.py    one writer a folder
    manifest.py   what a stage was made from and what it wrote
    stage.py      done once, resumed, refused when changed

Other rooms say `from lang1 import runs` and use the names below.
"""

from lang1.runs.files import (
    append_lines,
    atomic_path,
    atomic_write,
    disk_error,
    file_mode,
    link,
    overwrite,
    parquet_writer,
    read_json,
    read_lines,
    replace_folder,
    set_file_mode,
    sha256_file,
    undo_replacing,
    write_json,
    write_lines,
    write_table,
    write_text,
)
from lang1.runs.locking import LOCK, is_locked, lock
from lang1.runs.manifest import (
    FORMAT,
    MANIFEST,
    STARTED,
    identify,
    is_complete,
    peak_memory_mib,
    read_manifest,
    versions,
)
from lang1.runs.progress import is_quiet, say, set_quiet
from lang1.runs.stage import SCRATCH, Stage, run_stage

__all__ = [
    "FORMAT",
    "LOCK",
    "MANIFEST",
    "SCRATCH",
    "STARTED",
    "Stage",
    "append_lines",
    "atomic_path",
    "atomic_write",
    "disk_error",
    "file_mode",
    "identify",
    "is_complete",
    "is_locked",
    "is_quiet",
    "link",
    "lock",
    "overwrite",
    "parquet_writer",
    "peak_memory_mib",
    "read_json",
    "read_lines",
    "read_manifest",
    "replace_folder",
    "run_stage",
    "say",
    "set_file_mode",
    "set_quiet",
    "sha256_file",
    "undo_replacing",
    "versions",
    "write_json",
    "write_lines",
    "write_table",
    "write_text",
]
