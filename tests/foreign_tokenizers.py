"""Tokenizers as others make them, in small: byte-level BPE as of GPT-2 and Llama 3, and SentencePiece's way."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(texts: list[str], entries: int, bos_first: bool = False) -> Any:
    """A byte-level BPE, as ours: a space belongs to the word that follows. `bos_first`: BOS before a text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=entries, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    if bos_first:
        backend.post_processor = _bos_first()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def sentencepiece(texts: list[str], entries: int) -> Any:
    """Llama-2's way: a text's first word gets a space before it, spaces are a sign of their own, BOS stands first."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()  # while training only: no entry spans two words
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=entries, special_tokens=SPECIAL + bytes_)
    backend.train_from_iterator([text.replace("\n", "") for text in texts], trainer)
    backend.pre_tokenizer = None  # type: ignore[assignment]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = _bos_first()
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _bos_first() -> Any:
    return processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
