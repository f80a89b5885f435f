"""Shards: blocks equal the plain stream, across files; a file that changed is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lang1 import runs
from lang1.corpus.shards import ShardWriter, dtype_for, open_shards
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
    assert (tmp_path / "clinical" / "train-00000.bin").read_bytes() == np.array(ids[:3], "<u4").tobytes()


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
    with pytest.raises(InputError, match=r"train-00000\.bin: has 19 bytes, index\.json says 20"):
        open_shards(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"train-00000\.bin: is missing"):
        open_shards(tmp_path)
    runs.write_json(tmp_path / "index.json", {"dtype": "uint16", "sources": []})
    with pytest.raises(InputError, match="not an index of token shards"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="not found"):
        open_shards(tmp_path / "nowhere")
