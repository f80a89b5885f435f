"""Shapes of the models (5.3): the demo's own, and the three that the paper names, with their published sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lang1.config import Preset, ShapeOverrides
from lang1.errors import ConfigError


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


def shape_of(preset: Preset, overrides: ShapeOverrides | None = None) -> Shape:
    """The preset's dimensions with the overrides in their place. Raises ConfigError for a shape that no Llama has."""
    shape = PRESETS[preset]
    if overrides is None:
        return shape
    given = {key: value for key, value in vars(overrides).items() if value is not None}
    changed = replace(shape, **given, source=f"{shape.source}, changed: {', '.join(given)}") if given else shape
    if changed.hidden % (2 * changed.heads):  # rotary positions turn pairs of a head's dimensions
        raise ConfigError(f"pretrain.shape.hidden: {changed.hidden} is no multiple of twice {changed.heads} heads")
    if changed.heads % changed.kv_heads:
        raise ConfigError(f"pretrain.shape.heads: {changed.heads} is no multiple of {changed.kv_heads} key-value heads")
    return changed
