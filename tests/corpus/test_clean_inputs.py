"""What `clean` takes: the same bytes from records, Parquet and CSV; one line where a file is not what it should be."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import os
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_records import file_hashes, note, prose, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1 import runs
from lang1.config import CleanConfig
from lang1.config.data import CleanColumnsConfig
from lang1.corpus import clean, delimited, inputs
from lang1.ehr.schema import NOTES
from lang1.errors import InputError

LANG1 = Path(sys.executable).with_name("lang1")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    runs.set_quiet(True)


def rows_with_everything(count: int = 60) -> list[dict[str, Any]]:
    """Notes with line breaks of both kinds, quotes, commas, tabs and letters beyond ASCII; some missing values."""
    rows = [note(i, f'{prose(i)},\n"quoted" {i}\r\nÉtat: \t{prose(i + 1)}') for i in range(count)]
    rows[3]["text"] = None
    rows[4]["text"] = '"'
    rows[5]["encounter_id"] = rows[5]["author_role"] = rows[6]["signed_time"] = rows[7]["department"] = None
    rows[8]["category"] = "radiology"
    rows[9]["written_time"] = datetime(2019, 2, 28, 23, 59, 58, 250_000)
    return rows


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",", **options: Any) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, NOTES.names, delimiter=delimiter, **options)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def cleaned(out: Path, **given: Any) -> dict[str, str]:
    settings: dict[str, Any] = {"workers": 1} | given.pop("config", {})
    clean(CleanConfig(**settings), out=out, seed=1, **given)
    return file_hashes(out)


def test_the_bytes_are_the_same_from_every_format_and_however_it_is_cut(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(inputs, "READ_BYTES", 700)
    monkeypatch.setattr(delimited, "BLOCK", 501)
    rows = rows_with_everything()
    table = pa.Table.from_pylist(rows, schema=NOTES)
    wanted = cleaned(tmp_path / "from-records", records=write_records(tmp_path / "r", rows))
    assert len(wanted) == 2

    halves = tmp_path / "halves"
    halves.mkdir()
    (halves / "a.csv").write_bytes(as_csv(rows[:31], lineterminator="\n"))
    (halves / "b.csv.gz").write_bytes(gzip.compress(as_csv(rows[31:40], lineterminator="\r\n")))
    (halves / "c.tsv").write_bytes(as_csv(rows[40:50], "\t").removesuffix(b"\r\n"))
    pq.write_table(table.slice(50), halves / "d.parquet", row_group_size=3)
    (halves / "notes.txt").write_text("about these files")
    one = tmp_path / "one.csv"
    one.write_bytes(b"\xef\xbb\xbf" + as_csv(rows))
    strict = tmp_path / "all-quoted.csv"
    strict.write_bytes(
        as_csv([{k: "" if v is None else v for k, v in row.items()} for row in rows], quoting=csv.QUOTE_ALL)
    )
    plain = tmp_path / "plain.parquet"
    strings = pa.schema(
        [f.with_type(pa.string()) if f.name != "written_time" else f.with_type(pa.timestamp("ns")) for f in NOTES]
    )
    pq.write_table(
        table.set_column(7, "signed_time", table["signed_time"].cast(pa.string())).cast(strings),
        plain,
        row_group_size=7,
    )

    for name, notes, config in (
        ("folder", halves, {}), ("pieces", halves, {"partition_rows": 4}), ("one", one, {}), ("plain", plain, {}),
        ("ranges", plain, {"partition_rows": 2}),
    ):  # fmt: skip
        assert cleaned(tmp_path / f"from-{name}", notes=notes, config=config) == wanted, name
    everything = cleaned(tmp_path / "from-strict", notes=strict)
    assert everything["notes/part-00000.parquet"] == wanted["notes/part-00000.parquet"]  # rejects: "" is not null


def test_the_bytes_are_the_same_from_csv_with_two_workers(tmp_path: Path, monkeypatch: Any) -> None:
    rows = [note(i, f'{prose(i, 80)}\n"{i}"') for i in range(6_000)]
    (tmp_path / "n.csv").write_bytes(as_csv(rows))
    two = cleaned(tmp_path / "two", notes=tmp_path / "n.csv", config={"workers": 2, "partition_mb": 1})
    assert two == cleaned(tmp_path / "records", records=write_records(tmp_path / "r", rows))


def test_columns_are_named_and_absent_ones_are_counted(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(
        f'ROW_ID,SUBJECT_ID,DESCRIPTION,TEXT,SIGNED\n1,7,,"{prose(1)}",2020-01-01\n2,8,Consult,"{prose(2)}",\n'
    )
    columns = CleanColumnsConfig(
        note_id="ROW_ID", patient_id="SUBJECT_ID", text="TEXT", note_type="DESCRIPTION", signed_time="SIGNED"
    )
    manifest = clean(CleanConfig(columns=columns), notes=tmp_path / "n.csv", out=tmp_path / "c", seed=1)
    rows = pq.read_table(tmp_path / "c" / "notes").to_pylist()
    assert [(r["note_id"], r["patient_id"], r["category"], r["note_type"], r["encounter_id"]) for r in rows] == [
        ("1", "7", "hospital", "unknown", None), ("2", "8", "hospital", "Consult", None),
    ]  # fmt: skip
    assert [r["signed_time"] for r in rows] == [datetime(2020, 1, 1), None]
    assert manifest["facts"]["absent"] == {
        "encounter_id": 2, "category": 2, "note_type": 1, "author_role": 2, "written_time": 2, "signed_time": 1,
        "department": 2,
    }  # fmt: skip


LONG = prose(1, 30)
FAULTS = {
    "a quote that does not end": (
        "n.csv",
        f'note_id,patient_id,text\n1,1,"{LONG}"\n2,1,"{LONG}\n3,1,"{LONG}"\n',
        "n.csv: row 2: broken quote",
    ),
    "a quote within a field": (
        "n.csv",
        f'note_id,patient_id,text\n1,1,{LONG}\n2,1,5" {LONG}\n',
        "n.csv: row 2: broken quote",
    ),
    "a quote kept by a backslash": (
        "n.csv",
        f'note_id,patient_id,text\n1,1,"say \\"ok\\" {LONG}"\n',
        "n.csv: row 1: broken quote",
    ),
    "a missing column": (
        "n.csv",
        f"note_id,patient_id,note_text\n1,1,{LONG}\n",
        "n.csv: no column text; name it by clean.columns, did you mean note_text?",
    ),
    "a row that is cut off": (
        "n.csv",
        f"note_id,patient_id,text\n1,1,{LONG}\n2,1\n",
        "n.csv: row 2: has fewer or more fields than the header's 3",
    ),
    "a note without id": ("n.csv", f"note_id,patient_id,text\n1,1,{LONG}\n ,1,{LONG}\n", "n.csv: row 2: no note_id"),
    "no time": (
        "n.csv",
        f"note_id,patient_id,text,signed_time\n1,1,{LONG},2020-01-01\n2,1,{LONG},31/01/2020\n",
        "n.csv: row 2: column signed_time is not a local time",
    ),
    "a column twice": ("n.csv", f"note_id,text,patient_id,text\n1,1,{LONG},1\n", "n.csv: column text stands twice"),
    "nothing": ("n.csv", "", "n.csv: is empty"),
    "a header alone": ("n.csv", "note_id,patient_id,text\n", "holds no note"),
    "UTF-16": ("n.csv", "\ufeffnote_id".encode("utf-16-le"), "n.csv: is UTF-16"),
    "no gzip": ("n.csv.gz", b"note_id,patient_id,text\n", "n.csv.gz: gzip ends early or is damaged after row 0"),
    "another file": ("n.docx", "x", "no .csv, .tsv, .csv.gz, .tsv.gz or .parquet file"),
    "no Parquet": ("n.parquet", "PAR1 or not", "n.parquet: not readable as Parquet"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_is_not_what_it_should_be_is_one_line(tmp_path: Path, name: str) -> None:
    file, content, told = FAULTS[name]
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), notes=tmp_path / "n", out=tmp_path / "c", seed=1)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value) and "diabetes" not in str(caught.value)
    assert not list((tmp_path / "c").rglob("part-*"))


SAID = "Zebra denies pain"
NO_HEADERS = {
    "a note in the first row": (f"1,7,{SAID} since yesterday\n2,8,{SAID} since today\n", "no header (3 fields)"),
    "a short note in the first row": (f"1,7,{SAID}\n2,8,{SAID}\n", "no header (3 fields)"),
    "a note near a column's name": ("1,7,text of zebra\n", "no header (3 fields)"),
    "a quote that is not closed": (f'note_id,patient_id,"text\n1,7,{SAID}\n', "no header (3 fields)"),
    "a field beyond any limit": (f'note_id,"{SAID * 9_000}\n1,7,{SAID}\n', "the first row is no header; a field"),
    "names longer than any": (f"note_id,patient_id,{'zebra' * 13}\n", "no header (3 fields)"),
    "an empty row": ("\n1,7\n", "no header (0 fields)"),
}


@pytest.mark.parametrize("name", NO_HEADERS)
def test_of_a_first_row_that_is_no_header_no_word_is_shown(tmp_path: Path, name: str) -> None:
    content, told = NO_HEADERS[name]
    (tmp_path / "n.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), notes=tmp_path / "n.csv", out=tmp_path / "c", seed=1)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value) and "zebra" not in str(caught.value).lower()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("ROW_ID,Note Text,Date of birth,v1.2-b", "the file has ROW_ID, Note Text, Date of birth, v1.2-b"),
        (",note_id,Größe,note_text", "the file has note_id, Größe, note_text"),  # an index of pandas
        (f"note_id,text,{'x' * 50}", "the file has note_id, text"),
        ("x" * 50, "the file has 1 fields"),
    ],
)
def test_of_a_header_the_names_are_shown(tmp_path: Path, header: str, shown: str) -> None:
    (tmp_path / "n.csv").write_text(f"{header}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), notes=tmp_path / "n.csv", out=tmp_path / "c", seed=1)
    assert str(caught.value).endswith(shown)


def test_a_gzip_that_ends_early_names_the_last_row(tmp_path: Path) -> None:
    raw = as_csv([note(i, os.urandom(300).hex()) for i in range(50)])
    (tmp_path / "n.csv.gz").write_bytes(gzip.compress(raw)[:-4000])
    with pytest.raises(InputError, match=r"n\.csv\.gz: gzip ends early or is damaged after row [34]\d; "):
        clean(CleanConfig(), notes=tmp_path / "n.csv.gz", out=tmp_path / "c", seed=1)


class _Failing(io.BytesIO):
    def read1(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def _refuse(path: Path) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.parametrize(
    ("opened", "why"), [(_refuse, "Permission denied"), (lambda path: _Failing(), "Input/output error")]
)
def test_a_gzip_that_cannot_be_read_is_named_itself(tmp_path: Path, monkeypatch: Any, opened: Any, why: str) -> None:
    (tmp_path / "n.csv.gz").write_bytes(gzip.compress(as_csv([note(0, LONG)])))
    monkeypatch.setattr(delimited.gzip, "open", opened)
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), notes=tmp_path / "n.csv.gz", out=tmp_path / "c", seed=1)
    assert str(caught.value) == f"{tmp_path / 'n.csv.gz'}: cannot be read ({why}); check it"


def test_where_a_gzip_cannot_be_unpacked_to_the_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "n.csv.gz").write_bytes(gzip.compress(b"x" * 100))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file/unpacked: cannot be written") as caught:
        delimited.unpack(tmp_path / "n.csv.gz", tmp_path / "file" / "unpacked")
    assert "n.csv.gz" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop_columns(["text"]), "no column text"),
        (lambda t: t.set_column(0, "note_id", pa.array([1.5] * len(t))), "column note_id holds floating point numbers"),
        (
            lambda t: t.set_column(7, "signed_time", t["signed_time"].cast(pa.timestamp("us", "UTC"))),
            "has the time zone UTC",
        ),
        (lambda t: t.set_column(9, "text", pa.array([1] * len(t))), "column text is int64, not text"),
        (
            lambda t: t.set_column(1, "patient_id", pa.array(["p"] * 5 + [None] + ["p"] * (len(t) - 6))),
            "row 6: no patient_id",
        ),
    ],
)
def test_a_parquet_that_is_not_what_it_should_be_is_one_line(tmp_path: Path, change: Any, told: str) -> None:
    table = pa.Table.from_pylist([note(i, prose(i)) for i in range(10)], schema=NOTES)
    table = table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))
    pq.write_table(change(table), tmp_path / "n.parquet")
    with pytest.raises(InputError) as caught:
        clean(CleanConfig(), notes=tmp_path / "n.parquet", out=tmp_path / "c", seed=1)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_parquet_damaged_in_the_middle_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    pq.write_table(
        pa.Table.from_pylist([note(i, os.urandom(200).hex()) for i in range(900)], schema=NOTES),
        path,
        row_group_size=300,
    )
    raw = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(9).data_page_offset
    raw[at : at + 3000] = bytes(3000)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"n\.parquet: damaged after row 256"):
        clean(CleanConfig(), notes=path, out=tmp_path / "c", seed=1)


def test_the_command_takes_notes_and_refuses_both_or_neither(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_bytes(as_csv([note(i, prose(i)) for i in range(3)]))
    command = [str(LANG1), "clean", "--out", str(tmp_path / "c")]
    done = subprocess.run([*command, "--notes", str(tmp_path / "n.csv")], capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'c'}: notes_in 3, notes_out 3\n"
    neither = subprocess.run(command, capture_output=True, text=True)
    assert (neither.returncode, neither.stderr) == (
        2, "lang1: clean: give --records DIR or --notes FILE_OR_FOLDER, one of them\n",
    )  # fmt: skip
    unknown = subprocess.run([*command, "clean.rules.rft=false", "--records", "x"], capture_output=True, text=True)
    assert unknown.stderr == "lang1: clean.rules.rft: unknown key; did you mean clean.rules.rtf?\n"


FIELD = st.text(st.sampled_from('ab,"\n\r\t é|'), max_size=8)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 40),
    st.integers(1, 60),
)
def test_any_csv_cut_anywhere_gives_the_rows_that_were_written(
    tmp_path_factory: Any, rows: list[tuple[str, str]], end: str, block: int, piece: int
) -> None:
    path = tmp_path_factory.mktemp("csv") / "n.csv"
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path.write_bytes(sink.getvalue().encode())
    header, data = delimited.read_header(path, "n", ",")
    before, delimited.BLOCK = delimited.BLOCK, block
    try:
        cuts = delimited.find_cuts(path, "n", ",", data, piece)
        pieces = [delimited.read_piece(path, "n", ",", header, header, data, a, b) for a, b in pairwise(cuts)]
        assert delimited.count_rows(path, data, cuts[-1]) == len(rows)
    finally:
        delimited.BLOCK = before
    table = pa.concat_tables(pieces)
    assert [(x.decode(), y.decode()) for x, y in zip(*table.to_pydict().values(), strict=True)] == rows
