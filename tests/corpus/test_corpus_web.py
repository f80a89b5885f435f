"""Web text: every format gives the same documents; what holds no text is counted, what is cut short is refused."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lang1.corpus import web
from lang1.errors import InputError

TEXTS = [f"Document {i} says this.\nAnd that: caf\u00e9 {i}." for i in range(40)]
REAL = web.resolve("../shared/data/text_general")


def jsonl(texts: list[str]) -> bytes:
    rows = ({"text": text, "meta": {"redpajama_set_name": "RedPajamaC4"}} for text in texts)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(path: Path) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    return [text for text, _ in web.iter_documents(web.list_files(path), counts)], counts


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / "b.jsonl.zst").write_bytes(zstd(jsonl(TEXTS[:9])) + zstd(jsonl(TEXTS[9:])))  # two frames
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS)))
    pq.write_table(pa.table({"text": TEXTS, "other": range(40)}), tmp_path / "d.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read(path)[0] == TEXTS, path.name


def test_zstd_chunks_that_cut_lines_and_frames_anywhere(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "b.jsonl.zst").write_bytes(zstd(jsonl(TEXTS[:9])) + zstd(jsonl(TEXTS[9:])))
    for size in (1, 3, 17):
        monkeypatch.setattr(web, "CHUNK_BYTES", size)
        assert read(tmp_path)[0] == TEXTS


def test_slimpajamas_folders_in_the_order_of_their_paths_with_sets_counted(tmp_path: Path) -> None:
    for chunk, texts in (("chunk2", TEXTS[20:]), ("chunk1", TEXTS[:20])):
        folder = tmp_path / "train" / chunk
        folder.mkdir(parents=True)
        (folder / "example_0.jsonl.zst").write_bytes(zstd(jsonl(texts)))
    documents, counts = read(tmp_path)
    assert documents == TEXTS
    assert counts == {"set_RedPajamaC4": 40}


def test_rows_without_text_are_counted_by_reason(tmp_path: Path) -> None:
    rows = [
        b'{"text": "good"}',
        b"{broken",
        b'{"text": 5}',
        b'["text"]',
        b'{"text": "  "}',
        b"",
        b'{"other": "x"}',
        b"\xff",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    documents, counts = read(tmp_path)
    assert documents == ["good"]
    assert counts == {"bad_not_json": 2, "bad_no_text": 3, "bad_empty": 1}


def test_a_lone_half_of_a_character_can_be_encoded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b \\ud83d\\ude00"}')
    assert read(tmp_path)[0] == ["a \ufffd b \U0001f600"]


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("cut", [0.6, 0.0])
def test_a_file_cut_short_or_of_another_kind_is_refused(tmp_path: Path, name: str, cut: float) -> None:
    whole = {"zst": zstd, "gz": gzip.compress}.get(name.split(".")[-1], bytes)(jsonl(TEXTS * 50))
    (tmp_path / name).write_bytes(whole[: int(len(whole) * cut)] or b"something else")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.gz"])
def test_a_download_of_no_byte_is_refused_beside_whole_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="ends in the middle of its compression"):
        read(tmp_path)
    (tmp_path / name).write_bytes((zstd if name.endswith("zst") else gzip.compress)(b""))
    assert read(tmp_path)[0] == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.gz"])
def test_a_file_with_a_flipped_byte_anywhere_is_refused_or_read_right(tmp_path: Path, name: str) -> None:
    pack = zstd if name.endswith("zst") else gzip.compress
    whole = pack(jsonl(TEXTS))
    refused = 0
    for at in range(0, len(whole), max(len(whole) // 80, 1)):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        (tmp_path / name).write_bytes(broken)
        try:
            assert read(tmp_path)[0] == TEXTS or name.endswith("zst"), at  # our zstd frames carry no checksum
        except InputError as error:
            refused += 1
            assert name in str(error) and "\n" not in str(error) and "Document" not in str(error)
    assert refused > 10
    (tmp_path / name).write_bytes(whole)
    assert read(tmp_path)[0] == TEXTS


def test_plain_text_comes_in_pages_and_loses_nothing() -> None:
    line = "x" * 99 + "\n"
    speeches = ([line] * 5 + ["\n"]) * 20
    pages = list(web.iter_pages(speeches))
    assert [page.count("x") for page in pages] == [1980] * 5  # four speeches of 500 characters a page
    articles = ["a" * 5000 + "\n", "b" * 9000 + "\n", "short\n"]
    assert [len(page) for page in web.iter_pages(articles)] == [5000, 9000, 5]
    assert list(web.iter_pages(["\n", " \n"])) == []


def test_a_folder_without_text_is_refused_and_provenance_is_passed_over(tmp_path: Path) -> None:
    for name in ("SOURCE.txt", "README.txt", "LICENSE.txt", "picture.png"):
        (tmp_path / name).write_text("about")
    with pytest.raises(InputError, match="no file of text"):
        web.list_files(tmp_path)
    (tmp_path / "sources_of_light.txt").write_text("text")
    (tmp_path / "z.txt").write_text("text")
    assert [path.name for path in web.list_files(tmp_path)] == ["sources_of_light.txt", "z.txt"]


def test_the_shared_data_may_lie_elsewhere(monkeypatch: Any) -> None:
    monkeypatch.setenv("LANG1_DATA", "/elsewhere")
    assert web.resolve("../shared/data/text_general") == Path("/elsewhere/text_general")
    assert web.resolve("../shared/data") == Path("/elsewhere")
    assert web.resolve("../shared/database") == Path("../shared/database")
    monkeypatch.delenv("LANG1_DATA")
    assert web.resolve("../shared/data/x") == Path("../shared/data/x")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real text at {REAL}")
def test_real_web_text_is_read_whole() -> None:
    documents, counts = read(REAL)
    assert counts == {}
    assert 1000 < len(documents) < 4000
    names = ("tinyshakespeare.txt", "wiki_demo.txt", "wikitext2_test.txt", "wikitext2_valid.txt")
    words = sum(len((REAL / name).read_text().split()) for name in names)
    rows = [json.loads(line)["text"] for line in (REAL / "c4_demo.jsonl").read_text().splitlines()]
    assert sum(len(text.split()) for text in documents) == words + sum(len(text.split()) for text in rows)
