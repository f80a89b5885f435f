"""The ceiling: the true probabilities of the simulated hospital's outcomes, row by row.

The only module that opens the truth file (a test looks for others): nothing that trains, tunes or scores may see it.
The AUROC of the true probabilities on the rows of a split is what no model can pass but by luck; a result is then
read as a share of the achievable, (AUROC - 0.5) / (ceiling - 0.5). The ceiling of a sample is itself a sample's
number, so it has an interval too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lang1.errors import InputError
from lang1.remede.scores import Floats

MIN_COVERED = 0.95
"""share of a split's rows that must have a truth; below it no ceiling is given"""


def open_truth(path: Path) -> dict[str, Any]:
    """The truth of every task as an Arrow table. Raises InputError when the file is not one that simulate writes."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        tasks = table["task"].unique().to_pylist()
        return {str(task): table.filter(pc.equal(table["task"], task)) for task in tasks}
    except FileNotFoundError:
        raise InputError(f"{path}: not found; it is the truth.parquet that lang1 simulate writes") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{path}: not readable as a truth file ({type(error).__name__}); "
            "give the truth.parquet that lang1 simulate writes"
        ) from None


def true_probabilities(truth: dict[str, Any], task: str, encounter_ids: list[str], options: int) -> Floats | None:
    """True option probabilities of each encounter, NaN where the truth does not know it; None for an unknown task."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = truth.get(task)
    if table is None:
        return None
    place = pc.index_in(pa.array(encounter_ids, pa.string()), value_set=table["encounter_id"].combine_chunks())
    columns = [table[f"p_{k}"].take(place).cast(pa.float64()).to_numpy(zero_copy_only=False) for k in range(options)]
    return np.column_stack(columns)


def share_of_achievable(value: float | None, ceiling: float | None) -> float | None:
    """(value - 0.5) / (ceiling - 0.5); None where there is no ceiling above chance."""
    if value is None or ceiling is None or ceiling <= 0.5:
        return None
    return (value - 0.5) / (ceiling - 0.5)
