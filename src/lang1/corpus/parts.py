"""Part files of a table, read some rows at a time; and joined in order: the bytes do not depend on how rows came."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lang1 import runs
from lang1.errors import InputError

GROUP_ROWS = 20_000
"""rows a Parquet row group, at most: what a later stage decodes at a time"""
GROUP_BYTES = 8_000_000
"""bytes of text at which a row group ends, however few its rows"""
PART_GROUPS = 10
"""row groups a part file"""


def iter_rows(path: Path, names: list[str], rows: int, group: int | None = None) -> Iterator[pa.Table]:
    """Columns of a file, or of one row group, `rows` rows at a time. Raises InputError where they cannot be read."""
    try:
        with pq.ParquetFile(path) as source:
            missing = [name for name in names if name not in source.schema_arrow.names]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}; give the folder that the stage before wrote")
            groups = None if group is None else [group]
            for batch in source.iter_batches(batch_size=rows, row_groups=groups, columns=names):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException):
        raise InputError(f"{path}: not readable as Parquet; run the stage that wrote it again with --force") from None


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema with plain strings for categories: dictionaries would differ between partitions."""
    return pa.schema(
        [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in schema]
    )


class Parts:
    """Rows with a column `text`, added in order. A row group ends with the note that fills its rows or bytes."""

    def __init__(self, folder: Path, schema: pa.Schema, mode: int | None) -> None:
        self.folder, self.schema, self.mode = folder, schema, mode
        self.waiting: list[pa.Table] = []
        self.rows = self.bytes = self.parts = self.groups = 0
        self.open = ExitStack()
        self.writer: Any = None

    def add(self, table: pa.Table) -> None:
        """Write every row group that the rows fill; the rest waits."""
        while len(table):
            sizes = np.cumsum(pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy())
            full = int(np.searchsorted(sizes, GROUP_BYTES - self.bytes)) + 1
            take = min(full, GROUP_ROWS - self.rows, len(table))
            self.waiting.append(table.slice(0, take))
            self.rows, self.bytes = self.rows + take, self.bytes + int(sizes[take - 1])
            if self.rows == GROUP_ROWS or self.bytes >= GROUP_BYTES:
                self._write_group()
            table = table.slice(take)

    def finish(self) -> None:
        """Write what waits; a part without rows when there never were any."""
        if self.waiting or not self.parts:
            self._write_group()
        self.open.close()

    def _write_group(self) -> None:
        if self.writer is None or self.groups == PART_GROUPS:
            self.open.close()
            path = self.folder / f"part-{self.parts:05d}.parquet"
            temporary = self.open.enter_context(runs.atomic_path(path, self.mode))
            # a dictionary and statistics of notes help nobody, and take a long note's length several times over
            named = [name for name in self.schema.names if name != "text"]
            how = {"compression": "zstd", "use_dictionary": named, "write_statistics": named}
            self.writer = self.open.enter_context(pq.ParquetWriter(temporary, self.schema, **how))
            self.parts, self.groups = self.parts + 1, 0
        table = pa.concat_tables(self.waiting) if self.waiting else plain(self.schema).empty_table()
        self.waiting, self.rows, self.bytes = [], 0, 0
        self.writer.write_table(_encoded(table, self.schema))
        self.groups += 1


@contextlib.contextmanager
def open_parts(folder: Path, schema: pa.Schema, mode: int | None) -> Iterator[Parts]:
    """Parts that are whole when the block ends; when it fails, the one begun is taken away."""
    parts = Parts(folder, schema, mode)
    try:
        yield parts
        parts.finish()
    except BaseException:
        with contextlib.suppress(OSError, InputError):
            parts.open.__exit__(*sys.exc_info())
        raise


def _encoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Categories as dictionaries in order of first appearance: the same rows, the same bytes."""
    table = table.combine_chunks()
    columns = [
        table[field.name].dictionary_encode() if pa.types.is_dictionary(field.type) else table[field.name]
        for field in schema
    ]
    return pa.table(columns, schema=schema)
