"""MIMIC-III: what its columns become, on small files of the exact form and on the real demo; and its faults."""

import gzip
import itertools
import os
import stat
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from lang1 import runs
from lang1.config import ExtractConfig, TasksConfig
from lang1.ehr import extract, writing
from lang1.ehr.schema import TABLES
from lang1.errors import ConfigError, InputError

from .hospital import DATA
from .physionet import COLUMNS, SUMMARY, mimic3, mimic3_rows

CFG = ExtractConfig(source="mimic3")
CANARY = "CANARY-7731"


def made(source: Path, out: Path, cfg: ExtractConfig = CFG) -> dict[str, Any]:
    return extract(cfg, source=source, out=out, seed=1)


def rows(out: Path, table: str) -> dict[str, dict[str, Any]]:
    key = TABLES[table].names[0]
    return {row[key]: row for row in pq.read_table(out / table).to_pylist()}


def fault(source: Path, out: Path, cfg: ExtractConfig = CFG) -> str:
    with pytest.raises(InputError) as caught:
        made(source, out, cfg)
    message = str(caught.value)
    assert "\n" not in message and CANARY not in message and caught.value.__cause__ is None
    assert not out.exists() or not list(out.iterdir())
    return message


def change(source: Path, table: str, old: str, new: str) -> Path:
    path = source / f"{table}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Records of the four patients, and their manifest."""
    runs.set_quiet(True)
    folder = tmp_path_factory.mktemp("mimic3")
    manifest = made(mimic3(folder / "mimic"), folder / "records")
    return folder / "records", manifest


def test_case_compression_and_line_ends_do_not_change_a_byte(
    small: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    records, _ = small
    for gz, crlf, lower in ((False, False, True), (False, True, False), (True, True, True)):
        source = mimic3(tmp_path / f"{gz}{crlf}{lower}", gz, crlf, lower)
        made(source, tmp_path / "out" / source.name)
        for file in sorted(records.rglob("*.parquet")):
            again = tmp_path / "out" / source.name / file.relative_to(records)
            assert again.read_bytes() == file.read_bytes(), file


def test_note_text_comes_as_it_is(small: tuple[Path, dict[str, Any]]) -> None:
    assert rows(small[0], "notes")["174"]["text"] == SUMMARY


def test_notes_by_type_author_and_clock(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    notes = rows(records, "notes")
    found = {key: (n["note_type"], n["author_role"], n["category"], str(n["signed_time"])) for key, n in notes.items()}
    assert found == {
        "174": ("discharge summary", "Discharge summary", "hospital", "2151-07-19 23:59:59"),
        "175": ("discharge summary addendum", "Discharge summary", "hospital", "2151-07-19 23:59:59"),
        "176": ("H&P", "Physician: Physician Resident Admission Note", "hospital", "2151-07-16 18:05:11"),
        "177": ("physician", "Physician", "hospital", "2151-07-16 17:00:00"),
        "179": ("radiology", "Radiology", "radiology", "2151-06-01 09:13:00"),
        "180": ("echo", "Echo", "hospital", "2151-07-16 23:59:59"),
    }
    assert str(notes["176"]["written_time"]) == "2151-07-16 16:00:00" and notes["180"]["written_time"] is None
    assert notes["179"]["encounter_id"] is None
    assert manifest["facts"]["flags"]["notes"] == {
        "signed_time from CHARTDATE, its last second": 3,
        "signed_time from CHARTTIME": 2,
        "signed_time from STORETIME": 1,
    }


def test_rows_that_break_a_rule_are_kept_aside_by_its_name(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    assert manifest["facts"]["rejects"] == {
        "patients": {},
        "encounters": {"death before admission": 1, "discharge before admission": 1},
        "notes": {
            "ISERROR is 1": 1,
            "impossible date in written_time": 1,
            "no such encounter": 1,
            "no such patient": 1,
            "unreadable written_time": 1,
        },
        "diagnoses": {"missing code": 1},
    }
    aside = pq.read_table(records / "rejects" / "notes.parquet").to_pylist()
    assert {row["note_id"]: row["rule"] for row in aside}["178"] == "ISERROR is 1"
    assert stat.S_IMODE((records / "rejects" / "notes.parquet").stat().st_mode) == 0o600
    counts = manifest["counts"]
    assert counts["notes_in"] == counts["notes_kept"] + counts["notes_rejected"] == len(mimic3_rows()["NOTEEVENTS"])


def test_a_stay_is_what_was_known_at_admission_and_how_it_ended(small: tuple[Path, dict[str, Any]]) -> None:
    stays = rows(small[0], "encounters")
    first = stays["100001"]
    assert (first["service"], first["department"], first["admission_type"]) == ("medicine", "ward 45", "emergency")
    assert (first["discharge_disposition"], first["primary_diagnosis"]) == ("HOME HEALTH CARE", "4280")
    assert stays["100004"]["discharge_disposition"] == "Expired" and stays["100004"]["department"] == "CCU"
    assert stays["100005"]["admission_type"] == "newborn" and stays["100005"]["service"] == "newborn"
    assert {stay["encounter_class"] for stay in stays.values()} == {"inpatient"}


def test_patients_over_89_have_an_age_again(small: tuple[Path, dict[str, Any]]) -> None:
    records, manifest = small
    patients = rows(records, "patients")
    assert str(patients["2"]["birth_date"]) == "2060-03-01" and str(patients["2"]["death_date"]) == "2151-03-09"
    assert str(patients["1"]["birth_date"]) == "2100-07-16"
    assert manifest["facts"]["flags"]["patients"] == {"over 89: born 91 years before the first admission": 1}
    assert manifest["facts"]["dates_shifted"] is True


def test_race_and_ethnicity_are_the_first_that_is_stated(small: tuple[Path, dict[str, Any]]) -> None:
    found = {key: (row["race"], row["ethnicity"]) for key, row in rows(small[0], "patients").items()}
    assert found == {"1": ("Black", "Hispanic"), "2": ("White", None), "3": ("Asian", None), "4": ("Other", None)}


def test_codes_have_their_system_and_no_spaces(small: tuple[Path, dict[str, Any]]) -> None:
    found = pq.read_table(small[0] / "diagnoses").to_pylist()
    assert [(row["code"], row["code_system"], row["position"]) for row in found if row["patient_id"] == "1"] == [
        ("4280", "ICD9CM", 1),
        ("V4582", "ICD9CM", 2),
    ]
    assert {str(row["coded_time"]) for row in found} == {"2151-07-19 18:00:00", "2151-03-09 11:30:00"}


def test_without_notes_stays_and_codes_alone(tmp_path: Path, out: Path) -> None:
    tables = mimic3_rows()
    source = mimic3(tmp_path / "empty", rows=tables | {"NOTEEVENTS": []})
    assert fault(source, out).endswith("nothing to learn from: --without-notes extracts stays and codes alone")
    del tables["NOTEEVENTS"]
    source = mimic3(tmp_path / "none", rows=tables)
    assert "lacks what the SQL reads: table noteevents" in fault(source, out)
    manifest = made(source, out, ExtractConfig(source="mimic3", without_notes=True))
    assert manifest["counts"]["encounters_kept"] == 5 and manifest["facts"]["absent_tables"] == ["notes", "claims"]
    assert pq.read_schema(out / "notes" / "part-00000.parquet").equals(TABLES["notes"])


def test_missing_files_and_columns_are_named_at_once(tmp_path: Path, out: Path) -> None:
    source = mimic3(tmp_path / "mimic", gz=False)
    (source / "SERVICES.csv").unlink()
    change(source, "NOTEEVENTS", '"ISERROR"', '"IS_ERROR"')
    change(source, "PATIENTS", '"DOB"', '"BIRTH"')
    message = fault(source, out)
    for name in ("patients.dob", "table services", "noteevents.iserror"):
        assert name in message
    assert message.startswith(f"{source}: lacks what the SQL reads: ")


@pytest.mark.parametrize(
    ("old", "new", "row", "reason"),
    [
        ('""no pain""', '"no pain"', 2, "(unterminated quote, or more than 128 MB in a row)"),
        ("home, stable.\n", f'home, stable. {CANARY}"\n', 3, "(unterminated quote"),  # row 2 ends there
        ('Addendum,,,"Seen', 'Addendum,,,,"Seen', 3, "(Expected Number of Columns: 11 Found: 12)"),
    ],
)
def test_a_broken_row_is_named_with_its_file(
    tmp_path: Path, out: Path, old: str, new: str, row: int, reason: str
) -> None:
    source = mimic3(tmp_path / "mimic", gz=False)
    path = change(source, "NOTEEVENTS", old, new)
    message = fault(source, out)
    assert message.startswith(f"{path}: row {row} (the header is row 1) is not a whole CSV row") and reason in message


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_gzip_that_was_cut_off(tmp_path: Path, out: Path, share: float) -> None:
    source = mimic3(tmp_path / "mimic")
    path = source / "NOTEEVENTS.csv.gz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert fault(source, out).startswith(f"{path}: ")


def test_a_flipped_bit_that_still_reads_as_csv(tmp_path: Path, out: Path) -> None:
    source = mimic3(tmp_path / "mimic", gz=False)
    path = source / "NOTEEVENTS.csv"
    packed = gzip.compress(path.read_bytes(), 0).replace(b"Seen and examined", b"Seen not examined", 1)
    path.unlink()
    (source / "NOTEEVENTS.csv.gz").write_bytes(packed)
    message = fault(source, out)
    assert message.startswith(f"{path}.gz: cut off or damaged (BadGzipFile)")
    # what is not read is not checked
    made(source, out, ExtractConfig(source="mimic3", without_notes=True))


def test_one_table_in_two_files(tmp_path: Path, out: Path) -> None:
    source = mimic3(mimic3(tmp_path / "mimic"), gz=False)
    assert fault(source, out) == (
        f"{source}/ADMISSIONS.csv.gz: a second file of the table admissions, beside {source}/ADMISSIONS.csv; keep one "
        "of them"
    )


def test_what_is_no_folder_of_mimic(tmp_path: Path, out: Path) -> None:
    file = mimic3(tmp_path / "mimic", gz=False) / "ADMISSIONS.csv"
    assert "not a folder; mimic3 reads the folder of CSV or CSV.gz files" in fault(file, out)
    (tmp_path / "empty").mkdir()
    assert fault(tmp_path / "empty", out) == f"{tmp_path}/empty: no CSV or CSV.gz file in it"


@pytest.mark.long
def test_a_note_of_100_mb_passes(tmp_path: Path, out: Path) -> None:
    source = mimic3(tmp_path / "mimic", gz=False)
    change(source, "NOTEEVENTS", "Discharge: home", "lungs clear \n" * (100 * 2**20 // 13) + "Discharge: home")
    made(source, out)
    [length] = duckdb.execute(
        "SELECT length(text) FROM read_parquet(?) WHERE note_id = '174'", [str(out / "notes" / "*.parquet")]
    ).fetchone()
    assert length == len(SUMMARY) + 13 * (100 * 2**20 // 13)


def test_a_table_that_is_sorted_range_by_range_has_the_same_bytes(
    small: tuple[Path, dict[str, Any]], tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, manifest = small
    monkeypatch.setattr(writing, "SORT_BYTES", 600)  # every table is beyond it
    again = made(mimic3(tmp_path / "mimic"), out)
    assert again["counts"] == manifest["counts"] and again["facts"] == manifest["facts"]
    files = sorted(file.relative_to(records) for file in records.rglob("*.parquet"))
    assert len(files) == 8
    for file in files:
        assert (out / file).read_bytes() == (records / file).read_bytes(), file
    assert not list(out.rglob(".*"))


def test_two_extractions_into_one_folder(tmp_path: Path, out: Path) -> None:
    source = mimic3(tmp_path / "mimic")
    with runs.lock(out), pytest.raises(InputError) as caught:
        pid = os.fork()
        if pid == 0:  # another process: the lock is a process's own
            try:
                made(source, out)
            except InputError as error:
                os._exit(2 if "in use by process" in str(error) else 3)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        raise InputError(str(status))
    assert str(caught.value) == "2"


def test_a_folder_of_notes_apart_is_for_mimic4_alone() -> None:
    with pytest.raises((ConfigError, ValueError), match="notes_path"):
        ExtractConfig(source="mimic3", notes_path="/notes")


def test_the_columns_that_the_sql_reads_are_those_of_the_release() -> None:
    """The SQL of this source names no column that these files, and so PhysioNet's, do not have."""
    from lang1.ehr.queries import missing_names, parse, read_queries

    there = {table.lower(): set(columns.lower().split()) for table, columns in COLUMNS.items()}
    for query in read_queries(CFG).values():
        assert missing_names(parse(duckdb.connect(), query), there) == []


# --- the real demo -----------------------------------------------------------------------------------------------

DEMO = DATA / "mimic3_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason=f"no MIMIC-III demo in {DEMO}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs.set_quiet(True)
    folder = tmp_path_factory.mktemp("demo") / "records"
    made(DEMO, folder, ExtractConfig(source="mimic3", without_notes=True))
    return folder


@needs_demo
def test_the_demo_has_its_published_counts(demo: Path) -> None:
    assert len(rows(demo, "patients")) == 100 and pq.read_table(demo / "diagnoses").num_rows == 1_761
    stays = list(rows(demo, "encounters").values())
    assert len(stays) == 129 and sum(stay["discharge_disposition"] == "Expired" for stay in stays) == 40
    days = [(stay["discharge_time"] - stay["admit_time"]).total_seconds() / 86_400 for stay in stays]
    assert round(sum(days) / len(days), 2) == 9.33 and round(sorted(days)[64], 1) == 6.6 and round(max(days)) == 124
    stays.sort(key=lambda stay: (stay["patient_id"], stay["admit_time"]))
    gaps = [
        (after["admit_time"] - before["discharge_time"]).total_seconds() / 86_400
        for before, after in itertools.pairwise(stays)
        if before["patient_id"] == after["patient_id"]
    ]
    assert len(gaps) == 29 and sum(0 < gap <= 30 for gap in gaps) == 11
    assert not (demo / "rejects").exists()


@needs_demo
def test_the_demo_through_the_label_rules(demo: Path, tmp_path: Path) -> None:
    from lang1.corpus.schema import CLEAN_NOTES
    from lang1.tasks.build import make_facts
    from lang1.tasks.database import open_database

    runs.write_table(tmp_path / "corpus" / "notes" / "part-00000.parquet", CLEAN_NOTES.empty_table())
    (tmp_path / "scratch").mkdir()
    database = open_database(demo, tmp_path / "corpus", tmp_path / "scratch")
    try:
        make_facts(database, TasksConfig(split_by="patient"), seed=1)
        facts = database.execute(
            "SELECT count(*), sum(mortality_label), sum(readmission_label), sum(has_codes::INTEGER) FROM facts"
        ).fetchone()
        of_the_dead = database.execute("SELECT sum(readmission_label) FROM facts WHERE mortality_label = 1").fetchone()
        los = dict(database.execute("SELECT los_label, count(*) FROM facts GROUP BY 1").fetchall())
        classes = dict(database.execute("SELECT cci_label, count(*) FROM facts GROUP BY 1").fetchall())
    finally:
        database.close()
    assert facts == (129, 40, 11, 129) and of_the_dead == (0,)
    calendar = [
        (stay["discharge_time"].date() - stay["admit_time"].date()).days for stay in rows(demo, "encounters").values()
    ]
    bins = [sum(low < d <= high for d in calendar) for low, high in ((-1, 2), (2, 3), (3, 5), (5, 999))]
    assert [los[i] for i in range(4)] == bins
    assert [classes[i] for i in range(5)] == charlson_by_pycomorb(demo)


def charlson_by_pycomorb(records: Path) -> list[int]:
    """Stays a class, by the other program."""
    import polars as pl
    from pycomorb import CharlsonComorbidityIndex

    codes = pq.read_table(records / "diagnoses", columns=["encounter_id", "code"]).to_pydict()
    frame = pl.DataFrame({"id": codes["encounter_id"], "code": codes["code"], "age": [30] * len(codes["code"])})
    scores = CharlsonComorbidityIndex(frame, icd_version="icd9")["Charlson Comorbidity Index"].to_list()
    return [sum(low <= score <= high for score in scores) for low, high in ((0, 0), (1, 2), (3, 4), (5, 7), (8, 99))]
