"""Models: presets, building with fresh weights, loading and exporting Hugging Face folders. Importing stays light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lang1.config import Preset


def build_model(preset: Preset, vocab_size: int, seed: int, **options: Any) -> Any:
    """A model of a preset with fresh weights (`models/build.py`)."""
    from lang1.models.build import build_model as build

    return build(preset, vocab_size, seed, **options)


def export_checkpoint(*, checkpoint: Path, out: Path) -> Path:
    """A checkpoint of `lang1 pretrain` as a Hugging Face folder (`models/export.py`)."""
    from lang1.models.export import export_checkpoint as export

    return export(checkpoint=checkpoint, out=out)


def load_model(folder: Path) -> Any:
    """The causal LM of a Hugging Face folder (`models/load.py`)."""
    from lang1.models.load import load_model as load

    return load(folder)
