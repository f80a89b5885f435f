"""Small real models and tokenizers: byte-level BPE, and SentencePiece's way of writing spaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from short_notes import notes
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from lang1.tasks.prompts import question_for, render_question

SPECIAL = ["<unk>", "<s>", "</s>"]


def _corpus() -> list[str]:
    questions = [render_question(question_for(task, "H&P")) for task in ("mortality", "los", "cci")]
    return notes(300, seed=9) + questions * 20 + ["x A B C D E"] * 50


@pytest.fixture(scope="session")
def byte_level() -> Any:
    """A byte-level BPE, as ours: a space belongs to the word that follows."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def sentencepiece() -> Any:
    """Llama-2's way: a text's first word gets a space before it, spaces are a sign of their own, BOS stands first."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()  # while training only: no entry spans two words
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL + bytes_)
    backend.train_from_iterator([text.replace("\n", "") for text in _corpus()], trainer)
    backend.pre_tokenizer = None  # type: ignore[assignment]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def llama() -> Any:
    """A Llama with grouped heads and fresh weights, large enough in scale that positions matter."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=900,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def mistral() -> Any:
    """A class with a sliding window of its own, shorter than the prompts."""
    torch.manual_seed(1)
    shape = MistralConfig(
        vocab_size=900,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=16,
        initializer_range=0.2,
    )
    return MistralForCausalLM(shape).eval()
