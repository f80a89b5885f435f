"""The tokenizer of a corpus version: trained on its notes, or a given one; written as a Hugging Face folder.

Ours is byte-level BPE (docs/decisions/0002-tokenizer.md): it needs no unknown token, trains the same from the same
notes, and gives every text back to the byte. A digit stands alone, with the space before it, so that 120 and 121
differ in one token; " A" to " E" and the digits are tokens whatever the corpus holds, because the answer to a
multiple-choice question is read at one position. Ids 0, 1, 2 are <pad>, <s>, </s>: Llama's defaults for the last two.

Text never becomes a special token: `encoder` splits what looks like one, and the folder written says so to
transformers. A given SentencePiece model encodes the corpus itself (sentencepieces.py). Cost: 32,000 entries trained on
a small corpus fit it closely and the world badly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lang1 import runs
from lang1.corpus import sentencepieces
from lang1.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<pad>", "<s>", "</s>")
WORDPIECE_SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""BERT's, ids 0 to 4; [CLS] begins a text, [SEP] ends it"""
ALWAYS = (*(f" {letter}" for letter in "ABCDE"), *(f" {digit}" for digit in range(10)))
"""texts that are one token each, however rare; a line break and single characters are bytes, so they are too"""
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's split into words, but with each digit apart"""
MIN_FREQUENCY = 2
CONFIG = "tokenizer_config.json"
_COMMON = {
    "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 4 does not know 5's own name for it
    "clean_up_tokenization_spaces": False,
    "split_special_tokens": True,
}
LONGEST = 1 << 20
"""characters that are encoded as one text; longer ones are cut"""
_WORD = re.compile(r"(?<=\S) (?=[A-Za-z])")
_BOS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>")
_EOS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|im_end|>")

Ids = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer ready for corpus text, and the ids that the shards' index names."""

    folder: Path
    vocab_size: int
    bos_id: int | None
    eos_id: int
    pieces: Any = None
    """the sentencepiece processor where the folder holds its model: the same ids, and faster"""
    skips_space: bool = False
    """true: a text gets the space before its first word by itself, so that a cut takes that space away"""
    opened: Tokenizer | None = None
    """tokenizer.json where it was opened already"""

    @cached_property
    def backend(self) -> Tokenizer:
        """tokenizer.json, opened: what encodes where there is no sentencepiece model, and decodes."""
        return self.opened if self.opened is not None else _open_backend(self.folder)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, nothing added; `<s>` in a text stays text."""
        return [ids.tolist() for ids in self._encode(texts, 1)]

    def encode_stream(self, texts: list[str], threads: int = 1) -> tuple[Ids, Ids]:
        """All ids behind each other, each text's followed by the end-of-text token; and how many each text has.

        `threads` is for sentencepiece; Hugging Face's library reads RAYON_NUM_THREADS.
        """
        separator = np.array([self.eos_id], np.uint32)
        arrays = self._encode(texts, threads)
        lengths = np.fromiter((len(ids) + 1 for ids in arrays), np.int64, len(arrays))
        return np.concatenate([part for ids in arrays for part in (ids, separator)] or [separator[:0]]), lengths

    def _encode(self, texts: list[str], threads: int) -> list[Ids]:
        parts = [cut(text, self.skips_space) for text in texts]
        flat = [part for text in parts for part in text]
        if self.pieces is not None:
            arrays = self.pieces.encode(flat, return_type="numpy", num_threads=threads)
        else:
            encodings = self.backend.encode_batch_fast(flat, add_special_tokens=False)
            arrays = [np.array(encoding.ids, np.uint32) for encoding in encodings]
        arrays = [ids.astype(np.uint32, copy=False) for ids in arrays]
        if len(flat) == len(texts):
            return arrays
        rest = iter(arrays)
        return [np.concatenate([next(rest) for _ in text]) for text in parts]


def cut(text: str, skips_space: bool) -> list[str]:
    """A text, or where it is longer than LONGEST its pieces: the libraries need 100 bytes a character and more.

    A piece ends before a space with a letter on its far side: there our tokenizer begins a word, and Llama's a piece.
    """
    pieces = []
    while len(text) > LONGEST:
        place = _WORD.search(text, LONGEST)
        if place and place.start() < 2 * LONGEST:
            pieces.append(text[: place.start()])
            text = text[place.start() + skips_space :]
        else:  # no such place: a million characters without a word
            pieces.append(text[:LONGEST])
            text = text[LONGEST:]
    return [*pieces, text]


def open_encoder(folder: Path) -> Encoder:
    """The encoder of a tokenizer folder that `write_trained` or `write_given` wrote."""
    config = runs.read_json(folder / CONFIG)
    names = [config.get(f"{name}_token") for name in ("bos", "eos")]
    model = folder / sentencepieces.MODEL
    if model.exists():
        pieces, backend = sentencepieces.open_model(model), None
        size, encode = len(pieces), pieces.encode
        bos, eos = (pieces.piece_to_id(name) if name else None for name in names)
    else:
        pieces, backend = None, _open_backend(folder)
        size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        bos, eos = (_token_id(backend, name) for name in names)
        encode = _ids_of(backend)
    if eos is None:
        raise InputError(
            f"{folder}: the tokenizer has no end-of-text token (eos_token); documents need one between them"
        )
    whole, *halves = (encode(text) for text in ("No fever", "No", "fever"))
    return Encoder(folder, size, bos, eos, pieces, whole == [*halves[0], *halves[1]], backend)


def _ids_of(backend: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: list(backend.encode(text, add_special_tokens=False).ids)


def _open_backend(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    return backend


def _token_id(backend: Tokenizer, token: Any) -> int | None:
    name = token.get("content") if isinstance(token, dict) else token
    return backend.token_to_id(name) if name else None


# --- trained on the corpus -------------------------------------------------------------------------------------


def write_trained(batches: Iterator[list[str]], vocab_size: int, folder: Path) -> None:
    """Train on batches of texts and write the folder. Same texts in the same order, same bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(batches, trainer=trainer)
    facts = json.loads(tokenizer.to_str())
    _add_missing(facts["model"], vocab_size)
    runs.write_text(folder / "tokenizer.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    special = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    runs.write_json(folder / CONFIG, _COMMON | special)


def _add_missing(model: dict[str, Any], vocab_size: int) -> None:
    """Give ALWAYS a token each, as the last merges: no other word is cut otherwise. The rarest merges make room."""
    vocab: dict[str, int] = model["vocab"]
    merges: list[list[str]] = model["merges"]
    wanted = {text.replace(" ", "Ġ") for text in ALWAYS}
    while len(vocab) + len(wanted - vocab.keys()) > vocab_size:
        token = "".join(merges.pop())
        if not any("".join(pair) == token for pair in merges):
            del vocab[token]
    for token in sorted(wanted - vocab.keys()):
        vocab[token] = len(vocab)
        merges.append([token[0], token[1]])
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise RuntimeError("the trained vocabulary has gaps")


def write_wordpiece(batches: Iterator[list[str]], vocab_size: int, folder: Path) -> None:
    """Train BERT's WordPiece, cased, on batches of texts and write the folder (docs/decisions/0017-encoder.md).

    Same texts, same bytes: the trainer numbers the pieces inside of words in the order of a hash table unless they are
    there before, so those of ASCII are, and other characters are left out. A word with one of them becomes [UNK];
    cleaned notes are ASCII (5.1).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*WORDPIECE_SPECIAL.values(), *(f"##{character}" for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(batches, trainer=trainer)
    facts = json.loads(tokenizer.to_str())
    facts["added_tokens"] = [t for t in facts["added_tokens"] if t["content"] in WORDPIECE_SPECIAL.values()]
    facts["model"]["vocab"] = dict(sorted(facts["model"]["vocab"].items(), key=lambda entry: int(entry[1])))
    runs.write_text(folder / "tokenizer.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
    ends = {"bos_token": WORDPIECE_SPECIAL["cls_token"], "eos_token": WORDPIECE_SPECIAL["sep_token"]}
    runs.write_json(folder / CONFIG, _COMMON | WORDPIECE_SPECIAL | ends)


# --- given -----------------------------------------------------------------------------------------------------


def write_given(path: Path, folder: Path, scratch: Path) -> None:
    """Write a given tokenizer (tokenizer.json, Llama-2 tokenizer.model, Hugging Face folder) as our folder.

    A tokenizer.json and a tokenizer.model are taken as they are, to the byte. Raises InputError when it cannot be read.
    """
    if not path.exists():
        raise InputError(f"tokenize.tokenizer: {path}: not found; give a tokenizer.json, a tokenizer.model or a folder")
    files = [path] if path.is_file() else [path / name for name in ("tokenizer.json", sentencepieces.MODEL)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        file = _convert(path, scratch)
    if file.suffix == ".model":
        special = sentencepieces.write_model(file, folder)
    else:
        special = _special_of(file)
        with runs.atomic_write(folder / "tokenizer.json") as sink:
            sink.write(file.read_bytes())
    runs.write_json(folder / CONFIG, _COMMON | special)
    open_encoder(folder)


def _special_of(file: Path) -> dict[str, Any]:
    """The names of the special tokens: from the tokenizer's configuration beside it, or the usual names."""
    from tokenizers import Tokenizer

    known = {token["content"] for token in _added_tokens(file)}
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{file}: not a tokenizer that tokenizers can read ({type(error).__name__})") from None
    beside = [file.with_name(name) for name in ("special_tokens_map.json", CONFIG)]  # older folders have both
    if any(path.exists() for path in beside):
        said: dict[str, Any] = {}
        for path in beside:
            said |= {key: t for key, t in runs.read_json(path).items() if t} if path.exists() else {}
        named = {f"{name}_token": said.get(f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
        plain = {key: t.get("content") if isinstance(t, dict) else t for key, t in named.items()}
        return {key: token for key, token in plain.items() if token}
    found = {"bos_token": _BOS, "eos_token": _EOS}
    usual = {key: next((name for name in names if name in known), None) for key, names in found.items()}
    return {key: token for key, token in usual.items() if token}


def _added_tokens(file: Path) -> list[dict[str, Any]]:
    facts = runs.read_json(file)
    return list(facts.get("added_tokens", [])) if isinstance(facts, dict) else []


def _convert(path: Path, scratch: Path) -> Path:
    """The tokenizer.json that transformers makes of a folder without one."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        loaded.save_pretrained(scratch / "given")
    except Exception as error:  # transformers raises many kinds for a folder that it cannot read
        raise InputError(f"{path}: not a tokenizer that transformers can read ({type(error).__name__})") from None
    made = scratch / "given" / "tokenizer.json"
    if not made.exists():
        raise InputError(f"{path}: no fast tokenizer (tokenizer.json) can be made of it; convert it first")
    return made
