"""The sizes of a Llama-like decoder, read off the model itself, which may stand on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """What FLOPs and memory depend on."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    """input and output embeddings are one matrix"""
    parameters: int
    """all of them, tied ones once"""
    layer_parameters: int
    """of one decoder layer"""
    matmul_parameters: int
    """weights that a token is multiplied by: all linear layers and the output embedding, not the input embedding"""

    @property
    def query(self) -> int:
        """Width of queries, heads x head size."""
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        """Width of keys, and of values."""
        return self.kv_heads * self.head_dim

    @property
    def head_parameters(self) -> int:
        """Of the output embedding."""
        return self.vocab * self.hidden

    @property
    def root_parameters(self) -> int:
        """Outside of the layers: embeddings and the last norm, one FSDP unit."""
        return self.parameters - self.layers * self.layer_parameters


def meta_model(config: Any) -> Any:
    """The causal LM of a Hugging Face configuration without its numbers: nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def shape_of(model: Any) -> ModelShape:
    """The shape of a Hugging Face causal LM with `hidden_size`, `num_hidden_layers`, ... in its configuration.

    Sharded parameters (DTensor) count with their global size, so that ranks agree.
    """
    from torch import nn

    config = model.config
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    ffn = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers)
    return ModelShape(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        ffn=ffn,
        vocab=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        parameters=sum(p.numel() for p in model.parameters()),
        layer_parameters=sum(p.numel() for p in layers[0].parameters()),
        matmul_parameters=sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)),
    )
