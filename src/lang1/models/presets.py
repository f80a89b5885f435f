"""Shapes of the models (5.3): the demo's own, and the three that the paper names, with their published sizes."""

from __future__ import annotations

from dataclasses import dataclass

from lang1.config import Preset


@dataclass(frozen=True)
class Shape:
    """A Llama decoder's dimensions; head size is `hidden / heads`."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    """width of the feed-forward part"""
    context_length: int
    """positions a sequence of pretraining"""
    tied: bool
    """input and output embeddings are one matrix"""
    source: str
    """whose shape it is"""


PRESETS: dict[Preset, Shape] = {
    "tiny": Shape(192, 2, 6, 2, 768, 512, True, "ours, for the demo on two cores (docs/decisions/0003)"),
    "100m": Shape(768, 6, 24, 8, 3072, 1024, False, "BEE-spoke-data/smol_llama-101M-GQA"),
    "1b": Shape(2048, 22, 32, 4, 5632, 2048, False, "TinyLlama/TinyLlama-1.1B"),
    "7b": Shape(4096, 32, 32, 32, 11008, 4096, False, "meta-llama/Llama-2-7b"),
}
