"""Shards: blocks equal the plain stream, across files; a file that changed is noticed."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1 import runs
from lang1.corpus.shards import ShardWriter, dtype_for, open_shards, verify
from lang1.errors import InputError


def write_shards(folder: Path, ids: list[int], limit: int, vocab_size: int = 100, step: int = 7) -> Path:
    dtype = dtype_for(vocab_size)
    writer = ShardWriter(folder, "clinical", "train", dtype, limit)
    for start in range(0, len(ids), step):
        writer.write(np.array(ids[start : start + step], dtype=np.int64))
    writer.close()
    empty = ShardWriter(folder, "clinical", "val", dtype, limit)
    empty.close()
    splits = {"train": {"files": writer.files}, "val": {"files": empty.files}}
    index = {"dtype": dtype, "vocab_size": vocab_size, "bos_id": 1, "eos_id": 2, "separator_id": 2}
    runs.write_json(folder / "index.json", {**index, "sources": {"clinical": splits}})
    return folder


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 99), max_size=60), limit=st.integers(1, 25), context=st.integers(1, 20),
    step=st.integers(1, 30),
)  # fmt: skip
def test_blocks_equal_the_plain_stream(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], limit: int, context: int, step: int
) -> None:
    shards = open_shards(write_shards(tmp_path_factory.mktemp("s"), ids, limit, step=step))
    blocks = shards.blocks("clinical", "train", context)
    plain = [ids[i : i + context + 1] for i in range(0, len(ids), context)]
    wanted = [block for block in plain if len(block) == context + 1]
    assert [block.tolist() for block in blocks] == wanted
    assert len(blocks) == len(wanted)
    assert shards.tokens("clinical", "train") == len(ids)
    assert all(block.dtype == np.int64 for block in blocks)


def test_ids_beyond_sixteen_bits_are_written_in_thirty_two(tmp_path: Path) -> None:
    assert dtype_for(65_536) == "uint16" and dtype_for(65_537) == "uint32"
    ids = [0, 70_000, 65_536, 3]
    shards = open_shards(write_shards(tmp_path, ids, 3, vocab_size=70_001))
    assert shards.blocks("clinical", "train", 3)[0].tolist() == ids
    data = (tmp_path / "clinical" / "train-00000.bin").read_bytes()
    assert data[64:76] == np.array(ids[:3], "<u4").tobytes()  # what a reader without lang1 needs to know


def test_a_split_without_tokens_has_no_blocks(tmp_path: Path) -> None:
    assert len(open_shards(write_shards(tmp_path, [1, 2, 3], 10)).blocks("clinical", "val", 4)) == 0


def test_blocks_outside_the_range_and_unknown_sources_are_refused(tmp_path: Path) -> None:
    shards = open_shards(write_shards(tmp_path, list(range(10)), 10))
    assert shards.sources() == ("clinical",)
    with pytest.raises(IndexError):
        shards.blocks("clinical", "train", 4)[2]
    with pytest.raises(IndexError):
        shards.blocks("clinical", "train", 4)[-1]
    with pytest.raises(InputError, match=r"no tokens of web/train; it holds clinical/train, clinical/val"):
        shards.blocks("web", "train", 4)


def test_a_file_cut_short_or_missing_or_an_index_of_something_else_is_one_line(tmp_path: Path) -> None:
    write_shards(tmp_path, list(range(10)), 10)
    path = tmp_path / "clinical" / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train-00000\.bin: has 91 bytes, index\.json says 92"):
        open_shards(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"train-00000\.bin: is missing"):
        open_shards(tmp_path)
    runs.write_json(tmp_path / "index.json", {"dtype": "uint16", "sources": []})
    with pytest.raises(InputError, match="not an index of token shards"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="not found"):
        open_shards(tmp_path / "nowhere")


# --- damage --------------------------------------------------------------------------------------------------------


def write_large(folder: Path) -> tuple[Path, list[int]]:
    """Three files of 40,000 ids, two checked blocks each, and one of 30,000."""
    ids = np.random.default_rng(1).integers(0, 60_000, 150_000).tolist()
    return write_shards(folder, ids, 40_000, vocab_size=60_000, step=7001), ids


def read_all(folder: Path, context: int = 511) -> list[int]:
    blocks = open_shards(folder).blocks("clinical", "train", context)
    return [i for b in range(len(blocks)) for i in blocks[b].tolist()[: None if b + 1 == len(blocks) else -1]]


def test_a_shard_cut_at_any_place_is_refused_on_opening(tmp_path: Path) -> None:
    write_large(tmp_path)
    path = tmp_path / "clinical" / "train-00001.bin"
    whole = path.read_bytes()
    places = {0, 1, 63, 64, 65, len(whole) - 1, len(whole) - 4, *range(7, len(whole), len(whole) // 50)}
    assert len(places) > 50
    for place in sorted(places):
        path.write_bytes(whole[:place])
        with pytest.raises(InputError, match=r"train-00001\.bin: has \d+ bytes, index\.json says 80076"):
            open_shards(tmp_path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="has 80077 bytes"):
        open_shards(tmp_path)


def test_a_flipped_bit_anywhere_is_never_silent_and_names_file_and_block(tmp_path: Path) -> None:
    _, ids = write_large(tmp_path)
    wanted = read_all(tmp_path)
    assert wanted == ids[: len(wanted)]
    path = tmp_path / "clinical" / "train-00002.bin"
    whole = path.read_bytes()
    draw = random.Random(5)
    end = len(whole) - 12  # of the ids
    places = [*range(64), *range(end, len(whole)), *(draw.randrange(64, end) for _ in range(80))]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(broken))
        with pytest.raises(InputError) as caught:
            read_all(tmp_path)
        message = str(caught.value)
        assert "train-00002.bin" in message and "\n" not in message
        if 64 <= place < end:
            assert f"block {(place - 64) // 65536} (bytes " in message


def test_only_the_block_that_is_read_is_checked_and_only_once(tmp_path: Path) -> None:
    _, ids = write_large(tmp_path)
    path = tmp_path / "clinical" / "train-00000.bin"
    broken = bytearray(path.read_bytes())
    broken[64 + 2 * 39_000] ^= 4  # in its second block
    path.write_bytes(bytes(broken))
    blocks = open_shards(tmp_path).blocks("clinical", "train", 1000)
    assert blocks[3].tolist() == ids[3000:4001]
    assert blocks.files[0].checked.tolist() == [True, False]
    assert blocks[120].tolist() == ids[120_000:121_001]
    with pytest.raises(InputError, match=r"train-00000\.bin: block 1 \(bytes 65600 to 80063\)"):
        blocks[39]  # reads ids 39,000 to 40,000


def test_a_shard_of_another_place_or_format_is_refused(tmp_path: Path) -> None:
    write_large(tmp_path)
    files = [tmp_path / "clinical" / f"train-0000{i}.bin" for i in range(4)]
    whole = files[0].read_bytes()
    for name, changed in {
        "is not a shard of token ids": b"x" * 64 + whole[64:],
        "its header is damaged": whole[:9] + b"\7" + whole[10:],
    }.items():
        files[0].write_bytes(changed)
        with pytest.raises(InputError, match=name):
            open_shards(tmp_path)
    header = struct.pack("<8sIIQQ28x", b"LANG1IDS", 9, 2, 40_000, 32_768)
    files[0].write_bytes(header + struct.pack("<I", zlib.crc32(header)) + whole[64:])
    with pytest.raises(InputError, match="is of format 9, this version reads 1"):
        open_shards(tmp_path)
    # as long as uint16 ids of this number, but half as many of four bytes
    header = struct.pack("<8sIIQQ28x", b"LANG1IDS", 1, 4, 20_000, 32_768)
    files[0].write_bytes(header + struct.pack("<I", zlib.crc32(header)) + whole[64:])
    with pytest.raises(InputError, match=r"holds 20000 ids of 4 bytes, index\.json says 40000 of 2"):
        open_shards(tmp_path)


def test_an_index_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    runs.set_quiet(True)
    runs.run_stage(tmp_path / "t", "tokenize", {}, 1, {}, lambda stage: void(write_large(stage.out)))
    path = tmp_path / "t" / "index.json"
    path.write_text(path.read_text().replace('"separator_id": 2', '"separator_id": 3'))
    with pytest.raises(InputError, match=r"index\.json: is not the file that manifest\.json lists"):
        open_shards(tmp_path / "t")


def void(_: object) -> None:
    pass


def test_verify_checks_every_byte_and_says_what(tmp_path: Path) -> None:
    runs.set_quiet(True)

    def work(stage: runs.Stage) -> None:
        write_large(stage.out)
        runs.write_text(stage.out / "documents.txt", "a list")

    out = tmp_path / "t"
    runs.run_stage(out, "tokenize", {}, 1, {}, work)
    told = list(verify(out))
    assert told[0] == "clinical/train-00000.bin: 40,000 ids, 2 blocks"
    assert told[-2:] == [
        "documents.txt, index.json: as manifest.json lists them",
        f"{out}: whole: 150,000 ids in 4 shards, 7 blocks checked",
    ]
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name != runs.MANIFEST):
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(InputError, match=path.name):
                list(verify(out))
        path.unlink()
        with pytest.raises(InputError, match=path.name):
            list(verify(out))
        path.write_bytes(whole)
    assert list(verify(out)) == told
