"""Finished pieces of a result, kept beside it in the folder OUT.part until the whole can be written.

    OUT.part/asked.json       what the pieces are of: model, notes, question, everything that their numbers depend on
    OUT.part/000000.parquet   a piece, whole

The same command goes on with the pieces that are there; another begins anew. One process at a time has the folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs

if TYPE_CHECKING:
    import pyarrow as pa

ASKED = "asked.json"


@dataclass(frozen=True)
class Parts:
    """The pieces of one result, by their number."""

    folder: Path

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def has(self, number: int) -> bool:
        """Whether a piece is there."""
        return self._path(number).is_file()

    def write(self, number: int, table: pa.Table) -> None:
        """Keep a piece."""
        runs.write_table(self._path(number), table)

    def column(self, number: int, name: str) -> list[int]:
        """A column of a piece."""
        import pyarrow.parquet as pq

        values: list[int] = pq.read_table(self._path(number), columns=[name])[name].to_pylist()
        return values

    def read(self) -> Iterator[pa.Table]:
        """All pieces in their order."""
        import pyarrow.parquet as pq

        for path in sorted(self.folder.glob("*.parquet")):
            yield pq.read_table(path)

    def finish(self) -> None:
        """Forget the pieces: the whole is written."""
        _clear(self.folder)


@contextlib.contextmanager
def open_parts(out: Path, asked: dict[str, Any]) -> Iterator[Parts]:
    """The pieces of the file `out`, as far as they were made of the same; those of another command are deleted.

    Raises InputError while another process has them.
    """
    folder = out.with_name(f"{out.name}.part")
    try:
        with runs.lock(folder):
            for torn in [*out.parent.glob(f".{out.name}.*.tmp"), *folder.glob(".*.tmp")]:
                torn.unlink(missing_ok=True)  # of a killed process: this one has the lock
            path = folder / ASKED
            if not path.is_file() or runs.read_json(path) != asked:
                _clear(folder)
                runs.write_json(path, asked)
            elif any(folder.glob("*.parquet")):
                runs.say(f"resuming ({folder})")
            parts = Parts(folder)
            try:
                yield parts
            finally:
                if not parts.has(0):
                    _clear(folder)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing is left in it


def _clear(folder: Path) -> None:
    """Delete what is ours; the description last, so that no piece is ever without it."""
    for path in [*folder.glob("*.parquet"), folder / ASKED]:
        path.unlink(missing_ok=True)
