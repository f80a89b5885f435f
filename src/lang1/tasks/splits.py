"""Which split a row belongs to: a patient's fold decides inside the training window, the discharge time elsewhere.

One assignment for all tasks: `patient_fold` hashes seed and patient_id to train, val or test (8:1:1), so adding a
patient moves no other, and joint training on one task's rows cannot leak into another's test (the paper drew the
split anew a task; reference: field.md section 5 rows 8 and 9). Patients of the temporal windows may be patients of
train (Appendix L).

Denial has its own windows and half as much val and test: a second hash keeps half of the shared val and test
patients, and the other half leaves denial, so that it is 16:1:1. The paper's 18:1:1 would put patients of another
task's test into denial's train. Cost: 10 % of denial's rows between May 2021 and February 2022.

Not prevented, and seen by `evaluate` as `seen_in_finetuning`: denial trains in months that are `temporal_1` for the
other tasks. `temporal_2` begins after every training window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lang1.corpus.hashes import hash_fraction, patient_fold

if TYPE_CHECKING:
    import duckdb

_BATCH = 100_000


def keeps_denial_half(seed: int, patient_id: str) -> bool:
    """True for the half of patients that stay in denial's val and test: a hash of its own, nested in the folds."""
    return hash_fraction(seed, f"denial:{patient_id}") < 0.5


def assign_folds(database: duckdb.DuckDBPyConnection, seed: int) -> None:
    """The table `folds` (patient_id, fold, keeps_half) of every patient with a stay."""
    import pyarrow as pa

    database.execute("CREATE TABLE folds (patient_id VARCHAR, fold VARCHAR, keeps_half BOOLEAN)")
    patients = database.sql("SELECT DISTINCT patient_id FROM stays").to_arrow_table()["patient_id"]
    for start in range(0, len(patients), _BATCH):
        ids = patients.slice(start, _BATCH).to_pylist()
        batch = pa.table(
            {
                "patient_id": ids,
                "fold": [patient_fold(seed, patient_id) for patient_id in ids],
                "keeps_half": [keeps_denial_half(seed, patient_id) for patient_id in ids],
            }
        )
        database.register("fold_batch", batch)
        database.execute("INSERT INTO folds SELECT * FROM fold_batch")
        database.unregister("fold_batch")
