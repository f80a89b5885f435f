"""Task rows and left-out encounters as Parquet files: ordered by id, in row groups of a fixed size, so same bytes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from lang1 import runs
from lang1.errors import InputError
from lang1.tasks.cohort import Step
from lang1.tasks.database import count
from lang1.tasks.schema import LEFT_OUT, ROWS, SPLITS

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 5_000


class Groups:
    """Gathers batches of one file into row groups of GROUP_ROWS: their borders depend on the rows alone."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.writer = writer
        self.schema = schema
        self.waiting: list[pa.Table] = []
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Take rows that follow those before."""
        self.waiting.append(table.select(self.schema.names).cast(self.schema))
        self.rows += table.num_rows
        while sum(t.num_rows for t in self.waiting) >= GROUP_ROWS:
            joined = self._joined()
            self.writer.write_table(joined.slice(0, GROUP_ROWS).combine_chunks())
            self.waiting = [joined.slice(GROUP_ROWS)]

    def finish(self) -> None:
        """Write what is left."""
        if any(t.num_rows for t in self.waiting):
            self.writer.write_table(self._joined().combine_chunks())

    def _joined(self) -> pa.Table:
        import pyarrow as pa

        return pa.concat_tables(self.waiting)


def write_rows(database: duckdb.DuckDBPyConnection, task: str, folder: Path) -> None:
    """One file a split, also for a split without rows, from `rows_<task>` and the texts of the cleaned notes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    reader = database.sql(
        f"SELECT '{task}' AS task, rows_{task}.*, clean_notes.text FROM rows_{task} JOIN clean_notes USING (note_id) "
        "ORDER BY row_id"
    ).to_arrow_reader(GROUP_ROWS)
    with contextlib.ExitStack() as files:
        groups = {
            split: Groups(files.enter_context(runs.parquet_writer(folder / f"{split}.parquet", ROWS)), ROWS)
            for split in SPLITS
        }
        for batch in reader:
            table = pa.Table.from_batches([batch])
            for split in SPLITS:
                groups[split].add(table.filter(pc.equal(table["split"], split)))
        for group in groups.values():
            group.finish()
    written, wanted = sum(group.rows for group in groups.values()), count(database, f"SELECT count(*) FROM rows_{task}")
    if written != wanted:
        raise InputError(f"tasks: {task}: {wanted} rows but {written} texts: records and corpus do not belong together")


def write_left_out(database: duckdb.DuckDBPyConnection, steps: list[Step], path: Path) -> None:
    """Every encounter that is not a row of the task, with the number and words of the first rule that it failed."""
    import pyarrow as pa

    task = steps[0].task
    rules = pa.array([step.rule for step in steps])
    reader = database.sql(
        f"SELECT encounter_id, step FROM reasons_{task} WHERE step IS NOT NULL ORDER BY encounter_id"
    ).to_arrow_reader(GROUP_ROWS)
    with runs.parquet_writer(path, LEFT_OUT) as writer:
        group = Groups(writer, LEFT_OUT)
        for batch in reader:
            table = pa.Table.from_batches([batch])
            group.add(table.append_column("rule", rules.take(table["step"].combine_chunks())))
        group.finish()
