"""Encoding in processes: the same bytes whatever their number, and a killed run that goes on where it stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_records import file_hashes, note, prose

from lang1 import runs
from lang1.config import TokenizeConfig
from lang1.corpus import encoding, tokenize, tokenizer, tokens
from lang1.corpus.hashes import hash_id
from lang1.corpus.schema import CLEAN_NOTES
from lang1.errors import InputError

SMALL = {"PART_BYTES": 1, "TEXT_ROWS": 128}
"""a partition of 128 notes, or what is left of a row group"""
SCRIPT = """
import sys
from pathlib import Path
from lang1 import runs
from lang1.config import TokenizeConfig
from lang1.corpus import encoding, tokenize, tokens
runs.set_quiet(True)
encoding.WORTH_BYTES, tokens.PART_BYTES, tokens.TEXT_ROWS = 0, 1, 128
cfg = TokenizeConfig(tokenizer=sys.argv[1], validation_fraction=0.05, workers=2)
tokenize(cfg, corpus=Path(sys.argv[2]), out=Path(sys.argv[3]), seed=3)
"""


def write_cleaned(folder: Path, count: int, words: int = 60) -> Path:
    """Cleaned notes as `clean` writes them, in two files of row groups of 300."""
    rows = [note(0, prose(i, words)) | {"note_id": f"n{i}", "patient_id": f"p{i // 3}"} for i in range(count)]
    rows = [r | {"words": words, "note_hash": hash_id(r["text"]), "signed_time": datetime(2020, 1, 1)} for r in rows]
    table = pa.Table.from_pylist(rows, schema=CLEAN_NOTES)
    (folder / "notes").mkdir(parents=True)
    for part in range(2):
        half = table.slice(part * (count // 2), count // 2)
        pq.write_table(half, folder / "notes" / f"part-{part:05d}.parquet", row_group_size=300)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cleaned(tmp_path_factory.mktemp("corpus"), 1200)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write_trained(iter([[prose(i) for i in range(100)]]), 400, folder)
    return folder / "tokenizer.json"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "WORTH_BYTES", 0)
    for name, value in SMALL.items():
        monkeypatch.setattr(tokens, name, value)


def config(given: Path, workers: int = 1) -> TokenizeConfig:
    return TokenizeConfig(tokenizer=str(given), validation_fraction=0.05, workers=workers)


def shards_of(folder: Path) -> dict[str, str]:
    return {name: held for name, held in file_hashes(folder).items() if name.endswith((".bin", ".json", ".csv"))}


@pytest.mark.usefixtures("small")
def test_the_bytes_do_not_depend_on_the_workers_nor_the_ids_on_the_partitions(
    corpus: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.set_quiet(True)
    for workers in (1, 2):
        tokenize(config(given, workers), corpus=corpus, out=tmp_path / str(workers), seed=3)
    assert file_hashes(tmp_path / "1") == file_hashes(tmp_path / "2")
    monkeypatch.setattr(tokens, "PART_BYTES", 1 << 30)
    tokenize(config(given), corpus=corpus, out=tmp_path / "whole", seed=3)
    assert shards_of(tmp_path / "whole") == shards_of(tmp_path / "1")
    one, other = (pq.read_table(tmp_path / name / "documents.parquet") for name in ("1", "whole"))
    assert one.equals(other)


@pytest.mark.usefixtures("small")
def test_other_workers_are_no_other_settings(corpus: Path, given: Path, tmp_path: Path) -> None:
    runs.set_quiet(True)
    first = tokenize(config(given, 1), corpus=corpus, out=tmp_path / "t", seed=3)
    assert tokenize(config(given, 2), corpus=corpus, out=tmp_path / "t", seed=3) == first


@pytest.mark.usefixtures("small")
def test_a_killed_run_goes_on_where_it_stopped_and_leaves_no_process(
    corpus: Path, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.set_quiet(True)
    tokenize(config(given), corpus=corpus, out=tmp_path / "whole", seed=3)
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(given), str(corpus), str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.glob(".scratch/*.json"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob(".scratch/*.json")))
    assert workers and done >= 3 and not runs.is_complete(out)
    assert not psutil.wait_procs(workers, timeout=20)[1]
    runs.set_quiet(False)
    tokenize(config(given), corpus=corpus, out=out, seed=3)
    said = re.search(r"(\d+) of (\d+) partitions were encoded before", capsys.readouterr().err)
    assert said is not None and done <= int(said[1]) < int(said[2])
    assert file_hashes(out) == file_hashes(tmp_path / "whole")


@pytest.mark.usefixtures("small")
def test_a_run_killed_after_the_tokenizer_does_not_train_it_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.set_quiet(True)
    cfg = replace(TokenizeConfig(), vocab_size=400, validation_fraction=0.05, workers=1)
    tokenize(cfg, corpus=corpus, out=tmp_path / "whole", seed=3)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(encoding, "join", stop)
        tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "write_trained", stop)
        patched.setattr(encoding, "encode_partition", stop)
        tokenize(cfg, corpus=corpus, out=tmp_path / "t", seed=3)
    assert file_hashes(tmp_path / "t") == file_hashes(tmp_path / "whole")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("small")
def test_a_worker_that_is_killed_is_one_line(
    corpus: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.set_quiet(True)
    with monkeypatch.context() as patched, pytest.raises(InputError, match="a worker process was killed") as caught:
        patched.setattr(encoding, "encode_partition", _die)
        tokenize(config(given, 2), corpus=corpus, out=tmp_path / "t", seed=3)
    assert "\n" not in str(caught.value)
    tokenize(config(given, 2), corpus=corpus, out=tmp_path / "t", seed=3)


@pytest.mark.usefixtures("small")
def test_bad_input_that_a_worker_meets_is_one_line(corpus: Path, given: Path, tmp_path: Path) -> None:
    runs.set_quiet(True)
    web = tmp_path / "web"
    web.mkdir()
    (web / "a.jsonl").write_text('{"text": "good"}\n')
    (web / "b.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: "):
        tokenize(replace(config(given, 2), web=str(web)), corpus=corpus, out=tmp_path / "t", seed=3)


def test_text_in_memory_does_not_grow_with_a_note(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tokenizer.open_encoder(given.parent)
    text = " ".join(prose(i, 50) for i in range(40))
    whole = encoder.encode([text, "short", text])
    monkeypatch.setattr(tokenizer, "LONGEST", 500)
    assert len(tokenizer.cut(text, False)) > 10
    assert encoder.encode([text, "short", text]) == whole
    assert "".join(tokenizer.cut("x" * 1800, False)) == "x" * 1800
