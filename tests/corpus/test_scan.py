"""`scan`: every kind of file is counted as what it is, nothing of a text is shown, what is not read is said."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import types
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_records import note, prose, write_corpus

from lang1 import runs
from lang1.config import CleanConfig, TokenizeConfig
from lang1.corpus import clean, reading, scan_files, tokenize
from lang1.corpus.delimited import read_header
from lang1.corpus.identifiers import count_matches
from lang1.corpus.scan import as_lines
from lang1.ehr.schema import NOTES
from lang1.errors import InputError

PHI = "Seen by Dr. Kowalski on 3/4/2021, call 212-555-0187, MRN 00123456, SSN 123-45-6789, a.b@nyu.edu today."
EXPECTED = {"phone": 1, "mrn": 1, "ssn": 1, "email": 1, "date": 1, "name": 1}
SECRETS = ("Kowalski", "555-0187", "00123456", "6789", "a.b@")


def totals(*paths: Path, **options: Any) -> dict[str, int]:
    result = scan_files(list(paths), workers=1, **options)
    shown = json.dumps(result) + "\n".join(as_lines(result))
    assert not [secret for secret in SECRETS if secret in shown]
    return {name: counts["matches"] for name, counts in result["totals"].items()}


@pytest.mark.parametrize(
    "kind", ["txt", "md", "csv", "csv.gz", "tsv", "jsonl", "jsonl.zst", "json", "html", "parquet", "log"]
)
def test_every_kind_of_file_is_counted(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"id": [1, 2], "text": [PHI, "nothing here"]}), path)
    elif kind.startswith("csv"):
        data = f'id,text\n1,"{PHI}\nsecond line"\n2,nothing here\n'.encode()
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    elif kind == "tsv":
        path.write_text(f"id\ttext\n1\t{PHI}\n")
    elif kind.startswith("jsonl"):
        data = (json.dumps({"text": PHI, "meta": {"n": 1}}) + "\n" + json.dumps({"text": "x"}) + "\n").encode()
        path.write_bytes(zstandard.ZstdCompressor().compress(data) if kind.endswith("zst") else data)
    elif kind == "json":
        path.write_text(json.dumps({"rows": [{"note": PHI}]}))
    elif kind == "html":
        path.write_text(
            f"<style>.a{{b:1/2/2020}}</style><p>{PHI.replace('Dr. ', 'Dr. <b>')}</b></p><script>'1/2/2020'</script>"
        )
    else:
        path.write_text(f"one\n{PHI}\n")
    if kind == "html":  # the name is cut by its tag
        assert totals(path) == EXPECTED | {"name": 0}
        path.write_text(f"<p title='{PHI}'>x</p>")
    assert totals(path) == EXPECTED


def test_counts_are_by_file_and_column_with_rows_and_rates(tmp_path: Path) -> None:
    rows = {"text": [f"{PHI} {PHI}", PHI, "plain words here"], "comment": ["call 212-555-0187", None, None]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    result = scan_files([tmp_path / "a.parquet"], workers=1)
    by_column = {found["column"]: found for found in result["files"]}
    assert by_column["text"]["patterns"]["phone"]["matches"] == 3
    assert by_column["text"]["patterns"]["phone"]["documents_with_a_match"] == 2
    assert by_column["text"]["documents"] == 3
    words = sum(len(text.split()) for text in rows["text"])
    assert by_column["text"]["words"] == words
    assert by_column["text"]["patterns"]["phone"]["per_1000_words"] == round(3000 / words, 4)
    assert by_column["comment"]["patterns"]["phone"]["matches"] == 1
    assert result["totals"]["phone"]["matches"] == 4


def test_time_columns_count_as_dates_even_without_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "signed": [datetime(2020, 1, 1), None],
            "born": pa.array([0, 1], pa.date32()),
            "wait": pa.array([1, 2], pa.duration("s")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert totals(tmp_path / "a.parquet") == dict.fromkeys(EXPECTED, 0) | {"date": 3}


def test_dictionaries_lists_and_structs_are_read(tmp_path: Path) -> None:
    table = pa.table({
        "category": pa.array([PHI, PHI]).dictionary_encode(),
        "list": pa.array([[PHI], []]),
        "struct": pa.array([{"a": PHI}, None]),
        "bytes": pa.array([PHI.encode(), None]),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    assert totals(tmp_path / "a.parquet") == {name: 5 * n for name, n in EXPECTED.items()}


def test_a_corpus_with_a_reject_that_is_not_utf8_is_scanned_whole(tmp_path: Path) -> None:
    texts = [f"{prose(0)} {PHI}".encode(), b"Caf\xe9: call 212-555-0187", b"too short"]
    rows = pa.Table.from_pylist([note(i, None) for i in range(3)], schema=NOTES)
    raw = pa.Array.from_buffers(pa.large_string(), 3, pa.array(texts, pa.large_binary()).buffers())
    runs.write_table(tmp_path / "r/notes/part-00000.parquet", rows.set_column(9, NOTES.field("text"), raw))
    clean(CleanConfig(), records=tmp_path / "r", out=tmp_path / "corpus", seed=1)
    result = scan_files([tmp_path / "corpus"], workers=1)
    found = {Path(f["file"]).parent.name: f for f in result["files"] if f["column"] == "text" and "part" in f["file"]}
    assert found["rejects"]["documents"] == 2
    assert found["rejects"]["patterns"]["phone"]["matches"] == 1
    assert found["notes"]["patterns"]["phone"]["matches"] == 1
    assert not [secret for secret in SECRETS if secret in json.dumps(result)]


BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.binary(): pa.binary(),
    pa.large_binary(): pa.large_binary(),
}


@pytest.mark.parametrize("kind", BYTES, ids=str)
@pytest.mark.parametrize("words", [PHI.encode(), b"\xe9 " + PHI.encode()])
def test_texts_of_every_type_are_counted_whether_utf8_or_not(kind: Any, words: bytes) -> None:
    column = pa.array([words, None, b"x"], BYTES[kind]).view(kind)
    for name, values in (("plain", column), ("coded", column.dictionary_encode())):
        found = dict.fromkeys(EXPECTED, 0)
        for _, text, _ in reading._column(name, values):
            found = {n: found[n] + count_matches(text or "").get(n, 0) for n in found}
        assert found == EXPECTED, name


def test_a_list_of_texts_that_are_not_utf8_is_one_line(tmp_path: Path) -> None:
    texts = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"list": pa.ListArray.from_arrays([0, 1], texts)}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: row group 0: not readable") as caught:
        scan_files([tmp_path], workers=1)
    assert "caf" not in str(caught.value)


def test_a_corpus_and_its_tokens_decoded_hold_the_same(tmp_path: Path) -> None:
    rows = [note(i, f"{prose(i)} {PHI if i % 3 == 0 else ''}") for i in range(30)]
    corpus = write_corpus(tmp_path, rows)
    tokenize(TokenizeConfig(vocab_size=400, validation_fraction=0.2), corpus=corpus, out=tmp_path / "tokens", seed=1)
    in_notes = scan_files([corpus / "notes"], workers=1)
    text = next(found for found in in_notes["files"] if found["column"] == "text")
    assert {name: counts["matches"] for name, counts in text["patterns"].items()} == dict.fromkeys(EXPECTED, 10)
    in_tokens = scan_files([tmp_path / "tokens"], workers=1)
    decoded = [found for found in in_tokens["files"] if found["column"] == "decoded"]
    assert sum(found["documents"] for found in decoded) == 30
    for name in EXPECTED:
        assert sum(found["patterns"].get(name, {"matches": 0})["matches"] for found in decoded) == 10, name
    assert in_tokens["not_read"] == []
    signed = next(found for found in in_tokens["files"] if found["column"] == "signed_time")
    assert signed["patterns"]["date"]["matches"] == 30


def test_a_model_folder_is_read_as_far_as_it_is_text(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "README.md").write_text(f"trained by {PHI}")
    added = [{"id": 9, "content": "a.b@nyu.edu"}]
    vocab = {"\u0120Dr.": 0, "\u0120the": 1, "212-555-0187": 2}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": added, "model": {"vocab": vocab, "merges": []}})
    )
    found = scan_files([tmp_path], workers=1)
    assert [Path(row["file"]).name for row in found["not_read"]] == ["model.safetensors"]
    assert found["totals"]["email"]["matches"] == 2
    assert found["totals"]["phone"]["matches"] == 2
    assert "not read: " in "\n".join(as_lines(found))


def test_a_first_row_that_is_no_header_is_counted_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Jane Kowalski,212-555-0187\nother,x 212-555-0187\n")
    (tmp_path / "b.json").write_text(json.dumps({"Dr. Kowalski": {"phone": "212-555-0187"}}))
    found = totals(tmp_path / "a.csv", tmp_path / "b.json")
    assert (found["phone"], found["name"]) == (3, 1)


def test_a_field_of_any_length_is_read_and_the_limit_of_the_process_given_back(tmp_path: Path) -> None:
    """Also where a header is read in the middle of a scan."""
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text(f"note_id,text\n1,{'x ' * before}\n2,{'y ' * before}{PHI.replace(',', '')}\n")
    (unit,), _ = reading.list_units([tmp_path / "a.csv"])
    documents = reading.read_unit(unit)
    begun = [next(documents) for _ in range(4)]
    assert len(begun[-1][1]) == 2 * before
    read_header(tmp_path / "a.csv", "a.csv", ",")
    assert sum(len(text) > 2 * before for _, text, _ in documents) == 1
    assert csv.field_size_limit() == before


def test_the_number_of_processes_does_not_change_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lang1.corpus import scan

    table = pa.table({"text": [f"{PHI} {prose(i)}" for i in range(300)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    (tmp_path / "b.txt").write_text(PHI)
    alone = scan_files([tmp_path], workers=1)
    monkeypatch.setattr(scan, "PARALLEL_BYTES", 0)
    assert scan_files([tmp_path], workers=2) == alone
    assert alone["totals"]["ssn"]["matches"] == 301


def test_a_script_without_a_guard_is_run_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(PHI)
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from lang1.corpus import scan, scan_files\n"
        "scan.PARALLEL_BYTES = 0\n"
        f"found = scan_files([Path({str(tmp_path)!r}, name) for name in ('a.txt', 'b.txt')], workers=2)\n"
        "print('matches', found['matches'])\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "mine.py")], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "matches 12\n"), done.stderr


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lang1.corpus import scan

    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(PHI)
    monkeypatch.setattr(scan, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(scan, "count_unit", _die)
    with pytest.raises(InputError, match="scan: a worker process was killed") as caught:
        scan_files([tmp_path], workers=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("cut.csv.gz", gzip.compress(b"a,b\n" + bytes(range(256)) * 400)[:-40], r"cut\.csv\.gz: ends in the middle"),
        ("broken.csv", b'id,text\n1,"open\n', r"broken\.csv: line 2: not readable as CSV"),
        ("bad.jsonl", b'{"a": "b"}\n{"a": \n', r"bad\.jsonl: line 2: not readable as JSON"),
        ("bad.json", b"{", r"bad\.json: not readable as JSON"),
        ("cut.parquet", b"PAR1 and no more", r"cut\.parquet: not readable as Parquet"),
        (
            "cut.jsonl.zst",
            zstandard.ZstdCompressor().compress(b'{"a": "b"}\n' * 10000)[:-5],
            r"cut\.jsonl\.zst: ends in the middle",
        ),
    ],
)
def test_a_broken_file_is_refused_by_name(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        scan_files([tmp_path], workers=1)


def test_a_path_that_is_not_there_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: not found"):
        scan_files([tmp_path / "none"])
    with pytest.raises(InputError, match="holds no file"):
        scan_files([tmp_path])


@pytest.mark.parametrize(("limit", "code"), [(None, 0), (6, 0), (5, 2)])
def test_the_command_ends_with_2_over_the_limit(limit: int | None, code: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PHI)
    options = [] if limit is None else ["--fail-over", str(limit)]
    done = subprocess.run(
        [sys.executable, "-m", "lang1.cli", "scan", str(tmp_path), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "6 matches in 1 documents" in done.stdout
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
    assert ("more than --fail-over 5" in done.stderr) is (code == 2)


# --- presidio, which is not installed here: modules of the same shape take its place --------------------------------


def test_presidio_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(PHI)
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(InputError, match="not installed"):
        scan_files([tmp_path], presidio="en_core_web_sm")


class Pipeline:
    """What is read of a spaCy pipeline."""

    def __init__(self, assigns: str) -> None:
        self.pipe_names = ["ner"]
        self.assigns = assigns

    def get_pipe_meta(self, name: str) -> Any:
        return types.SimpleNamespace(assigns=[self.assigns])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Presidio with the models `known`, which finds Jane, `tagger`, which finds nothing, and `broken`; its calls."""
    calls: list[dict[str, Any]] = []

    class Engine:
        def __init__(self, registry: list[Any], nlp_engine: str, supported_languages: list[str]) -> None:
            assert registry == ["what the model finds"] and supported_languages == ["en"]
            if nlp_engine == "broken":
                raise OSError("no meta.json\nand more")
            pipeline = Pipeline("doc.ents" if nlp_engine == "known" else "token.tag")
            self.nlp_engine = types.SimpleNamespace(nlp={"en": pipeline})

        def analyze(self, **settings: Any) -> list[Any]:
            calls.append(settings)
            return [types.SimpleNamespace(entity_type="PERSON")] * settings["text"].count("Jane")

    class Provider:
        def __init__(self, nlp_configuration: dict[str, Any]) -> None:
            (self.model,) = nlp_configuration["models"]

        def create_engine(self) -> str:
            assert self.model["lang_code"] == "en"
            return str(self.model["model_name"])

    models = {"known", "tagger", "broken"}
    modules = {
        "spacy": types.SimpleNamespace(util=types.SimpleNamespace(is_package=models.__contains__)),
        "presidio_analyzer": types.SimpleNamespace(
            AnalyzerEngine=Engine, RecognizerRegistry=lambda recognizers: recognizers
        ),
        "presidio_analyzer.nlp_engine": types.SimpleNamespace(NlpEngineProvider=Provider),
        "presidio_analyzer.predefined_recognizers": types.SimpleNamespace(
            SpacyRecognizer=lambda: "what the model finds"
        ),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_presidio_is_asked_for_what_its_model_finds_and_never_downloads(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    (tmp_path / "a.txt").write_text("Jane came.\nNobody came.\nJane came.\n")
    found = scan_files([tmp_path], presidio="known", workers=1)["totals"]["presidio PERSON"]
    assert (found["matches"], found["documents_with_a_match"]) == (2, 2)
    assert [call["text"].strip() for call in asked] == ["Jane came.", "Nobody came."]  # short ones once
    assert "EMAIL_ADDRESS" not in asked[0]["entities"]
    with pytest.raises(InputError, match="no spaCy model other is installed"):
        scan_files([tmp_path], presidio="other")


def test_presidio_reads_a_text_longer_than_its_model_takes_in_pieces(
    tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    (tmp_path / "a.txt").write_text("Then Jane came. " * 10_000 + "x" * 60_000)
    found = scan_files([tmp_path], presidio="known", workers=1)["totals"]["presidio PERSON"]
    assert (found["matches"], found["documents_with_a_match"]) == (10_000, 1)
    assert max(len(call["text"]) for call in asked) <= 50_000


@pytest.mark.parametrize(
    "model, line",
    [("broken", "broken cannot be opened as a spaCy model: no meta.json$"), ("tagger", "no component that finds")],
)
def test_a_model_that_cannot_find_names_is_one_line(
    tmp_path: Path, asked: list[dict[str, Any]], model: str, line: str
) -> None:
    (tmp_path / "a.txt").write_text(PHI)
    with pytest.raises(InputError, match=line):
        scan_files([tmp_path], presidio=model)
