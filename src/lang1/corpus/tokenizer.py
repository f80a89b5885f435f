"""The tokenizer of a corpus version: trained on its notes, or a given one; written as a Hugging Face folder.

Ours is byte-level BPE (docs/decisions/0002-tokenizer.md): it needs no unknown token, trains the same from the same
notes, and gives every text back to the byte. A digit stands alone, with the space before it, so that 120 and 121
differ in one token; " A" to " E" and the digits are tokens whatever the corpus holds, because the answer to a
multiple-choice question is read at one position. Ids 0, 1, 2 are <pad>, <s>, </s>: Llama's defaults for the last two.

Text never becomes a special token: `encoder` splits what looks like one, and the folder written says so to
transformers. Cost: 32,000 entries trained on a small corpus fit it closely and the world badly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lang1 import runs
from lang1.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<pad>", "<s>", "</s>")
ALWAYS = (*(f" {letter}" for letter in "ABCDE"), *(f" {digit}" for digit in range(10)))
"""texts that are one token each, however rare; a line break and single characters are bytes, so they are too"""
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's split into words, but with each digit apart"""
MIN_FREQUENCY = 2
CONFIG = "tokenizer_config.json"
_BOS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>")
_EOS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|im_end|>")


@dataclass(frozen=True)
class Encoder:
    """A tokenizer ready for corpus text, and the ids that the shards' index names."""

    backend: Tokenizer
    vocab_size: int
    bos_id: int | None
    eos_id: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, nothing added; `<s>` in a text stays text."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


def open_encoder(folder: Path) -> Encoder:
    """The encoder of a tokenizer folder that `write_trained` or `write_given` wrote."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    config = runs.read_json(folder / CONFIG)
    bos, eos = (_token_id(backend, config.get(f"{name}_token")) for name in ("bos", "eos"))
    if eos is None:
        raise InputError(
            f"{folder}: the tokenizer has no end-of-text token (eos_token); documents need one between them"
        )
    return Encoder(backend, max(backend.get_vocab(with_added_tokens=True).values()) + 1, bos, eos)


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
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 4 does not know 5's own name for it
        "pad_token": SPECIAL[0],
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    runs.write_json(folder / CONFIG, config)


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


# --- given -----------------------------------------------------------------------------------------------------


def write_given(path: Path, folder: Path, scratch: Path) -> None:
    """Write a given tokenizer (tokenizer.json, Llama-2 tokenizer.model, Hugging Face folder) as our folder.

    Raises InputError when transformers cannot read it, or reads back other ids than it wrote.
    """
    tokenizer = _load_given(path, scratch)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"{path}: no fast tokenizer (tokenizer.json) can be made of it; convert it first")
    saved = scratch / "given"
    tokenizer.save_pretrained(saved)
    for file in sorted(p for p in saved.rglob("*") if p.is_file()):
        with runs.atomic_write(folder / file.relative_to(saved)) as sink:
            sink.write(_readable_config(file) if file.name == CONFIG else file.read_bytes())
    _check_same(backend, open_encoder(folder), path)


def _load_given(path: Path, scratch: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not path.exists():
        raise InputError(f"tokenize.tokenizer: {path}: not found; give a tokenizer.json, a tokenizer.model or a folder")
    try:
        if path.is_dir():
            return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        if path.suffix == ".model":  # only through a folder: LlamaTokenizer(vocab_file=) gives three tokens, no error
            folder = scratch / "sentencepiece"
            with runs.atomic_write(folder / "tokenizer.model") as sink:
                sink.write(path.read_bytes())
            runs.write_json(folder / CONFIG, {"tokenizer_class": "LlamaTokenizer"})
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        if (path.parent / CONFIG).exists():
            return AutoTokenizer.from_pretrained(str(path.parent), local_files_only=True)
        known = {token["content"] for token in runs.read_json(path).get("added_tokens", [])}
        bos, eos = (next((name for name in names if name in known), None) for names in (_BOS, _EOS))
        return PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token=bos, eos_token=eos)
    except InputError:
        raise
    except Exception as error:  # transformers raises many kinds for a file that it cannot read
        raise InputError(f"{path}: not a tokenizer that transformers can read ({type(error).__name__})") from None


def _readable_config(file: Path) -> bytes:
    """The configuration as transformers 4 reads it too: 5's class name and lists are not known there."""
    config = json.loads(file.read_text())
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    named = {config.get(f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = [t for t in config.pop("extra_special_tokens") if t not in named]
    for machine in ("is_local", "local_files_only", "name_or_path", "backend"):
        config.pop(machine, None)
    return (json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _check_same(backend: Tokenizer, written: Encoder, path: Path) -> None:
    for text in ("BP 120/80, HR 88. Denies chest pain;  no fever.\nAnswer: A", "caf\u00e9 \u00b5g <s> </s> [INST]"):
        was = backend.encode_special_tokens
        backend.encode_special_tokens = True
        ids = backend.encode(text, add_special_tokens=False).ids
        backend.encode_special_tokens = was
        if ids != written.encode([text])[0]:
            raise InputError(f"{path}: reads back with other token ids than it has; give its tokenizer.json")
