"""Small real models and tokenizers: byte-level BPE, and SentencePiece's way of writing spaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from short_notes import notes
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import foreign_tokenizers
from lang1.tasks.prompts import question_for, render_question


def _corpus() -> list[str]:
    questions = [render_question(question_for(task, "H&P")) for task in ("mortality", "los", "cci")]
    return notes(300, seed=9) + questions * 20 + ["x A B C D E"] * 50


@pytest.fixture(scope="session")
def byte_level() -> Any:
    return foreign_tokenizers.byte_level(_corpus(), 600)


@pytest.fixture(scope="session")
def sentencepiece() -> Any:
    return foreign_tokenizers.sentencepiece(_corpus(), 900)


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
