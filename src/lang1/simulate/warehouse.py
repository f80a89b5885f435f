"""The stage: chunks from worker processes into one DuckDB file and one truth file, in chunk order, memory flat.

Built in the stage's scratch folder and renamed when whole: a killed run leaves nothing, a rerun starts over and gives
the same content. The order of rows and every value are fixed by seed and configuration; the bytes of the DuckDB file
are not promised (its writer's threads), those of truth.parquet are.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa

from lang1 import config, runs
from lang1.config import SimulateConfig
from lang1.errors import InputError
from lang1.simulate.chunk import simulate_chunk
from lang1.simulate.population import BOROUGHS, HOSPITALS
from lang1.simulate.rows import PATIENTS, Job
from lang1.simulate.sites import FACILITY_COUNTY, frame_of

TRUTH_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("encounter_id", pa.string(), nullable=False, metadata={"meaning": "visit_occurrence_id as text."}),
        *[
            pa.field(
                f"p_{k}", pa.float64(), metadata={"meaning": "True probability of the option; null beyond the task's."}
            )
            for k in range(5)
        ],
    ]
)
TABLES = ("person", "visit_occurrence", "condition_occurrence", "note", "death", "claim")
EXTENSIONS = (
    "ALTER TABLE note ADD COLUMN note_signed_datetime TIMESTAMP",
    "CREATE TABLE claim (claim_id integer NOT NULL, visit_occurrence_id integer NOT NULL, payer varchar(50), "
    "claim_status varchar(50), status_datetime TIMESTAMP)",
)


def simulate(cfg: SimulateConfig, *, seed: int, out: Path, force: bool = False) -> dict[str, Any]:
    """Write warehouse.duckdb and truth.parquet into `out`; returns the manifest."""
    resolved = config.dump(cfg)
    resolved.pop("workers")  # the content does not depend on it
    return runs.run_stage(out, "simulate", resolved, seed, {}, lambda stage: _work(cfg, seed, stage), force)


def jobs_of(cfg: SimulateConfig, seed: int) -> list[Job]:
    """The chunks of a hospital of about `cfg.encounters` inpatient stays."""
    left = max(1, round(cfg.encounters / HOSPITALS[cfg.hospital].stays_per_patient))
    jobs: list[Job] = []
    while left > 0:
        jobs.append(Job(seed, len(jobs), min(left, PATIENTS), cfg.hospital, cfg.note_length))
        left -= PATIENTS
    return jobs


def iter_chunks(jobs: list[Job], workers: int) -> Iterator[dict[str, pa.Table]]:
    """Chunks in order; at most two a worker are under way or waiting."""
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        yield from map(simulate_chunk, jobs)
        return
    # spawn: the parent holds DuckDB's and Arrow's threads, which a fork would copy in any state
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: deque[Future[dict[str, pa.Table]]] = deque()
        ahead = iter(jobs)
        for job in ahead:
            waiting.append(pool.submit(simulate_chunk, job))
            if len(waiting) >= 2 * workers:
                break
        while waiting:
            yield waiting.popleft().result()
            for job in ahead:
                waiting.append(pool.submit(simulate_chunk, job))
                break


def _work(cfg: SimulateConfig, seed: int, stage: runs.Stage) -> None:
    import duckdb

    counts: dict[str, int] = dict.fromkeys(TABLES, 0)
    jobs = jobs_of(cfg, seed)
    building = stage.scratch() / "warehouse.duckdb"  # DuckDB keeps a log beside its file: here a killed run leaves both
    for leftover in building.parent.iterdir():
        leftover.unlink()
    with (
        runs.atomic_path(stage.out / "warehouse.duckdb") as path,
        runs.parquet_writer(stage.out / "truth.parquet", TRUTH_SCHEMA) as truth_file,
    ):
        try:
            with duckdb.connect(str(building)) as connection:
                inpatient = _fill(connection, jobs, cfg, truth_file, counts)
        except duckdb.IOException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: cannot be written: {reason}; choose another --out or make room") from None
        building.replace(path)
    stage.count(**counts, inpatient=inpatient)


def _fill(connection: Any, jobs: list[Job], cfg: SimulateConfig, truth_file: Any, counts: dict[str, int]) -> int:
    """Every chunk into the open database and the truth file; returns the number of inpatient visits."""
    connection.execute("SET threads TO 1; SET memory_limit = '192MB'; SET preserve_insertion_order = true")
    _create_tables(connection, cfg.hospital)
    for number, chunk in enumerate(iter_chunks(jobs, cfg.workers)):
        truth_file.write_table(chunk["truth"].cast(TRUTH_SCHEMA))
        for name in TABLES:
            rows = chunk[name]
            if rows.num_rows:
                connection.register("rows", rows)
                connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows")
                connection.unregister("rows")
                counts[name] += rows.num_rows
        if (number + 1) % 50 == 0:
            runs.say(f"simulate: {number + 1} of {len(jobs)} chunks, {counts['note']:,} notes")
    inpatient = connection.execute("SELECT count(*) FROM visit_occurrence WHERE visit_concept_id = 9201").fetchone()
    connection.execute("CHECKPOINT")
    return int(inpatient[0])


def _create_tables(connection: Any, hospital: str) -> None:
    ddl = resources.files("lang1.simulate").joinpath("omop_cdm54_duckdb.sql").read_text(encoding="utf-8")
    connection.execute(ddl.replace("@cdmDatabaseSchema", "main"))
    for statement in EXTENSIONS:
        connection.execute(statement)
    frame = frame_of(hospital)
    counties = [(k + 1, county) for k, county in enumerate(FACILITY_COUNTY[hospital])]
    boroughs = [(100 + k, name) for k, name in enumerate(BOROUGHS)]
    for key, county in [*counties, *boroughs]:
        connection.execute(
            "INSERT INTO location (location_id, city, state, county) VALUES (?, 'New York', 'NY', ?)", [key, county]
        )
    for site in frame.sites:
        connection.execute(
            "INSERT INTO care_site (care_site_id, care_site_name, location_id, care_site_source_value, "
            "place_of_service_source_value) VALUES (?, ?, ?, ?, ?)",
            [site.care_site_id, site.department, site.location_id, site.facility, site.service],
        )
    for provider in frame.providers:
        connection.execute(
            "INSERT INTO provider (provider_id, care_site_id, specialty_source_value) VALUES (?, ?, ?)",
            [provider.provider_id, provider.care_site_id, provider.role],
        )
    for (vocabulary, code), concept in frame.concepts.items():
        connection.execute(
            "INSERT INTO concept VALUES (?, ?, 'Condition', ?, 'ICD code', NULL, ?, '1970-01-01', '2099-12-31', NULL)",
            [concept, code, vocabulary, code],
        )
