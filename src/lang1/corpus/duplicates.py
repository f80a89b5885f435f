"""`lang1 duplicates`: exact and near duplicates among the cleaned notes, and what is copied forward within a patient.

Exact: the same `note_hash`. Near: MinHash (rensa) over runs of `shingle_words` words, capitals as small letters, the
estimated Jaccard similarity at least `near_similarity` (Broder 1997; bands after Leskovec, Rajaraman & Ullman 2020,
chapter 3). Texts are gone through from the earliest on: one that is near to an earlier text that stays follows it, the
earliest of those, else it stays. So whatever is left out is that similar to a note that stays, and a chain of notes,
each a little changed from the one before, does not shrink to its first.

Cost. Signatures of distinct texts go to disk, part by part: 2 bytes a permutation and 8 a band, about 430 bytes a
text by default. Bands, pairs and clusters are made by DuckDB within `memory_gb`, the rest on disk. In our own memory
stand a batch of notes and 13 bytes for each text that has a near one. A key shared by more than CROWD + 1 texts (a
form that every ward prints) is not paired each with each: a text is compared with the CROWD before it and with the
first; such keys are counted. What was left: containment, a short note that stands whole within a long one of another
patient, which Jaccard does not see; within a patient, `copied.py` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lang1 import runs
from lang1.config import DuplicatesConfig, dump
from lang1.corpus import copied
from lang1.corpus.database import list_parts, numbers, open_notes, run_sql
from lang1.corpus.shingles import shingle_notes
from lang1.errors import InputError

if TYPE_CHECKING:
    import duckdb

READ_ROWS = 4096
"""notes in memory at a time"""
WRITE_ROWS = 100_000
"""rows a row group of what is written"""
CROWD = 8
"""texts before it that a text is compared with in a bucket, beside the bucket's first"""
CANDIDATE_SHARE = 0.99
"""of pairs at `near_similarity`, how many the bands must find"""
SIGNATURE_SEED = 42
"""of the permutations: part of the method, so that two runs with other seeds find the same duplicates"""

CLUSTERS = pa.schema(
    [
        pa.field("note_id", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False, metadata={"meaning": "note_id of the note that stays."}),
        pa.field("kind", pa.string(), nullable=False, metadata={"meaning": "kept, exact or near."}),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False, metadata={"meaning": "To the note that stays; 1: equal."}),
        pa.field("same_patient", pa.bool_(), nullable=False, metadata={"meaning": "As the note that stays."}),
    ]
)
LEFT_OUT = pa.schema([pa.field("note_id", pa.string(), nullable=False), pa.field("kind", pa.string(), nullable=False)])


def find_duplicates(
    cfg: DuplicatesConfig, *, corpus: Path, out: Path, seed: int, force: bool = False
) -> dict[str, Any]:
    """Write clusters, what each removal would leave out, and shares copied forward; returns the manifest."""

    def work(stage: runs.Stage) -> None:
        paths = list_parts(corpus)
        with open_notes(corpus, stage.scratch(), threads=cfg.threads, memory_gb=cfg.memory_gb) as database:
            run_sql(database, "notes")
            _refuse_double_ids(database, corpus)
            run_sql(database, "texts")
            _find_near(cfg, database, paths, stage)
            _write_clusters(database, paths, stage)
            _count(database, stage)
            copied.measure_copied(cfg, database, stage)

    return runs.run_stage(out, "duplicates", dump(cfg), seed, {"corpus": corpus}, work, force)


def _refuse_double_ids(database: duckdb.DuckDBPyConnection, corpus: Path) -> None:
    notes, ids = numbers(database, "SELECT count(*), count(DISTINCT note_id) FROM notes")
    if not notes:
        raise InputError(f"{corpus / 'notes'}: holds no note; run lang1 clean on records with notes")
    if notes != ids:
        raise InputError(f"{corpus / 'notes'}: note_id is not unique ({notes - ids} rows too many); mend the source")


# --- signatures, part by part on disk ----------------------------------------------------------------------------


def bands_of(permutations: int, similarity: float) -> tuple[int, int]:
    """Bands and rows a band: the widest bands with which CANDIDATE_SHARE of pairs that similar share one."""
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if 1 - (1 - similarity**rows) ** bands >= CANDIDATE_SHARE:
            return bands, rows
    return permutations, 1


def _write_signatures(
    cfg: DuplicatesConfig, database: duckdb.DuckDBPyConnection, paths: list[Path], stage: runs.Stage
) -> list[Path]:
    """For each part of the corpus the signatures of the texts that it stands for; parts on disk are kept."""
    bands, rows = bands_of(cfg.permutations, cfg.near_similarity)
    schema = pa.schema(
        [
            pa.field("rank", pa.int64()),
            pa.field("signature", pa.binary(2 * cfg.permutations)),
            *(pa.field(f"band_{band}", pa.uint64()) for band in range(bands)),
        ]
    )
    written = []
    for file, path in enumerate(paths):
        target = stage.scratch() / "signatures" / f"{file:05d}.parquet"
        written.append(target)
        if target.exists():
            continue
        wanted = database.sql(f"SELECT row, rank FROM texts WHERE file = {file} ORDER BY row").to_arrow_table()
        places, ranks = (wanted[name].to_numpy() for name in ("row", "rank"))
        with runs.parquet_writer(target, schema) as writer:
            for texts, ranks_of_batch in _iter_texts(path, places, ranks):
                writer.write_table(_signatures(cfg, texts, ranks_of_batch, bands, rows, schema))
    return written


def _iter_texts(
    path: Path, places: NDArray[np.int64], ranks: NDArray[np.int64]
) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
    """The texts of a part at `places` (ascending), a batch at a time, with their ranks."""
    begin = 0
    with pq.ParquetFile(path) as source:
        for batch in source.iter_batches(batch_size=READ_ROWS, columns=["text"]):
            first, last = np.searchsorted(places, [begin, begin + len(batch)])
            if last > first:
                yield batch.column(0).take(pa.array(places[first:last] - begin)), ranks[first:last]
            begin += len(batch)


def _signatures(
    cfg: DuplicatesConfig, texts: pa.Array, ranks: NDArray[np.int64], bands: int, rows: int, schema: pa.Schema
) -> pa.Table:
    import rensa

    shingles = shingle_notes(texts, cfg.shingle_words, fold_case=True)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.offsets.astype(np.uint64), cfg.permutations, SIGNATURE_SEED
    )
    digests_NP = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(ranks), cfg.permutations)
    low = np.ascontiguousarray(digests_NP.astype("<u2"))  # two different values agree in 16 bits once in 65,536
    signature = pa.Array.from_buffers(schema.field("signature").type, len(ranks), [None, pa.py_buffer(low)])
    keys = [_band_key(digests_NP[:, band * rows : (band + 1) * rows]) for band in range(bands)]
    return pa.Table.from_arrays([pa.array(ranks, pa.int64()), signature, *map(pa.array, keys)], schema=schema)


def _band_key(digests_NR: NDArray[np.uint32]) -> NDArray[np.uint64]:
    key = np.full(len(digests_NR), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in digests_NR.T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        key ^= key >> np.uint64(29)
    return key


# --- near duplicates -----------------------------------------------------------------------------------------------


def _find_near(
    cfg: DuplicatesConfig, database: duckdb.DuckDBPyConnection, paths: list[Path], stage: runs.Stage
) -> None:
    """The table `near`: (rank, leader, similarity) of each text that follows an earlier one."""
    written = _write_signatures(cfg, database, paths, stage)
    listed = ", ".join(f"'{str(path).replace(chr(39), chr(39) * 2)}'" for path in written)
    database.execute(f"CREATE VIEW signatures AS SELECT * FROM read_parquet([{listed}])")
    database.execute(f"SET VARIABLE crowd = {CROWD}")
    database.execute("CREATE TABLE candidates (earlier BIGINT, later BIGINT)")
    database.execute("CREATE TABLE crowded (keys BIGINT)")
    bands, rows = bands_of(cfg.permutations, cfg.near_similarity)
    for band in range(bands):
        database.execute(f"CREATE OR REPLACE VIEW band AS SELECT band_{band} AS key, rank FROM signatures")
        run_sql(database, "pairs")
    database.execute("CREATE TABLE pairs AS SELECT DISTINCT earlier, later FROM candidates")
    database.execute("DROP TABLE candidates")
    database.execute("CREATE TABLE near_pairs (earlier BIGINT, later BIGINT, similarity FLOAT)")
    for table in _iter_similar(cfg, database):
        database.register("batch", table)
        database.execute("INSERT INTO near_pairs SELECT * FROM batch")
        database.unregister("batch")
    _follow(database)
    (candidates,), (crowded,) = (
        numbers(database, f"SELECT {what}") for what in ("count(*) FROM pairs", "sum(keys) FROM crowded")
    )
    (similar,) = numbers(database, "SELECT count(*) FROM near_pairs")
    stage.count(pairs_compared=candidates, pairs_near=similar, crowded_keys=crowded)
    stage.record(bands=bands, rows_a_band=rows, minhash=_minhash_version())


def _minhash_version() -> str:
    import importlib.metadata

    import rensa

    return f"rensa {importlib.metadata.version('rensa')}, algorithm {rensa.RMinHash.ALGORITHM_VERSION}"


def _iter_similar(cfg: DuplicatesConfig, database: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """The pairs whose signatures agree often enough."""
    query = """
        SELECT pairs.earlier, pairs.later, a.signature AS a, b.signature AS b
        FROM pairs JOIN signatures AS a ON a.rank = pairs.earlier JOIN signatures AS b ON b.rank = pairs.later
    """
    cursor = database.cursor()  # its own, since the caller writes between the batches
    for batch in cursor.sql(query).to_arrow_reader(READ_ROWS * 4):
        a, b = (_unpacked(batch.column(batch.schema.names.index(name)), cfg.permutations) for name in ("a", "b"))
        similarity = (a == b).mean(axis=1, dtype=np.float64)
        is_near = pa.array(similarity >= cfg.near_similarity)
        yield pa.table(
            {
                "earlier": batch.column("earlier").filter(is_near),
                "later": batch.column("later").filter(is_near),
                "similarity": pa.array(similarity.astype(np.float32)).filter(is_near),
            }
        )
    cursor.close()


def _unpacked(column: pa.Array, permutations: int) -> NDArray[np.uint16]:
    data = column.cast(pa.binary(2 * permutations))
    start = data.offset * 2 * permutations
    flat = np.frombuffer(data.buffers()[1], dtype="<u2", offset=start, count=len(data) * permutations)
    return flat.reshape(len(data), permutations)


def _follow(database: duckdb.DuckDBPyConnection) -> None:
    """Each text, from the earliest on: it follows the earliest text that stays and is near to it, or it stays."""
    database.execute("""
        CREATE TABLE nodes AS
        SELECT rank, row_number() OVER (ORDER BY rank) - 1 AS node
        FROM (SELECT earlier AS rank FROM near_pairs UNION SELECT later FROM near_pairs)
    """)
    (count,) = numbers(database, "SELECT count(*) FROM nodes")
    leader, similarity = array("q", [-1]) * count, array("f", [0.0]) * count
    ordered = """
        SELECT a.node AS earlier, b.node AS later, similarity
        FROM near_pairs JOIN nodes AS a ON a.rank = earlier JOIN nodes AS b ON b.rank = later
        ORDER BY b.node, a.node
    """
    for batch in database.sql(ordered).to_arrow_reader(WRITE_ROWS):
        for earlier, later, alike in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if leader[later] < 0 and leader[earlier] < 0:
                leader[later], similarity[later] = earlier, alike
    followers = np.flatnonzero(np.frombuffer(leader, dtype=np.int64) >= 0) if count else np.zeros(0, dtype=np.int64)
    database.execute("CREATE TABLE near (rank BIGINT, leader BIGINT, similarity FLOAT)")
    for start in range(0, len(followers), WRITE_ROWS):
        nodes = followers[start : start + WRITE_ROWS]
        led = pa.table({
            "node": nodes,
            "led_by": np.frombuffer(leader, dtype=np.int64)[nodes],
            "similarity": np.frombuffer(similarity, dtype=np.float32)[nodes],
        })  # fmt: skip
        database.register("batch", led)
        database.execute("""
            INSERT INTO near SELECT a.rank, b.rank, batch.similarity
            FROM batch JOIN nodes AS a ON a.node = batch.node JOIN nodes AS b ON b.node = batch.led_by
        """)
        database.unregister("batch")


# --- what is written -----------------------------------------------------------------------------------------------


def _write_clusters(database: duckdb.DuckDBPyConnection, paths: list[Path], stage: runs.Stage) -> None:
    run_sql(database, "clusters")
    query = """
        SELECT note_id, cluster_id, kind, kind = 'kept' AS kept, similarity, same_patient
        FROM clusters ORDER BY leader, time NULLS LAST, note_id
    """
    write_query(database, query, stage.out / "clusters.parquet", CLUSTERS)
    for file, path in enumerate(paths):
        query = f"SELECT note_id, kind FROM clusters WHERE file = {file} AND kind <> 'kept' ORDER BY row"
        write_query(database, query, stage.out / "left_out" / path.name, LEFT_OUT)


def write_query(database: duckdb.DuckDBPyConnection, query: str, path: Path, schema: pa.Schema) -> None:
    """What an ordered query gives, as Parquet, a row group at a time."""
    with runs.parquet_writer(path, schema) as writer:
        for batch in database.sql(query).to_arrow_reader(WRITE_ROWS):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))


def _count(database: duckdb.DuckDBPyConnection, stage: runs.Stage) -> None:
    notes, texts = numbers(database, "SELECT (SELECT count(*) FROM notes), (SELECT count(*) FROM texts)")
    clusters, members, exact, near, exact_others, near_others = numbers(
        database,
        """
        SELECT count(DISTINCT leader), count(*), count(*) FILTER (kind = 'exact'), count(*) FILTER (kind = 'near'),
            count(*) FILTER (kind = 'exact' AND NOT same_patient), count(*) FILTER (kind = 'near' AND NOT same_patient)
        FROM clusters
        """,
    )
    if exact != notes - texts:
        raise RuntimeError(f"duplicates: {notes} notes of {texts} texts, but {exact} exact duplicates")
    stage.count(
        notes=notes,
        distinct_texts=texts,
        exact_duplicates=exact,
        exact_duplicates_of_another_patient=exact_others,
        near_duplicates=near,
        near_duplicates_of_another_patient=near_others,
        clusters=clusters,
        notes_in_clusters=members,
        notes_left_without_exact=notes - exact,
        notes_left_without_near=notes - exact - near,
    )


# --- read by tokenize ------------------------------------------------------------------------------------------------


def check_made_from(duplicates: Path, corpus: Path) -> None:
    """Raise InputError unless `duplicates` was found in this very corpus."""
    manifest = runs.read_manifest(duplicates)
    if manifest.get("stage") != "duplicates":
        raise InputError(
            f"{duplicates}: written by the stage {manifest.get('stage')}, not duplicates; give a folder of "
            "lang1 duplicates"
        )
    if manifest["inputs"].get("corpus") != runs.read_manifest(corpus)["identity"]:
        raise InputError(f"{duplicates}: found in another corpus than {corpus}; run lang1 duplicates on this one")


def read_left_out(duplicates: Path, part: Path, kinds: tuple[str, ...]) -> dict[str, pa.Array]:
    """By kind, the note_ids of a corpus part that the removal leaves out."""
    table = pq.read_table(duplicates / "left_out" / part.name)
    return {kind: table["note_id"].filter(_equals(table["kind"], kind)).combine_chunks() for kind in kinds}


def _equals(column: pa.ChunkedArray, value: str) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.equal(column, value)
