"""The tokenizer: one token an option, text that stays text, the same folder for every reader."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus_records import prose

from lang1.corpus import tokenizer
from lang1.errors import InputError

TEXTS = [prose(i, 40) for i in range(200)]
PROBES = [
    *TEXTS[:20],
    "Answer: A",
    "BP 120/80,  T 38.5\nQuestion: <s> x </s> <pad>",
    "café µg 患者 \U0001f600",
    "",
    " ",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write_trained(iter([TEXTS[:90], TEXTS[90:]]), 400, path)
    return path


def test_options_digits_and_the_line_break_are_one_token_each(folder: Path) -> None:
    encoder = tokenizer.open_encoder(folder)
    for text in (*tokenizer.ALWAYS, "\n", *"ABCDE", *"0123456789", ":"):
        assert len(encoder.encode([text])[0]) == 1, text
    answer = encoder.encode(["Answer:", "Answer: A", "Answer: E"])
    assert answer[1] == answer[0] + encoder.encode([" A"])[0]
    assert answer[2] == answer[0] + encoder.encode([" E"])[0]


def test_options_stay_one_token_when_the_vocabulary_is_full(tmp_path: Path) -> None:
    texts = [word + str(i) for i, word in enumerate(" ".join(TEXTS).split())]  # no " A" to " E" among them
    tokenizer.write_trained(iter([texts]), 300, tmp_path)
    encoder = tokenizer.open_encoder(tmp_path)
    assert encoder.vocab_size == 300
    assert all(len(ids) == 1 for ids in encoder.encode(list(tokenizer.ALWAYS)))
    assert [encoder.backend.decode(ids) for ids in encoder.encode(texts[:50])] == texts[:50]


def test_each_digit_stands_alone(folder: Path) -> None:
    encoder = tokenizer.open_encoder(folder)
    assert encoder.backend.encode(" 120/80 5mg", add_special_tokens=False).tokens[:6] == ["Ġ1", "2", "0", "/", "8", "0"]


def test_text_that_looks_like_a_special_token_stays_text(folder: Path) -> None:
    encoder = tokenizer.open_encoder(folder)
    special = {encoder.backend.token_to_id(token) for token in tokenizer.SPECIAL}
    assert special == {0, 1, 2}
    assert (encoder.bos_id, encoder.eos_id) == (1, 2)
    assert not special & set(encoder.encode(["a <s> b </s> c <pad>"])[0])


def test_every_text_is_given_back(folder: Path) -> None:
    encoder = tokenizer.open_encoder(folder)
    assert [encoder.backend.decode(ids, skip_special_tokens=False) for ids in encoder.encode(PROBES)] == PROBES


def test_transformers_reads_the_folder_with_the_same_ids(folder: Path) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(folder))
    assert loaded(PROBES)["input_ids"] == tokenizer.open_encoder(folder).encode(PROBES)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    named = json.loads((folder / tokenizer.CONFIG).read_text())["tokenizer_class"]
    assert named == "PreTrainedTokenizerFast"  # transformers 4 fails on 5's TokenizersBackend


def test_same_texts_same_bytes_whatever_the_threads_and_hash_seed(folder: Path, tmp_path: Path) -> None:
    script = (
        "import sys, json; from pathlib import Path; from lang1.corpus import tokenizer\n"
        "tokenizer.write_trained(iter([json.load(sys.stdin)]), 400, Path(sys.argv[1]))"
    )
    env = os.environ | {"RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "11"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], input=json.dumps(TEXTS), text=True, env=env, check=True
    )
    for name in ("tokenizer.json", tokenizer.CONFIG):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("given", ["tokenizer.json", "."])
def test_a_given_tokenizer_keeps_its_ids(folder: Path, tmp_path: Path, given: str) -> None:
    tokenizer.write_given(folder / given, tmp_path / "written", tmp_path / "scratch")
    written = tokenizer.open_encoder(tmp_path / "written")
    assert written.encode(PROBES) == tokenizer.open_encoder(folder).encode(PROBES)
    assert (written.bos_id, written.eos_id) == (1, 2)


def test_a_hub_folder_of_another_family_keeps_its_ids_in_every_form(folder: Path, tmp_path: Path) -> None:
    facts = json.loads((folder / "tokenizer.json").read_text())
    facts["added_tokens"] = facts["added_tokens"][2:]
    facts["added_tokens"][0]["content"] = "<|endoftext|>"
    vocab = facts["model"]["vocab"]
    vocab["<|endoftext|>"] = vocab.pop("</s>")
    named, parts = tmp_path / "named", tmp_path / "parts"
    for given in (named, parts):
        given.mkdir()
    (named / "tokenizer.json").write_text(json.dumps(facts))
    (named / tokenizer.CONFIG).write_text(json.dumps({"model_max_length": 1024}))
    (named / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    merges = "\n".join(" ".join(pair) for pair in facts["model"]["merges"])
    (parts / "vocab.json").write_text(json.dumps(vocab))
    (parts / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (parts / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    words = [re.sub(r"\d", "", text) for text in TEXTS[:20]]  # ours splits digits, GPT-2 does not
    wanted = tokenizer.open_encoder(folder).encode(words)
    for given in (named, parts):
        tokenizer.write_given(given, tmp_path / "written" / given.name, tmp_path / "scratch")
        encoder = tokenizer.open_encoder(tmp_path / "written" / given.name)
        assert encoder.encode(words) == wanted
        assert (encoder.eos_id, encoder.vocab_size) == (2, len(vocab))


def test_a_lone_tokenizer_json_is_read_by_its_own_special_tokens(folder: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.json"
    lone.write_bytes((folder / "tokenizer.json").read_bytes())
    tokenizer.write_given(lone, tmp_path / "written", tmp_path / "scratch")
    assert tokenizer.open_encoder(tmp_path / "written").eos_id == 2


def train_llama(folder: Path, texts: list[str], size: int, **changed: Any) -> Path:
    """A SentencePiece model of Llama-2's kind."""
    import sentencepiece

    lines = folder / "texts.txt"
    lines.write_text("\n".join(texts))
    kind = {
        "model_type": "bpe", "byte_fallback": True, "split_digits": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "hard_vocab_limit": False,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(folder / "tokenizer"), vocab_size=size, minloglevel=3, **kind | changed
    )
    return folder / "tokenizer.model"


PARTS = [
    *(" ", "  ", "     ", "\n", "\n\n", "\t", "\r\n", "-", "----", "=", "___", "..."),
    *("a", "b", "ha", "the ", "0", "12", "x", "BP 120/80", "<s>", "</s>", "<unk>", "<0x0A>", "<", "s>", "\u2581"),
    *("caf\u00e9", "\u00b5g", "\u60a3\u8005", "\U0001f600", "e\u0301", "\ufb01"),
    *("\x00", "\x01", "\x1b", "\x7f", "\u00a0", "\u200b", "\u3000", "\ufeff"),
]


def strange_texts(count: int) -> list[str]:
    """Spaces, control characters, what looks like special tokens and runs of one or two characters, in any order."""
    draw = random.Random(11)
    mixed = ["".join(draw.choices(PARTS, k=draw.randint(0, 25))) for _ in range(count)]
    few = ["".join(draw.choices(draw.sample(PARTS, 2), k=draw.randint(1, 40))) for _ in range(count)]
    return mixed + few + [part * n for part in PARTS for n in range(1, 20)]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"split_by_whitespace": False, "split_by_unicode_script": False},
        {"add_dummy_prefix": False},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True, "byte_fallback": False},
    ],
    ids=["llama", "pieces across spaces", "no leading space", "sentencepiece's defaults"],
)
def test_a_sentencepiece_model_keeps_its_ids_for_every_reader(tmp_path: Path, changed: dict[str, Any]) -> None:
    import sentencepiece
    from transformers import AutoTokenizer

    strange = strange_texts(400)
    learnt = [text for text in [*TEXTS, *strange[::3]] if "\n" not in text and "\x00" not in text]
    model = train_llama(tmp_path, learnt, 900, **changed)
    tokenizer.write_given(model, tmp_path / "written", tmp_path / "scratch")
    encoder = tokenizer.open_encoder(tmp_path / "written")
    own = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts = [*TEXTS, *strange]
    wanted = [own.encode(text) for text in texts]
    assert encoder.encode(texts) == wanted
    ids, lengths = encoder.encode_stream(texts, threads=2)
    assert ids.tolist() == [i for text in wanted for i in (*text, own.eos_id())]
    assert lengths.tolist() == [len(text) + 1 for text in wanted]
    assert [e.ids for e in encoder.backend.encode_batch_fast(texts, add_special_tokens=False)] == wanted
    loaded = AutoTokenizer.from_pretrained(str(tmp_path / "written"))
    assert loaded(texts)["input_ids"] == wanted
    assert (encoder.vocab_size, encoder.bos_id, encoder.eos_id) == (len(own), own.bos_id(), own.eos_id())
    assert (tmp_path / "written" / "tokenizer.model").read_bytes() == model.read_bytes()


def test_a_folder_with_a_sentencepiece_model_alone_is_read_as_the_model(tmp_path: Path) -> None:
    model = train_llama(tmp_path, TEXTS, 350)
    tokenizer.write_given(model, tmp_path / "a", tmp_path / "scratch")
    tokenizer.write_given(tmp_path, tmp_path / "b", tmp_path / "scratch")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("changed", [{"model_type": "unigram"}, {"user_defined_symbols": ["[INST]"]}])
def test_a_sentencepiece_model_of_another_kind_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = train_llama(tmp_path, TEXTS, 350, **changed)
    with pytest.raises(InputError, match=r"give (its|a) tokenizer\.json"):
        tokenizer.write_given(model, tmp_path / "written", tmp_path / "scratch")


def test_a_tokenizer_json_is_taken_to_the_byte_with_the_names_beside_it(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    facts = json.loads((folder / "tokenizer.json").read_text())
    facts["added_tokens"][2]["content"] = "<|stop|>"
    facts["model"]["vocab"]["<|stop|>"] = facts["model"]["vocab"].pop("</s>")
    (given / "tokenizer.json").write_text(json.dumps(facts))
    (given / tokenizer.CONFIG).write_text(json.dumps({"eos_token": {"content": "<|stop|>"}, "bos_token": None}))
    tokenizer.write_given(given, tmp_path / "written", tmp_path / "scratch")
    assert (tmp_path / "written" / "tokenizer.json").read_bytes() == (given / "tokenizer.json").read_bytes()
    encoder = tokenizer.open_encoder(tmp_path / "written")
    assert (encoder.bos_id, encoder.eos_id) == (None, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.json", None, "not found"),
        ("tokenizer.json", b"{]", "not readable as JSON"),
        ("tokenizer.json", b'{"added_tokens": []}', "not a tokenizer that tokenizers can read"),
        ("tokenizer.model", b"nothing of the kind", "not a tokenizer that sentencepiece can read"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        tokenizer.write_given(tmp_path / name, tmp_path / "written", tmp_path / "scratch")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_of_text_token_is_refused(folder: Path, tmp_path: Path) -> None:
    facts: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    facts["added_tokens"] = facts["added_tokens"][:1]
    (tmp_path / "lone.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="no end-of-text token"):
        tokenizer.write_given(tmp_path / "lone.json", tmp_path / "written", tmp_path / "scratch")


def test_wordpiece_is_bert_s_the_same_each_time_and_reads_no_text_as_special(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for name, texts in (("one", TEXTS), ("two", TEXTS[::-1])):
        tokenizer.write_wordpiece(iter([texts]), 300, tmp_path / name)
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()
    encoder = tokenizer.open_encoder(tmp_path / "one")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "one")
    named = (loaded.pad_token_id, loaded.unk_token_id, loaded.cls_token_id, loaded.sep_token_id, loaded.mask_token_id)
    assert named == (0, 1, 2, 3, 4)
    assert (encoder.bos_id, encoder.eos_id, encoder.vocab_size) == (2, 3, len(loaded))
    text = TEXTS[0]
    [ids] = encoder.encode([text])
    assert ids == loaded(text, add_special_tokens=False)["input_ids"]
    assert encoder.backend.decode(ids).replace(" ", "") == text.replace(" ", "")
    [odd, strange] = encoder.encode(["[MASK] [CLS] [SEP]", "ä 患者"])
    assert not {0, 1, 2, 3, 4} & set(odd)
    assert set(strange) == {1}
    pieces = loaded.convert_ids_to_tokens(ids)
    assert len(loaded) <= 300 and any(len(piece.removeprefix("##")) > 1 for piece in pieces)
