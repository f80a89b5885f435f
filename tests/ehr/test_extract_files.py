"""Records from CSV, TSV and Parquet files through the user's own SQL."""

import gzip
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lang1.config import ExtractConfig
from lang1.ehr import extract
from lang1.ehr.schema import TABLES
from lang1.ehr.sources import resolve
from lang1.errors import ConfigError, InputError

CANARY = "CANARY-7731"
STAYS = (
    "mrn,stay,arrived,left,note,labs\n"
    '1,a,2020-01-01 10:00,2020-01-03 09:00,"Chest pain, worse at night.\nNo fever.",3\n'
    '2,b,2020-02-01 10:00,2020-02-04 09:00,"He said ""better"" today.",\n'
    f'3,c,2020-03-01 10:00,soon,"{CANARY} and more text.",5\n'
)


def sql_folder(tmp_path: Path, view: str = "stays", **more: str) -> ExtractConfig:
    """Own SQL over one file; `more` adds or replaces files."""
    columns = {
        "patients": "s.mrn AS patient_id",
        "encounters": "s.stay AS encounter_id, s.mrn AS patient_id, 'inpatient' AS encounter_class, "
        "s.arrived AS admit_time, s.left AS discharge_time",
        "notes": "s.stay AS note_id, s.mrn AS patient_id, s.stay AS encounter_id, 'hospital' AS category, "
        "'H&P' AS note_type, s.arrived AS signed_time, s.note AS text",
    }
    folder = tmp_path / "sql"
    folder.mkdir(exist_ok=True)
    for table, given in columns.items():
        named = [part.split(" AS ")[-1].strip() for part in given.split(",")]
        nulls = "".join(f", NULL AS {name}" for name in TABLES[table].names if name not in named)
        (folder / f"{table}.sql").write_text(f"-- {table}\nSELECT {given}{nulls}\nFROM {view} AS s;\n")
    for table, text in more.items():
        (folder / f"{table}.sql").write_text(text)
    return ExtractConfig(source="sql", sql_dir=str(folder))


def made(cfg: ExtractConfig, source: Path, out: Path) -> dict[str, Any]:
    return extract(cfg, source=source, out=out, seed=1)


def write(path: Path, kind: str) -> Path:
    if kind == "csv":
        path = path / "stays.csv"
        path.write_text(STAYS)
    elif kind == "csv.gz":
        path = path / "stays.csv.gz"
        path.write_bytes(gzip.compress(STAYS.encode()))
    elif kind == "tsv":
        path = path / "stays.tsv"
        path.write_text(
            "\n".join(["mrn\tstay\tarrived\tleft\tnote\tlabs", "1\ta\t2020-01-01\t2020-01-03\tChest, pain\t3"])
        )
    elif kind == "zip":
        path = path / "any.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/../stays.csv", STAYS)
            archive.writestr("__MACOSX/._stays.csv", "junk")
            archive.writestr("README.txt", "about")
    elif kind == "parquet":
        (path / "stays.csv").write_text(STAYS)
        con = duckdb.connect()
        con.execute(f"COPY (SELECT * FROM read_csv('{path}/stays.csv', all_varchar = true)) TO '{path}/stays.parquet'")
        path = path / "stays.parquet"
    else:  # a folder of several files
        (path / "data").mkdir()
        path = path / "data"
        (path / "stays.csv").write_text(STAYS)
        (path / "names.csv.gz").write_bytes(gzip.compress(b"id,name\n1,x\n"))
        (path / "README.md").write_text("about")
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "zip", "parquet", "folder"])
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, out: Path, kind: str) -> None:
    manifest = made(sql_folder(tmp_path), write(tmp_path, kind), out)
    assert manifest["counts"]["patients_kept"] == 3 and manifest["counts"]["encounters_kept"] == 2
    assert manifest["facts"]["rejects"]["encounters"] == {"unreadable discharge_time": 1}
    assert manifest["facts"]["rejects"]["notes"] == {"no such encounter": 1}
    texts = pq.read_table(out / "notes")["text"].to_pylist()
    assert texts == ["Chest pain, worse at night.\nNo fever.", 'He said "better" today.']
    assert not list(out.rglob(".*"))  # what was unzipped is gone


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    (tmp_path / "a[1]*?").mkdir()
    for kind in ("csv", "parquet"):
        path = write(tmp_path / "a[1]*?", kind)
        assert made(sql_folder(tmp_path), path, tmp_path / "a[1]*?" / kind)["counts"]["notes_kept"] == 2


def test_a_single_file_is_also_named_source(tmp_path: Path, out: Path) -> None:
    assert made(sql_folder(tmp_path, "source"), write(tmp_path, "tsv"), out)["counts"]["notes_kept"] == 1


def test_absent_tables_are_written_without_rows_and_named(tmp_path: Path, out: Path) -> None:
    manifest = made(sql_folder(tmp_path), write(tmp_path, "csv"), out)
    assert manifest["facts"]["absent_tables"] == ["diagnoses", "claims"]
    for table in ("diagnoses", "claims"):
        assert pq.read_table(out / table).num_rows == 0
        assert pq.read_schema(out / table / "part-00000.parquet").equals(TABLES[table])
    assert not (out / "features_admission").exists()


def test_feature_tables_keep_numbers_and_categories(tmp_path: Path, out: Path) -> None:
    features = (
        "SELECT s.stay AS encounter_id, TRY_CAST(s.labs AS INTEGER) AS labs, CAST(s.labs AS DECIMAL) / 7 AS share, "
        "s.mrn AS ward, s.labs IS NULL AS unknown FROM stays AS s"
    )
    manifest = made(sql_folder(tmp_path, features_discharge=features), write(tmp_path, "csv"), out)
    table = pq.read_table(out / "features_discharge")
    assert [str(kind) for kind in table.schema.types[:3]] == ["string", "int64", "double"]
    assert pa.types.is_dictionary(table.schema.field("ward").type)
    assert table["labs"].to_pylist() == [3, None] and table["unknown"].to_pylist() == [False, True]
    assert manifest["facts"]["rejects"]["features_discharge"] == {"no such encounter": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STAYS + f'4,d,"never closed {CANARY}\n', "row 5 (the header is row 1) is not a whole CSV row"),
        (STAYS + f"4,d,x,y,z,{CANARY},more\n", "(Expected Number of Columns: 6 Found: 7); mend the file"),
        (STAYS.encode() + b"4,d,2020-01-01,2020-01-02,caf\xe9,1\n", "not a whole CSV row of UTF-8 text (not utf-8)"),
        ("", "empty; its first row must name the columns"),
        ("mrn,stay,MRN\n", "its header has column MRN, mrn twice"),
        ("mrn,,x\n", "its header has a column without a name"),
        (STAYS.encode("utf-16"), "its header is not UTF-8 text"),
        ("a;b\n1;2\n", "lacks what the SQL reads: stays.mrn, stays.arrived, stays.left, stays.stay, stays.note"),
    ],
)
def test_a_broken_csv_names_the_row_and_no_text(tmp_path: Path, out: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "stays.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        made(sql_folder(tmp_path), path, out)
    assert message in str(caught.value) and CANARY not in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value) and not list(out.iterdir())


@pytest.mark.parametrize("kind", ["csv.gz", "zip", "parquet"])
@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_file_that_was_cut_off(tmp_path: Path, out: Path, kind: str, share: float) -> None:
    path = write(tmp_path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut off|not a whole zip file"):
        made(sql_folder(tmp_path), path, out)
    assert not list(out.iterdir())


def test_files_that_are_no_tables(tmp_path: Path, out: Path) -> None:
    (tmp_path / "notes.docx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"notes.docx: not a CSV, TSV"):
        made(sql_folder(tmp_path), tmp_path / "notes.docx", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no CSV, TSV or Parquet file in it"):
        made(sql_folder(tmp_path), tmp_path / "empty", out)


def test_the_sql_folder_must_be_given_and_whole(tmp_path: Path, out: Path) -> None:
    path = write(tmp_path, "csv")
    with pytest.raises(ConfigError, match=r"extract.sql_dir: source sql needs the folder"):
        made(ExtractConfig(source="sql"), path, out)
    cfg = sql_folder(tmp_path)
    (tmp_path / "sql" / "notes.sql").unlink()
    (tmp_path / "sql" / "patients.sql").unlink()
    with pytest.raises(InputError, match=r"no patients.sql and no notes.sql; patients, encounters, notes are needed"):
        made(cfg, path, out)
    with pytest.raises(InputError, match="no such folder of SQL files"):
        made(ExtractConfig(source="sql", sql_dir=str(tmp_path / "none")), path, out)


def test_shared_data_lies_under_lang1_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    monkeypatch.setenv("LANG1_DATA", str(tmp_path))
    assert resolve(Path("../shared/data/set")) == tmp_path / "set"
    with pytest.raises(InputError, match=f"{tmp_path}/none: no such file or folder"):
        resolve(Path("../shared/data/none"))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("flip", r"any.zip: not a whole zip file \(error\)"),
        ("lock", "any.zip: encrypted, or packed as"),
        ("cut", "not a whole zip"),
    ],
)
def test_a_damaged_or_locked_zip_is_named_in_one_line(tmp_path: Path, harm: str, words: str) -> None:
    source = tmp_path / "any.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stays.csv", STAYS * 50)
    content = bytearray(source.read_bytes())
    if harm == "flip":  # the first block of the stream is of a kind that there is not
        content[30 + len("stays.csv")] |= 0b110
    elif harm == "lock":  # the flag of encryption, in the member's header and in the directory
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
    else:
        del content[len(content) // 2 :]
    source.write_bytes(content)
    with pytest.raises(InputError, match=words):
        made(sql_folder(tmp_path), source, tmp_path / "o")
